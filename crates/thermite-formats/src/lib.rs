//! Model files: Hugging Face folders with safetensors, and GGUF; quantised blocks; GGUF written.
//!
//! [`ModelFiles`] opens a folder or file (or takes embedded parts); its [`Tensors`] hand out [`TensorView`]s
//! that borrow from the memory-mapped files, its [`Source`] what stands beside the weights. Whatever is wrong with a file is found when it is
//! opened: a view that was handed out is in bounds and fits its shape.

#[cfg(target_endian = "big")]
compile_error!("tensor data is little-endian and is viewed in place");

mod bytes;
pub mod convert;
mod dtype;
mod error;
mod filled;
pub mod gguf;
mod model_files;
mod near;
pub mod quant;
mod safetensors;
mod shards;
mod source;
mod tensor;
mod tensors;

pub use bytes::{FileBytes, SharedBytes};
pub use dtype::DType;
pub use error::{Error, Result};
pub use filled::Filler;
pub use gguf::{Gguf, Metadata};
pub use model_files::{EmbeddedModel, ModelFiles};
pub use safetensors::{Header, MAX_HEADER_LEN};
pub use shards::ShardIndex;
pub use source::{HuggingFace, Source};
pub use tensor::{TensorEntry, TensorView};
pub use tensors::Tensors;
