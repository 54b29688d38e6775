//! Tokens to text that may be shown.

use crate::stop::{EmptyStop, StopMatcher, Stopping};
use crate::tokenizer::{Detokenizer, Tokenizer};

/// Turns the tokens behind a prompt into text that may be shown: never half a character, never the beginning of a stop
/// string.
#[derive(Debug, Clone)]
pub struct Writer {
    detokenizer: Detokenizer,
    stops: StopMatcher,
}

impl Writer {
    /// A writer of a text that ends where a string of `stop` begins, and in which the special tokens `shown` are
    /// spelled out.
    ///
    /// # Errors
    /// A stop string that is empty.
    pub fn new(tokenizer: &Tokenizer, stop: &[String], shown: Vec<u32>) -> Result<Self, EmptyStop> {
        let detokenizer = tokenizer.detokenizer(true).inside_a_text().showing(shown);
        Ok(Self { detokenizer, stops: StopMatcher::new(stop)? })
    }

    /// Takes the next token.
    pub fn push(&mut self, token: u32) -> Stopping {
        self.detokenizer.push(token).map(|piece| self.stops.push(&piece)).unwrap_or_default()
    }

    /// Ends the text: gives what was held back. After a stop string that is nothing.
    #[must_use]
    pub fn finish(self) -> String {
        let Self { detokenizer, mut stops } = self;
        let mut last = stops.push(&detokenizer.finish().unwrap_or_default()).text;
        last.push_str(&stops.finish());
        last
    }
}
