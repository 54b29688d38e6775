//! A model that is served: what requests need to know of it, and the thread that runs it.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use thermite_device::Device;
use thermite_engine::chat::{ChatTemplates, Conversation};
use thermite_engine::scheduler::Limits as SchedulerLimits;
use thermite_engine::{Constraint, Engine, Error, Grammar, Grammars, Scheduler, Tokenizer};

use crate::worker::{Courier, ModelMetrics, Scheduling, Worker};

/// Stack of a model's thread: as much as a main thread has.
const STACK: usize = 8 << 20;

/// Requests that a model takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Requests that are computed together; the engine's `max_outputs` must be as many.
    pub running: usize,
    /// Requests that wait for that; one more is refused.
    pub waiting: usize,
}

/// A loaded model, on the thread that will run it.
pub struct Loaded {
    scheduling: Box<dyn Scheduling>,
    about: About,
}

/// What requests need to know of a model.
#[derive(Debug, Clone)]
struct About {
    tokenizer: Tokenizer,
    templates: Option<ChatTemplates>,
    grammars: Grammars,
    context: usize,
    capacity: usize,
}

impl Loaded {
    /// A model that takes requests on as `queue` has it, with its chat templates.
    ///
    /// # Errors
    /// An engine that was not made for so many.
    pub fn new<D: Device + 'static>(
        engine: Engine<D>,
        templates: Option<ChatTemplates>,
        queue: Queue,
    ) -> Result<Self, Error> {
        let capacity = queue.running + queue.waiting;
        let (tokenizer, context) = (engine.tokenizer().clone(), engine.context());
        let grammars = engine.grammars().clone();
        let about = About { tokenizer, templates, grammars, context, capacity };
        // all may come before the first is admitted
        let limits = SchedulerLimits { running: queue.running, waiting: capacity };
        Ok(Self { scheduling: Box::new(Scheduler::new(engine, limits)?), about })
    }

    #[cfg(test)]
    pub(crate) fn with(self, wrap: impl FnOnce(Box<dyn Scheduling>) -> Box<dyn Scheduling>) -> Self {
        Self { scheduling: wrap(self.scheduling), ..self }
    }
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: std::error::Error + 'static> {
    /// Whoever loads it has failed.
    #[error(transparent)]
    Load(E),
    /// Loading it panicked.
    #[error("loading the model panicked")]
    Panic,
    /// No thread to run it on.
    #[error("no thread for the model: {0}")]
    Thread(std::io::Error),
    /// Two models of one name.
    #[error("there are two models {0:?}: give one of them another name")]
    Twice(String),
}

/// A model that is served.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) worker: Worker,
    about: About,
}

/// What works for a model.
#[derive(Debug)]
pub(crate) struct Staff {
    /// Computes.
    pub(crate) thread: JoinHandle<()>,
    /// Hands round what the thread has to tell: nobody learns anything unless it runs.
    pub(crate) courier: Courier,
}

impl Model {
    /// Loads a model by `load` on a thread of its own, and serves it there under the name `id`.
    pub(crate) fn start<E: std::error::Error + Send + 'static>(
        id: String,
        metrics: ModelMetrics,
        load: impl FnOnce() -> Result<Loaded, E> + Send + 'static,
    ) -> Result<(Self, Staff), LoadError<E>> {
        let (tell, told) = mpsc::sync_channel(1);
        let run = move || {
            let (told, seat, scheduling) = match load() {
                Err(error) => return drop(tell.send(Err(error))),
                Ok(Loaded { scheduling, about }) => {
                    let (worker, seat, courier) = Worker::new(about.capacity);
                    (tell.send(Ok((about, worker, courier))), seat, scheduling)
                }
            };
            if told.is_ok() {
                seat.work(scheduling, metrics);
            }
        };
        let thread = Builder::new()
            .name(format!("model {id}"))
            .stack_size(STACK)
            .spawn(run)
            .map_err(LoadError::Thread)?;
        let (about, worker, courier) = told.recv().map_err(|_| LoadError::Panic)?.map_err(LoadError::Load)?;
        let model = Self { id, created: crate::clock::unix_seconds(), worker, about };
        Ok((model, Staff { thread, courier }))
    }

    /// Its tokenizer.
    pub(crate) const fn tokenizer(&self) -> &Tokenizer {
        &self.about.tokenizer
    }

    /// Tokens that prompt and answer may have together.
    pub(crate) const fn context(&self) -> usize {
        self.about.context
    }

    /// Its chat templates.
    pub(crate) const fn templates(&self) -> Option<&ChatTemplates> {
        self.about.templates.as_ref()
    }

    /// Compiles a grammar over its vocabulary.
    pub(crate) fn compile(&self, grammar: &Grammar) -> Result<Constraint, Error> {
        Ok(self.about.grammars.compile(grammar)?)
    }

    /// The tokens of a text.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer().encode(text, true, true)?)
    }

    /// The tokens of a conversation, as `templates` write it.
    pub(crate) fn encode_chat(
        &self,
        templates: &ChatTemplates,
        conversation: &Conversation,
    ) -> Result<Vec<u32>, Error> {
        let special = self.tokenizer().special_tokens();
        let prompt = templates.of(conversation).prompt(conversation, special)?;
        Ok(self.tokenizer().encode_prompt(&prompt)?)
    }
}

/// The models that are served, the first being the one that is meant where none is named.
#[derive(Debug, Default)]
pub(crate) struct Models(Vec<Arc<Model>>);

impl Models {
    /// One more.
    pub(crate) fn push(&mut self, model: Model) {
        self.0.push(Arc::new(model));
    }

    /// The model of this name; the first if there is none.
    pub(crate) fn find(&self, id: Option<&str>) -> Option<&Arc<Model>> {
        match id {
            None => self.0.first(),
            Some(id) => self.0.iter().find(|model| model.id == id),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.0.iter()
    }
}
