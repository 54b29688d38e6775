//! Any bytes as a tokenizer.json: an error, or a tokenizer whose ids are in its vocabulary.
//! `cargo fuzz run tokenizer_json`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thermite_engine::{SpecialTokens, Tokenizer};

fuzz_target!(|file: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(file, &SpecialTokens::default()) else {
        return;
    };
    for text in ["", "Once upon a time, é🦀\n  <|im_end|>"] {
        for parse_special in [false, true] {
            if let Ok(ids) = tokenizer.encode(text, true, parse_special) {
                tokenizer.decode(&ids, true);
            }
        }
    }
});
