//! Any bytes as a GGUF file: an error, or metadata and tensors that can all be read.
//! `cargo fuzz run gguf`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thermite_formats::Gguf;
use thermite_formats::gguf::{Array, Value};

fuzz_target!(|file: &[u8]| {
    let Ok(gguf) = Gguf::in_memory("fuzzed", file.to_vec()) else {
        return;
    };
    for (key, value) in gguf.metadata.iter() {
        assert_eq!(gguf.metadata.value(key).map(|value| value.value_type()), Some(value.value_type()));
        if let Value::Array(array) = value {
            walk(array);
        }
    }
    assert_eq!(gguf.metadata.iter().count(), gguf.metadata.len());
    let described: usize = gguf.tensors.iter().map(|tensor| tensor.data.len()).sum();
    assert!(described <= file.len());
    for tensor in gguf.tensors.iter() {
        assert_eq!(tensor.dtype.bytes_of(tensor.shape), Some(tensor.data.len()));
        tensor.to_f32().expect("every type of the format is readable");
    }
});

/// Every element of a checked array is there.
fn walk(array: Array<'_>) {
    let elements = array.iter().inspect(|element| {
        if let Value::Array(nested) = element {
            walk(*nested);
        }
    });
    assert_eq!(elements.count(), array.len);
}
