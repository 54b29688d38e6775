//! Answers in pieces: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use utoipa::ToSchema;

use crate::generation::{Generation, Piece, Said};
use crate::openai::{ApiError, Usage};

/// How often a stream that waits says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// An event of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what axum writes")]
pub(crate) struct StreamEvent {
    /// A piece of the answer in JSON: `CompletionResponse` or `ChatChunk`; `ErrorBody` where the answer breaks off. The
    /// last event of a whole answer is `[DONE]`.
    data: String,
}

/// How the pieces of an answer are written.
pub(crate) trait Chunks: Send + 'static {
    /// A piece.
    type Chunk: Serialize;

    /// What comes before an answer's first piece.
    fn first(&mut self, index: usize) -> Option<Self::Chunk>;
    /// More of an answer.
    fn piece(&mut self, index: usize, piece: Piece) -> Vec<Self::Chunk>;
    /// What comes after the last piece, if it was asked for.
    fn usage(&mut self, usage: Usage) -> Option<Self::Chunk>;
}

/// Streams what comes.
pub(crate) fn respond<C: Chunks>(generation: Generation, chunks: C) -> Response
where
    C::Chunk: Send,
{
    let begun = vec![false; generation.choices()];
    let stream = Streaming { generation, chunks, begun };
    let events = stream::unfold(Some(stream), |streaming| async move {
        let mut streaming = streaming?;
        match streaming.generation.next().await {
            Some(Ok(said)) => Some((streaming.say(said), Some(streaming))),
            Some(Err(error)) => Some((vec![event(&error.body)], None)),
            None => Some((streaming.end(), None)),
        }
    });
    let events = events.flat_map(stream::iter).map(Ok::<_, Infallible>);
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = sse.into_response();
    // proxies must not gather the pieces
    let name = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(name, HeaderValue::from_static("no"));
    response
}

struct Streaming<C> {
    generation: Generation,
    chunks: C,
    /// Which answers have begun.
    begun: Vec<bool>,
}

impl<C: Chunks> Streaming<C> {
    fn say(&mut self, Said { index, piece }: Said) -> Vec<Event> {
        let mut said = Vec::new();
        if !std::mem::replace(&mut self.begun[index], true) {
            said.extend(self.chunks.first(index));
        }
        said.extend(self.chunks.piece(index, piece));
        said.iter().map(event).collect()
    }

    fn end(&mut self) -> Vec<Event> {
        let usage = self.chunks.usage(self.generation.usage());
        usage.iter().map(event).chain([Event::default().data("[DONE]")]).collect()
    }
}

fn event(data: &impl Serialize) -> Event {
    let json = serde_json::to_string(data);
    Event::default().data(json.unwrap_or_else(|error| {
        let error = ApiError::server(format!("an event cannot be written: {error}"));
        error.body.error.message
    }))
}
