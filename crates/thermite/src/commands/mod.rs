//! One module a command.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod eval;
pub(crate) mod flow;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod kernels;
#[cfg(feature = "pull")]
pub(crate) mod pull;
#[cfg(not(feature = "pull"))]
#[path = "pull/absent.rs"]
pub(crate) mod pull;
pub(crate) mod quantize;
pub(crate) mod serve;
pub(crate) mod tokenize;
