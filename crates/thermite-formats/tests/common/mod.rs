//! Files for the tests, good and bad.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // every test file uses its own part

pub mod blocks;
pub mod gguf;

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView, serialize};
use thermite_formats::{Header, Result};

/// Tensors as (name, type, shape, bytes).
pub type Spec<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

/// A safetensors file by the format's own library.
pub fn written(specs: &[Spec<'_>]) -> Vec<u8> {
    let views = specs.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (*name, view)
    });
    serialize(views, None).unwrap()
}

/// A file with this header text and so many bytes of data.
pub fn handmade(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend((0..data).map(|i| i as u8));
    file
}

pub fn parse(file: &[u8]) -> Result<Header> {
    Header::parse(Path::new("a.safetensors"), file)
}

pub fn small_file() -> Vec<u8> {
    written(&[
        ("bias", Dtype::F32, vec![3], vec![1; 12]),
        ("weight", Dtype::F16, vec![2, 3], vec![2; 12]),
        ("empty", Dtype::BF16, vec![0, 7], vec![]),
        ("scalar", Dtype::I64, vec![], vec![3; 8]),
    ])
}
