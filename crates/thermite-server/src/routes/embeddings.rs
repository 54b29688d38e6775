//! `POST /v1/embeddings`.

use axum::extract::State as Extract;
use axum::{Extension, Json};

use super::completions::all_tokens;
use crate::generation::embed;
use crate::guard::{Arrived, JsonObject};
use crate::openai::{
    ApiError, Embedding, EmbeddingItem, EmbeddingRequest, EmbeddingResponse, EmbeddingUsage, ErrorBody,
};
use crate::state::Shared;

/// What texts mean to a model, as vectors.
#[utoipa::path(post, path = "/v1/embeddings", tag = "OpenAI", request_body = EmbeddingRequest, responses(
    (status = 200, description = "The embeddings", body = EmbeddingResponse),
    (status = "4XX", description = "The request is refused", body = ErrorBody),
    (status = "5XX", description = "The server failed, or shuts down", body = ErrorBody),
))]
pub(super) async fn embeddings(
    Extract(state): Shared,
    Extension(Arrived(arrived)): Extension<Arrived>,
    JsonObject(fields): JsonObject,
) -> Result<Json<EmbeddingResponse>, ApiError> {
    let EmbeddingRequest { model, input, encoding_format } = EmbeddingRequest::read(&fields)?;
    let model = state.model(model.as_deref())?;
    let texts = input.into_texts("input", &state.limits)?;
    let prepare = move |model: &_, limits: &_| all_tokens(model, texts, "input", limits);
    let texts = state.off_thread(&model, prepare).await?;
    let tokens = texts.iter().map(Vec::len).sum();
    let embeddings = embed(&model, texts, arrived).await?;
    let data = embeddings.into_iter().enumerate().map(|(index, numbers)| EmbeddingItem {
        object: "embedding",
        index,
        embedding: Embedding::new(numbers, encoding_format),
    });
    let usage = EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(Json(EmbeddingResponse { object: "list", data: data.collect(), model: model.id.clone(), usage }))
}
