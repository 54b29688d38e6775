//! Text in, text out: tokenizer, KV cache, sampling and generation over a model on a device.
//!
//! An [`Engine`] is a model with what stands around it. [`Engine::generate`] goes from a prompt to a streamed text:
//! tokens are computed in chunks, each next one chosen by the [`Sampler`]'s pipeline, turned into text by the
//! [`Detokenizer`], and watched for stop strings by the [`StopMatcher`].

mod blocks;
mod builtin;
pub mod chat;
mod chooser;
mod engine;
mod error;
mod evaluate;
mod files;
mod generate;
pub mod grammar;
mod hub;
mod lookahead;
mod memory;
mod sampler;
pub mod sampling;
pub mod scheduler;
mod stop;
mod tokenizer;
mod writer;

pub use blocks::{BlockPool, BlockTable};
pub use builtin::{BUILTIN, open_model};
pub use chooser::Chooser;
pub use engine::{BLOCK_SIZE, Engine, EngineOptions, Sequence};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, windows_of};
pub use files::{load_chat_templates, load_tokenizer};
pub use generate::{FinishReason, GenerateParams, Generation, Timings};
pub use grammar::{Constraint, Grammar, GrammarError, Grammars};
pub use hub::{HUB, HubFolder, HubModel, hub_cache, is_inside};
pub use memory::{MemoryPlan, is_weight};
pub use sampler::Sampler;
pub use sampling::{Logprobs, SamplingError, SamplingParams};
pub use scheduler::Scheduler;
pub use stop::{EmptyStop, StopMatcher, Stopping};
pub use tokenizer::{
    Detokenizer, Joining, SpecialTokens, TokenKind, Tokenizer, TokenizerError, VocabularyParts,
};
pub use writer::Writer;
