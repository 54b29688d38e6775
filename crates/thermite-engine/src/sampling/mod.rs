//! How the next token is chosen from the model's probabilities.

mod logprobs;
mod params;

pub use logprobs::{Logprobs, logprobs};
pub use params::{SamplingError, SamplingParams};
