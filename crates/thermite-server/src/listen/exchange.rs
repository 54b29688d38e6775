//! How far a connection is with its request, as both its stream and its place depend on it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body as Answer;
use axum::http::{Request, Response, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The whole head of a request is waited for.
    Waiting { since: Instant },
    /// The body of the request is read.
    Asking,
    /// The request is there, the answer is not. Those of HTTP/1.1 may be told something before it.
    Asked { version: Version },
    /// The answer is being given.
    Answering,
    /// All of the answer is there; some of it may have to be sent.
    Answered,
}

/// Where a connection's stream, its service and whoever gives places away tell each other of its phase.
#[derive(Debug, Clone)]
pub(super) struct Exchange(Arc<Mutex<Phase>>);

impl Exchange {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Phase::Waiting { since: Instant::now() })))
    }

    pub(super) fn phase(&self) -> Phase {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// All that was written is sent.
    pub(super) fn sent(&self) {
        if self.phase() == Phase::Answered {
            self.set(Phase::Waiting { since: Instant::now() });
        }
    }
}

/// A router that says how far its requests are.
pub(super) struct Served {
    router: TowerToHyperService<Router>,
    exchange: Exchange,
}

impl Served {
    pub(super) fn new(router: Router, exchange: Exchange) -> Self {
        Self { router: TowerToHyperService::new(router), exchange }
    }
}

impl Service<Request<Incoming>> for Served {
    type Response = Response<Watched<Answer>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = self.exchange.clone();
        let leave = |from, to| Leave { exchange: exchange.clone(), from, to };
        exchange.set(Phase::Asking);
        let asked = leave(Phase::Asking, Phase::Asked { version: request.version() });
        let answered = leave(Phase::Answering, Phase::Answered);
        let answer = self.router.call(request.map(|body| Watched { body, _end: asked }));
        Box::pin(async move {
            let answer = answer.await?;
            exchange.set(Phase::Answering);
            Ok(answer.map(|body| Watched { body, _end: answered }))
        })
    }
}

/// A phase that ends with this.
struct Leave {
    exchange: Exchange,
    from: Phase,
    to: Phase,
}

impl Drop for Leave {
    fn drop(&mut self) {
        if self.exchange.phase() == self.from {
            self.exchange.set(self.to);
        }
    }
}

/// A body with whose end a phase ends.
pub(super) struct Watched<B> {
    body: B,
    _end: Leave,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
