//! Any two texts as config.json and tokenizer.json of a model to be written as GGUF: an error, or a header that is
//! read again. `cargo fuzz run convert`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use thermite_formats::convert::{Plan, Types};
use thermite_formats::{DType, ModelFiles, Source};

fuzz_target!(|texts: (String, String)| {
    // no tensors: an empty header and its length
    let weights = [&2_u64.to_le_bytes()[..], b"{}"].concat();
    let (config, tokenizer) = texts;
    let Ok(mut files) = ModelFiles::in_memory("fuzzed", config, weights) else {
        return;
    };
    if let Source::HuggingFace(folder) = &mut files.source {
        folder.tokenizer_json = Some(tokenizer.into_bytes().into());
    }
    if let Ok(plan) = Plan::new(&files, Types::of(DType::F16)) {
        let header = plan.header(Path::new("out")).expect("no two tensors are alike");
        thermite_formats::Gguf::in_memory("out", header).expect("what is written is read");
    }
});
