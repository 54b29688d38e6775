//! What the user can say about sampling.

use std::hash::{BuildHasher, Hasher, RandomState};

use serde::{Deserialize, Serialize};
use thermite_device::Draw;

/// A sampling parameter, or logits, that make no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A parameter outside its range.
    #[error("{parameter} is {value}; it must be {allowed}")]
    OutOfRange {
        /// The parameter's name.
        parameter: &'static str,
        /// What it was set to.
        value: f32,
        /// Its range, in words.
        allowed: &'static str,
    },
    /// A logit that is no number, or infinite.
    #[error("the logit of token {token} is {value}")]
    NotALogit {
        /// The token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// Logits of which none is a number above -∞, or one is ∞.
    #[error(
        "nothing can be drawn from the logits of {tokens} tokens: none is above -inf, or one is infinite"
    )]
    NothingToDraw {
        /// How many tokens there are.
        tokens: usize,
    },
}

/// Logits divided by less could overflow; and by as little, only the likeliest token has a chance.
const LEAST_TEMPERATURE: f32 = 1e-5;

/// How the next token is chosen. `softcap` and penalties act on the logits; then temperature, top-k
/// and softmax; then top-p and min-p on the probabilities; then the draw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingParams {
    /// Logits are divided by it: below 1 the likely becomes likelier. 0 (and anything below
    /// 10⁻⁵) takes the likeliest token.
    pub temperature: f32,
    /// Only the so many likeliest tokens count; 0 for all.
    pub top_k: usize,
    /// Only the smallest set of likeliest tokens counts that holds this share of the probability
    /// (Holtzman et al. 2020, arXiv:1904.09751); 1 for all.
    pub top_p: f32,
    /// Only tokens count that are at least this fraction as likely as the likeliest
    /// (Nguyen et al. 2024, arXiv:2407.01082); 0 for all.
    pub min_p: f32,
    /// Logits of tokens already there are divided by it where positive and multiplied where
    /// negative (Keskar et al. 2019, arXiv:1909.05858); 1 for no change.
    pub repeat_penalty: f32,
    /// How many of the last tokens the three penalties look at.
    pub repeat_last_n: usize,
    /// Subtracted from the logits of tokens already there.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit as often as it is already there.
    pub frequency_penalty: f32,
    /// Logits x become c·tanh(x / c), within ±c (Gemma Team 2024, arXiv:2408.00118).
    pub softcap: Option<f32>,
    /// The same seed gives the same text; none gives another each time.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            softcap: None,
            seed: None,
        }
    }
}

impl SamplingParams {
    /// The likeliest token each time.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether the likeliest token is taken each time.
    pub fn is_greedy(&self) -> bool {
        self.temperature < LEAST_TEMPERATURE
    }

    /// Whether the logits count as they stand.
    pub(crate) fn is_plain(&self) -> bool {
        !self.has_penalties() && self.softcap.is_none()
    }

    /// How a token is drawn; none where the likeliest is taken.
    pub(crate) fn draw(&self) -> Option<Draw> {
        let Self { temperature, top_k, top_p, min_p, .. } = *self;
        (!self.is_greedy()).then_some(Draw { temperature, top_k, top_p, min_p })
    }

    /// Whether a penalty changes the logits.
    pub fn has_penalties(&self) -> bool {
        self.repeat_last_n > 0
            && (self.repeat_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0)
    }

    /// The seed, or one that no other call gives.
    pub fn seed_or_random(&self) -> u64 {
        self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish())
    }

    /// Checks every parameter.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`] for the first that is outside its range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        type Check = (&'static str, f32, fn(f32) -> bool, &'static str);
        let softcap = self.softcap.unwrap_or(1.0);
        let checks: [Check; 7] = [
            ("temperature", self.temperature, |x| x >= 0.0, "0 (greedy) or more"),
            ("top_p", self.top_p, |x| (0.0..=1.0).contains(&x), "from 0 to 1"),
            ("min_p", self.min_p, |x| (0.0..=1.0).contains(&x), "from 0 to 1"),
            // logits are multiplied by these, or added to: beyond, they would overflow
            ("repeat_penalty", self.repeat_penalty, |x| (0.01..=100.0).contains(&x), "from 0.01 to 100"),
            ("presence_penalty", self.presence_penalty, |x| x.abs() <= 100.0, "from -100 to 100"),
            ("frequency_penalty", self.frequency_penalty, |x| x.abs() <= 100.0, "from -100 to 100"),
            ("softcap", softcap, |x| x > 0.0, "above 0"),
        ];
        for (parameter, value, fits, allowed) in checks {
            if !(value.is_finite() && fits(value)) {
                return Err(SamplingError::OutOfRange { parameter, value, allowed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_get_and_what_is_off() {
        let params = SamplingParams::default();
        assert_eq!(params.validate(), Ok(()));
        assert!(!params.is_greedy() && !params.has_penalties());
        assert!(SamplingParams::greedy().is_greedy());
        let nearly = SamplingParams { temperature: f32::MIN_POSITIVE, ..SamplingParams::default() };
        assert!(nearly.is_greedy() && nearly.validate().is_ok());
        assert_eq!(SamplingParams::greedy().validate(), Ok(()));
    }

    #[test]
    fn every_parameter_is_checked_and_named() {
        type Set = fn(&mut SamplingParams, f32);
        let cases: [(&str, Set, &[f32]); 7] = [
            ("temperature", |p, x| p.temperature = x, &[-0.1]),
            ("top_p", |p, x| p.top_p = x, &[-0.1, 1.1]),
            ("min_p", |p, x| p.min_p = x, &[-0.1, 1.1]),
            ("repeat_penalty", |p, x| p.repeat_penalty = x, &[0.0, -1.0, 1e-40, 101.0]),
            ("presence_penalty", |p, x| p.presence_penalty = x, &[-101.0, 1e38]),
            ("frequency_penalty", |p, x| p.frequency_penalty = x, &[-1e38, 101.0]),
            ("softcap", |p, x| p.softcap = Some(x), &[0.0, -30.0]),
        ];
        for (name, set, bad) in cases {
            for value in bad.iter().copied().chain([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
                let mut params = SamplingParams::default();
                set(&mut params, value);
                let message = params.validate().unwrap_err().to_string();
                assert!(message.starts_with(&format!("{name} is {value}; it must be")), "{message}");
            }
        }
    }

    #[test]
    fn seeds_are_kept_or_fresh() {
        let seeded = SamplingParams { seed: Some(7), ..SamplingParams::default() };
        assert_eq!(seeded.seed_or_random(), 7);
        let fresh = SamplingParams::default();
        assert_ne!(fresh.seed_or_random(), fresh.seed_or_random());
    }

    #[test]
    fn json_may_leave_out_what_stays_as_it_is() {
        let params: SamplingParams = serde_json::from_str(r#"{"top_k": 3, "seed": 1}"#).unwrap();
        assert_eq!((params.top_k, params.seed, params.top_p), (3, Some(1), 0.95));
    }
}
