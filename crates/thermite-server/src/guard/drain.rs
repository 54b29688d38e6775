//! A server that shuts down takes nothing new on.

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::openai::ApiError;
use crate::state::Shared;

/// Lets requests through as long as the server does not shut down.
pub(crate) async fn refuse_when_draining(Extract(state): Shared, request: Request, next: Next) -> Response {
    if !state.is_draining() {
        return next.run(request).await;
    }
    let mut response =
        ApiError::unavailable("the server is shutting down").code("shutting_down").into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
