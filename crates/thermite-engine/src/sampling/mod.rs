//! How the next token is chosen from the model's probabilities.

mod draw;
mod logprobs;
mod params;

pub use draw::{Generator, draw};
pub use logprobs::{Logprobs, logprobs};
pub use params::{SamplingError, SamplingParams};
