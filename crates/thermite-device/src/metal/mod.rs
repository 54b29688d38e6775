//! Apple GPUs: the kernels through Metal.
//!
//! - `source`: what the run-time compiler gets, a file and its headers as one text; `pipelines`: compiled once.
//! - `buffer`: shared memory that CPU and GPU both see, weights in a mapped file's own pages where they are aligned to 16
//!   bytes; `residency`: keeps it wired between tokens.
//! - `hazards`: which launches may overlap; `queue`: one concurrent encoder for a run of them, and what failed of it.
//! - `matmul`: products of many rows; `selftest`: a few kernels against the CPU, at start.
//!
//! `source`, `hazards` and `fault` are plain Rust and tested on every platform.
//!
//! Environment: `THERMITE_METAL_RESIDENCY=0` leaves memory to the system, `THERMITE_METAL_SELF_TEST=0` skips the test
//! at start.

mod fault;
mod hazards;
mod source;

#[cfg(target_os = "macos")]
mod buffer;
#[cfg(target_os = "macos")]
mod launcher;
#[cfg(target_os = "macos")]
mod matmul;
#[cfg(target_os = "macos")]
mod pipelines;
#[cfg(target_os = "macos")]
mod queue;
#[cfg(target_os = "macos")]
mod residency;
#[cfg(target_os = "macos")]
mod selftest;
#[cfg(all(test, target_os = "macos"))]
mod tests;

#[cfg(target_os = "macos")]
pub use buffer::MetalBuffer;
#[cfg(target_os = "macos")]
pub use launcher::{Metal, MetalLauncher, Options};
