//! What can be wrong with a model's files.

use std::io;
use std::path::{Path, PathBuf};

use crate::convert::ConvertFault;
use crate::dtype::DType;
use crate::gguf::GgufFault;
use crate::quant::QuantError;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with a model's files: which file, which tensor, which numbers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is there.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It is there, and cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder lacks a file that every model has.
    #[error("{}: no {file} in this folder", folder.display())]
    MissingFile {
        /// The model's folder.
        folder: PathBuf,
        /// The missing file's name.
        file: &'static str,
    },
    /// A file of a kind that is not read (yet).
    #[error("{}: {format} is not supported; supported are Hugging Face folders with safetensors weights, and GGUF files", path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// The kind.
        format: &'static str,
    },
    /// A text file that is not UTF-8.
    #[error("{}: not UTF-8 text: byte {offset} is invalid", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first invalid byte's offset.
        offset: usize,
    },
    /// Not JSON, or JSON of another form than expected.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What and where (a line and column of the JSON text).
        source: serde_json::Error,
    },
    /// What is wrong with a GGUF file, or with a value asked of its metadata.
    #[error("{}: {fault}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What it is.
        fault: GgufFault,
    },
    /// A model that cannot be written as GGUF.
    #[error("{}: {fault}", path.display())]
    Convert {
        /// The file that it comes from.
        path: PathBuf,
        /// What it is.
        fault: ConvertFault,
    },
    /// A tensor whose numbers the type that was asked for cannot hold.
    #[error("{}: tensor {name}: {fault}", path.display())]
    Quantize {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Which number.
        fault: QuantError,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A GGUF file where a Hugging Face folder was needed.
    #[error("{}: a GGUF file, where a Hugging Face folder is needed", path.display())]
    NotHuggingFace {
        /// The file.
        path: PathBuf,
    },
    /// A folder with several models.
    #[error("{}: {count} GGUF files in this folder: name the one to use", folder.display())]
    SeveralModels {
        /// The folder.
        folder: PathBuf,
        /// How many.
        count: usize,
    },
    /// The file ends too early.
    #[error("{}: truncated: {what} needs {need} bytes, the file has {have}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that does not fit.
        what: &'static str,
        /// The file's length with that part.
        need: u64,
        /// The file's length.
        have: u64,
    },
    /// The file goes on after its last tensor.
    #[error("{}: {extra} bytes after the last tensor: its header describes {described} bytes, the file has {have}",
        path.display(), extra = have - described)]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// The file's length by its header.
        described: u64,
        /// The file's length.
        have: u64,
    },
    /// The header claims to be longer than the format allows.
    #[error("{}: a header of {len} bytes: the format allows {limit} (is this a safetensors file?)", path.display())]
    HeaderTooLarge {
        /// The file.
        path: PathBuf,
        /// The header's length.
        len: u64,
        /// The longest allowed.
        limit: u64,
    },
    /// A name stands twice in one header, or in two shards.
    #[error("{}: tensor {name} is there twice{}", path.display(), also(.other.as_deref()))]
    DuplicateTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The other shard that has it, where there is one.
        other: Option<PathBuf>,
    },
    /// The element type is unknown, or known but of no use here.
    #[error("{}: tensor {name}: element type {dtype} is not supported", path.display())]
    UnsupportedDType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type's name in the file.
        dtype: String,
    },
    /// The shape's bytes are no number that a machine could hold (or no whole number).
    #[error("{}: tensor {name}: {dtype} {shape:?} is no valid size{}", path.display(), whole_blocks(*dtype))]
    ImpossibleShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// The tensor's offsets do not span what its type and shape need.
    #[error("{}: tensor {name}: {dtype} {shape:?} takes {need} bytes, its offsets {start}..{end} span {}",
        path.display(), i128::from(*end) - i128::from(*start))]
    WrongSpan {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<u64>,
        /// Bytes by type and shape.
        need: u64,
        /// Its first byte's offset in the data.
        start: u64,
        /// The offset after its last byte.
        end: u64,
    },
    /// Two tensors share bytes.
    #[error("{}: tensors {first} and {second} overlap: one ends at byte {end}, the other starts at {start}", path.display())]
    Overlap {
        /// The file.
        path: PathBuf,
        /// The tensor that starts first.
        first: String,
        /// The one that starts inside it.
        second: String,
        /// Where the first ends.
        end: u64,
        /// Where the second starts.
        start: u64,
    },
    /// Bytes that belong to no tensor.
    #[error("{}: bytes {from}..{to} before tensor {name} belong to no tensor", path.display())]
    Gap {
        /// The file.
        path: PathBuf,
        /// The tensor after the gap.
        name: String,
        /// Where the gap starts, in the data.
        from: u64,
        /// Where it ends.
        to: u64,
    },
    /// The index names a shard that is not there.
    #[error("{}: its shard {shard} is missing", index.display())]
    ShardMissing {
        /// The index file.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
    },
    /// The index names a shard outside its own folder.
    #[error("{}: shard name {shard:?} is not a plain file name", index.display())]
    ShardName {
        /// The index file.
        index: PathBuf,
        /// The name.
        shard: String,
    },
    /// The index says that a tensor is in a shard that does not have it.
    #[error("{}: says that tensor {name} is in {shard}, which does not have it", index.display())]
    NotInShard {
        /// The index file.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
        /// The tensor.
        name: String,
    },
    /// There is no tensor of that name.
    #[error("{}: no tensor {name}{}", path.display(), did_you_mean(.near))]
    NoSuchTensor {
        /// The model.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// Names that are there and look alike.
        near: Vec<String>,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            _ => Self::Unreadable { path, source },
        }
    }

    pub(crate) fn json(path: &Path, source: serde_json::Error) -> Self {
        Self::Json { path: path.to_path_buf(), source }
    }
}

fn also(other: Option<&Path>) -> String {
    other.map_or_else(String::new, |path| format!(": also in {}", path.display()))
}

fn whole_blocks(dtype: DType) -> String {
    match dtype.block_len() {
        1 => String::new(),
        weights => format!(": its rows are whole blocks of {weights}"),
    }
}

pub(crate) fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() {
        return String::new();
    }
    format!(" (near: {})", near.join(", "))
}
