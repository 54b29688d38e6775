//! `/v1/chat/completions`.

use serde::{Deserialize, Serialize};
use thermite_engine::chat::Message;
use utoipa::ToSchema;

use super::{
    ApiError, Call, CallDelta, ChatLogprobs, ChatTool, Fields, Other, Parameters, ToolChoice, Usage, check,
    read,
};
use crate::limits::Limits;

/// A conversation to be answered.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct ChatRequest {
    /// The messages so far.
    #[schema(min_items = 1)]
    pub(crate) messages: Vec<ChatMessage>,
    #[serde(flatten)]
    pub(crate) likelihood: Likelihood,
    #[serde(flatten)]
    pub(crate) tools: Tools,
    #[serde(flatten)]
    pub(crate) parameters: Parameters,
}

/// A message of the conversation.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatMessage {
    /// Who speaks. `developer` is another word for `system`.
    role: Role,
    /// What is said.
    content: Option<Content>,
    /// The speaker's name, which only some chat templates write.
    name: Option<String>,
    /// The tools that an assistant called.
    tool_calls: Option<Vec<Call>>,
    /// The call that a tool answers.
    tool_call_id: Option<String>,
    /// What other servers' models refused with; no chat template writes it.
    #[serde(rename = "refusal")]
    _refusal: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::System | Self::Developer => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A text, or its parts: a line each.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of parts of type text")]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a text.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Part {
    Text { text: String },
}

impl Content {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => {
                let texts: Vec<String> = parts.into_iter().map(|Part::Text { text }| text).collect();
                texts.join("\n")
            }
        }
    }
}

/// Whether answers tell how likely their tokens were.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct Likelihood {
    /// They do.
    #[schema(default = false)]
    logprobs: Option<bool>,
    /// With so many of the likeliest tokens in the place of each.
    #[schema(minimum = 0, maximum = 20, default = 0)]
    top_logprobs: Option<usize>,
}

impl Likelihood {
    const FIELDS: &[&str] = &["logprobs", "top_logprobs"];
    const MOST: usize = 20;

    /// How many of the likeliest tokens are wanted, if any of this is.
    ///
    /// # Errors
    /// 400 for too many, or for a number without the word.
    pub(crate) fn wanted(&self) -> Result<Option<usize>, ApiError> {
        let error = |message: String| Err(ApiError::invalid(message).param("top_logprobs"));
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (_, Some(top)) if top > Self::MOST => {
                error(format!("top_logprobs is {top}; it must be from 0 to {}", Self::MOST))
            }
            (false, Some(1..)) => error("top_logprobs is for requests with logprobs: true".to_owned()),
            (false, _) => Ok(None),
            (true, top) => Ok(Some(top.unwrap_or(0))),
        }
    }
}

/// Tools that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct Tools {
    /// The tools.
    pub(crate) tools: Option<Vec<ChatTool>>,
    /// Whether it calls them, and which.
    #[serde(rename = "tool_choice")]
    pub(crate) choice: Option<ToolChoice>,
    /// Whether it may call more than one in an answer.
    #[serde(rename = "parallel_tool_calls")]
    #[schema(default = true)]
    pub(crate) parallel: Option<bool>,
}

impl Tools {
    const FIELDS: &[&str] = &["tools", "tool_choice", "parallel_tool_calls"];
}

#[derive(Deserialize)]
struct Messages {
    messages: Vec<ChatMessage>,
}

impl ChatRequest {
    const OTHERS: &[Other] = &[
        Other::Only("modalities", &["[\"text\"]"]),
        Other::Unsupported("audio"),
        Other::Unsupported("function_call"),
        Other::Unsupported("functions"),
        Other::Unsupported("prediction"),
        Other::Unsupported("reasoning_effort"),
        Other::Unsupported("verbosity"),
        Other::Unsupported("web_search_options"),
    ];

    /// Reads a request.
    ///
    /// # Errors
    /// 400 for a field that is unknown, not supported or of another form.
    pub(crate) fn read(fields: &Fields, limits: &Limits) -> Result<Self, ApiError> {
        let known: [&[&str]; 4] = [&["messages"], Likelihood::FIELDS, Tools::FIELDS, Parameters::FIELDS];
        check(fields, &known, &[Parameters::OTHERS, Self::OTHERS].concat())?;
        let Messages { messages } = read(fields)?;
        if messages.is_empty() || messages.len() > limits.messages {
            let message =
                format!("messages has {} entries; it must have 1 to {}", messages.len(), limits.messages);
            return Err(ApiError::invalid(message).param("messages"));
        }
        let (likelihood, tools) = (read(fields)?, read(fields)?);
        Ok(Self { messages, likelihood, tools, parameters: read(fields)? })
    }
}

impl ChatMessage {
    /// The same in the engine's terms.
    ///
    /// # Errors
    /// 400 for calls whose arguments are no JSON object.
    pub(crate) fn into_message(self) -> Result<Message, ApiError> {
        let calls = self.tool_calls.unwrap_or_default().into_iter().map(Call::into_engine);
        Ok(Message {
            role: self.role.name().to_owned(),
            content: self.content.map(Content::into_text).unwrap_or_default(),
            name: self.name,
            tool_calls: calls.collect::<Result<_, _>>()?,
            tool_call_id: self.tool_call_id,
        })
    }
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatResponse {
    pub(crate) id: String,
    #[schema(value_type = String, example = "chat.completion")]
    pub(crate) object: &'static str,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<ChatChoice>,
    pub(crate) usage: Usage,
}

/// One of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    pub(crate) index: usize,
    pub(crate) message: Answer,
    /// `stop`, `length` or `tool_calls`.
    #[schema(value_type = String)]
    pub(crate) finish_reason: &'static str,
    pub(crate) logprobs: Option<ChatLogprobs>,
}

/// What the model says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer {
    #[schema(value_type = String, example = "assistant")]
    pub(crate) role: &'static str,
    pub(crate) content: Option<String>,
    /// The tools that it calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<Call>,
    /// Always null: models refuse in words.
    pub(crate) refusal: Option<String>,
}

/// A piece of a stream.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ChatChunk {
    pub(crate) id: String,
    #[schema(value_type = String, example = "chat.completion.chunk")]
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<ChatChunkChoice>,
    /// In the last piece, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
}

/// What a piece adds to one of the answers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ChatChunkChoice {
    pub(crate) index: usize,
    pub(crate) delta: Delta,
    #[schema(value_type = Option<String>)]
    pub(crate) finish_reason: Option<&'static str>,
    pub(crate) logprobs: Option<ChatLogprobs>,
}

/// More of an answer.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<CallDelta>,
}
