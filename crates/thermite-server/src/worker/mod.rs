//! One thread for each model: it owns the scheduler, takes orders over a bounded channel, and tells each request what
//! became of it over a channel of its own.
//!
//! A request's channel has room for all that the request can ever have to say: its tokens are bounded, and so is what
//! waits for a slow reader. So the thread never waits for anybody. Whoever drops the receiving end has cancelled: the
//! thread looks before each step.

mod courier;
mod desk;
mod faults;
mod metrics;
mod scheduling;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use thermite_engine::scheduler::{EmbeddingJob, Job};
use thermite_engine::{Error, FinishReason};
use tokio::sync::mpsc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::openai::Chosen;

pub(crate) use self::courier::Courier;
use self::courier::Post;
use self::desk::Desk;
pub(crate) use self::faults::{Fault, Faults};
pub(crate) use self::metrics::ModelMetrics;
pub(crate) use self::scheduling::Scheduling;

/// A request, as the thread takes it.
#[derive(Debug)]
pub(crate) struct Order {
    /// What the scheduler is asked.
    pub(crate) work: Work,
    /// When the request came.
    pub(crate) arrived: Instant,
}

/// What a scheduler can be asked.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// A text.
    Text(TextJob),
    /// What a text means to the model.
    Embedding(EmbeddingJob),
}

/// A job with what its text is watched for.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextJob {
    /// What the scheduler is asked.
    pub(crate) job: Job,
    /// Strings that end the text.
    pub(crate) stop: Vec<String>,
    /// Special tokens that the text spells out.
    pub(crate) shown: Vec<u32>,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub(crate) enum Update {
    /// The scheduler has taken it on.
    Accepted,
    /// It is computed from now on.
    Started {
        /// Tokens of its prompt that were found in the cache.
        cached_tokens: usize,
    },
    /// More of its text, and what was asked of the tokens chosen since the last update.
    Text { text: String, chosen: Option<Chosen> },
    /// An embedding is done; nothing follows.
    Embedded(Vec<f32>),
    /// A text is done.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Tokens chosen.
        tokens: usize,
    },
    /// It failed; nothing follows.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The engine refused it, or could not go on with it.
    Engine(Arc<Error>),
    /// The thread panicked.
    Panic,
    /// The server ends.
    Ended,
}

/// What goes to the thread.
enum Message {
    Order { order: Box<Order>, reply: mpsc::Sender<Update>, place: OwnedSemaphorePermit },
    End,
}

/// Why an order was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All places are taken.
    Full {
        /// Places in all.
        places: usize,
    },
    /// There are never so many.
    TooMany {
        /// Places in all.
        places: usize,
    },
    /// The thread has ended.
    Gone,
}

/// The sending end of a model's thread.
#[derive(Debug)]
pub(crate) struct Worker {
    sender: mpsc::Sender<Message>,
    places: Arc<Semaphore>,
    capacity: usize,
    faults: Arc<Faults>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Order { .. } => "Order",
            Self::End => "End",
        })
    }
}

/// The receiving end, for the thread itself.
pub(crate) struct Seat {
    receiver: mpsc::Receiver<Message>,
    post: Post,
    faults: Arc<Faults>,
}

impl Worker {
    /// A worker for `capacity` requests at once, running and waiting ones together, the seat of its thread, and who
    /// hands round what the thread has to tell.
    pub(crate) fn new(capacity: usize) -> (Self, Seat, Courier) {
        // no more messages are under way than there are places, and the one that ends it
        let (sender, receiver) = mpsc::channel(capacity + 1);
        let faults = Arc::<Faults>::default();
        let (post, courier) = courier::post();
        let seat = Seat { receiver, post, faults: Arc::clone(&faults) };
        (Self { sender, places: Arc::new(Semaphore::new(capacity)), capacity, faults }, seat, courier)
    }

    /// Hands orders over, all or none of them; gives what becomes of each.
    pub(crate) fn submit(&self, orders: Vec<Order>) -> Result<Vec<mpsc::Receiver<Update>>, Refusal> {
        let places = self.capacity;
        if orders.len() > places {
            return Err(Refusal::TooMany { places });
        }
        let take = u32::try_from(orders.len()).map_err(|_| Refusal::TooMany { places })?;
        let taken = Arc::clone(&self.places).try_acquire_many_owned(take);
        let mut taken = taken.map_err(|_| Refusal::Full { places })?;
        orders
            .into_iter()
            .map(|order| {
                let place = taken.split(1).ok_or(Refusal::Full { places })?;
                let (reply, updates) = mpsc::channel(room(&order.work));
                self.sender
                    .try_send(Message::Order { order: Box::new(order), reply, place })
                    .map_err(|_| Refusal::Gone)?;
                Ok(updates)
            })
            .collect()
    }

    /// What has gone wrong.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Ends the thread; requests that are left fail.
    pub(crate) fn end(&self) {
        let _ = self.sender.try_send(Message::End); // it may have ended already
    }
}

impl Seat {
    /// Works until the end.
    pub(crate) fn work(self, scheduling: Box<dyn Scheduling>, metrics: ModelMetrics) {
        Desk::new(self, scheduling, metrics).work();
    }
}

/// Updates that there can be at most: one for each token, and four besides.
fn room(work: &Work) -> usize {
    match work {
        Work::Text(text) => text.job.max_tokens.unwrap_or(0) + 4,
        Work::Embedding(_) => 4,
    }
}
