//! Conversations to prompts: a model's chat template.
//!
//! A chat template is a Jinja template that a model brings along. It is rendered by minijinja, set up as Hugging
//! Face's `apply_chat_template` sets up Jinja, so that one template gives one text. It is a program from outside, and
//! gets a budget: fuel for its steps and for every byte that it makes, which bounds time, memory and output alike.

mod environment;
mod format;
mod generation;
mod json;
mod message;
mod plain;
mod prompt;
mod source;
#[cfg(test)]
mod tests;
pub mod tools;

use std::fmt;

use jiff::Zoned;
use minijinja::ErrorKind;
use minijinja::value::{Serde, Value};
use serde::Serialize;

use self::environment::{Raised, environment};
use self::generation::without_generation_tags;
use self::prompt::{Marker, texts_of};

pub use self::message::{Function, FunctionCall, Message, Tool, ToolCall, ToolKind};
pub use self::plain::joined;
pub use self::prompt::Prompt;
pub use self::source::ChatTemplates;
/// A value of a template: what JSON can say.
pub use minijinja::value::Value as TemplateValue;

/// Fuel of every rendering: one for a step, and for 64 bytes that are made.
const FUEL: u64 = 1 << 17;

/// Fuel for a byte of the conversation on top of that: steps are taken for every message.
const FUEL_PER_BYTE: u64 = 16;

/// Fuel of the longest conversation.
const MAX_FUEL: u64 = 1 << 21;

/// Bytes of stack for one fuel. A template can nest values into each other, and whoever prints or frees them recurses.
const STACK_PER_FUEL: usize = 256;

/// Bytes of a template's source, at most.
const MAX_SOURCE: usize = 1 << 20;

/// What is wrong with a chat template, or with what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A template that is no template.
    #[error("{origin}, line {line}: {reason}")]
    Syntax {
        /// Where it comes from.
        origin: String,
        /// The line.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A source that is too long.
    #[error("{origin}: a template of {len} bytes; {limit} are allowed")]
    TooLong {
        /// Where it comes from.
        origin: String,
        /// Its bytes.
        len: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The template says that it does not serve this conversation.
    #[error("the model's chat template refuses this conversation: {message}")]
    Raised {
        /// Its words.
        message: String,
    },
    /// It went on for too long.
    #[error("{origin}, line {line}: the template needs more than its {fuel} steps")]
    OutOfFuel {
        /// Where it comes from.
        origin: String,
        /// Where it was stopped.
        line: usize,
        /// What it had.
        fuel: u64,
    },
    /// It asked for something impossible.
    #[error("{origin}, line {line}: {reason}")]
    Render {
        /// Where it comes from.
        origin: String,
        /// The line.
        line: usize,
        /// Why.
        reason: String,
    },
    /// No thread to render it on.
    #[error("no thread to render a chat template on: {0}")]
    Thread(std::io::Error),
    /// `chat_template` has another form than a text or a list of named ones.
    #[error("{origin}: {reason}")]
    Form {
        /// The file or key.
        origin: String,
        /// Why.
        reason: String,
    },
}

/// What a template is rendered with.
#[derive(Debug, Clone)]
pub struct Conversation {
    messages: Value,
    tools: Value,
    add_generation_prompt: bool,
    extra: Vec<(String, Value)>,
}

impl Conversation {
    /// A conversation whose next message is to come from the model. `messages` are [`Message`]s, or a JSON list of
    /// richer ones.
    pub fn new(messages: &(impl Serialize + ?Sized)) -> Self {
        let messages = Value::from(Serde(messages));
        Self { messages, tools: Value::from(()), add_generation_prompt: true, extra: Vec::new() }
    }

    /// With tools (a list of JSON objects) that the model may call.
    #[must_use]
    pub fn with_tools(self, tools: &(impl Serialize + ?Sized)) -> Self {
        Self { tools: Value::from(Serde(tools)), ..self }
    }

    /// Whether the text ends with what begins a message of the model.
    #[must_use]
    pub fn with_generation_prompt(self, add_generation_prompt: bool) -> Self {
        Self { add_generation_prompt, ..self }
    }

    /// With another variable, such as `enable_thinking`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        self.extra.push((name.to_owned(), Value::from(Serde(value))));
        self
    }

    pub(crate) fn has_tools(&self) -> bool {
        self.tools.is_true()
    }
}

/// A chat template.
#[derive(Clone)]
pub struct ChatTemplate {
    source: String,
    /// Where it comes from: what errors call it.
    origin: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
    /// It asks for tools.
    takes_tools: bool,
    now: fn() -> Zoned,
}

