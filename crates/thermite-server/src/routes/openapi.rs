//! `GET /openapi.json`.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::{chat, completions, embeddings, health, metrics, models, tokenize};

/// The document of the API.
#[derive(OpenApi)]
#[openapi(
    info(title = "Thermite", description = "OpenAI-compatible inference server."),
    paths(
        chat::complete,
        completions::complete,
        embeddings::embeddings,
        models::list,
        models::one,
        tokenize::tokenize,
        tokenize::detokenize,
        health::report,
        metrics::render,
        document,
    ),
    modifiers(&BearerKey),
    security(("key" = []), ()),
)]
struct Document;

/// Keys, where the server has some.
struct BearerKey;

impl utoipa::Modify for BearerKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "Operation", responses(
    (status = 200, description = "The document", body = Object),
))]
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
