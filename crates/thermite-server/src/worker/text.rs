//! Tokens of a request to text that may be shown.

use thermite_engine::{Detokenizer, EmptyStop, StopMatcher, Stopping, Tokenizer};

/// Turns tokens into text that may be shown: never half a character, never the beginning of a stop string.
pub(super) struct Writer {
    detokenizer: Detokenizer,
    stops: StopMatcher,
}

impl Writer {
    /// A writer of a text behind a prompt, which ends where a string of `stop` begins.
    pub(super) fn new(tokenizer: &Tokenizer, stop: &[String]) -> Result<Self, EmptyStop> {
        let detokenizer = tokenizer.detokenizer(true).inside_a_text();
        Ok(Self { detokenizer, stops: StopMatcher::new(stop)? })
    }

    /// Takes the next token.
    pub(super) fn push(&mut self, token: u32) -> Stopping {
        self.detokenizer.push(token).map(|piece| self.stops.push(&piece)).unwrap_or_default()
    }

    /// What was held back. After a stop string that is nothing.
    pub(super) fn finish(self) -> String {
        let Self { detokenizer, mut stops } = self;
        let mut last = stops.push(&detokenizer.finish().unwrap_or_default()).text;
        last.push_str(&stops.finish());
        last
    }
}
