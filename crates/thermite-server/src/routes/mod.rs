//! The routes, one module each.

mod chat;
mod completions;
mod embeddings;
mod health;
mod metrics;
mod models;
mod openapi;
mod page;
mod tokenize;
mod wanted;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use crate::guard;
use crate::openai::ApiError;
use crate::state::State;

/// All routes behind their guards; `origins` are those whose pages may ask.
pub(crate) fn router(state: &Arc<State>, origins: Vec<HeaderValue>) -> Router {
    let closed = Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/metrics", get(metrics::render))
        .route("/openapi.json", get(openapi::document))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .layer(from_fn_with_state(Arc::clone(state), guard::refuse_when_draining))
        .layer(from_fn_with_state(Arc::clone(state), guard::authorize));
    let open = page::router().route("/health", get(health::report)).method_not_allowed_fallback(wrong_method);
    let mut router = closed.merge(open);
    if !origins.is_empty() {
        let origins = Arc::new(origins);
        router = router.layer(from_fn(move |request, next| guard::cors(Arc::clone(&origins), request, next)));
    }
    router
        .layer(from_fn_with_state(Arc::clone(state), guard::check_host))
        .layer(from_fn_with_state(Arc::clone(state), guard::watch))
        .with_state(Arc::clone(state))
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is no {method} {}; /openapi.json lists what there is", uri.path());
    ApiError::refused(StatusCode::NOT_FOUND, message).code("unknown_url")
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_allowed")
}
