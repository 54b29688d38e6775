//! Log-probabilities of tokens.

use std::cmp::Ordering;

use serde::Serialize;

use super::SamplingError;

/// How likely a token was, and which ones were the likeliest in its place: natural logarithms of the model's own
/// probabilities, before bias, penalties, temperature or a grammar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Logprobs {
    /// That of the chosen token.
    pub chosen: f32,
    /// The likeliest tokens with theirs, the likeliest first and of those alike the lower id.
    pub top: Vec<(u32, f32)>,
}

/// The log-softmax of `logits` `[n_vocab]` at `chosen` and at its `top` largest: xᵢ - max x - ln Σ exp(xⱼ - max x).
///
/// # Errors
/// Logits of which one is NaN or ∞, or all are -∞.
pub fn logprobs(logits: &[f32], chosen: u32, top: usize) -> Result<Logprobs, SamplingError> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    if !sum.is_finite() {
        let token = logits.iter().position(|&x| x.is_nan() || x == f32::INFINITY).unwrap_or(0);
        return Err(SamplingError::NotALogit {
            token,
            value: logits.get(token).copied().unwrap_or(f32::NAN),
        });
    }
    let logprob = |x: f32| (f64::from(x) - f64::from(largest) - sum.ln()) as f32;
    let larger = |&a: &u32, &b: &u32| -> Ordering {
        logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
    };
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    let top = top.min(tokens.len());
    if top < tokens.len() {
        tokens.select_nth_unstable_by(top, larger);
        tokens.truncate(top);
    }
    tokens.sort_unstable_by(larger);
    let chosen = logits.get(chosen as usize).copied().map_or(f32::NEG_INFINITY, logprob);
    let top = tokens.into_iter().map(|token| (token, logprob(logits[token as usize]))).collect();
    Ok(Logprobs { chosen, top })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_definition() {
        let logits = [0.5, -1.0, 2.0, 2.0, f32::NEG_INFINITY];
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let of = |x: f32| (f64::from(x).exp() / sum).ln() as f32;
        let found = logprobs(&logits, 1, 3).unwrap();
        assert!((found.chosen - of(-1.0)).abs() < 1e-6);
        assert_eq!(found.top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [2, 3, 0]);
        assert!(found.top.iter().zip([2.0, 2.0, 0.5]).all(|(&(_, p), x)| (p - of(x)).abs() < 1e-6));
        assert_eq!(logprobs(&logits, 4, 0).unwrap(), Logprobs { chosen: f32::NEG_INFINITY, top: vec![] });
        assert_eq!(logprobs(&logits, 0, 9).unwrap().top.len(), 5);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let found = logprobs(&[3e38, 3e38, -3e38], 0, 1).unwrap();
        assert!((found.chosen + std::f32::consts::LN_2).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_logit_is_named() {
        for bad in [f32::NAN, f32::INFINITY] {
            let error = logprobs(&[0.0, bad], 0, 1).unwrap_err().to_string();
            assert_eq!(error, format!("the logit of token 1 is {bad}"));
        }
        assert!(logprobs(&[f32::NEG_INFINITY; 3], 0, 1).is_err());
        assert!(logprobs(&[], 0, 1).is_ok_and(|found| found.top.is_empty()));
    }
}
