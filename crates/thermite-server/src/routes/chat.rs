//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use thermite_engine::chat::Conversation;

use crate::clock::unix_seconds;
use crate::generation::{Generation, Piece, finish_reason};
use crate::guard::{Arrived, JsonObject, RequestId};
use crate::limits::Limits;
use crate::model::Model;
use crate::openai::{
    Answer, ApiError, ChatChoice, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatMessage, ChatRequest,
    ChatResponse, Delta, ErrorBody, Usage,
};
use crate::sse::{self, Chunks};
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
            (ChatChunk = "text/event-stream"),
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
    let ChatRequest { messages, likelihood, parameters } = ChatRequest::read(&fields, &state.limits)?;
    let model = state.model(parameters.model.as_deref())?;
    let limits = &state.limits;
    let (n, stop) = (parameters.n(limits)?, parameters.stop(limits)?);
    let (mut job, grammar) = (parameters.job(limits)?, parameters.grammar()?);
    job.logprobs = likelihood.wanted()?;
    let (preparing, limits) = (Arc::clone(&model), limits.clone());
    let prepared = state.off_thread(move || {
        job.constraint = grammar.map(|grammar| preparing.compile(&grammar)).transpose()?;
        Ok((tokens(&preparing, messages, &limits)?, job))
    });
    let (prompt, job) = prepared.await?;
    let generation = Generation::start(&model, vec![prompt], n, job, stop, arrived).await?;
    let head = Head { id: format!("chatcmpl-{id}"), created: unix_seconds(), model: model.id.clone() };
    if parameters.is_stream() {
        let chunks = ChatChunks { head, model, include_usage: parameters.include_usage() };
        return Ok(sse::respond(generation, chunks));
    }
    let (answers, usage) = generation.collect().await?;
    let choices = answers.into_iter().enumerate().map(|(index, answer)| ChatChoice {
        index,
        message: Answer { role: "assistant", content: Some(answer.text), refusal: None },
        finish_reason: finish_reason(answer.reason),
        logprobs: likelihood
            .wanted()
            .ok()
            .flatten()
            .map(|_| ChatLogprobs::new(model.tokenizer(), &answer.chosen)),
    });
    let choices = choices.collect();
    let Head { id, created, model } = head;
    Ok(Json(ChatResponse { id, object: "chat.completion", created, model, choices, usage }).into_response())
}

/// The conversation's tokens. A model without a chat template goes on from what was said, as from one text.
fn tokens(model: &Model, messages: Vec<ChatMessage>, limits: &Limits) -> Result<Vec<u32>, ApiError> {
    let bytes: usize = messages.iter().map(|message| message.text().len()).sum();
    limits.check_text("messages", bytes)?;
    let Some(templates) = model.templates() else {
        let texts: Vec<String> = messages.iter().map(ChatMessage::text).collect();
        return Ok(model.encode(&joined(&texts))?);
    };
    let messages: Vec<_> = messages.into_iter().map(ChatMessage::into_json).collect();
    Ok(model.encode_chat(templates, &Conversation::new(&messages))?)
}

/// The texts as one, in which words do not run into each other.
fn joined(texts: &[String]) -> String {
    texts.iter().fold(String::new(), |mut joined, text| {
        let opens_word = text.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '"' | '“' | '('));
        if opens_word && joined.chars().last().is_some_and(|last| !last.is_whitespace()) {
            joined.push(' ');
        }
        joined + text
    })
}

/// What all pieces of an answer say.
struct Head {
    id: String,
    created: u64,
    model: String,
}

struct ChatChunks {
    head: Head,
    model: Arc<Model>,
    include_usage: bool,
}

impl ChatChunks {
    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Usage>) -> ChatChunk {
        let Head { id, created, model } = &self.head;
        let (id, model) = (id.clone(), model.clone());
        ChatChunk { id, object: "chat.completion.chunk", created: *created, model, choices, usage }
    }

    fn with_logprobs(
        &self,
        index: usize,
        delta: Delta,
        finish_reason: Option<&'static str>,
        logprobs: Option<ChatLogprobs>,
    ) -> ChatChunk {
        self.chunk(vec![ChatChunkChoice { index, delta, finish_reason, logprobs }], None)
    }

    fn choice(&self, index: usize, delta: Delta, finish_reason: Option<&'static str>) -> ChatChunk {
        self.with_logprobs(index, delta, finish_reason, None)
    }
}

impl Chunks for ChatChunks {
    type Chunk = ChatChunk;

    fn first(&mut self, index: usize) -> Option<ChatChunk> {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
        Some(self.choice(index, delta, None))
    }

    fn piece(&mut self, index: usize, piece: Piece) -> Vec<ChatChunk> {
        vec![match piece {
            Piece::Text { text, chosen } => {
                let logprobs = chosen.map(|chosen| ChatLogprobs::new(self.model.tokenizer(), &[chosen]));
                self.with_logprobs(index, Delta { role: None, content: Some(text) }, None, logprobs)
            }
            Piece::End(reason) => self.choice(index, Delta::default(), Some(finish_reason(reason))),
        }]
    }

    fn usage(&mut self, usage: Usage) -> Option<ChatChunk> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(usage)))
    }
}
