//! `/tokenize` and `/detokenize`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A text, or a conversation, of which the tokens are wanted.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    /// A model of `/v1/models`; the first one if none is named.
    pub(crate) model: Option<String>,
    /// The text.
    pub(crate) prompt: String,
    /// With what the model wants around a text, such as the token that begins it.
    #[serde(default = "yes")]
    pub(crate) add_special_tokens: bool,
}

fn yes() -> bool {
    true
}

/// The tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenizeResponse {
    pub(crate) count: usize,
    /// Tokens of the model's context.
    pub(crate) max_model_len: usize,
    pub(crate) tokens: Vec<u32>,
    /// The tokens as the vocabulary spells them.
    pub(crate) token_strs: Vec<String>,
}

/// Tokens of which the text is wanted.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    /// A model of `/v1/models`; the first one if none is named.
    pub(crate) model: Option<String>,
    /// The tokens.
    pub(crate) tokens: Vec<u32>,
}

/// The text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DetokenizeResponse {
    pub(crate) prompt: String,
}
