//! Connections: accepted, watched, and let go of.

mod exchange;
mod patient;

use std::collections::HashMap;
use std::io;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use self::exchange::{Exchange, Phase, Served};
use self::patient::Patient;
use crate::state::State;

/// How long to wait where the system has no file descriptors left.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// The two requests to shut down: the first lets running requests finish, the second does not.
pub(crate) trait Shutdown: Send {
    /// Waits for the next one.
    fn next(&mut self) -> impl Future<Output = ()> + Send;
}

/// Serves connections until it is told to shut down and all are done, or the time for that is over.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    state: &Arc<State>,
    mut shutdown: impl Shutdown,
    drain_time: Duration,
) {
    let mut acceptor = Acceptor::new(listener, router, state);
    tokio::select! {
        () = acceptor.accept() => {}
        () = shutdown.next() => {}
    }
    state.drain();
    tracing::info!("shutting down: requests that run may finish");
    // those that come now are told that the server is going
    let (graceful, mut let_go) = (take(&mut acceptor.graceful), take(&mut acceptor.let_go));
    let all_done = async {
        graceful.shutdown().await;
        while let_go.join_next().await.is_some() {}
    };
    tokio::select! {
        () = acceptor.accept() => {}
        done = timeout(drain_time, all_done) => if done.is_err() {
            warn!(seconds = drain_time.as_secs_f64(), "requests still run: they are cut off");
        },
        () = shutdown.next() => warn!("told again to shut down: requests that run are cut off"),
    }
    acceptor.connections.shutdown().await;
}

struct Acceptor {
    listener: TcpListener,
    router: Router,
    state: Arc<State>,
    builder: http1::Builder,
    places: Arc<Semaphore>,
    open: metrics::Gauge,
    graceful: GracefulShutdown,
    /// Connections that had to make room, as long as they are there.
    let_go: JoinSet<()>,
    connections: JoinSet<()>,
    /// How far each of them is.
    exchanges: HashMap<Id, (Exchange, AbortHandle)>,
}

impl Acceptor {
    fn new(listener: TcpListener, router: Router, state: &Arc<State>) -> Self {
        let limits = &state.limits;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_header_size(limits.head_bytes)
            .max_buf_size(limits.head_bytes.max(16 << 10));
        Self {
            listener,
            router,
            builder,
            places: Arc::new(Semaphore::new(limits.connections)),
            open: state.metrics.connections(),
            graceful: GracefulShutdown::new(),
            let_go: JoinSet::new(),
            connections: JoinSet::new(),
            exchanges: HashMap::new(),
            state: Arc::clone(state),
        }
    }

    /// Accepts connections, for ever.
    async fn accept(&mut self) {
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        self.rest(&error).await;
                        continue;
                    }
                },
                Some(ended) = self.connections.join_next_with_id() => {
                    self.exchanges.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
                    continue;
                }
                Some(_) = self.let_go.join_next() => continue,
            };
            let Ok(place) = self.place().await else { return };
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "a connection without TCP_NODELAY");
            }
            let exchange = Exchange::new();
            let connection = self.connection(stream, exchange.clone());
            let open = Open::new(self.open.clone());
            let task = self.connections.spawn(async move {
                if let Err(error) = connection.await {
                    debug!(%error, "a connection broke off");
                }
                drop((open, place));
            });
            self.exchanges.insert(task.id(), (exchange, task));
        }
    }

    /// A place for one more connection. Where all are taken, the one that has waited longest for the whole head of a
    /// request is closed; where none waits, those with a request are closed behind their answers.
    async fn place(&mut self) -> Result<OwnedSemaphorePermit, AcquireError> {
        if self.places.available_permits() == 0 {
            match self.longest_waiting() {
                Some(id) => {
                    debug!("all places for connections are taken: the one that has waited longest is closed");
                    if let Some((_, task)) = self.exchanges.remove(&id) {
                        task.abort();
                    }
                }
                None => {
                    debug!("all places for connections are taken by requests");
                    self.let_go.spawn(take(&mut self.graceful).shutdown());
                }
            }
        }
        Arc::clone(&self.places).acquire_owned().await
    }

    fn longest_waiting(&self) -> Option<Id> {
        let there = self.exchanges.iter().filter(|(_, (_, task))| !task.is_finished());
        let waiting = there.filter_map(|(id, (exchange, _))| match exchange.phase() {
            Phase::Waiting { since } => Some((since, *id)),
            _ => None,
        });
        waiting.min_by_key(|(since, _)| *since).map(|(_, id)| id)
    }

    fn connection(
        &self,
        stream: TcpStream,
        exchange: Exchange,
    ) -> impl Future<Output = Result<(), hyper::Error>> + use<> {
        let stream = Patient::new(stream, exchange.clone(), self.state.limits.write_time);
        let service = Served::new(self.router.clone(), exchange);
        self.graceful.watch(self.builder.serve_connection(TokioIo::new(stream), service))
    }

    /// After an error of `accept`: that of one connection is over; that of the system lasts a while.
    async fn rest(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            warn!(%error, "no connection can be accepted");
            sleep(OUT_OF_FILES).await;
        }
    }
}

/// A connection that is counted as long as it is there.
struct Open(metrics::Gauge);

impl Open {
    fn new(open: metrics::Gauge) -> Self {
        open.increment(1.0);
        Self(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
