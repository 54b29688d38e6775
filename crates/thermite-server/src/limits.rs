//! How much a client may ask for.

use std::time::Duration;

use crate::openai::ApiError;

/// How much a client may ask for, and how long it may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; for one more, the one that has waited longest for a request is closed.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Time in which a connection must send the head of its next request.
    pub head_time: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Time in which a request's body must be there.
    pub body_time: Duration,
    /// Time in which a client must take something of what is ready for it.
    pub write_time: Duration,
    /// Answers to a prompt (`n`).
    pub choices: usize,
    /// Prompts or texts of a request.
    pub inputs: usize,
    /// Messages of a conversation.
    pub messages: usize,
    /// Bytes of a text that is to be tokenised.
    pub text_bytes: usize,
    /// Strings that end a text.
    pub stops: usize,
    /// Bytes of such a string.
    pub stop_bytes: usize,
    /// Tokens of an answer; as many as the context holds if not given.
    pub tokens: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head_bytes: 32 << 10,
            head_time: Duration::from_secs(10),
            body_bytes: 4 << 20,
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(60),
            choices: 16,
            inputs: 64,
            messages: 4096,
            text_bytes: 1 << 20,
            stops: 16,
            stop_bytes: 256,
            tokens: None,
        }
    }
}

impl Limits {
    /// Checks the length of a text that is to be tokenised.
    ///
    /// # Errors
    /// 400 with the numbers.
    pub(crate) fn check_text(&self, field: &str, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.text_bytes {
            return Ok(());
        }
        let message = format!("{field} has {bytes} bytes of text; {} are allowed", self.text_bytes);
        Err(ApiError::invalid(message).param(field).code("string_above_max_length"))
    }
}
