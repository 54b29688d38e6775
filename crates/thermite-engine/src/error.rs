//! What can go wrong while text is made.

use std::path::{MAIN_SEPARATOR, PathBuf};

use crate::chat::TemplateError;
use crate::grammar::GrammarError;
use crate::sampling::SamplingError;
use crate::stop::EmptyStop;
use crate::tokenizer::TokenizerError;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Files.
    #[error(transparent)]
    Format(#[from] thermite_formats::Error),
    /// Model.
    #[error(transparent)]
    Model(#[from] thermite_model::Error),
    /// Device.
    #[error(transparent)]
    Device(#[from] thermite_device::Error),
    /// Tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The files that a tokenizer is made from; the error begins with the file's name.
    #[error("{}{MAIN_SEPARATOR}{source}", folder.display())]
    TokenizerFiles {
        /// Their folder.
        folder: PathBuf,
        /// What is wrong, and in which of them.
        source: Box<TokenizerError>,
    },
    /// The vocabulary in a GGUF file.
    #[error("{}: {source}", file.display())]
    Vocabulary {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Box<TokenizerError>,
    },
    /// A chat template in a model's files; the error begins with the file's name, or with the key.
    #[error("{}: {source}", files.display())]
    Templates {
        /// The folder or file.
        files: PathBuf,
        /// What is wrong.
        source: Box<TemplateError>,
    },
    /// A chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A name that is none of a model of the Hub.
    #[error(
        "{name:?} is no model of the Hub: OWNER/NAME is one, and OWNER/NAME@REVISION, and OWNER/NAME/FILE"
    )]
    HubName {
        /// The name.
        name: String,
    },
    /// A model of the Hub that was not fetched.
    #[error("{repo} is not in {}: `thermite pull {repo}` fetches it", cache.display())]
    NotPulled {
        /// The model.
        repo: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// A sampling parameter.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A grammar.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// A stop string.
    #[error(transparent)]
    Stop(#[from] EmptyStop),
    /// A prompt without tokens.
    #[error("the prompt is empty: the model needs at least one token to go on from")]
    EmptyPrompt,
    /// A prompt that does not fit.
    #[error("the prompt has {tokens} tokens, but the context holds {context}")]
    PromptTooLong {
        /// Tokens of the prompt, and of what stands before it.
        tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// A context that the model does not have.
    #[error("a context of {asked} tokens was asked for; the model has positions for 1 to {n_ctx}")]
    Context {
        /// What was asked for.
        asked: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// A window of an evaluation that the context does not hold.
    #[error("a window of {window} tokens was asked for; the context holds 1 to {context}")]
    Window {
        /// What was asked for.
        window: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// No free block of the KV cache.
    #[error(
        "the KV cache is full: {need} blocks of {block_size} tokens are needed, {free} of {total} are free"
    )]
    CacheFull {
        /// Blocks needed.
        need: usize,
        /// Blocks free.
        free: usize,
        /// Blocks in all.
        total: usize,
        /// Tokens a block.
        block_size: usize,
    },
    /// No place in the queue.
    #[error("{waiting} requests wait already, which is as many as may")]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
    },
    /// More requests at once than the engine was made for.
    #[error("{running} requests are to run together; the engine was made for 1 to {most}")]
    Limits {
        /// Requests asked for.
        running: usize,
        /// Rows and outputs of the engine's largest batch.
        most: usize,
    },
    /// A tokenizer that can spell ids that the model does not have.
    #[error("the tokenizer gave id {id} for {piece:?}, but the model's vocabulary has {n_vocab} entries")]
    TokenId {
        /// The id.
        id: u32,
        /// Its text.
        piece: String,
        /// Entries of the model's vocabulary.
        n_vocab: usize,
    },
    /// A token that the model does not have.
    #[error("{what} names token {id}, but the model's vocabulary has {n_vocab} entries")]
    UnknownToken {
        /// What names it.
        what: &'static str,
        /// The id.
        id: u32,
        /// Entries of the model's vocabulary.
        n_vocab: usize,
    },
    /// Hidden states that are no numbers.
    #[error("the model's hidden states of a text of {tokens} tokens are not all finite numbers")]
    Hidden {
        /// Tokens of the text.
        tokens: usize,
    },
    /// A text too short to score.
    #[error("the text has {tokens} tokens, too few for one window of {window} and the token after it")]
    TooShort {
        /// Tokens there.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },
}

/// A result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;
