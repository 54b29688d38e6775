//! What can be wrong with a model.

use std::path::PathBuf;

/// An error of a model: it names the file, tensor or field and gives the numbers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files themselves.
    #[error(transparent)]
    Format(#[from] thermite_formats::Error),
    /// The device.
    #[error(transparent)]
    Device(#[from] thermite_device::Error),
    /// An architecture that is not known.
    #[error("{}: {field} {found:?} is not supported (supported: {supported})", path.display())]
    Architecture {
        /// The config file.
        path: PathBuf,
        /// The field that says it.
        field: &'static str,
        /// What it says.
        found: String,
        /// What there is.
        supported: String,
    },
    /// A config field that is missing.
    #[error("{}: no {field}", path.display())]
    MissingField {
        /// The config file.
        path: PathBuf,
        /// The field.
        field: String,
    },
    /// A config field that is not known, and might change the result.
    #[error("{}: {field} is {value}: no such field is known, and it may change the result", path.display())]
    UnknownField {
        /// The config file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        value: String,
    },
    /// A config field whose value is impossible, or would change the result in a way that is not supported.
    #[error("{}: {field} is {value}, must be {need}", path.display())]
    Config {
        /// The config file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What it must be.
        need: String,
    },
    /// A tensor whose shape contradicts the config.
    #[error("{}: tensor {tensor} has shape {have:?}, but the config asks for {need:?}", file.display())]
    Shape {
        /// The file of the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        have: Vec<usize>,
        /// The shape that the config asks for.
        need: Vec<usize>,
    },
    /// A tensor that the config has no place for.
    #[error("{}: tensor {tensor} {shape:?} has no place in the model that the config describes", file.display())]
    UnknownTensor {
        /// The file of the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A number in a tensor that makes no sense.
    #[error("{}: tensor {tensor}: number {index} is {value}, must be {need}", file.display())]
    Value {
        /// The file of the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Which of its numbers.
        index: usize,
        /// The number.
        value: f32,
        /// What it must be.
        need: &'static str,
    },
    /// A weight matrix whose columns lie together, in blocks, which hold parts of rows.
    #[error("{}: tensor {tensor} lies column by column, which blocks of {dtype} do not", file.display())]
    Columns {
        /// The file of the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type of its blocks.
        dtype: String,
    },
    /// A weight matrix of a type that no kernel reads.
    #[error("{}: tensor {tensor} is {dtype}; matrices may be F32, F16, BF16 or in GGUF's blocks", file.display())]
    Dtype {
        /// The file of the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: String,
    },
    /// More rows than the model was made ready for.
    #[error(
        "a batch of {have} rows, {outputs} of them with logits, but at most {max_rows} and {max_outputs} were planned for"
    )]
    Batch {
        /// Rows asked for.
        have: usize,
        /// Logits asked for.
        outputs: usize,
        /// Rows planned for.
        max_rows: usize,
        /// Logits planned for.
        max_outputs: usize,
    },
    /// Steps that the sequences have no room for, or whose tokens are no longer kept.
    #[error("{asked} steps, but there is room for {room}")]
    Steps {
        /// Steps asked for.
        asked: usize,
        /// Steps there is room for.
        room: usize,
    },
    /// Logits from which no token could be drawn.
    #[error("no token can be drawn for position {position}: no logit is above -inf, or one is infinite")]
    NothingToDraw {
        /// Where the token would stand.
        position: usize,
    },
    /// A token that the model cannot be given.
    #[error("token id {id} at row {row} is outside the vocabulary of {n_vocab}")]
    Token {
        /// The id.
        id: i32,
        /// Its row in the batch.
        row: usize,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// A position past the end of the context.
    #[error("position {position} at row {row} is past the model's context of {n_ctx} tokens")]
    Position {
        /// The position.
        position: i32,
        /// Its row in the batch.
        row: usize,
        /// Context of the model.
        n_ctx: usize,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
