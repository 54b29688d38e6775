//! Requests: what is asked, what is told, and what is known of them in between.

use std::sync::Arc;

use crate::chooser::Chooser;
use crate::engine::Sequence;
use crate::generate::FinishReason;
use crate::grammar::Constraint;
use crate::sampling::{Logprobs, SamplingParams};
use crate::{Error, Result};

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

/// A request's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub(super) u64);

/// What became of a request in a step.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is computed from now on: told once, before its first token.
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
    /// Tokens of its prompt.
    pub(super) prompt: usize,
    pub(super) sequence: Sequence,
    pub(super) chooser: Chooser,
    pub(super) logprobs: Option<usize>,
    ignore_eos: bool,
    /// It was admitted before.
    pub(super) started: bool,
    /// Tokens that it may have chosen.
    pub(super) most: usize,
    pub(super) finished: Option<FinishReason>,
    pub(super) failed: Option<Arc<Error>>,
}

impl Task {
    /// A request that waits, in a context of `context` tokens that its prompt fits, for a model of `n_vocab` tokens.
    ///
    /// # Errors
    /// A parameter outside its range; a token that the model does not have.
    pub(super) fn new(id: JobId, job: Job, context: usize, n_vocab: usize) -> Result<Self> {
        let Job { prompt, sampling, max_tokens, ignore_eos, logit_bias, logprobs, constraint } = job;
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= n_vocab) {
            return Err(Error::UnknownToken { what: "the prompt", id, n_vocab });
        }
        let chooser =
            Chooser::new(sampling)?.with_logit_bias(logit_bias, n_vocab)?.with_constraint(constraint);
        Ok(Self {
            id,
            prompt: prompt.len(),
            most: max_tokens.unwrap_or(usize::MAX).min(context - prompt.len()),
            sequence: Sequence { tokens: prompt, ..Sequence::default() },
            chooser,
            logprobs,
            ignore_eos,
            started: false,
            finished: None,
            failed: None,
        })
    }

    /// Tokens chosen so far.
    pub(super) const fn generated(&self) -> usize {
        self.sequence.tokens.len() - self.prompt
    }

    /// Tokens that are not in the cache.
    pub(super) const fn rows_left(&self) -> usize {
        self.sequence.tokens.len() - self.sequence.cached
    }

    /// Takes a chosen token, which may be one that ends a text.
    ///
    /// # Errors
    /// The constraint's.
    pub(super) fn push(&mut self, token: u32, is_eos: bool) -> Result<()> {
        self.sequence.push(token);
        let goes_on = self.chooser.accept(token)?;
        if !goes_on || (is_eos && !self.ignore_eos) {
            self.finished = Some(FinishReason::Stop);
        } else if self.generated() >= self.most {
            self.finished = Some(FinishReason::Length);
        }
        Ok(())
    }
}
