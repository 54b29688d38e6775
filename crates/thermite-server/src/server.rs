//! A server, from its models to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::guard::{Hosts, Keys};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::model::{LoadError, Loaded, Model, Models, Staff};
use crate::state::State;
use crate::worker::Courier;
use crate::{listen, routes};

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// What clients may ask for.
    pub limits: Limits,
    /// Keys, of which requests must have one; none if there are none.
    pub keys: Keys,
    /// Origins whose web pages may ask; `*` for all.
    pub origins: Vec<HeaderValue>,
    /// Names under which a server on a loopback address may be called besides `localhost`.
    pub hosts: Vec<String>,
    /// How long running requests may take to finish when the server shuts down.
    pub drain_time: Duration,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The listener has no address.
    #[error("the listener has no address: {0}")]
    Address(#[from] io::Error),
}

/// Tells a server to shut down: the first time running requests may finish, the second time they are cut off.
#[derive(Debug)]
pub struct Shutdown(mpsc::Receiver<()>);

impl Shutdown {
    /// It, and the end that tells: one message for each time.
    #[must_use]
    pub fn new() -> (mpsc::Sender<()>, Self) {
        let (sender, receiver) = mpsc::channel(2);
        (sender, Self(receiver))
    }
}

impl listen::Shutdown for Shutdown {
    async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await; // nobody can tell any more
        }
    }
}

/// Models, about to be served.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    metrics: Metrics,
    models: Models,
    staff: Vec<Staff>,
}

impl Server {
    /// A server without models.
    ///
    /// # Errors
    /// Metrics that cannot be set up.
    pub fn new(options: ServerOptions) -> Result<Self, ServerError> {
        Ok(Self { options, metrics: Metrics::new()?, models: Models::default(), staff: Vec::new() })
    }

    /// Loads a model by `load`, on the thread that will run it, and serves it under the name `id`.
    ///
    /// # Errors
    /// Those of `load`; a name that another model has.
    pub fn add_model<E: std::error::Error + Send + 'static>(
        &mut self,
        id: &str,
        load: impl FnOnce() -> Result<Loaded, E> + Send + 'static,
    ) -> Result<(), LoadError<E>> {
        if self.models.find(Some(id)).is_some() {
            return Err(LoadError::Twice(id.to_owned()));
        }
        let (model, staff) = Model::start(id.to_owned(), self.metrics.of_model(id), load)?;
        self.models.push(model);
        self.staff.push(staff);
        Ok(())
    }

    /// Serves on `listener` until `shutdown` tells it to end. Every thread has ended then.
    ///
    /// # Errors
    /// A listener without an address.
    pub async fn serve(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), ServerError> {
        let Self { options, metrics, models, staff } = self;
        let ServerOptions { limits, keys, origins, hosts, drain_time } = options;
        let address: SocketAddr = listener.local_addr()?;
        let hosts = Hosts::of(address.ip(), hosts);
        let state = Arc::new(State::new(models, limits, metrics, keys, hosts));
        let router = routes::router(&state, origins);
        let (threads, couriers): (Vec<_>, Vec<_>) =
            staff.into_iter().map(|Staff { thread, courier }| (thread, courier)).unzip();
        let _couriers: JoinSet<()> = couriers.into_iter().map(Courier::deliver).collect();
        tokio::select! {
            () = listen::serve(listener, router, &state, shutdown, drain_time) => {}
            () = upkeep(&state) => {}
        }
        state.models.iter().for_each(|model| model.worker.end());
        // a step that is under way ends first
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().try_for_each(JoinHandle::join));
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("a model's thread panicked");
        }
        Ok(())
    }
}

/// Keeps the metrics small, for ever.
async fn upkeep(state: &State) {
    let mut interval = interval(Metrics::UPKEEP);
    loop {
        interval.tick().await;
        state.metrics.upkeep();
    }
}
