//! Many requests on one model: each step runs one token of every sequence that decodes and a share of the prompts that
//! are still to be read, in one batch (Yu et al., Orca, OSDI 2022).
//!
//! A request is admitted when the cache has blocks for its prompt, less what an earlier sequence left there. Where the
//! blocks run out, the request admitted last gives its own back and is computed again later. What a request gets does
//! not depend on the others: a row's result is the same in any batch.

mod job;
mod plan;
mod run;
mod task;

use std::collections::VecDeque;

use thermite_device::Device;

use self::task::Task;
use crate::engine::Engine;
use crate::{Error, Result};

pub use self::job::{EmbeddingJob, Event, Job, JobId};

/// How much is taken on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests that are computed together; the engine's `max_outputs` must be as many.
    pub running: usize,
    /// Requests that wait for that.
    pub waiting: usize,
}

/// What the scheduler has in hand, and what it did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Requests being computed.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Blocks of the cache in no sequence.
    pub free_blocks: usize,
    /// Blocks of the cache.
    pub blocks: usize,
    /// Steps run.
    pub steps: u64,
    /// Rows run: tokens of prompts and chosen ones.
    pub rows: u64,
    /// Tokens of prompts that were found in the cache.
    pub reused_tokens: u64,
    /// Times that a request had to give its blocks back.
    pub preemptions: u64,
}

/// Requests over one engine.
#[derive(Debug)]
pub struct Scheduler<D: Device> {
    engine: Engine<D>,
    limits: Limits,
    waiting: VecDeque<Task>,
    /// In the order of admission.
    running: Vec<Task>,
    /// Told by the next step that succeeds.
    events: Vec<Event>,
    /// Hidden states `[rows, n_embd]` on their way into embeddings.
    hidden: Vec<f32>,
    next: u64,
    status: Status,
}

impl<D: Device> Scheduler<D> {
    /// A scheduler over `engine`.
    ///
    /// # Errors
    /// [`Error::Limits`] if the engine was not made for as many outputs and rows as requests may run.
    pub fn new(engine: Engine<D>, limits: Limits) -> Result<Self> {
        let options = engine.model.options();
        let most = options.max_outputs.min(options.max_rows);
        if limits.running == 0 || limits.running > most {
            return Err(Error::Limits { running: limits.running, most });
        }
        Ok(Self {
            engine,
            limits,
            waiting: VecDeque::new(),
            running: Vec::new(),
            events: Vec::new(),
            hidden: Vec::new(),
            next: 0,
            status: Status::default(),
        })
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine<D> {
        &self.engine
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// What is in hand.
    #[must_use]
    pub fn status(&self) -> Status {
        let pool = &self.engine.pool;
        Status {
            running: self.running.len(),
            waiting: self.waiting.len(),
            free_blocks: pool.free(),
            blocks: pool.total(),
            ..self.status
        }
    }

    /// Takes a text to go on with.
    ///
    /// # Errors
    /// A parameter outside its range; an empty prompt, one that leaves no room in the context, or one with a token that
    /// the model does not have; [`Error::QueueFull`].
    pub fn submit(&mut self, job: Job) -> Result<JobId> {
        self.check(&job.prompt)?;
        let (context, n_vocab) = (self.engine.context(), self.engine.config().n_vocab);
        self.queue(|id| Task::text(id, job, context, n_vocab))
    }

    /// Takes a text to embed.
    ///
    /// # Errors
    /// As [`Scheduler::submit`].
    pub fn submit_embedding(&mut self, job: EmbeddingJob) -> Result<JobId> {
        self.check(&job.tokens)?;
        let n_embd = self.engine.config().n_embd;
        self.queue(|id| Ok(Task::embedding(id, job, n_embd)))
    }

    /// Whether a text of these tokens can be run.
    fn check(&self, tokens: &[u32]) -> Result<()> {
        let (context, n_vocab) = (self.engine.context(), self.engine.config().n_vocab);
        match tokens.iter().find(|&&id| id as usize >= n_vocab) {
            _ if tokens.is_empty() => Err(Error::EmptyPrompt),
            _ if tokens.len() > context => Err(Error::PromptTooLong { tokens: tokens.len(), context }),
            Some(&id) => Err(Error::UnknownToken { what: "the prompt", id, n_vocab }),
            None => Ok(()),
        }
    }

    fn queue(&mut self, task: impl FnOnce(JobId) -> Result<Task>) -> Result<JobId> {
        if self.waiting.len() >= self.limits.waiting {
            return Err(Error::QueueFull { waiting: self.waiting.len() });
        }
        let id = JobId(self.next);
        self.waiting.push_back(task(id)?);
        self.next += 1;
        Ok(id)
    }

    /// Ends a request, whose blocks come back at once. Gives whether it was still there.
    pub fn cancel(&mut self, id: JobId) -> bool {
        if let Some(i) = self.waiting.iter().position(|task| task.id == id) {
            self.waiting.remove(i);
            return true;
        }
        let Some(i) = self.running.iter().position(|task| task.id == id) else { return false };
        let mut task = self.running.remove(i);
        self.engine.truncate(&mut task.sequence, 0);
        true
    }

    /// Runs one batch, and tells what came of it, in the order of admission. Nothing, where there is nothing to do.
    ///
    /// # Errors
    /// The device's or the model's: the requests stay as they were before the step.
    pub fn step(&mut self) -> Result<Vec<Event>> {
        self.admit()?;
        self.running.iter_mut().for_each(Task::end_if_full);
        self.retire();
        let shares = self.plan();
        if !shares.is_empty() {
            self.forward(&shares)?;
            self.pool(&shares);
            self.choose(&shares);
            self.retire();
        }
        Ok(std::mem::take(&mut self.events))
    }
}
