//! What the thread does: it takes orders, runs steps, and tells what came of them.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use thermite_engine::scheduler::{Event, JobId};
use thermite_engine::{Error, FinishReason, Logprobs, Writer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TryRecvError;

use crate::openai::Chosen;

use super::{Failure, Fault, Message, ModelMetrics, Order, Post, Scheduling, Seat, TextJob, Update, Work};

/// A request in hand.
struct Open {
    reply: Sender<Update>,
    /// What writes its text, if it is one.
    writer: Option<Writer>,
    tokens: usize,
    prompt_tokens: usize,
    /// Goes on past the model's own end of text.
    ignore_eos: bool,
    arrived: Instant,
    /// When its last token was chosen.
    last: Option<Instant>,
    /// Given back before the reader is told of the end: who has read that finds a place.
    place: OwnedSemaphorePermit,
}

impl Open {
    /// Tells the reader.
    fn tell(&self, post: &mut Post, update: Update) {
        post.put(self.reply.clone(), update);
    }

    /// Tells the reader the last there is.
    fn end(self, post: &mut Post, update: Update) {
        drop(self.place);
        post.put(self.reply, update);
    }
}

/// The thread's own state.
pub(super) struct Desk {
    seat: Seat,
    scheduling: Box<dyn Scheduling>,
    metrics: ModelMetrics,
    open: HashMap<JobId, Open>,
}

impl Desk {
    pub(super) fn new(seat: Seat, scheduling: Box<dyn Scheduling>, metrics: ModelMetrics) -> Self {
        Self { seat, scheduling, metrics, open: HashMap::new() }
    }

    /// Works until it is told to end, or nobody can give orders any more.
    pub(super) fn work(mut self) {
        let worked = catch_unwind(AssertUnwindSafe(|| {
            self.metrics.observe(&self.scheduling.status());
            while self.take_orders() {
                self.drop_gone();
                self.step();
                self.seat.post.send();
            }
        }));
        if let Err(panic) = worked {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            tracing::error!(panic = what, "the thread of a model panicked: the model is gone");
            self.seat.faults.set(Fault::Panic(what.to_owned()));
            self.fail_all(&Failure::Panic);
            return self.refuse_all();
        }
        self.fail_all(&Failure::Ended);
    }

    /// Takes on what is there; waits where there is nothing to do. False at the end.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.next_message() {
                Ok(Message::Order { order, reply, place }) => self.take(*order, reply, place),
                Err(TryRecvError::Empty) => return true,
                Ok(Message::End) | Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// The next message. Before a step and before a wait, what was taken and what was refused is told.
    fn next_message(&mut self) -> Result<Message, TryRecvError> {
        let Seat { receiver, post, .. } = &mut self.seat;
        let message = receiver.try_recv();
        if !matches!(message, Err(TryRecvError::Empty)) {
            return message;
        }
        post.send();
        match self.open.is_empty() {
            true => receiver.blocking_recv().ok_or(TryRecvError::Disconnected),
            false => message,
        }
    }

    fn take(&mut self, order: Order, reply: Sender<Update>, place: OwnedSemaphorePermit) {
        let Order { work, arrived } = order;
        match self.hand_over(work) {
            Ok((id, writer, prompt_tokens, ignore_eos)) => {
                let open =
                    Open { reply, writer, tokens: 0, prompt_tokens, ignore_eos, arrived, last: None, place };
                open.tell(&mut self.seat.post, Update::Accepted);
                self.open.insert(id, open);
            }
            Err(error) => {
                drop(place);
                self.seat.post.put(reply, Update::Failed(Failure::Engine(Arc::new(error))));
            }
        }
    }

    /// Gives the scheduler's number for it, what writes its text, the tokens of its prompt, and whether it goes on
    /// past the model's own end of text.
    fn hand_over(&mut self, work: Work) -> Result<(JobId, Option<Writer>, usize, bool), Error> {
        match work {
            Work::Text(text) => {
                let TextJob { job, stop, shown } = text;
                let writer = Writer::new(self.scheduling.tokenizer(), &stop, shown)?;
                let (prompt_tokens, ignore_eos) = (job.prompt.len(), job.ignore_eos);
                Ok((self.scheduling.submit(job)?, Some(writer), prompt_tokens, ignore_eos))
            }
            Work::Embedding(job) => {
                let prompt_tokens = job.tokens.len();
                Ok((self.scheduling.submit_embedding(job)?, None, prompt_tokens, false))
            }
        }
    }

    /// Cancels requests that nobody listens to.
    fn drop_gone(&mut self) {
        let Self { scheduling, metrics, open, .. } = self;
        open.retain(|&id, request| {
            let gone = request.reply.is_closed();
            if gone {
                scheduling.cancel(id);
                metrics.cancelled.increment(1);
            }
            !gone
        });
    }

    fn step(&mut self) {
        if !self.open.is_empty() {
            match self.scheduling.step() {
                Ok(events) => {
                    self.seat.faults.clear();
                    self.listen(events);
                }
                Err(error) => self.step_failed(error),
            }
        }
        self.metrics.observe(&self.scheduling.status());
    }

    /// A step failed: whatever the device has, the requests in hand do not get on.
    fn step_failed(&mut self, error: Error) {
        tracing::error!(%error, requests = self.open.len(), "a step failed");
        self.seat.faults.set(Fault::Step(error.to_string()));
        for &id in self.open.keys() {
            self.scheduling.cancel(id);
        }
        self.fail_all(&Failure::Engine(Arc::new(error)));
    }

    fn fail_all(&mut self, failure: &Failure) {
        for (_, request) in self.open.drain() {
            self.metrics.failed.increment(1);
            request.end(&mut self.seat.post, Update::Failed(failure.clone()));
        }
        self.seat.post.send();
    }

    /// After a panic: all that still comes is told that there is nobody.
    fn refuse_all(&mut self) {
        while let Some(Message::Order { reply, place, .. }) = self.seat.receiver.blocking_recv() {
            drop(place);
            self.metrics.failed.increment(1);
            self.seat.post.put(reply, Update::Failed(Failure::Panic));
            self.seat.post.send();
        }
    }

    fn listen(&mut self, events: Vec<Event>) {
        let now = Instant::now();
        let mut chosen = 0;
        for event in events {
            match event {
                Event::Started { job, cached_tokens } => {
                    if let Some(request) = self.open.get(&job) {
                        request.tell(&mut self.seat.post, Update::Started { cached_tokens });
                    }
                }
                Event::Token { job, token, logprobs } => {
                    chosen += 1;
                    self.token(job, token, logprobs, now);
                }
                Event::Finished { job, reason } => self.finished(job, reason),
                Event::Embedded { job, embedding } => {
                    if let Some(request) = self.open.remove(&job) {
                        self.metrics.prompt_tokens.increment(request.prompt_tokens as u64);
                        request.end(&mut self.seat.post, Update::Embedded(embedding));
                    }
                }
                Event::Failed { job, error } => {
                    if let Some(request) = self.open.remove(&job) {
                        self.metrics.failed.increment(1);
                        request.end(&mut self.seat.post, Update::Failed(Failure::Engine(error)));
                    }
                }
            }
        }
        if chosen > 0 {
            self.metrics.batch.record(f64::from(chosen));
        }
    }

    fn token(&mut self, job: JobId, token: u32, logprobs: Option<Logprobs>, now: Instant) {
        let Some(request) = self.open.get_mut(&job) else { return };
        self.metrics.generated_tokens.increment(1);
        request.tokens += 1;
        match request.last.replace(now) {
            Some(last) => self.metrics.between_tokens.record(now - last),
            None => {
                self.metrics.first_token.record(now - request.arrived);
                self.metrics.prompt_tokens.increment(request.prompt_tokens as u64);
            }
        }
        if self.scheduling.tokenizer().is_eos(token) && !request.ignore_eos {
            return; // the end is no part of the text
        }
        let step = request.writer.as_mut().map(|writer| writer.push(token)).unwrap_or_default();
        let chosen = logprobs.map(|logprobs| Chosen { token, logprobs });
        if !step.text.is_empty() || chosen.is_some() {
            request.tell(&mut self.seat.post, Update::Text { text: step.text, chosen });
        }
        if step.stopped_by.is_some() {
            self.scheduling.cancel(job);
            self.finished(job, FinishReason::Stop);
        }
    }

    fn finished(&mut self, job: JobId, reason: FinishReason) {
        // one that a stop string ended is not there any more
        let Some(mut request) = self.open.remove(&job) else { return };
        let rest = request.writer.take().map(Writer::finish).unwrap_or_default();
        if !rest.is_empty() {
            request.tell(&mut self.seat.post, Update::Text { text: rest, chosen: None });
        }
        let tokens = request.tokens;
        request.end(&mut self.seat.post, Update::Finished { reason, tokens });
    }
}
