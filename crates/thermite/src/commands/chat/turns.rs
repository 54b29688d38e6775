//! How a line becomes tokens: as a message in the model's chat template, or as more of one text.

use thermite_device::Device;
use thermite_engine::chat::{ChatTemplates, Conversation, Message, joined};
use thermite_engine::{Engine, Tokenizer, load_chat_templates};
use thermite_formats::ModelFiles;

use crate::cli::ChatArgs;
use crate::error::Error;

/// What has been said, and how more is added to it.
pub(super) enum Turns {
    /// Messages, written as a template has it.
    Messages { templates: Box<ChatTemplates>, system: Option<Message>, messages: Vec<Message> },
    /// One text, and its last character, if there is one.
    Text { last: Option<char> },
}

/// What is to be run for a turn.
pub(super) struct Next {
    /// Tokens of the sequence that stay.
    pub(super) kept: usize,
    /// Tokens behind them.
    pub(super) tokens: Vec<u32>,
    /// The line as it was added.
    pub(super) text: String,
}

impl Turns {
    /// Those that the arguments and the model ask for, and a word on them.
    pub(super) fn of(
        args: &ChatArgs,
        files: &ModelFiles,
        tokenizer: &Tokenizer,
    ) -> Result<(Self, String), Error> {
        let text = Self::Text { last: None };
        if args.raw {
            return Ok((text, "The model goes on from what you type.".to_owned()));
        }
        let (templates, how) = match templates_of(files, tokenizer)? {
            Some((templates, None)) => (templates, "The model answers what you type.".to_owned()),
            Some((templates, Some(name))) => {
                (templates, format!("No chat template, but the tokens of {name}: the model answers in it."))
            }
            None if args.system.is_some() => {
                let model = &args.model.model;
                return Err(Error::Usage(format!(
                    "--system needs a chat template, which {model} does not have"
                )));
            }
            None => return Ok((text, "No chat template: the model goes on from what you type.".to_owned())),
        };
        let system = args.system.as_ref().map(|text| Message::new("system", text));
        Ok((Self::Messages { templates: Box::new(templates), system, messages: Vec::new() }, how))
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Messages { messages, .. } => messages.clear(),
            Self::Text { last } => *last = None,
        }
    }

    /// What is to be run behind `before` for the turn that begins with `line`.
    pub(super) fn next<D: Device>(
        &self,
        engine: &Engine<D>,
        before: &[u32],
        line: &str,
    ) -> Result<Next, thermite_engine::Error> {
        match self {
            Self::Messages { .. } if line.trim().is_empty() => {
                Ok(Next { kept: 0, tokens: Vec::new(), text: String::new() })
            }
            Self::Messages { templates, system, messages } => {
                let line = Message::new("user", line);
                let all: Vec<&Message> = system.iter().chain(messages).chain([&line]).collect();
                let mut tokens = engine.encode_chat(templates, &Conversation::new(&all))?;
                // what is in the cache stays there, as far as the template writes it again
                let kept = before.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
                tokens.drain(..kept);
                Ok(Next { kept, tokens, text: line.content })
            }
            Self::Text { last } => {
                let text = joined(*last, line);
                let tokens = match last {
                    _ if text.is_empty() => Vec::new(),
                    None => engine.encode(&text)?,
                    Some(_) => engine.encode_more(&text)?,
                };
                Ok(Next { kept: before.len(), tokens, text })
            }
        }
    }

    /// Takes note of what was said.
    pub(super) fn answered(&mut self, line: &str, answer: &str) {
        match self {
            Self::Messages { messages, .. } => {
                messages.push(Message::new("user", line));
                messages.push(Message::new("assistant", answer));
            }
            Self::Text { last } => *last = answer.chars().last().or(line.chars().last()).or(*last),
        }
    }

    /// Whether what comes next goes on where the model has ended; messages end where it has.
    pub(super) fn go_on_after_an_end(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

/// The model's chat templates; if it has none, those of the format whose tokens it has, and the format's name.
pub(crate) fn templates_of(
    files: &ModelFiles,
    tokenizer: &Tokenizer,
) -> Result<Option<(ChatTemplates, Option<&'static str>)>, Error> {
    Ok(match load_chat_templates(files, tokenizer)? {
        Some(templates) => Some((templates, None)),
        None => ChatTemplates::of_vocabulary(tokenizer).map(|(templates, name)| (templates, Some(name))),
    })
}
