//! `/v1/completions`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApiError, CompletionLogprobs, Fields, Other, Parameters, Usage, check, read};
use crate::limits::Limits;

/// A text to go on from.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct CompletionRequest {
    /// The text, or several, as they are or as tokens.
    pub(crate) prompt: Input,
    /// With each token the likelihood of it and of so many others.
    #[schema(minimum = 0, maximum = 20)]
    pub(crate) logprobs: Option<usize>,
    #[serde(flatten)]
    pub(crate) parameters: Parameters,
}

/// Texts, as they are or as tokens.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids, or a list of such lists"
)]
pub(crate) enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// One text.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    Text(String),
    Tokens(Vec<u32>),
}

impl Input {
    /// One by one.
    ///
    /// # Errors
    /// 400 for none, or for more than are allowed.
    pub(crate) fn into_texts(self, name: &'static str, limits: &Limits) -> Result<Vec<Text>, ApiError> {
        let texts: Vec<Text> = match self {
            Self::Text(text) => vec![Text::Text(text)],
            Self::Tokens(tokens) => vec![Text::Tokens(tokens)],
            Self::Texts(texts) => texts.into_iter().map(Text::Text).collect(),
            Self::TokenLists(lists) => lists.into_iter().map(Text::Tokens).collect(),
        };
        if texts.is_empty() || texts.len() > limits.inputs {
            let message = format!("{name} has {} entries; it must have 1 to {}", texts.len(), limits.inputs);
            return Err(ApiError::invalid(message).param(name));
        }
        Ok(texts)
    }
}

#[derive(Deserialize)]
struct Own {
    prompt: Input,
    logprobs: Option<usize>,
}

impl CompletionRequest {
    const OTHERS: &[Other] =
        &[Other::Only("best_of", &["1"]), Other::Only("echo", &["false"]), Other::Only("suffix", &["\"\""])];

    /// Reads a request.
    ///
    /// # Errors
    /// 400 for a field that is unknown, not supported or of another form.
    pub(crate) fn read(fields: &Fields) -> Result<Self, ApiError> {
        check(
            fields,
            &[&["prompt", "logprobs"], Parameters::FIELDS],
            &[Parameters::OTHERS, Self::OTHERS].concat(),
        )?;
        let Own { prompt, logprobs } = read(fields)?;
        if let Some(top @ 21..) = logprobs {
            let message = format!("logprobs is {top}; it must be from 0 to 20");
            return Err(ApiError::invalid(message).param("logprobs"));
        }
        Ok(Self { prompt, logprobs, parameters: read(fields)? })
    }
}

/// How the text goes on; in a stream, the next piece of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CompletionResponse {
    pub(crate) id: String,
    #[schema(value_type = String, example = "text_completion")]
    pub(crate) object: &'static str,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
}

/// One of the texts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    /// Its prompt's place, times `n`, and its own among the `n`.
    pub(crate) index: usize,
    pub(crate) text: String,
    /// `stop` or `length`.
    #[schema(value_type = Option<String>)]
    pub(crate) finish_reason: Option<&'static str>,
    pub(crate) logprobs: Option<CompletionLogprobs>,
}
