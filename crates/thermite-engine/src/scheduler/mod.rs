//! Many requests on one model: each step runs one token of every sequence that decodes and a share of the prompts that
//! are still to be read, in one batch (Yu et al., Orca, OSDI 2022).
//!
//! A request is admitted when the cache has blocks for its prompt, less what an earlier sequence left there. Where the
//! blocks run out, the request admitted last gives its own back and is computed again later. What a request gets does
//! not depend on the others: a row's result is the same in any batch.

mod job;
mod plan;

use std::collections::VecDeque;
use std::sync::Arc;

use thermite_device::{Device, Outputs};

use job::Task;
pub use job::{Event, Job, JobId};

use crate::engine::{BLOCK_SIZE, Engine};
use crate::generate::FinishReason;
use crate::sampling::Logprobs;
use crate::{Error, Result};

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
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Ok(Self { engine, limits, waiting, running, next: 0, status: Status::default() })
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

    /// Takes a request on.
    ///
    /// # Errors
    /// A parameter outside its range; an empty prompt, or one that leaves no room in the context; [`Error::QueueFull`].
    pub fn submit(&mut self, job: Job) -> Result<JobId> {
        let (tokens, context) = (job.prompt.len(), self.engine.context());
        if tokens == 0 {
            return Err(Error::EmptyPrompt);
        }
        if tokens > context {
            return Err(Error::PromptTooLong { tokens, context });
        }
        if self.waiting.len() >= self.limits.waiting {
            return Err(Error::QueueFull { waiting: self.waiting.len() });
        }
        let id = JobId(self.next);
        self.waiting.push_back(Task::new(id, job, context, self.engine.config().n_vocab)?);
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
        let mut events = Vec::new();
        self.admit(&mut events)?;
        self.end_what_is_full(&mut events);
        let shares = self.plan();
        if shares.is_empty() {
            return Ok(events);
        }
        self.forward(&shares)?;
        self.choose(&shares, &mut events);
        self.retire(&mut events);
        Ok(events)
    }

    /// Starts requests in the order in which they came, as long as there are blocks for all their tokens and, for
    /// each that runs, one more.
    fn admit(&mut self, events: &mut Vec<Event>) -> Result<()> {
        while self.running.len() < self.limits.running
            && let Some(task) = self.waiting.front_mut()
        {
            let pool = &mut self.engine.pool;
            let tokens = task.sequence.tokens.len();
            let mut blocks = pool.reuse(&task.sequence.tokens);
            let reused = blocks.blocks().len() * BLOCK_SIZE;
            let need = tokens.div_ceil(BLOCK_SIZE) - blocks.blocks().len();
            if !self.running.is_empty() && need + self.running.len() >= pool.free() {
                pool.shrink(&mut blocks, 0);
                break;
            }
            pool.grow(&mut blocks, tokens)?;
            self.status.reused_tokens += reused as u64;
            if !task.started {
                task.started = true;
                events.push(Event::Started { job: task.id, cached_tokens: reused });
            }
            (task.sequence.blocks, task.sequence.cached) = (blocks, reused);
            self.running.extend(self.waiting.pop_front());
        }
        Ok(())
    }

    /// Runs the rows of `shares`.
    fn forward(&mut self, shares: &[plan::Share]) -> Result<()> {
        let engine = &mut self.engine;
        engine.batch.clear();
        for share in shares {
            let sequence = &self.running[share.task].sequence;
            let rows = sequence.cached..sequence.cached + share.rows;
            let outputs = if rows.end == sequence.tokens.len() { Outputs::Last } else { Outputs::None };
            let blocks = sequence.blocks.blocks();
            engine.batch.push(&sequence.tokens[rows.clone()], rows.start, blocks, BLOCK_SIZE, outputs)?;
        }
        engine.model.forward(&engine.batch, &mut engine.cache)?;
        self.status.steps += 1;
        self.status.rows += engine.batch.rows() as u64;
        for share in shares {
            let sequence = &mut self.running[share.task].sequence;
            sequence.cached += share.rows;
            let cached = &sequence.tokens[..sequence.cached];
            engine.pool.remember(&mut sequence.blocks, cached);
        }
        Ok(())
    }

    /// Chooses the next token of every sequence that was run to its end.
    fn choose(&mut self, shares: &[plan::Share], events: &mut Vec<Event>) {
        let whole = |share: &&plan::Share| self.running[share.task].rows_left() == 0;
        let ready: Vec<usize> = shares.iter().filter(whole).map(|share| share.task).collect();
        let likeliest = self.likeliest(&ready);
        for (row, &task) in ready.iter().enumerate() {
            let task = &mut self.running[task];
            match next(&mut self.engine, task, row, &likeliest) {
                Ok((token, logprobs)) => events.push(Event::Token { job: task.id, token, logprobs }),
                Err(error) => task.failed = Some(error),
            }
        }
    }

    /// The largest logit of each of the requests `ready`, whose logits lie in that order; found in one pass, if one of
    /// them asks for nothing else.
    fn likeliest(&mut self, ready: &[usize]) -> Result<Vec<u32>, Arc<Error>> {
        if !ready.iter().any(|&task| self.running[task].chooser.is_plain_greedy()) {
            return Ok(Vec::new());
        }
        let engine = &mut self.engine;
        let (device, logits) = (engine.model.device(), engine.model.logits());
        engine.sampler.argmax(device, logits, ready.len()).map_err(Arc::new)
    }

    /// Lets go of the requests that are done.
    fn retire(&mut self, events: &mut Vec<Event>) {
        let engine = &mut self.engine;
        self.running.retain_mut(|task| {
            let event = match (task.failed.take(), task.finished) {
                (Some(error), _) => Event::Failed { job: task.id, error },
                (None, Some(reason)) => Event::Finished { job: task.id, reason },
                (None, None) => return true,
            };
            engine.truncate(&mut task.sequence, 0);
            events.push(event);
            false
        });
    }

    /// Requests whose prompt fills the context end without a token.
    fn end_what_is_full(&mut self, events: &mut Vec<Event>) {
        for task in &mut self.running {
            if task.generated() == task.most {
                task.finished = Some(FinishReason::Length);
            }
        }
        self.retire(events);
    }
}

/// Gives `task` its next token, whose logits lie in row `row`; the largest ones are known if it asks for nothing else.
fn next<D: Device>(
    engine: &mut Engine<D>,
    task: &mut Task,
    row: usize,
    likeliest: &Result<Vec<u32>, Arc<Error>>,
) -> Result<(u32, Option<Logprobs>), Arc<Error>> {
    let is_eos = |token| engine.tokenizer.is_eos(token);
    let (device, logits) = (engine.model.device(), engine.model.logits());
    let token = match task.chooser.is_plain_greedy() {
        true => likeliest.as_ref().map_err(Arc::clone)?[row],
        false => engine.sampler.sample(device, logits, row, &mut task.chooser, &task.sequence.tokens)?,
    };
    let logprobs = |top| engine.sampler.logprobs(device, logits, row, token, top);
    let logprobs = task.logprobs.map(logprobs).transpose()?;
    task.push(token, is_eos(token))?;
    Ok((token, logprobs))
}
