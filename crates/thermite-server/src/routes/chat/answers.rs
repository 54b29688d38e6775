//! Answers to conversations, whole and in pieces.

use std::sync::Arc;

use super::speech::{Speech, Spoken};
use crate::generation::{Answered, Piece, finish_reason};
use crate::model::Model;
use crate::openai::{
    Answer, CallDelta, ChatChoice, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatResponse, Delta, Usage,
};
use crate::sse::Chunks;

/// Writes the answers to a conversation.
pub(super) struct Answers {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: Arc<Model>,
    /// One for each answer.
    pub(super) speeches: Vec<Speech>,
    pub(super) logprobs: bool,
    pub(super) include_usage: bool,
}

impl Answers {
    /// All of them at once.
    pub(super) fn whole(mut self, answered: Vec<Answered>, usage: Usage) -> ChatResponse {
        let choices = answered.into_iter().enumerate().map(|(index, answered)| self.choice(index, answered));
        let choices = choices.collect();
        let Self { id, created, model, .. } = self;
        ChatResponse { id, object: "chat.completion", created, model: model.id.clone(), choices, usage }
    }

    fn choice(&mut self, index: usize, answered: Answered) -> ChatChoice {
        let Answered { text, chosen, reason } = answered;
        let speech = &mut self.speeches[index];
        let (mut content, mut tool_calls) = (String::new(), Vec::new());
        let mut spoken = speech.push(text);
        spoken.extend(speech.finish());
        for spoken in spoken {
            match spoken {
                Spoken::Text(text) => content.push_str(&text),
                Spoken::Call(call) => tool_calls.push(call),
            }
        }
        let content = Some(content).filter(|content| tool_calls.is_empty() || !content.is_empty());
        ChatChoice {
            index,
            message: Answer { role: "assistant", content, tool_calls, refusal: None },
            finish_reason: speech.finish_reason(finish_reason(reason)),
            logprobs: self.logprobs.then(|| ChatLogprobs::new(self.model.tokenizer(), &chosen)),
        }
    }

    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Usage>) -> ChatChunk {
        let (id, model) = (self.id.clone(), self.model.id.clone());
        ChatChunk { id, object: "chat.completion.chunk", created: self.created, model, choices, usage }
    }

    fn delta(&self, index: usize, delta: Delta, finish_reason: Option<&'static str>) -> ChatChunk {
        self.chunk(vec![ChatChunkChoice { index, delta, finish_reason, logprobs: None }], None)
    }

    fn deltas(&self, index: usize, spoken: Vec<Spoken>) -> Vec<ChatChunk> {
        let calls = spoken.iter().filter(|spoken| matches!(spoken, Spoken::Call(_))).count();
        let mut place = self.speeches[index].calls() - calls;
        let delta = |spoken| match spoken {
            Spoken::Text(text) => Delta { content: Some(text), ..Delta::default() },
            Spoken::Call(call) => {
                let tool_calls = vec![CallDelta { index: place, call }];
                place += 1;
                Delta { tool_calls, ..Delta::default() }
            }
        };
        spoken.into_iter().map(delta).map(|delta| self.delta(index, delta, None)).collect()
    }
}

impl Chunks for Answers {
    type Chunk = ChatChunk;

    fn first(&mut self, index: usize) -> Option<ChatChunk> {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
        Some(self.delta(index, delta, None))
    }

    fn piece(&mut self, index: usize, piece: Piece) -> Vec<ChatChunk> {
        match piece {
            Piece::Text { text, chosen } => {
                let spoken = self.speeches[index].push(text);
                let mut chunks = self.deltas(index, spoken);
                if let Some(chosen) = chosen {
                    // also where the token's text is still held back
                    if chunks.is_empty() {
                        chunks.push(self.delta(index, Delta::default(), None));
                    }
                    let logprobs = ChatLogprobs::new(self.model.tokenizer(), &[chosen]);
                    chunks[0].choices[0].logprobs = Some(logprobs);
                }
                chunks
            }
            Piece::End(reason) => {
                let spoken = self.speeches[index].finish();
                let mut chunks = self.deltas(index, spoken);
                let reason = self.speeches[index].finish_reason(finish_reason(reason));
                chunks.push(self.delta(index, Delta::default(), Some(reason)));
                chunks
            }
        }
    }

    fn usage(&mut self, usage: Usage) -> Option<ChatChunk> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(usage)))
    }
}
