//! Tokenizer, KV cache, sampling and generation.

mod decoder;
mod detokenizer;
pub mod sampling;
mod special_tokens;
mod stop;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use sampling::{Generator, SamplingError, SamplingParams};
pub use special_tokens::SpecialTokens;
pub use stop::{EmptyStop, StopMatcher, Stopping};
pub use tokenizer::{Tokenizer, TokenizerError};
