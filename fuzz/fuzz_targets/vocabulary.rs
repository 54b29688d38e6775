//! Any bytes as a GGUF file: an error, or a vocabulary whose ids are in it, and which gives no special token where none
//! is asked for. The first byte says how long the text is that stands before the file.
//! `cargo fuzz run vocabulary`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thermite_engine::Tokenizer;
use thermite_formats::gguf::Gguf;

fuzz_target!(|input: &[u8]| {
    let Some((&len, rest)) = input.split_first() else { return };
    let Some((text, file)) = rest.split_at_checked(usize::from(len)) else { return };
    let Ok(gguf) = Gguf::in_memory("fuzzed", file.to_vec()) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(&gguf.metadata) else { return };
    let text = String::from_utf8_lossy(text);
    for (add_special, parse_special) in [(false, false), (true, false), (false, true)] {
        let Ok(ids) = tokenizer.encode(&text, add_special, parse_special) else { continue };
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        tokenizer.decode(&ids, true);
        tokenizer.decode(&ids, false);
    }
});
