//! How the tokens of one text are chosen, and how far that has come.

use crate::Result;
use crate::error::Error;
use crate::grammar::Constraint;
use crate::sampling::{SamplingError, SamplingParams};

/// How the tokens of one text are chosen, and how far that has come.
#[derive(Debug)]
pub struct Chooser {
    pub(crate) sampling: SamplingParams,
    /// Of the random numbers that tokens are drawn with, together with their positions.
    pub(crate) seed: u64,
    logit_bias: Vec<(u32, f32)>,
    constraint: Option<Constraint>,
}

impl Chooser {
    /// By the model's probabilities and `sampling` alone.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`].
    pub fn new(sampling: SamplingParams) -> Result<Self> {
        sampling.validate()?;
        let seed = sampling.seed_or_random();
        Ok(Self { sampling, seed, logit_bias: Vec::new(), constraint: None })
    }

    /// With `logit_bias` added to the logits of these of the `n_vocab` tokens.
    ///
    /// # Errors
    /// A token that the model does not have; a bias outside -100 to 100.
    pub fn with_logit_bias(self, logit_bias: Vec<(u32, f32)>, n_vocab: usize) -> Result<Self> {
        for &(id, value) in &logit_bias {
            if id as usize >= n_vocab {
                return Err(Error::UnknownToken { what: "logit_bias", id, n_vocab });
            }
            if !(-100.0..=100.0).contains(&value) {
                let (parameter, allowed) = ("logit_bias", "from -100 to 100");
                return Err(SamplingError::OutOfRange { parameter, value, allowed }.into());
            }
        }
        Ok(Self { logit_bias, ..self })
    }

    /// With only those tokens that `constraint` allows.
    #[must_use]
    pub fn with_constraint(self, constraint: Option<Constraint>) -> Self {
        Self { constraint, ..self }
    }

    /// Whether the largest logit as it stands is taken.
    #[must_use]
    pub fn is_plain_greedy(&self) -> bool {
        self.sampling.is_greedy() && self.is_plain()
    }

    /// Whether a token depends on nothing but the logits as they stand, and where it is drawn, on the seed and its position:
    /// a device can choose one after the other by itself.
    pub(crate) fn is_plain(&self) -> bool {
        self.sampling.is_plain() && !self.edits()
    }

    /// Whether logits are changed one by one.
    pub(crate) const fn edits(&self) -> bool {
        !self.logit_bias.is_empty() || self.constraint.is_some()
    }

    /// Adds the bias to `logits` `[n_vocab]`, and takes out what the constraint does not allow.
    pub(crate) fn edit(&mut self, logits: &mut [f32]) -> Result<()> {
        for &(token, bias) in &self.logit_bias {
            logits[token as usize] += bias;
        }
        Ok(self.constraint.as_mut().map_or(Ok(()), |constraint| constraint.restrict(logits))?)
    }

    /// Takes note of a chosen token. Gives whether the constraint lets the text go on; without one, it does.
    ///
    /// # Errors
    /// The constraint's.
    pub(crate) fn accept(&mut self, token: u32) -> Result<bool> {
        Ok(self.constraint.as_mut().map_or(Ok(true), |constraint| constraint.accept(token))?)
    }
}
