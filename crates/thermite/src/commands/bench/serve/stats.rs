//! Figures of many requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::Sample;
use super::load::Load;

/// Percentiles by nearest rank: the p-th is the smallest value that at least p percent of all do not exceed. No value
/// is made up between two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Percentiles {
    /// Of `values`, in any order; nothing of nothing.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let max = *values.last()?;
        let at = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self { p50: at(50), p90: at(90), p99: at(99), max })
    }
}

/// What is measured: requests sent, and tokens received, from `begin` on and before `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

impl Window {
    fn holds(&self, moment: Instant) -> bool {
        self.begin <= moment && moment < self.end
    }

    fn seconds(&self) -> f64 {
        (self.end - self.begin).as_secs_f64()
    }
}

/// The figures of one load.
#[derive(Debug, Serialize)]
pub(super) struct Level {
    pub(super) load: Load,
    /// Requests that were sent within the window and answered whole.
    pub(super) requests: usize,
    /// What went wrong, however early or late, and how often.
    pub(super) errors: BTreeMap<String, usize>,
    /// Tokens a second that all requests together received.
    pub(super) tokens_per_second: f64,
    pub(super) requests_per_second: f64,
    /// Seconds from sending a request to its first text.
    pub(super) first_token: Option<Percentiles>,
    /// Seconds between one piece of a text and the next, over all requests.
    pub(super) inter_token: Option<Percentiles>,
    /// Seconds from sending a request to its end.
    pub(super) whole: Option<Percentiles>,
    /// Tokens of a prompt and of a text, as the server counts them: means.
    pub(super) prompt_tokens: f64,
    pub(super) completion_tokens: f64,
    /// Memory of the server at the end, where it was started here.
    pub(super) resident_bytes: Option<u64>,
}

impl Level {
    pub(super) fn of(load: Load, samples: &[Sample], window: Window) -> Self {
        let mut errors = BTreeMap::new();
        for error in samples.iter().filter_map(|sample| sample.outcome.as_ref().err()) {
            *errors.entry(error.to_string()).or_insert(0) += 1;
        }
        let counted: Vec<&Sample> =
            samples.iter().filter(|s| window.holds(s.sent) && s.outcome.is_ok()).collect();
        let gaps = |sample: &Sample| -> Vec<f64> {
            sample.pieces.windows(2).map(|pair| seconds(pair[1] - pair[0])).collect()
        };
        let mean = |of: &dyn Fn(&Sample) -> usize| {
            counted.iter().map(|sample| of(sample) as f64).sum::<f64>() / counted.len().max(1) as f64
        };
        let first = |sample: &&Sample| Some(seconds(*sample.pieces.first()? - sample.sent));
        let whole = |sample: &&Sample| Some(seconds(*sample.pieces.last()? - sample.sent));
        Self {
            load,
            requests: counted.len(),
            errors,
            tokens_per_second: tokens(samples, window) / window.seconds(),
            requests_per_second: counted.len() as f64 / window.seconds(),
            first_token: Percentiles::of(counted.iter().filter_map(first).collect()),
            inter_token: Percentiles::of(counted.iter().flat_map(|sample| gaps(sample)).collect()),
            whole: Percentiles::of(counted.iter().filter_map(whole).collect()),
            prompt_tokens: mean(&|sample| sample.usage().prompt_tokens),
            completion_tokens: mean(&|sample| sample.usage().completion_tokens),
            resident_bytes: None,
        }
    }

    /// How often something went wrong.
    pub(super) fn failures(&self) -> usize {
        self.errors.values().sum()
    }
}

/// Tokens that came within the window, of requests that began or ended outside it too. A piece of text is as many
/// tokens as its request has on the average.
fn tokens(samples: &[Sample], window: Window) -> f64 {
    let of = |sample: &Sample| {
        let within = sample.pieces.iter().filter(|&&moment| window.holds(moment)).count() as f64;
        match sample.usage().completion_tokens {
            0 => within,
            tokens => within * tokens as f64 / sample.pieces.len().max(1) as f64,
        }
    };
    samples.iter().map(of).sum()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::client::{RequestError, Usage};
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let of = |values: &[f64]| Percentiles::of(values.to_vec());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7.0]), Some(Percentiles { p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 }));
        // of an even number, the lower of the two in the middle
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), Some(Percentiles { p50: 2.0, p90: 4.0, p99: 4.0, max: 4.0 }));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(of(&hundred), Some(Percentiles { p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 }));
        let thousand: Vec<f64> = (1..=1001).map(f64::from).collect();
        assert_eq!(of(&thousand), Some(Percentiles { p50: 501.0, p90: 901.0, p99: 991.0, max: 1001.0 }));
    }

    #[test]
    fn a_level_counts_what_lies_in_its_window() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let window = Window { begin: at(1000), end: at(2000) };
        let sample = |sent, pieces: &[u64], tokens| Sample {
            sent: at(sent),
            pieces: pieces.iter().map(|&ms| at(ms)).collect(),
            outcome: Ok(Usage { prompt_tokens: 10, completion_tokens: tokens }),
        };
        let mut samples = vec![
            // began before: its tokens count from 1,000 on, its times do not
            sample(900, &[950, 1000, 1050], 3),
            // two tokens in each piece
            sample(1100, &[1200, 1300], 4),
            // ends behind the window: counted, but for its last token
            sample(1500, &[1900, 2000], 2),
            sample(2100, &[2200], 1),
        ];
        samples.push(Sample {
            sent: at(100),
            pieces: Vec::new(),
            outcome: Err(RequestError::Status { status: 429, message: "full".to_owned() }),
        });
        let level = Level::of(Load::Concurrency(4), &samples, window);
        assert_eq!((level.requests, level.failures()), (2, 1));
        assert_eq!(level.errors.keys().collect::<Vec<_>>(), ["status 429: full"]);
        assert_eq!(level.tokens_per_second, 2.0 + 4.0 + 1.0);
        assert_eq!(level.requests_per_second, 2.0);
        assert_eq!(level.first_token, Some(Percentiles { p50: 0.1, p90: 0.4, p99: 0.4, max: 0.4 }));
        assert_eq!(level.inter_token, Some(Percentiles { p50: 0.1, p90: 0.1, p99: 0.1, max: 0.1 }));
        assert_eq!((level.prompt_tokens, level.completion_tokens), (10.0, 3.0));
    }
}
