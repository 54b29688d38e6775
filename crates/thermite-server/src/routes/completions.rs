//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use crate::clock::unix_seconds;
use crate::generation::{Generation, Piece, finish_reason};
use crate::guard::{Arrived, JsonObject, RequestId};
use crate::limits::Limits;
use crate::model::Model;
use crate::openai::{
    ApiError, CompletionChoice, CompletionRequest, CompletionResponse, ErrorBody, Text, Usage,
};
use crate::sse::{self, Chunks};
use crate::state::Shared;

/// Goes on from a text.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "OpenAI",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The text, or with `stream` its pieces as server-sent events", content(
            (CompletionResponse = "application/json"),
            (CompletionResponse = "text/event-stream"),
        )),
        (status = "4XX", description = "The request is refused", body = ErrorBody),
        (status = "5XX", description = "The server failed, or shuts down", body = ErrorBody),
    ),
)]
pub(super) async fn complete(
    Extract(state): Shared,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    JsonObject(fields): JsonObject,
) -> Result<Response, ApiError> {
    let CompletionRequest { prompt, parameters } = CompletionRequest::read(&fields)?;
    let model = state.model(parameters.model.as_deref())?;
    let (n, params) = (parameters.n(&state.limits)?, parameters.to_params(&state.limits)?);
    let texts = prompt.into_texts("prompt", &state.limits)?;
    let (preparing, limits) = (Arc::clone(&model), state.limits.clone());
    let prompts = state.off_thread(move || all_tokens(&preparing, texts, "prompt", &limits)).await?;
    let generation = Generation::start(&model, prompts, n, params, arrived).await?;
    let writer = Writer {
        id: format!("cmpl-{id}"),
        created: unix_seconds(),
        model: model.id.clone(),
        include_usage: parameters.include_usage(),
    };
    if parameters.is_stream() {
        return Ok(sse::respond(generation, writer));
    }
    let (answers, usage) = generation.collect().await?;
    let choices = answers.into_iter().enumerate();
    let choices = choices.map(|(index, answer)| choice(index, answer.text, Some(finish_reason(answer.reason))));
    Ok(Json(writer.response(choices.collect(), Some(usage))).into_response())
}

/// The tokens of each of the texts of `field`.
pub(super) fn all_tokens(
    model: &Model,
    texts: Vec<Text>,
    field: &str,
    limits: &Limits,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let bytes = texts.iter().map(|text| if let Text::Text(text) = text { text.len() } else { 0 }).sum();
    limits.check_text(field, bytes)?;
    let tokens = |text| match text {
        Text::Text(text) => Ok(model.encode(&text)?),
        Text::Tokens(tokens) => Ok(tokens),
    };
    texts.into_iter().map(tokens).collect()
}

fn choice(index: usize, text: String, finish_reason: Option<&'static str>) -> CompletionChoice {
    CompletionChoice { index, text, finish_reason, logprobs: None }
}

/// Writes answers, whole or in pieces.
struct Writer {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Writer {
    fn response(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> CompletionResponse {
        let Self { id, created, model, .. } = self;
        let (id, model) = (id.clone(), model.clone());
        CompletionResponse { id, object: "text_completion", created: *created, model, choices, usage }
    }
}

impl Chunks for Writer {
    type Chunk = CompletionResponse;

    fn first(&mut self, _: usize) -> Option<CompletionResponse> {
        None
    }

    fn piece(&mut self, index: usize, piece: Piece) -> Vec<CompletionResponse> {
        let choice = match piece {
            Piece::Text(text) => choice(index, text, None),
            Piece::End(reason) => choice(index, String::new(), Some(finish_reason(reason))),
        };
        vec![self.response(vec![choice], None)]
    }

    fn usage(&mut self, usage: Usage) -> Option<CompletionResponse> {
        self.include_usage.then(|| self.response(Vec::new(), Some(usage)))
    }
}
