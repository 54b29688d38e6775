//! Where a model keeps its chat templates.

use serde::Deserialize;

use super::{ChatTemplate, Conversation, TemplateError};

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The chat templates of a model: one for all conversations, or another one for those with tools.
#[derive(Debug, Clone)]
pub struct ChatTemplates {
    default: ChatTemplate,
    tool_use: Option<ChatTemplate>,
}

impl ChatTemplates {
    /// One template for all conversations.
    pub fn new(default: ChatTemplate) -> Self {
        Self { default, tool_use: None }
    }

    /// The templates of a `tokenizer_config.json`: a text, or a list of named texts of which `default` and `tool_use`
    /// are known. `None` if there are none.
    ///
    /// # Errors
    /// Another form; those of the templates.
    pub fn from_tokenizer_config(
        json: &str,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> Result<Option<Self>, TemplateError> {
        let config: TokenizerConfig = serde_json::from_str(json).map_err(|error| TemplateError::Form {
            origin: TOKENIZER_CONFIG.to_owned(),
            reason: error.to_string(),
        })?;
        match config.chat_template {
            None => Ok(None),
            Some(Source::One(source)) => {
                let origin = format!("the chat template in {TOKENIZER_CONFIG}");
                ChatTemplate::new(&source, &origin, bos_token, eos_token).map(Self::new).map(Some)
            }
            Some(Source::Named(sources)) => {
                let sources = sources.iter().map(|named| (named.name.as_str(), named.template.as_str()));
                Self::from_named(sources, TOKENIZER_CONFIG, bos_token, eos_token)
            }
        }
    }

    /// Templates by name. `None` if there are none.
    ///
    /// # Errors
    /// No `default` among several; those of the templates.
    pub fn from_named<'a>(
        sources: impl IntoIterator<Item = (&'a str, &'a str)>,
        file: &str,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> Result<Option<Self>, TemplateError> {
        let sources: Vec<(&str, &str)> = sources.into_iter().collect();
        let named = |name: &str| match sources.iter().find(|(named, _)| *named == name) {
            None => Ok(None),
            Some((_, source)) => {
                let origin = format!("the chat template {name} in {file}");
                ChatTemplate::new(source, &origin, bos_token, eos_token).map(Some)
            }
        };
        match named(DEFAULT)? {
            Some(default) => Ok(Some(Self { default, tool_use: named(TOOL_USE)? })),
            None if sources.is_empty() => Ok(None),
            None => {
                let names: Vec<&str> = sources.iter().map(|(name, _)| *name).collect();
                let reason = format!("no chat template {DEFAULT}, only {}", names.join(", "));
                Err(TemplateError::Form { origin: file.to_owned(), reason })
            }
        }
    }

    /// The one for conversations with tools, if it takes any.
    #[must_use]
    pub fn with_tools(&self) -> Option<&ChatTemplate> {
        Some(self.tool_use.as_ref().unwrap_or(&self.default)).filter(|template| template.takes_tools())
    }

    /// The one for this conversation.
    pub fn of(&self, conversation: &Conversation) -> &ChatTemplate {
        match &self.tool_use {
            Some(template) if conversation.has_tools() => template,
            _ => &self.default,
        }
    }
}

#[derive(Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Source>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "chat_template must be a text, or a list of objects with name and template")]
enum Source {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}
