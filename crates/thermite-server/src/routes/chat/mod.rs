//! `POST /v1/chat/completions`.

mod answers;
mod prompt;
mod speech;

use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use self::answers::Answers;
use self::prompt::{Asked, Prepared};
use self::speech::Speech;
use super::wanted::Wanted;
use crate::clock::unix_seconds;
use crate::generation::Generation;
use crate::guard::{Arrived, JsonObject, RequestId};
use crate::openai::{ApiError, ChatRequest, ChatResponse, ErrorBody};
use crate::sse::{self, StreamEvent};
use crate::state::Shared;

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "OpenAI",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer, or with `stream` its pieces as server-sent events", content(
            (ChatResponse = "application/json"),
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
    let ChatRequest { messages, likelihood, tools, parameters } = ChatRequest::read(&fields, &state.limits)?;
    let Wanted { model, n, mut text, grammar } = Wanted::of(&parameters, &state)?;
    text.job.logprobs = likelihood.wanted()?;
    let (logprobs, several) = (text.job.logprobs.is_some(), tools.parallel.unwrap_or(true));
    let asked = Asked { messages, tools, grammar, text };
    let prepare = move |model: &_, limits: &_| asked.prepare(model, limits);
    let Prepared { tokens, text, format } = state.off_thread(&model, prepare).await?;
    let generation = Generation::start(&model, vec![tokens], n, text, arrived).await?;
    let answers = Answers {
        speeches: (0..n).map(|i| Speech::new(format, format!("{id}_{i}"), several)).collect(),
        id: format!("chatcmpl-{id}"),
        created: unix_seconds(),
        model,
        logprobs,
        include_usage: parameters.include_usage(),
    };
    if parameters.is_stream() {
        return Ok(sse::respond(generation, answers));
    }
    let (answered, usage) = generation.collect().await?;
    Ok(Json(answers.whole(answered, usage)).into_response())
}
