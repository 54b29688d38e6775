//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use crate::guard::{Hosts, Keys};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::model::{Model, Models};
use crate::openai::{ApiError, shortened};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) models: Models,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) keys: Keys,
    pub(crate) hosts: Hosts,
    /// Of the work that would hold the others up, so much is done at once.
    pub(crate) off_thread: Arc<Semaphore>,
    draining: AtomicBool,
}

/// As the handlers take it.
pub(crate) type Shared = axum::extract::State<Arc<State>>;

impl State {
    pub(crate) fn new(models: Models, limits: Limits, metrics: Metrics, keys: Keys, hosts: Hosts) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let off_thread = Arc::new(Semaphore::new(threads));
        Self { models, limits, metrics, keys, hosts, off_thread, draining: AtomicBool::new(false) }
    }

    /// The model that a request names; the first if it names none.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn model(&self, id: Option<&str>) -> Result<Arc<Model>, ApiError> {
        self.models.find(id).cloned().ok_or_else(|| {
            let served: Vec<&str> = self.models.iter().map(|model| model.id.as_str()).collect();
            let asked = shortened(&id.into());
            let message = format!("there is no model {asked}; served are: {}", served.join(", "));
            ApiError::refused(StatusCode::NOT_FOUND, message).param("model").code("model_not_found")
        })
    }

    /// Does what takes a while (templates, tokens, grammars) for a model where it holds nobody up.
    ///
    /// # Errors
    /// 500 if it panicked; its own.
    pub(crate) async fn off_thread<T: Send + 'static>(
        &self,
        model: &Arc<Model>,
        work: impl FnOnce(&Model, &Limits) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let stopped = || ApiError::unavailable("the server is shutting down");
        let permit = Arc::clone(&self.off_thread).acquire_owned().await.map_err(|_| stopped())?;
        let (model, limits) = (Arc::clone(model), self.limits.clone());
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&model, &limits);
            drop(permit); // also when the client has gone meanwhile
            done
        });
        done.await.map_err(|_| ApiError::server("the request could not be prepared: a panic"))?
    }

    /// From now on new requests are refused.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new requests are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
