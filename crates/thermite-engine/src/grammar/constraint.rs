//! A grammar, and how far a text has come in it.

use std::fmt;

use llguidance::{Matcher, TokenParser};

use super::{GrammarError, reason};

/// A compiled grammar, and how far a text has come in it. A clone goes its own way from there.
#[derive(Clone)]
pub struct Constraint {
    matcher: Box<Matcher>,
    /// Tokens of the text so far.
    tokens: usize,
}

impl Constraint {
    pub(super) fn new(parser: TokenParser) -> Self {
        Self { matcher: Box::new(Matcher::new(Ok(parser))), tokens: 0 }
    }

    /// Makes -∞ of the logits `[n_vocab]` of all tokens that may not follow. What ends a text may follow where the
    /// grammar lets the text end.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`] if no token may follow, or if it takes too much work to say which.
    pub fn restrict(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| self.stuck(error))?;
        if mask.is_zero() {
            return Err(self.stuck("it allows none of the vocabulary's tokens"));
        }
        let allowed = mask.as_slice();
        for (i, logits) in logits.chunks_mut(u32::BITS as usize).enumerate() {
            match allowed.get(i).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                word => {
                    let forbidden = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    forbidden.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                }
            }
        }
        Ok(())
    }

    /// Takes the next token of the text; says whether the grammar lets the text go on.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`] if the token may not follow.
    pub fn accept(&mut self, token: u32) -> Result<bool, GrammarError> {
        self.matcher.consume_token(token).map_err(|error| self.stuck(error))?;
        self.tokens += 1;
        Ok(!self.matcher.is_stopped())
    }

    fn stuck(&self, error: impl fmt::Display) -> GrammarError {
        GrammarError::Stuck { tokens: self.tokens, reason: reason(error) }
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}
