//! `GET /v1/models`.

use axum::Json;
use axum::extract::{Path, State as Extract};

use crate::model::Model;
use crate::openai::{ApiError, ErrorBody, ModelCard, ModelList};
use crate::state::Shared;

/// The models that are served.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI", responses(
    (status = 200, description = "The models", body = ModelList),
    (status = "4XX", description = "The request is refused", body = ErrorBody),
))]
pub(super) async fn list(Extract(state): Shared) -> Json<ModelList> {
    Json(ModelList { object: "list", data: state.models.iter().map(|model| card(model)).collect() })
}

/// One of the models.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "OpenAI", params(
    ("id" = String, Path, description = "Its name, which may have slashes"),
), responses(
    (status = 200, description = "The model", body = ModelCard),
    (status = "4XX", description = "The request is refused", body = ErrorBody),
))]
pub(super) async fn one(Extract(state): Shared, Path(id): Path<String>) -> Result<Json<ModelCard>, ApiError> {
    Ok(Json(card(&*state.model(Some(&id))?)))
}

fn card(model: &Model) -> ModelCard {
    ModelCard {
        id: model.id.clone(),
        object: "model",
        created: model.created,
        owned_by: "thermite",
        context_length: model.context(),
        chat_template: model.templates().is_some(),
    }
}
