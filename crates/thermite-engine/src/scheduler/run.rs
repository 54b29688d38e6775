//! What a step does: admit, run, choose, let go.

use std::sync::Arc;

use thermite_device::{Device, Outputs};

use super::Scheduler;
use super::job::Event;
use super::plan::Share;
use super::task::{End, Task, Work, Writing};
use crate::blocks::BlockTable;
use crate::engine::{BLOCK_SIZE, Engine, Sequence};
use crate::sampling::Logprobs;
use crate::{Error, Result};

impl<D: Device> Scheduler<D> {
    /// Starts requests in the order in which they came, as long as there are blocks for all their tokens and, for
    /// each that runs, one more.
    pub(super) fn admit(&mut self) -> Result<()> {
        while self.running.len() < self.limits.running
            && let Some(task) = self.waiting.front_mut()
        {
            let pool = &mut self.engine.pool;
            let tokens = &task.sequence.tokens;
            let mut blocks = if task.reuses() { pool.reuse(tokens) } else { BlockTable::default() };
            let reused = blocks.blocks().len() * BLOCK_SIZE;
            let need = tokens.len().div_ceil(BLOCK_SIZE) - blocks.blocks().len();
            if !self.running.is_empty() && need + self.running.len() >= pool.free() {
                pool.shrink(&mut blocks, 0);
                break;
            }
            pool.grow(&mut blocks, tokens.len())?;
            self.status.reused_tokens += reused as u64;
            if !task.started {
                task.started = true;
                self.events.push(Event::Started { job: task.id, cached_tokens: reused });
            }
            (task.sequence.blocks, task.sequence.cached) = (blocks, reused);
            self.running.extend(self.waiting.pop_front());
        }
        Ok(())
    }

    /// Runs the rows of `shares`.
    pub(super) fn forward(&mut self, shares: &[Share]) -> Result<()> {
        let engine = &mut self.engine;
        engine.batch.clear();
        for share in shares {
            let task = &self.running[share.task];
            let sequence = &task.sequence;
            let rows = sequence.cached..sequence.cached + share.rows;
            let writes = task.writing().is_some() && rows.end == sequence.tokens.len();
            let outputs = if writes { Outputs::Last } else { Outputs::None };
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

    /// Adds the hidden states that were run to the embeddings that they belong to.
    pub(super) fn pool(&mut self, shares: &[Share]) {
        let Self { engine, running, hidden, .. } = self;
        if shares.iter().all(|share| running[share.task].writing().is_some()) {
            return;
        }
        let (rows, n_embd) = (engine.batch.rows(), engine.config().n_embd);
        hidden.resize(rows * n_embd, 0.0);
        let read = engine.model.read_hidden(rows, hidden).map_err(|error| Arc::new(error.into()));
        for (share, span) in shares.iter().zip(&engine.batch.spans) {
            let task = &mut running[share.task];
            let whole = task.rows_left() == 0;
            let Work::Embedding(pooling) = &mut task.work else { continue };
            pooling.take(&hidden[span.first_row * n_embd..][..span.rows * n_embd]);
            task.end = match &read {
                Ok(()) => whole.then(|| pooling.end()),
                Err(error) => Some(End::Failed(Arc::clone(error))),
            };
        }
    }

    /// Chooses the next token of every text that was run to its end.
    pub(super) fn choose(&mut self, shares: &[Share]) {
        let Self { engine, running, events, .. } = self;
        let shares = shares.iter().map(|share| share.task);
        let ready: Vec<usize> = shares
            .filter(|&task| running[task].rows_left() == 0 && running[task].writing().is_some())
            .collect();
        let plain =
            |&task: &usize| running[task].writing().is_some_and(|text| text.chooser.is_plain_greedy());
        // the largest logit of all in one pass, if one of them asks for nothing else
        let likeliest = match ready.iter().any(plain) {
            true => engine.likeliest(ready.len()).map_err(Arc::new),
            false => Ok(Vec::new()),
        };
        for (row, &index) in ready.iter().enumerate() {
            let Task { id, sequence, work: Work::Text(writing), end, .. } = &mut running[index] else {
                continue;
            };
            let likeliest = likeliest.as_ref().map(|tokens| tokens.get(row).copied());
            match next(engine, sequence, writing, row, likeliest) {
                Ok(next) => {
                    events.push(Event::Token { job: *id, token: next.token, logprobs: next.logprobs });
                    *end = next.end;
                }
                Err(error) => *end = Some(End::Failed(error)),
            }
        }
    }

    /// Lets go of the requests that are done.
    pub(super) fn retire(&mut self) {
        let Self { engine, running, events, .. } = self;
        running.retain_mut(|task| {
            let Some(end) = task.end.take() else { return true };
            engine.truncate(&mut task.sequence, 0);
            events.push(end.event(task.id));
            false
        });
    }
}

/// A chosen token.
struct Next {
    token: u32,
    logprobs: Option<Logprobs>,
    end: Option<End>,
}

/// Gives `sequence` its next token, whose logits lie in row `row`; `likeliest` is that of the largest.
fn next<D: Device>(
    engine: &mut Engine<D>,
    sequence: &mut Sequence,
    writing: &mut Writing,
    row: usize,
    likeliest: Result<Option<u32>, &Arc<Error>>,
) -> Result<Next, Arc<Error>> {
    let (device, logits) = (engine.model.device(), engine.model.logits());
    let plain = writing.chooser.is_plain_greedy();
    let token = match likeliest.map_err(Arc::clone)?.filter(|_| plain) {
        Some(token) => token,
        None => engine.sampler.sample(device, logits, row, &mut writing.chooser, &sequence.tokens)?,
    };
    let logprobs = |top| engine.sampler.logprobs(device, logits, row, token, top);
    let logprobs = writing.logprobs.map(logprobs).transpose()?;
    sequence.push(token);
    let end = writing.take(sequence, token, engine.tokenizer().is_eos(token))?;
    Ok(Next { token, logprobs, end })
}
