//! How the next token is chosen from the model's probabilities.

mod draw;
mod params;
mod penalties;

pub use draw::{Generator, draw};
pub use params::{SamplingError, SamplingParams};
pub use penalties::penalize;
