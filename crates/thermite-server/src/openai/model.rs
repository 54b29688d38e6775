//! `/v1/models`, and the numbers of tokens in answers.

use serde::Serialize;
use utoipa::ToSchema;

/// A model that is served.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ModelCard {
    pub(crate) id: String,
    #[schema(value_type = String, example = "model")]
    pub(crate) object: &'static str,
    /// When it was loaded, in seconds since 1970.
    pub(crate) created: u64,
    #[schema(value_type = String, example = "thermite")]
    pub(crate) owned_by: &'static str,
    /// Tokens of prompt and answer together.
    pub(crate) context_length: usize,
    /// Whether it has a chat template. One without goes on from the messages as from one text.
    pub(crate) chat_template: bool,
}

/// The models that are served.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    #[schema(value_type = String, example = "list")]
    pub(crate) object: &'static str,
    pub(crate) data: Vec<ModelCard>,
}

/// Numbers of tokens.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptTokens,
}

/// Of the tokens of prompts.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct PromptTokens {
    /// Those that were found in the cache.
    pub(crate) cached_tokens: usize,
}

impl Usage {
    pub(crate) const fn new(prompt_tokens: usize, cached_tokens: usize, completion_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokens { cached_tokens },
        }
    }
}
