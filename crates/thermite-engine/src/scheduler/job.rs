//! Requests: what is asked, what is told, and what is known of them in between.

use std::sync::Arc;

use crate::Error;
use crate::engine::Sequence;
use crate::generate::FinishReason;
use crate::sampling::{Generator, SamplingParams};

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
}

/// A request's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub(super) u64);

/// What became of a request in a step.
#[derive(Debug, Clone)]
pub enum Event {
    /// A token was chosen, the one that ends a text included.
    Token {
        /// The request.
        job: JobId,
        /// The token.
        token: u32,
    },
    /// It is done.
    Finished {
        /// The request.
        job: JobId,
        /// Why.
        reason: FinishReason,
    },
    /// It cannot go on; the others do.
    Failed {
        /// The request.
        job: JobId,
        /// Why.
        error: Arc<Error>,
    },
}

/// A request in hand.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: JobId,
    pub(super) job: Job,
    pub(super) sequence: Sequence,
    pub(super) generator: Generator,
    /// Tokens that it may have chosen.
    pub(super) most: usize,
    pub(super) finished: Option<FinishReason>,
    pub(super) failed: Option<Arc<Error>>,
}

impl Task {
    /// A request that waits, in a context of `context` tokens that its prompt fits.
    pub(super) fn new(id: JobId, job: Job, context: usize) -> Self {
        let most = job.max_tokens.unwrap_or(usize::MAX).min(context - job.prompt.len());
        let sequence = Sequence { tokens: job.prompt.clone(), ..Sequence::default() };
        let generator = Generator::new(job.sampling.seed_or_random());
        Self { id, job, sequence, generator, most, finished: None, failed: None }
    }

    /// Tokens chosen so far.
    pub(super) const fn generated(&self) -> usize {
        self.sequence.tokens.len() - self.job.prompt.len()
    }

    /// Tokens that are not in the cache.
    pub(super) const fn rows_left(&self) -> usize {
        self.sequence.tokens.len() - self.sequence.cached
    }

    /// Takes a chosen token.
    pub(super) fn push(&mut self, token: u32, ends: bool) {
        self.sequence.push(token);
        if ends && !self.job.ignore_eos {
            self.finished = Some(FinishReason::Stop);
        } else if self.generated() >= self.most {
            self.finished = Some(FinishReason::Length);
        }
    }
}
