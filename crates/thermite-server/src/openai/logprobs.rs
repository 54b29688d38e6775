//! How likely tokens were, as the two routes for text write it.

use std::collections::BTreeMap;

use serde::Serialize;
use thermite_engine::{Logprobs, Tokenizer};
use utoipa::ToSchema;

/// What stands for the logarithm of 0, which JSON cannot say.
const NEVER: f32 = -9999.0;

/// A chosen token, and how likely it and others were.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) token: u32,
    pub(crate) logprobs: Logprobs,
}

/// How likely the tokens of an answer were.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<TokenLogprob>,
    /// Always null.
    refusal: Option<Vec<TokenLogprob>>,
}

/// A token of an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    #[serde(flatten)]
    token: TokenText,
    /// The likeliest tokens in its place.
    top_logprobs: Vec<TokenText>,
}

/// A token with the natural logarithm of its probability.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct TokenText {
    /// Its text; bytes that are no UTF-8 are U+FFFD.
    token: String,
    /// -9999 for one that cannot be.
    logprob: f32,
    bytes: Vec<u8>,
}

impl TokenText {
    fn new(tokenizer: &Tokenizer, token: u32, logprob: f32) -> Self {
        let bytes = tokenizer.bytes(token).unwrap_or_default();
        Self { token: String::from_utf8_lossy(&bytes).into_owned(), logprob: logprob.max(NEVER), bytes }
    }
}

impl ChatLogprobs {
    /// Those of `chosen`.
    pub(crate) fn new(tokenizer: &Tokenizer, chosen: &[Chosen]) -> Self {
        let of = |&(token, logprob): &(u32, f32)| TokenText::new(tokenizer, token, logprob);
        let content = chosen.iter().map(|Chosen { token, logprobs }| TokenLogprob {
            token: of(&(*token, logprobs.chosen)),
            top_logprobs: logprobs.top.iter().map(of).collect(),
        });
        Self { content: content.collect(), refusal: None }
    }
}

/// How likely the tokens of a text were, in the older form.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Those of `chosen`, whose text begins behind `offset` characters; gives where it ends.
    pub(crate) fn new(tokenizer: &Tokenizer, chosen: &[Chosen], mut offset: usize) -> (Self, usize) {
        let mut all = Self::default();
        for Chosen { token, logprobs } in chosen {
            let of = |&(token, logprob): &(u32, f32)| {
                let TokenText { token, logprob, .. } = TokenText::new(tokenizer, token, logprob);
                (token, logprob)
            };
            let (text, logprob) = of(&(*token, logprobs.chosen));
            all.text_offset.push(offset);
            offset += text.chars().count();
            all.tokens.push(text);
            all.token_logprobs.push(logprob);
            all.top_logprobs.push(logprobs.top.iter().map(of).collect());
        }
        (all, offset)
    }
}
