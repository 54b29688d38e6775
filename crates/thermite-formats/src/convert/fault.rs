//! Why a model cannot be written as GGUF.

use crate::dtype::DType;

/// Why a model cannot be written as GGUF.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConvertFault {
    /// An architecture that is not known.
    #[error("model_type {found:?} cannot be written as GGUF (known: {known})")]
    Architecture {
        /// What the config says.
        found: String,
        /// What there is.
        known: String,
    },
    /// A config field that is missing, or whose value GGUF has no key for.
    #[error("{field} is {found}, must be {need}")]
    Field {
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// What it must be.
        need: String,
    },
    /// A tensor that the architecture does not have.
    #[error("tensor {name} is none that {architecture} has in GGUF")]
    Tensor {
        /// Its name.
        name: String,
        /// The architecture.
        architecture: &'static str,
    },
    /// A tensor that cannot be brought into GGUF's order.
    #[error("tensor {tensor}: {dtype} {shape:?} cannot be brought into the order {order}")]
    Shape {
        /// Its name.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
        /// The order.
        order: String,
    },
    /// A tokenizer that GGUF has no name for.
    #[error("{what}: GGUF has no name for it")]
    Tokenizer {
        /// The part.
        what: String,
    },
    /// The output is the input.
    #[error("is the input, and would be overwritten")]
    Itself,
}
