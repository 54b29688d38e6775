//! How the next token is chosen from the model's probabilities.

mod draw;
mod params;

pub use draw::{Generator, draw};
pub use params::{SamplingError, SamplingParams};
