//! `GET /openapi.json`.

use axum::Json;
use axum::extract::State as Extract;
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::{chat, completions, embeddings, health, metrics, models, tokenize};
use crate::limits::Limits;
use crate::openai::{ApiError, ChatChunk};
use crate::state::Shared;

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
    // those that events have in them
    components(schemas(ChatChunk)),
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

/// What a value may be, beyond what its type says: where in the document's schemas, which keyword, how much.
type Bound = (&'static str, &'static str, i64);

/// The bounds that hold for every server, and those that `limits` set.
fn bounds(limits: &Limits) -> Vec<Bound> {
    const TEXTS: [&str; 4] = ["/Input/oneOf/1", "/Input/oneOf/2", "/Input/oneOf/3", "/Input/oneOf/3/items"];
    const STOPS: [&str; 2] = ["/OneOrMany/oneOf/0", "/OneOrMany/oneOf/1/items"];
    let at_most = |place, keyword, most: usize| (place, keyword, i64::try_from(most).unwrap_or(i64::MAX));
    let mut bounds = vec![
        ("/Parameters/properties/logit_bias/additionalProperties", "minimum", -100),
        ("/Parameters/properties/logit_bias/additionalProperties", "maximum", 100),
        at_most("/Parameters/properties/n", "maximum", limits.choices),
        at_most("/ChatRequest/allOf/3/properties/messages", "maxItems", limits.messages),
        ("/Input/oneOf/0", "minLength", 1),
        at_most("/Input/oneOf/0", "maxLength", limits.text_bytes),
        at_most("/Input/oneOf/1", "maxItems", limits.inputs),
        at_most("/Input/oneOf/3", "maxItems", limits.inputs),
        at_most("/OneOrMany/oneOf/1", "maxItems", limits.stops),
    ];
    bounds.extend(TEXTS.map(|texts| (texts, "minItems", 1)));
    bounds.extend(STOPS.map(|stop| (stop, "minLength", 1)));
    bounds.extend(STOPS.map(|stop| at_most(stop, "maxLength", limits.stop_bytes)));
    for name in ["/Parameters/properties/max_tokens", "/Parameters/properties/max_completion_tokens"] {
        bounds.extend(limits.tokens.map(|most| at_most(name, "maximum", most)));
    }
    bounds
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "Operation", responses(
    (status = 200, description = "The document", body = Object),
))]
pub(super) async fn document(Extract(state): Shared) -> Result<Json<Value>, ApiError> {
    let document = serde_json::to_value(Document::openapi());
    let mut document = document.map_err(|error| ApiError::server(error.to_string()))?;
    for (place, keyword, bound) in bounds(&state.limits) {
        let place = document.pointer_mut(&format!("/components/schemas{place}"));
        let schema = place.and_then(Value::as_object_mut);
        let schema = schema.ok_or_else(|| ApiError::server("a bound has no place in the document"))?;
        schema.insert(keyword.to_owned(), bound.into());
    }
    Ok(Json(document))
}