impl ChatTemplate {
    /// Takes the template `source`, which comes from `origin`; the tokens are spelled as in the vocabulary.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] and [`TemplateError::TooLong`].
    pub fn new(
        source: &str,
        origin: &str,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE {
            let (origin, len, limit) = (origin.to_owned(), source.len(), MAX_SOURCE);
            return Err(TemplateError::TooLong { origin, len, limit });
        }
        let mut template = Self {
            source: without_generation_tags(source).into_owned(),
            origin: origin.to_owned(),
            bos_token: bos_token.map(str::to_owned),
            eos_token: eos_token.map(str::to_owned),
            takes_tools: false,
            now: Zoned::now,
        };
        let variables = environment(None, FUEL, Zoned::now).and_then(|env| {
            Ok(env.template_from_named_str("", &template.source)?.undeclared_variables(false))
        });
        template.takes_tools = variables.map_err(|error| template.error(&error, FUEL))?.contains("tools");
        Ok(template)
    }

    /// Whether the template writes the tools of a conversation into its text: one that does not is not to be given any.
    #[must_use]
    pub const fn takes_tools(&self) -> bool {
        self.takes_tools
    }

    /// The text of `conversation`.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] if the template does not serve it; other errors are the template's own.
    pub fn render(&self, conversation: &Conversation) -> Result<String, TemplateError> {
        self.render_marked(conversation, None)
    }

    /// The text of `conversation`, in which no message, tool or variable can spell one of the `special` tokens: see
    /// [`Prompt`].
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn prompt<'a>(
        &self,
        conversation: &Conversation,
        special: impl IntoIterator<Item = &'a str>,
    ) -> Result<Prompt, TemplateError> {
        let texts: Vec<_> = conversation.values().flat_map(texts_of).collect();
        let mark = Marker::unused_in(texts.iter().map(AsRef::as_ref).chain([self.source.as_str()]));
        let marker = Marker { mark, special: special.into_iter().collect() };
        let marked = Conversation {
            messages: marker.mark_messages(&conversation.messages),
            tools: marker.mark_value(&conversation.tools),
            add_generation_prompt: conversation.add_generation_prompt,
            extra: conversation
                .extra
                .iter()
                .map(|(name, value)| (name.clone(), marker.mark_value(value)))
                .collect(),
        };
        let text = self.render_marked(&marked, Some(mark))?;
        Ok(Prompt::from_marked(&text, mark))
    }

    fn render_marked(
        &self,
        conversation: &Conversation,
        mark: Option<char>,
    ) -> Result<String, TemplateError> {
        let bytes: usize = conversation.values().flat_map(texts_of).map(|text| text.len()).sum();
        let fuel = FUEL_PER_BYTE.saturating_mul(bytes as u64).saturating_add(FUEL).min(MAX_FUEL);
        let render = || {
            let env = environment(mark, fuel, self.now)?;
            env.template_from_named_str("", &self.source)?.render(self.variables(conversation))
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(fuel as usize * STACK_PER_FUEL);
            let rendering = thread.spawn_scoped(scope, render).map_err(TemplateError::Thread)?;
            match rendering.join() {
                Ok(rendered) => rendered.map_err(|error| self.error(&error, fuel)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn variables(&self, conversation: &Conversation) -> Value {
        let Conversation { messages, tools, add_generation_prompt, extra } = conversation;
        let mut variables = vec![
            ("messages", messages.clone()),
            ("tools", tools.clone()),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(*add_generation_prompt)),
        ];
        for (name, token) in [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)] {
            variables.extend(token.iter().map(|token| (name, Value::from(token.as_str()))));
        }
        variables.extend(extra.iter().map(|(name, value)| (name.as_str(), value.clone())));
        Value::from_pairs(variables)
    }

    fn error(&self, error: &minijinja::Error, fuel: u64) -> TemplateError {
        if let Some(Raised(message)) = raised(error) {
            return TemplateError::Raised { message: message.clone() };
        }
        let (origin, line) = (self.origin.clone(), error.line().unwrap_or(1));
        let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        match error.kind() {
            ErrorKind::SyntaxError => TemplateError::Syntax { origin, line, reason },
            ErrorKind::OutOfFuel => TemplateError::OutOfFuel { origin, line, fuel },
            _ => TemplateError::Render { origin, line, reason },
        }
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Conversation {
    fn values(&self) -> impl Iterator<Item = &Value> {
        [&self.messages, &self.tools].into_iter().chain(self.extra.iter().map(|(_, value)| value))
    }
}

/// The template's own word, if that is what an error comes from.
fn raised(error: &minijinja::Error) -> Option<&Raised> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(raised) = error.downcast_ref() {
            return Some(raised);
        }
        cause = error.source();
    }
    None
}
