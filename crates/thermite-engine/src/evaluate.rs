//! How well a model predicts a text.

use serde::Serialize;
use thermite_device::Device;

use crate::engine::Engine;
use crate::{Error, Result};

/// The mean negative log-likelihood of a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Evaluation {
    /// Tokens of the text.
    pub tokens: usize,
    /// Tokens that were scored.
    pub scored: usize,
    /// Windows.
    pub windows: usize,
    /// Tokens a window.
    pub window: usize,
    /// Mean negative log-likelihood a scored token, in nats.
    pub nll: f64,
    /// `e^nll`.
    pub perplexity: f64,
}

/// The whole windows of a text of `tokens` tokens; each is scored on the token after each of its own.
#[must_use]
pub const fn windows_of(tokens: usize, window: usize) -> usize {
    tokens.saturating_sub(1) / window
}

impl<D: Device> Engine<D> {
    /// Scores `tokens` in windows: window `i` reads tokens `window * i ..` from an empty cache and predicts the one
    /// after each. What is left behind the last whole window is not scored. `progress` is told each window's number.
    ///
    /// # Errors
    /// A text shorter than one window and a token; a window longer than the context; those of the model.
    pub fn evaluate(
        &mut self,
        tokens: &[u32],
        window: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<Evaluation> {
        if window == 0 || window > self.context() {
            return Err(Error::Window { window, context: self.context() });
        }
        let windows = windows_of(tokens.len(), window);
        if windows == 0 {
            return Err(Error::TooShort { tokens: tokens.len(), window });
        }
        let mut total = 0.0;
        for i in 0..windows {
            let text = &tokens[i * window..=(i + 1) * window];
            let scores = self.score(&text[..window], &text[1..])?;
            total -= scores.iter().sum::<f64>();
            progress(i + 1);
        }
        let scored = windows * window;
        let nll = total / scored as f64;
        Ok(Evaluation { tokens: tokens.len(), scored, windows, window, nll, perplexity: nll.exp() })
    }
}
