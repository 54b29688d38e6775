//! Connections: accepted, watched, and let go of.

mod patient;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

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
    let graceful = std::mem::take(&mut acceptor.graceful);
    tokio::select! {
        () = acceptor.accept() => {}
        done = timeout(drain_time, graceful.shutdown()) => if done.is_err() {
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
    connections: JoinSet<()>,
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
            connections: JoinSet::new(),
            state: Arc::clone(state),
        }
    }

    /// Accepts connections, for ever.
    async fn accept(&mut self) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        self.rest(&error).await;
                        continue;
                    }
                },
                Some(_) = self.connections.join_next() => continue,
            };
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "a connection without TCP_NODELAY");
            }
            let connection = self.connection(stream);
            let open = self.open.clone();
            self.connections.spawn(async move {
                open.increment(1.0);
                if let Err(error) = connection.await {
                    debug!(%error, "a connection broke off");
                }
                open.decrement(1.0);
                drop(place);
            });
        }
    }

    fn connection(&self, stream: TcpStream) -> impl Future<Output = Result<(), hyper::Error>> + use<> {
        let stream = TokioIo::new(Patient::new(stream, self.state.limits.write_time));
        let service = TowerToHyperService::new(self.router.clone());
        self.graceful.watch(self.builder.serve_connection(stream, service))
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
