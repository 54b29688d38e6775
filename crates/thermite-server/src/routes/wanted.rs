//! What a request for text wants, whichever route it came by.

use std::sync::Arc;

use thermite_engine::Grammar;

use crate::model::Model;
use crate::openai::{ApiError, Parameters};
use crate::state::State;
use crate::worker::TextJob;

/// What a request for text wants.
pub(super) struct Wanted {
    pub(super) model: Arc<Model>,
    /// Answers to each prompt.
    pub(super) n: usize,
    /// How they come about: a job without its prompt and its constraint.
    pub(super) text: TextJob,
    /// What they have to be.
    pub(super) grammar: Option<Grammar>,
}

impl Wanted {
    /// What `parameters` say.
    ///
    /// # Errors
    /// 404 for a model that there is not, 400 for what is outside its range.
    pub(super) fn of(parameters: &Parameters, state: &State) -> Result<Self, ApiError> {
        let (model, limits) = (state.model(parameters.model.as_deref())?, &state.limits);
        let (n, text) = (parameters.n(limits)?, parameters.job(limits)?);
        Ok(Self { model, n, text, grammar: parameters.grammar()? })
    }
}
