//! The types of the API: what requests may say, and what answers look like.

mod chat;
mod completion;
mod embedding;
mod error;
mod fields;
mod format;
mod logprobs;
mod model;
mod parameters;
mod tokenize;
mod tools;

pub(crate) use chat::*;
pub(crate) use completion::*;
pub(crate) use embedding::*;
pub(crate) use error::{ApiError, ErrorBody};
pub(crate) use fields::{Fields, Other, check, read, shortened};
pub(crate) use format::ResponseFormat;
pub(crate) use logprobs::*;
pub(crate) use model::*;
pub(crate) use parameters::*;
pub(crate) use tokenize::*;
pub(crate) use tools::*;
