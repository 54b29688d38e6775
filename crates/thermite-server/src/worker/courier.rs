//! From a model's thread to those who wait for its texts.
//!
//! A step chooses a token for every request at once. Were each reader woken by itself, the threads of the runtime would
//! come and go, each time at the cost of a thread that computes; so all that a step has to tell goes to the runtime as
//! one message, and is handed round there.

use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Update;

/// Updates, each with whom it is for.
type Bag = Vec<(Sender<Update>, Update)>;

/// The thread's end: gathers updates, and posts them together.
pub(super) struct Post {
    bag: Bag,
    // what is under way is bounded by what requests can have to say
    sender: UnboundedSender<Bag>,
}

/// The runtime's end.
#[derive(Debug)]
pub(crate) struct Courier(UnboundedReceiver<Bag>);

/// Both ends.
pub(super) fn post() -> (Post, Courier) {
    let (sender, receiver) = unbounded_channel();
    (Post { bag: Vec::new(), sender }, Courier(receiver))
}

impl Post {
    /// Takes an update for `reader`.
    pub(super) fn put(&mut self, reader: Sender<Update>, update: Update) {
        self.bag.push((reader, update));
    }

    /// Sends what was taken on its way.
    pub(super) fn send(&mut self) {
        if !self.bag.is_empty() {
            let next = Vec::with_capacity(self.bag.len());
            // nobody hands anything round any more once the server has ended
            let _ = self.sender.send(std::mem::replace(&mut self.bag, next));
        }
    }
}

impl Courier {
    /// Hands updates round, in their order, until the thread has ended.
    pub(crate) async fn deliver(mut self) {
        while let Some(bag) = self.0.recv().await {
            for (reader, update) in bag {
                let _ = reader.try_send(update); // one that is gone is noticed before the next step
            }
        }
    }
}
