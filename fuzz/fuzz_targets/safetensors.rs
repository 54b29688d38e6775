//! Any bytes as a safetensors file: an error, or tensors that tile the data.
//! `cargo fuzz run safetensors`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use thermite_formats::Header;

fuzz_target!(|file: &[u8]| {
    let Ok(header) = Header::parse(Path::new("fuzzed"), file) else {
        return;
    };
    let described: usize = header.tensors.iter().map(|tensor| tensor.range.len()).sum();
    assert!(described <= file.len());
    for tensor in &header.tensors {
        let bytes = &file[tensor.range.clone()];
        assert_eq!(tensor.dtype.bytes_of(&tensor.shape), Some(bytes.len()));
    }
});
