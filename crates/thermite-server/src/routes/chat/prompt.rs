//! What a conversation becomes: tokens, and what the answer has to be.

use thermite_engine::Grammar;
use thermite_engine::chat::tools::ToolFormat;
use thermite_engine::chat::{Conversation, Message, Tool, joined};

use crate::limits::Limits;
use crate::model::Model;
use crate::openai::{ApiError, ChatMessage, ToolChoice, ToolMode, Tools};
use crate::worker::TextJob;

/// What a conversation is made of.
pub(super) struct Asked {
    pub(super) messages: Vec<ChatMessage>,
    pub(super) tools: Tools,
    pub(super) grammar: Option<Grammar>,
    pub(super) text: TextJob,
}

/// What it becomes.
pub(super) struct Prepared {
    pub(super) tokens: Vec<u32>,
    pub(super) text: TextJob,
    /// How the model writes tool calls, if it may call tools.
    pub(super) format: Option<&'static ToolFormat>,
}

impl Asked {
    /// Tokens, and what the answer has to be, for `model`.
    ///
    /// # Errors
    /// 400 for what the model, its template or the limits do not allow.
    pub(super) fn prepare(self, model: &Model, limits: &Limits) -> Result<Prepared, ApiError> {
        let Self { messages, tools, grammar, mut text } = self;
        let messages: Vec<Message> =
            messages.into_iter().map(ChatMessage::into_message).collect::<Result<_, _>>()?;
        let bytes = messages.iter().map(|message| message.content.len()).sum();
        limits.check_text("messages", bytes)?;

        let choice = tools.choice.unwrap_or(ToolChoice::Mode(ToolMode::Auto));
        let several = tools.parallel.unwrap_or(true) && !choice.is_named();
        let tools: Vec<Tool> = tools.tools.unwrap_or_default().into_iter().map(Tool::from).collect();
        let forced = choice.forced(&tools)?;
        if tools.is_empty() || choice.is_none() {
            if forced.is_some() {
                return Err(
                    ApiError::invalid("tool_choice wants a call, but there are no tools").param("tools")
                );
            }
            text.job.constraint = grammar.map(|grammar| model.compile(&grammar)).transpose()?;
            return Ok(Prepared { tokens: tokens(model, &messages, &[])?, text, format: None });
        }
        if grammar.is_some() {
            let message = "response_format and tools do not go together: a call has a form of its own";
            return Err(ApiError::invalid(message).param("response_format"));
        }
        let format = format_of(model)?;
        let forced = forced.map(|forced| format.grammar(&forced, several, model.tokenizer()));
        let compile = |grammar| model.compile(&grammar).map_err(|error| ApiError::from(error).param("tools"));
        text.job.constraint = forced.map(compile).transpose()?;
        text.shown = format.marks(model.tokenizer());
        Ok(Prepared { tokens: tokens(model, &messages, &tools)?, text, format: Some(format) })
    }
}

/// How the model writes tool calls.
fn format_of(model: &Model) -> Result<&'static ToolFormat, ApiError> {
    let template = model.templates().and_then(|templates| templates.with_tools());
    template.and_then(ToolFormat::of).ok_or_else(|| {
        let message = format!("the model {} was not made for tools: its chat template takes none", model.id);
        ApiError::invalid(message).param("tools").code("unsupported_parameter")
    })
}

/// The conversation's tokens. A model without a chat template goes on from what was said, as from one text.
fn tokens(model: &Model, messages: &[Message], tools: &[Tool]) -> Result<Vec<u32>, ApiError> {
    let Some(templates) = model.templates() else {
        return Ok(model.encode(&text_of(messages))?);
    };
    let conversation = Conversation::new(messages);
    let conversation = if tools.is_empty() { conversation } else { conversation.with_tools(tools) };
    Ok(model.encode_chat(templates, &conversation)?)
}

/// What was said as one text.
fn text_of(messages: &[Message]) -> String {
    messages.iter().fold(String::new(), |text, message| {
        let more = joined(text.chars().last(), &message.content);
        text + &more
    })
}
