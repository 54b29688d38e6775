//! NVIDIA GPUs: the kernels through CUDA.
//!
//! - `probe`: which of NVIDIA's libraries are there, asked before any of them is used.
//! - `driver`: the context and its one stream; every call's failure named.
//! - `buffer`: device memory; `staging`: pinned memory through which bytes go up and down.
//! - `compile`: NVRTC over the `.metal` files and the CUDA dialect; `cache`: the machine code on disk; `modules`: loaded
//!   code, a function a kernel.
//! - `hopper`: launches of the kernels that take the place of others there.
//! - `graph`: recorded launches; `steps`: decoding steps among them in one launch; `matmul`: products of many rows by cuBLASLt; `launcher`: all of it as one machine.
//!
//! `probe` and `cache` need no GPU and are tested everywhere.
//!
//! Environment: `THERMITE_CUDA_OVERLAP=0` keeps a kernel from starting before the one it follows has ended;
//! `THERMITE_CUDA_RESIDENT=0` launches the decoding steps of one sequence kernel by kernel on Hopper too;
//! `THERMITE_CACHE` is the folder of the compiled kernels.

#![allow(unsafe_code, reason = "CUDA's driver, NVRTC and cuBLASLt are C interfaces")]

mod buffer;
mod cache;
mod compile;
mod driver;
mod graph;
mod hopper;
mod launcher;
mod matmul;
mod modules;
mod probe;
mod staging;
mod steps;

pub use buffer::CudaBuffer;
pub use graph::CudaRecording;
pub use launcher::{Cuda, CudaLauncher, Options};
pub use probe::{missing, present};
