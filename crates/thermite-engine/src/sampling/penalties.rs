//! Penalties for tokens that are already there.

use std::collections::BTreeMap;

use super::params::SamplingParams;

/// Penalises in `logits` [n_vocab] the tokens among the last `repeat_last_n` of `history`. A token
/// that is there `n` times: its logit x becomes x / repeat_penalty where positive and
/// x · repeat_penalty where not, and then n · frequency_penalty + presence_penalty less.
/// Tokens outside the vocabulary have no logit and are passed over.
pub fn penalize(logits: &mut [f32], history: &[u32], params: &SamplingParams) {
    if !params.has_penalties() {
        return;
    }
    let recent = &history[history.len().saturating_sub(params.repeat_last_n)..];
    let mut counts = BTreeMap::<u32, u32>::new();
    for &token in recent {
        *counts.entry(token).or_default() += 1;
    }
    for (token, count) in counts {
        let Some(logit) = logits.get_mut(token as usize) else {
            continue;
        };
        let repeated =
            if *logit > 0.0 { *logit / params.repeat_penalty } else { *logit * params.repeat_penalty };
        *logit = repeated - count as f32 * params.frequency_penalty - params.presence_penalty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalized(history: &[u32], set: fn(&mut SamplingParams)) -> [f32; 4] {
        let mut params = SamplingParams::default();
        set(&mut params);
        let mut logits = [4.0, -4.0, 0.0, f32::NEG_INFINITY];
        penalize(&mut logits, history, &params);
        logits
    }

    const HISTORY: &[u32] = &[0, 1, 0, 3, 99];

    #[test]
    fn by_default_nothing_changes() {
        let unchanged = [4.0, -4.0, 0.0, f32::NEG_INFINITY];
        assert_eq!(penalized(HISTORY, |_| {}), unchanged);
        assert_eq!(penalized(&[], |p| p.repeat_penalty = 2.0), unchanged);
        let last_none = |p: &mut SamplingParams| (p.repeat_penalty, p.repeat_last_n) = (2.0, 0);
        assert_eq!(penalized(HISTORY, last_none), unchanged);
    }

    #[test]
    fn each_penalty_by_its_formula() {
        let less = f32::NEG_INFINITY; // stays so
        let repeat = penalized(HISTORY, |p| p.repeat_penalty = 2.0);
        assert_eq!(repeat, [2.0, -8.0, 0.0, less]);
        let presence = penalized(HISTORY, |p| p.presence_penalty = 0.5);
        assert_eq!(presence, [3.5, -4.5, 0.0, less]);
        let frequency = penalized(HISTORY, |p| p.frequency_penalty = 0.5);
        assert_eq!(frequency, [3.0, -4.5, 0.0, less]);
        let all = |p: &mut SamplingParams| {
            (p.repeat_penalty, p.presence_penalty, p.frequency_penalty) = (2.0, 0.5, 0.25);
        };
        assert_eq!(penalized(HISTORY, all), [1.0, -8.75, 0.0, less]);
    }

    #[test]
    fn only_the_last_tokens_count() {
        let last_three = |p: &mut SamplingParams| (p.frequency_penalty, p.repeat_last_n) = (1.0, 3);
        assert_eq!(penalized(&[1, 1, 1, 0, 0, 2], last_three), [2.0, -4.0, -1.0, f32::NEG_INFINITY]);
    }
}
