//! Structured output: a text that follows a JSON schema, a grammar or a regular expression.
//!
//! [`Grammars`] compiles a [`Grammar`] over a model's vocabulary, on any thread; the [`Constraint`] that comes out goes
//! with a request. Before each choice it says which tokens may follow (by the `llguidance` crate: an Earley parser over
//! a lexer of derivatives, which walks the vocabulary as a tree), and the logits of all others become -∞.
//!
//! A grammar is a program from outside, and gets a budget: its source is bounded in length and depth, a schema in what it
//! multiplies, the crate's own work by [`ParserLimits`], and recursion by a stack of its own.

mod constraint;
mod limits;
mod vocabulary;

use std::fmt;
use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use serde_json::{Value, json};

pub use self::constraint::Constraint;
use crate::tokenizer::Tokenizer;

/// Stack of the thread that compiles a grammar.
const STACK: usize = 64 << 20;

/// White space between the parts of a JSON text: a space, or a new line that is indented. Small models love to go on
/// with white space for ever.
const JSON_SPACE: &str = r" |\n[ \t]{0,24}";

/// What is wrong with a grammar, or with a text under it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// A source that is too long.
    #[error("the {kind} has {len} bytes; {limit} are allowed")]
    TooLong {
        /// What it is.
        kind: &'static str,
        /// Its bytes.
        len: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A source that is nested too deep.
    #[error("the {kind} is nested {depth} deep; {limit} are allowed")]
    TooDeep {
        /// What it is.
        kind: &'static str,
        /// Its depth.
        depth: usize,
        /// The most allowed.
        limit: usize,
    },
    /// One that is none, asks for what is not supported, or is too much work.
    #[error("the {kind} cannot be used: {reason}")]
    Invalid {
        /// What it is.
        kind: &'static str,
        /// Why.
        reason: String,
    },
    /// A vocabulary that grammars cannot be compiled over.
    #[error("grammars cannot be compiled over this vocabulary: {reason}")]
    Vocabulary {
        /// Why.
        reason: String,
    },
    /// A text that cannot go on.
    #[error("the grammar cannot go on after {tokens} tokens: {reason}")]
    Stuck {
        /// Tokens of the text so far.
        tokens: usize,
        /// Why.
        reason: String,
    },
    /// No thread to compile on.
    #[error("no thread to compile a grammar on: {reason}")]
    Thread {
        /// Why.
        reason: String,
    },
}

/// What a text has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// A JSON text that is valid under this schema.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A text of this grammar, in the form of the Lark parser generator as `llguidance` has it.
    Lark(String),
    /// A text that the whole of this regular expression matches, in Rust's syntax.
    Regex(String),
}

impl Grammar {
    /// What it is, in words.
    const fn kind(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) | Self::JsonObject => "JSON schema",
            Self::Lark(_) => "grammar",
            Self::Regex(_) => "regular expression",
        }
    }

    fn to_llguidance(&self) -> TopLevelGrammar {
        match self {
            Self::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_bounded_space(schema.clone())),
            Self::JsonObject => {
                TopLevelGrammar::from_json_schema(with_bounded_space(json!({ "type": "object" })))
            }
            Self::Lark(source) => TopLevelGrammar::from_lark(source.clone()),
            Self::Regex(source) => TopLevelGrammar::from_regex(source),
        }
    }
}

/// The schema with a bound on the white space of its texts, if it says nothing of that itself.
pub(crate) fn with_bounded_space(mut schema: Value) -> Value {
    if let Value::Object(schema) = &mut schema {
        schema.entry("x-guidance").or_insert_with(|| json!({ "whitespace_pattern": JSON_SPACE }));
    }
    schema
}

/// Compiles grammars over one vocabulary. Cloning shares what is made of the vocabulary, which the first grammar does.
#[derive(Clone)]
pub struct Grammars {
    shared: Arc<Shared>,
}

struct Shared {
    tokenizer: Tokenizer,
    n_vocab: usize,
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
}

impl Grammars {
    /// Grammars over the first `n_vocab` tokens of `tokenizer`: as many as the model has logits.
    #[must_use]
    pub fn new(tokenizer: Tokenizer, n_vocab: usize) -> Self {
        Self { shared: Arc::new(Shared { tokenizer, n_vocab, factory: OnceLock::new() }) }
    }

    /// Compiles `grammar`. This can take some milliseconds, the first time some tenths of a second: not for a thread
    /// that others wait for.
    ///
    /// # Errors
    /// [`GrammarError`] with what is wrong.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint, GrammarError> {
        limits::check(grammar)?;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK);
            let compiling = thread
                .spawn_scoped(scope, || self.compile_here(grammar))
                .map_err(|error| GrammarError::Thread { reason: error.to_string() })?;
            let panicked = |_| {
                Err(GrammarError::Invalid {
                    kind: grammar.kind(),
                    reason: "it cannot be compiled".to_owned(),
                })
            };
            compiling.join().unwrap_or_else(panicked)
        })
    }

    fn compile_here(&self, grammar: &Grammar) -> Result<Constraint, GrammarError> {
        let Shared { tokenizer, n_vocab, factory } = &*self.shared;
        let factory = factory.get_or_init(|| factory_of(tokenizer, *n_vocab)).as_ref();
        let parser = factory.map_err(Clone::clone)?.create_parser(grammar.to_llguidance());
        let invalid = |reason| GrammarError::Invalid { kind: grammar.kind(), reason };
        let mut constraint = Constraint::new(parser.map_err(|error| invalid(reason(error)))?);
        match constraint.restrict(&mut []) {
            Ok(()) => Ok(constraint),
            Err(_) => Err(invalid("no text is one".to_owned())),
        }
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("n_vocab", &self.shared.n_vocab).finish_non_exhaustive()
    }
}

fn factory_of(tokenizer: &Tokenizer, n_vocab: usize) -> Result<ParserFactory, GrammarError> {
    let environment = vocabulary::environment(tokenizer, n_vocab)?;
    let mut factory = ParserFactory::new_simple(&environment)
        .map_err(|error| GrammarError::Vocabulary { reason: reason(error) })?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
    Ok(factory)
}

/// The beginning of an error of `llguidance`, without a state or a trace that follows.
fn reason(error: impl fmt::Display) -> String {
    const LONGEST: usize = 500;
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(LONGEST));
    let end =
        ["\n<non-verbose/>", "\n<backtrace>", "\n<state>"].iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].trim_end().to_owned()
}
