//! `GET /health`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::Shared;
use crate::worker::Fault;

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, `failing` or `draining`.
    #[schema(value_type = String)]
    status: &'static str,
    /// How each model is.
    models: BTreeMap<String, ModelHealth>,
}

/// How a model is.
#[derive(Debug, Serialize, ToSchema)]
struct ModelHealth {
    /// `ok`; `failing` as long as its last step failed; `gone` after a panic.
    #[schema(value_type = String)]
    status: &'static str,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Whether the server and its models are well. Needs no key.
#[utoipa::path(get, path = "/health", tag = "Operation", responses(
    (status = 200, description = "All is well", body = Health),
    (status = 503, description = "A model has failed, or the server shuts down", body = Health),
))]
pub(super) async fn report(Extract(state): Shared) -> (StatusCode, Json<Health>) {
    let models = state.models.iter().map(|model| {
        let (status, error) = match model.worker.faults().current() {
            None => ("ok", None),
            Some(Fault::Step(error)) => ("failing", Some(error)),
            Some(Fault::Panic(error)) => ("gone", Some(error)),
        };
        (model.id.clone(), ModelHealth { status, error })
    });
    let models: BTreeMap<_, _> = models.collect();
    let well = models.values().all(|model| model.status == "ok");
    let (code, status) = match (state.is_draining(), well) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
        (false, true) => (StatusCode::OK, "ok"),
    };
    (code, Json(Health { status, models }))
}
