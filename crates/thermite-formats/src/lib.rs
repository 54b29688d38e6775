//! Model files: safetensors and Hugging Face folders. Parsing only.
//!
//! [`ModelFiles`] opens a folder (or takes embedded parts); its [`Tensors`] hand out [`TensorView`]s
//! that borrow from the memory-mapped files. Whatever is wrong with a file is found when it is
//! opened: a view that was handed out is in bounds and fits its shape.

#[cfg(target_endian = "big")]
compile_error!("safetensors data is little-endian and is viewed in place");

mod bytes;
mod dtype;
mod error;
mod model_files;
mod near;
mod safetensors;
mod shards;
mod tensor;
mod tensors;

pub use dtype::DType;
pub use error::{Error, Result};
pub use model_files::{EmbeddedModel, ModelFiles};
pub use safetensors::{Header, MAX_HEADER_LEN, TensorEntry};
pub use shards::ShardIndex;
pub use tensor::TensorView;
pub use tensors::Tensors;
