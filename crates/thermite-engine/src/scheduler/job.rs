//! Requests: what is asked, and what is told.

use std::sync::Arc;

use crate::Error;
use crate::generate::FinishReason;
use crate::grammar::Constraint;
use crate::sampling::{Logprobs, SamplingParams};

/// A request: a prompt to go on from.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Its tokens.
    pub prompt: Vec<u32>,
    /// How each token is chosen.
    pub sampling: SamplingParams,
    /// At most so many tokens; as many as the context holds if none is given.
    pub max_tokens: Option<usize>,
    /// Goes on past the model's own end of text.
    pub ignore_eos: bool,
    /// Tokens with what is added to their logits, -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// With each chosen token, its log-probability and those of so many of the likeliest in its place.
    pub logprobs: Option<usize>,
    /// What the text has to be; it ends where that does.
    pub constraint: Option<Constraint>,
}

/// A request for what a text means to the model: the mean over its tokens of the hidden states that the head makes
/// logits from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmbeddingJob {
    /// The text's tokens.
    pub tokens: Vec<u32>,
    /// Whether the embedding is divided by its Euclidean norm.
    pub normalize: bool,
}

/// A request's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub(super) u64);

/// What became of a request in a step.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is computed from now on: told once, before all else.
    Started {
        /// The request.
        job: JobId,
        /// Tokens of its prompt that were found in the cache.
        cached_tokens: usize,
    },
    /// A token was chosen, the one that ends a text included.
    Token {
        /// The request.
        job: JobId,
        /// The token.
        token: u32,
        /// Its log-probabilities, where they were asked for.
        logprobs: Option<Logprobs>,
    },
    /// A text is done.
    Finished {
        /// The request.
        job: JobId,
        /// Why.
        reason: FinishReason,
    },
    /// An embedding is done.
    Embedded {
        /// The request.
        job: JobId,
        /// The embedding `[n_embd]`.
        embedding: Vec<f32>,
    },
    /// It cannot go on; the others do.
    Failed {
        /// The request.
        job: JobId,
        /// Why.
        error: Arc<Error>,
    },
}
