//! What can be wrong with a GGUF file.

use super::reader::{MAX_NAME, MAX_NESTING};
use crate::dtype::DType;
use crate::error::did_you_mean;

/// What is wrong with a GGUF file: the part, the key or the tensor, and the numbers.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GgufFault {
    /// Another kind of file.
    #[error("not a GGUF file: it begins with {}", begin(found))]
    Magic {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// Numbers in the other byte order.
    #[error("a big-endian GGUF file: only little-endian ones are read")]
    BigEndian,
    /// A version that is not read.
    #[error("GGUF version {version}: versions 2 and 3 are read")]
    Version {
        /// The version.
        version: u32,
    },
    /// The file ends too early.
    #[error("truncated: {what} at byte {at} takes {need} bytes, {left} are left")]
    Truncated {
        /// The part that does not fit.
        what: String,
        /// Where it begins.
        at: usize,
        /// Bytes that it takes.
        need: u64,
        /// Bytes from there to the end.
        left: usize,
    },
    /// More of something than the rest of the file could hold.
    #[error("{of}: {count} {what} are announced, the rest of the file has room for {room} at most")]
    Count {
        /// Of what.
        what: String,
        /// Where they are announced.
        of: String,
        /// How many.
        count: u64,
        /// How many could be there.
        room: u64,
    },
    /// A key or a tensor's name that is longer than the format allows.
    #[error("{what} is announced with {len} bytes: {MAX_NAME} are allowed")]
    NameTooLong {
        /// Which.
        what: String,
        /// Its length.
        len: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} is not UTF-8 text: the byte at {at} is invalid")]
    NotUtf8 {
        /// The text.
        what: String,
        /// Where in the file the first invalid byte is.
        at: usize,
    },
    /// A key stands twice.
    #[error("the key {key:?} is there twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A value of no known type.
    #[error("{key}: value type {number} is unknown")]
    ValueType {
        /// The key.
        key: String,
        /// The type's number.
        number: u32,
    },
    /// A bool that is neither 0 nor 1.
    #[error("{key}: a bool of {byte}: it must be 0 or 1")]
    Bool {
        /// The key.
        key: String,
        /// The byte.
        byte: u8,
    },
    /// Arrays in arrays in arrays.
    #[error("{key}: arrays are nested more than {MAX_NESTING} deep")]
    Nesting {
        /// The key.
        key: String,
    },
    /// An alignment that is none.
    #[error("general.alignment is {alignment}, must be a power of two")]
    Alignment {
        /// The value.
        alignment: u32,
    },
    /// More dimensions than the format allows.
    #[error("tensor {name}: {dims} dimensions: at most {limit} are allowed")]
    Dimensions {
        /// The tensor.
        name: String,
        /// How many it has.
        dims: u32,
        /// How many are allowed.
        limit: u32,
    },
    /// An element type that nobody knows.
    #[error("tensor {name}: element type {number} is unknown")]
    TensorType {
        /// The tensor.
        name: String,
        /// The type's number.
        number: u32,
    },
    /// A row that is not whole blocks.
    #[error("tensor {name}: rows of {row} elements are not whole blocks of {dtype} ({} elements)", dtype.block_len())]
    Row {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: DType,
        /// Elements of a row.
        row: u64,
    },
    /// A tensor that does not begin where tensors may.
    #[error("tensor {name}: its offset {offset} is not a multiple of the alignment {alignment}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// Its offset in the data.
        offset: u64,
        /// The file's alignment.
        alignment: u32,
    },
    /// A tensor that reaches past the end.
    #[error("truncated: tensor {name} takes bytes {start}..{end}, the file has {have}")]
    OutOfFile {
        /// The tensor.
        name: String,
        /// Its first byte.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// The file's length.
        have: usize,
    },
    /// A key that is not there.
    #[error("no key {key}{}", did_you_mean(near))]
    Missing {
        /// The key.
        key: String,
        /// Keys that are there and look alike.
        near: Vec<String>,
    },
    /// A value of another type than asked for, or out of its range.
    #[error("{key} is {found}, must be {expected}")]
    WrongValue {
        /// The key.
        key: String,
        /// Type and value.
        found: String,
        /// What was asked for.
        expected: String,
    },
}

fn begin(bytes: &[u8]) -> String {
    if bytes.is_empty() { "nothing".to_owned() } else { format!("\"{}\"", bytes.escape_ascii()) }
}
