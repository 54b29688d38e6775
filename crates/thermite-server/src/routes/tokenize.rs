//! `POST /tokenize` and `POST /detokenize`.

use axum::Json;
use axum::extract::State as Extract;

use crate::guard::JsonObject;
use crate::openai::{
    ApiError, DetokenizeRequest, DetokenizeResponse, ErrorBody, TokenizeRequest, TokenizeResponse, read,
};
use crate::state::Shared;

/// The tokens of a text.
#[utoipa::path(post, path = "/tokenize", tag = "Tokens", request_body = TokenizeRequest, responses(
    (status = 200, description = "The tokens", body = TokenizeResponse),
    (status = "4XX", description = "The request is refused", body = ErrorBody),
))]
pub(super) async fn tokenize(
    Extract(state): Shared,
    JsonObject(fields): JsonObject,
) -> Result<Json<TokenizeResponse>, ApiError> {
    let TokenizeRequest { model, prompt, add_special_tokens } = read(&fields)?;
    let model = state.model(model.as_deref())?;
    state.limits.check_text("prompt", prompt.len())?;
    let tokenized = state.off_thread(&model, move |model, _| {
        let tokenizer = model.tokenizer();
        let tokens =
            tokenizer.encode(&prompt, add_special_tokens, true).map_err(thermite_engine::Error::from)?;
        let spelled = |&token: &u32| tokenizer.token_piece(token).unwrap_or_default();
        let token_strs = tokens.iter().map(spelled).collect();
        Ok(TokenizeResponse { count: tokens.len(), max_model_len: model.context(), tokens, token_strs })
    });
    Ok(Json(tokenized.await?))
}

/// The text of tokens.
#[utoipa::path(post, path = "/detokenize", tag = "Tokens", request_body = DetokenizeRequest, responses(
    (status = 200, description = "The text", body = DetokenizeResponse),
    (status = "4XX", description = "The request is refused", body = ErrorBody),
))]
pub(super) async fn detokenize(
    Extract(state): Shared,
    JsonObject(fields): JsonObject,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    let DetokenizeRequest { model, tokens } = read(&fields)?;
    let model = state.model(model.as_deref())?;
    let text = state.off_thread(&model, move |model, _| {
        let tokenizer = model.tokenizer();
        if let Some(token) = tokens.iter().find(|&&token| tokenizer.bytes(token).is_none()) {
            let message = format!("there is no token {token}; the vocabulary has {}", tokenizer.vocab_size());
            return Err(ApiError::invalid(message).param("tokens"));
        }
        Ok(tokenizer.decode(&tokens, false))
    });
    Ok(Json(DetokenizeResponse { prompt: text.await? }))
}
