//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::wanted::Wanted;
use crate::clock::unix_seconds;
use crate::generation::{Answered, Generation, Piece, finish_reason};
use crate::guard::{Arrived, JsonObject, RequestId};
use crate::limits::Limits;
use crate::model::Model;
use crate::openai::{
    ApiError, Chosen, CompletionChoice, CompletionLogprobs, CompletionRequest, CompletionResponse, ErrorBody,
    Text, Usage,
};
use crate::sse::{self, Chunks, StreamEvent};
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
            (StreamEvent = "text/event-stream"),
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
    let CompletionRequest { prompt, logprobs, parameters } = CompletionRequest::read(&fields)?;
    let Wanted { model, n, mut text, grammar } = Wanted::of(&parameters, &state)?;
    text.job.logprobs = logprobs;
    let texts = prompt.into_texts("prompt", &state.limits)?;
    let prepared = state.off_thread(&model, move |model, limits| {
        text.job.constraint = grammar.map(|grammar| model.compile(&grammar)).transpose()?;
        Ok((all_tokens(model, texts, "prompt", limits)?, text))
    });
    let (prompts, text) = prepared.await?;
    let generation = Generation::start(&model, prompts, n, text, arrived).await?;
    let mut writer = Writer {
        id: format!("cmpl-{id}"),
        created: unix_seconds(),
        model,
        include_usage: parameters.include_usage(),
        logprobs: logprobs.is_some(),
        offsets: vec![0; generation.choices()],
    };
    if parameters.is_stream() {
        return Ok(sse::respond(generation, writer));
    }
    let (answers, usage) = generation.collect().await?;
    let choices = answers.into_iter().enumerate().map(|(index, answer)| {
        let Answered { text, chosen, reason } = answer;
        writer.choice(index, text, &chosen, Some(finish_reason(reason)))
    });
    let choices = choices.collect();
    Ok(Json(writer.response(choices, Some(usage))).into_response())
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

/// Writes answers, whole or in pieces.
struct Writer {
    id: String,
    created: u64,
    model: Arc<Model>,
    include_usage: bool,
    logprobs: bool,
    /// Characters of each answer so far, as far as its tokens were told.
    offsets: Vec<usize>,
}

impl Writer {
    fn response(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> CompletionResponse {
        let Self { id, created, model, .. } = self;
        let (id, model) = (id.clone(), model.id.clone());
        CompletionResponse { id, object: "text_completion", created: *created, model, choices, usage }
    }

    fn choice(
        &mut self,
        index: usize,
        text: String,
        chosen: &[Chosen],
        finish_reason: Option<&'static str>,
    ) -> CompletionChoice {
        let logprobs = self.logprobs.then(|| {
            let (logprobs, end) =
                CompletionLogprobs::new(self.model.tokenizer(), chosen, self.offsets[index]);
            self.offsets[index] = end;
            logprobs
        });
        CompletionChoice { index, text, finish_reason, logprobs }
    }
}

impl Chunks for Writer {
    type Chunk = CompletionResponse;

    fn first(&mut self, _: usize) -> Option<CompletionResponse> {
        None
    }

    fn piece(&mut self, index: usize, piece: Piece) -> Vec<CompletionResponse> {
        let choice = match piece {
            Piece::Text { text, chosen } => self.choice(index, text, chosen.as_slice(), None),
            Piece::End(reason) => self.choice(index, String::new(), &[], Some(finish_reason(reason))),
        };
        vec![self.response(vec![choice], None)]
    }

    fn usage(&mut self, usage: Usage) -> Option<CompletionResponse> {
        self.include_usage.then(|| self.response(Vec::new(), Some(usage)))
    }
}
