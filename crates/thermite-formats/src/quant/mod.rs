//! GGUF's quantised types: their [`blocks`], the way from them to f32, and back.

pub mod blocks;
mod dequantize;
mod quantize;

pub use dequantize::{dequantize, is_readable};
pub use quantize::{is_writable, quantize};

use crate::dtype::DType;

/// What cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum QuantError {
    /// A type that has no conversion to f32.
    #[error("{dtype} cannot be read as numbers")]
    Unreadable {
        /// The type.
        dtype: DType,
    },
    /// A type that nothing is converted to.
    #[error("{dtype} is not written")]
    Unwritable {
        /// The type.
        dtype: DType,
    },
    /// A number that the type cannot hold.
    #[error("value {index} is {value}, which {dtype} cannot hold")]
    Range {
        /// The type.
        dtype: DType,
        /// Where the number is.
        index: usize,
        /// The number.
        value: f32,
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
