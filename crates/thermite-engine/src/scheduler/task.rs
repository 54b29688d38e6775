//! Requests in hand.

use std::sync::Arc;

use super::job::{EmbeddingJob, Event, Job, JobId};
use crate::chooser::Chooser;
use crate::engine::Sequence;
use crate::generate::FinishReason;
use crate::{Error, Result};

/// A request in hand.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: JobId,
    pub(super) sequence: Sequence,
    pub(super) work: Work,
    /// It was admitted before.
    pub(super) started: bool,
    pub(super) end: Option<End>,
}

/// What a request wants of its sequence.
#[derive(Debug)]
pub(super) enum Work {
    /// To be gone on with.
    Text(Writing),
    /// The mean of its hidden states.
    Embedding(Pooling),
}

/// Why a request is over.
#[derive(Debug)]
pub(super) enum End {
    Finished(FinishReason),
    Embedded(Vec<f32>),
    Failed(Arc<Error>),
}

/// A text that is written.
#[derive(Debug)]
pub(super) struct Writing {
    /// Tokens that it may have in all.
    most: usize,
    pub(super) chooser: Chooser,
    pub(super) logprobs: Option<usize>,
    ignore_eos: bool,
}

/// A mean of hidden states.
#[derive(Debug)]
pub(super) struct Pooling {
    /// Of those so far `[n_embd]`.
    sum: Vec<f64>,
    rows: usize,
    normalize: bool,
}

impl Task {
    /// A prompt that waits to be gone on from, in a context of `context` tokens that it fits, for a model of `n_vocab`
    /// tokens.
    ///
    /// # Errors
    /// A parameter outside its range; a token that the model does not have.
    pub(super) fn text(id: JobId, job: Job, context: usize, n_vocab: usize) -> Result<Self> {
        let Job { prompt, sampling, max_tokens, ignore_eos, logit_bias, logprobs, constraint } = job;
        let most = prompt.len().saturating_add(max_tokens.unwrap_or(usize::MAX)).min(context);
        let chooser =
            Chooser::new(sampling)?.with_logit_bias(logit_bias, n_vocab)?.with_constraint(constraint);
        let writing = Writing { most, chooser, logprobs, ignore_eos };
        Ok(Self::new(id, prompt, Work::Text(writing)))
    }

    /// A text that waits to be embedded.
    pub(super) fn embedding(id: JobId, job: EmbeddingJob, n_embd: usize) -> Self {
        let pooling = Pooling { sum: vec![0.0; n_embd], rows: 0, normalize: job.normalize };
        Self::new(id, job.tokens, Work::Embedding(pooling))
    }

    fn new(id: JobId, tokens: Vec<u32>, work: Work) -> Self {
        let sequence = Sequence { tokens, ..Sequence::default() };
        Self { id, sequence, work, started: false, end: None }
    }

    /// Tokens that are not in the cache.
    pub(super) const fn rows_left(&self) -> usize {
        self.sequence.tokens.len() - self.sequence.cached
    }

    /// The text that is written.
    pub(super) const fn writing(&self) -> Option<&Writing> {
        match &self.work {
            Work::Text(writing) => Some(writing),
            Work::Embedding(_) => None,
        }
    }

    /// Whether what another sequence left in the cache serves: an embedding needs the hidden states of every token.
    pub(super) const fn reuses(&self) -> bool {
        self.writing().is_some()
    }

    /// Ends a text that has as many tokens as it may.
    pub(super) fn end_if_full(&mut self) {
        if let Work::Text(writing) = &self.work
            && self.sequence.tokens.len() >= writing.most
        {
            self.end = Some(End::Finished(FinishReason::Length));
        }
    }

    /// Begins anew, once its blocks are gone.
    pub(super) fn restart(&mut self) {
        self.sequence.cached = 0;
        if let Work::Embedding(pooling) = &mut self.work {
            pooling.sum.fill(0.0);
            pooling.rows = 0;
        }
    }
}

impl Writing {
    /// Takes the chosen token that `sequence` ends with, which may be one that ends a text; says whether this one ends.
    ///
    /// # Errors
    /// The constraint's.
    pub(super) fn take(&mut self, sequence: &Sequence, token: u32, is_eos: bool) -> Result<Option<End>> {
        let goes_on = self.chooser.accept(token)?;
        let reason = match () {
            () if !goes_on || (is_eos && !self.ignore_eos) => FinishReason::Stop,
            () if sequence.tokens.len() >= self.most => FinishReason::Length,
            () => return Ok(None),
        };
        Ok(Some(End::Finished(reason)))
    }
}

impl Pooling {
    /// Takes the hidden states `[rows, n_embd]` of the next tokens.
    pub(super) fn take(&mut self, hidden: &[f32]) {
        for row in hidden.chunks_exact(self.sum.len()) {
            self.sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            self.rows += 1;
        }
    }

    /// The mean.
    pub(super) fn end(&self) -> End {
        let squares: f64 = self.sum.iter().map(|sum| sum * sum).sum();
        if !squares.is_finite() {
            return End::Failed(Arc::new(Error::Hidden { tokens: self.rows }));
        }
        let divisor = match self.normalize {
            true => squares.sqrt(),
            false => self.rows as f64,
        };
        let divisor = if divisor > 0.0 { divisor } else { 1.0 };
        End::Embedded(self.sum.iter().map(|sum| (sum / divisor) as f32).collect())
    }
}

impl End {
    /// What is told of it.
    pub(super) fn event(self, job: JobId) -> Event {
        match self {
            Self::Finished(reason) => Event::Finished { job, reason },
            Self::Embedded(embedding) => Event::Embedded { job, embedding },
            Self::Failed(error) => Event::Failed { job, error },
        }
    }
}
