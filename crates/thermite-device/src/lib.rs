//! The device trait of Thermite and its devices.
//!
//! A [`Device`] runs the kernels of the reference, one method each, under the kernel's own name and with its
//! buffers in the kernel's order. On top of them stand the [`boxes`] of the data-flow diagram
//! (attention block, MLP block, head): their default bodies *are* the diagram, written in primitive kernels,
//! and a device overrides a box where it has something faster.
//!
//! - [`cpu::Cpu`]: native Rust kernels, portable and AVX2, on a thread pool of their own.
//! - [`launched::Launched`]: the Metal kernels, on any machine that can launch them; `emulated` is the one that every
//!   machine has.
//! - `cuda` and `metal`: the same on NVIDIA's and on Apple's GPUs.
//! - [`trace::Trace`]: records names and shapes and runs nothing; the diagram is printed from it.

pub mod batch;
pub mod boxes;
pub mod conformance;
pub mod cpu;
#[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
pub mod cuda;
mod device;
pub mod draw;
#[cfg(feature = "emulated")]
pub mod emulated;
mod error;
pub mod launched;
#[cfg(any(target_os = "macos", test))]
pub mod metal;
pub mod trace;

pub use batch::{Batch, Outputs, Span, Step, StepForm};
pub use boxes::{
    Activation, ActivationShape, Activations, AttentionKind, AttentionShape, AttentionWeights, Expand, Gate,
    HeadNorms, Linear, MlpWeights, Norm, Rope,
};
pub use device::{Device, Dtype, HeadColumns, HeadRows, KvLayer, KvShape, Layout, MatrixView};
pub use draw::Draw;
pub use error::{Error, Fault, Result};
/// The type of stored weights: plain, or in quantised blocks.
pub use thermite_formats::DType as WeightType;
