//! The forward passes of Thermite: config and weights in, logits out.
//!
//! A [`Model`] reads like the data-flow diagram: embedding, then for each layer an attention block and an MLP
//! block, then the head. The blocks are the boxes of [`thermite_device`].

mod config;
mod error;
mod gemma;
mod gpt2;
mod kv_cache;
mod layer;
mod llama;
mod loader;
mod model;
mod names;
pub mod random;
mod recordings;
mod stepper;

pub use config::{Architecture, Config};
pub use error::{Error, Result};
pub use kv_cache::KvCache;
pub use loader::Packing;
pub use model::{Model, Options, Weights};
pub use stepper::{DecodingRow, KEPT, Stepper};
