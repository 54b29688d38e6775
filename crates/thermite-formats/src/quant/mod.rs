//! GGUF's quantised types: their [`blocks`], and the way from them to f32.

pub mod blocks;
mod dequantize;

pub use dequantize::{dequantize, is_readable};

use crate::dtype::DType;

/// What cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// A type that has no conversion to f32.
    #[error("{dtype} cannot be read as numbers")]
    Unreadable {
        /// The type.
        dtype: DType,
    },
    /// Bytes and elements do not belong together.
    #[error("{bytes} bytes are not {elements} elements of {dtype}")]
    Length {
        /// The type.
        dtype: DType,
        /// Bytes given.
        bytes: usize,
        /// Elements asked for.
        elements: usize,
    },
}
