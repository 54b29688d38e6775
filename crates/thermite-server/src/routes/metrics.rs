//! `GET /metrics`.

use axum::extract::State as Extract;
use axum::http::{HeaderName, header};

use crate::state::Shared;

/// What the server counts, in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "Operation", responses(
    (status = 200, description = "The metrics", body = String, content_type = "text/plain"),
))]
pub(super) async fn render(Extract(state): Shared) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render())
}
