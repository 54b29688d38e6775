//! GGUF, versions 2 and 3: a header, typed key-value pairs, tensor descriptions, then aligned data.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Every count, length, offset and product is
//! checked against the file's size before it is trusted, and nothing is copied: metadata and tensors are read where
//! they are mapped.

mod fault;
mod metadata;
mod parse;
mod reader;
mod value;
mod write;

use std::path::Path;
use std::sync::Arc;

pub use fault::GgufFault;
pub use metadata::Metadata;
pub use value::{Array, FromValue, Value, ValueType};
pub use write::{ALIGNMENT, Encode, HeaderWriter, TensorInfo};

use crate::bytes::FileBytes;
use crate::error::Result;
use crate::tensors::Tensors;

/// A GGUF file: every pair and every tensor in it is known to be whole.
#[derive(Debug)]
pub struct Gguf {
    /// Its key-value pairs.
    pub metadata: Metadata,
    /// Its tensors; their shapes are row-major, the reverse of the file's.
    pub tensors: Tensors,
}

impl Gguf {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// Whatever is wrong with the file: see [`crate::Error`] and [`GgufFault`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(path, FileBytes::map(path)?)
    }

    /// Takes a file that the program has made; `name` is what errors call it.
    ///
    /// # Errors
    /// Whatever is wrong with the file: see [`crate::Error`] and [`GgufFault`].
    pub fn in_memory(name: &str, file: Vec<u8>) -> Result<Self> {
        Self::read(Path::new(name), FileBytes::Owned(file))
    }

    fn read(path: &Path, bytes: FileBytes) -> Result<Self> {
        let bytes = Arc::new(bytes);
        let (metadata, entries) = parse::parse(path, &bytes)?;
        Ok(Self { metadata, tensors: Tensors::of_file(path, bytes, entries)? })
    }
}
