//! Each request gets an id, a line in the log and a place in the metrics; a panic becomes an answer.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State as Extract};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::{Instrument, info, info_span};

use crate::openai::ApiError;
use crate::state::Shared;

/// The name of a request in logs, in its answer's head and in the answer.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// One that no other request has.
    fn next() -> Self {
        static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{:08x}{number:08x}", *RUN as u32))
    }
}

/// When a request came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived(pub(crate) Instant);

/// Watches over a request.
pub(crate) async fn watch(Extract(state): Shared, mut request: Request, next: Next) -> Response {
    let (id, arrived) = (RequestId::next(), Instant::now());
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(Arrived(arrived));
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = info_span!("request", id = %id.0, method, route);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(parent: &span, "a handler panicked");
        ApiError::server("the request failed: a panic").into_response()
    });
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert("x-request-id", value);
    }
    let (status, after) = (response.status().as_u16(), arrived.elapsed());
    info!(parent: &span, status, seconds = after.as_secs_f64(), "answered");
    state.metrics.answered(method, route, status, after);
    response
}

/// The method's name, if it is a common one: clients can make up others without end.
fn method_name(method: &Method) -> &'static str {
    const COMMON: [&str; 7] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"];
    COMMON.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}
