//! Prompts of a given length, no two alike: what a server keeps of one is of no use for the next.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Words that most vocabularies hold whole.
const WORDS: [&str; 32] = [
    "the", "dog", "and", "a", "big", "red", "ball", "was", "in", "house", "with", "girl", "who", "had",
    "little", "tree", "she", "saw", "boy", "to", "play", "his", "friend", "day", "happy", "bird", "up", "on",
    "it", "sun", "park", "very",
];

/// A source of prompts.
pub(super) struct Prompts {
    rng: Pcg64Mcg,
    /// Tokens that a word has on the average, and those of an empty text: what stands at the beginning.
    per_word: f64,
    overhead: f64,
}

impl Prompts {
    /// The source number `seed`; `n` words were counted as `counted` tokens by the server, one word as `one`.
    pub(super) fn new(seed: u64, n: usize, counted: usize, one: usize) -> Self {
        let per_word = counted.saturating_sub(one) as f64 / (n - 1).max(1) as f64;
        let per_word = per_word.max(0.25);
        let overhead = (one as f64 - per_word).max(0.0);
        Self { rng: Pcg64Mcg::seed_from_u64(seed), per_word, overhead }
    }

    /// `n` words.
    pub(super) fn words(rng: &mut impl Rng, n: usize) -> String {
        let mut text = String::with_capacity(n * 6);
        for i in 0..n {
            if i > 0 {
                text.push(' ');
            }
            text.push_str(WORDS[(rng.next_u32() % 32) as usize]);
        }
        text
    }

    /// A prompt of about as many tokens as one of `lengths`.
    pub(super) fn next(&mut self, lengths: &[usize]) -> String {
        let length = lengths[self.rng.next_u32() as usize % lengths.len().max(1)] as f64;
        let words = ((length - self.overhead) / self.per_word).round().max(1.0);
        Self::words(&mut self.rng, words as usize)
    }

    /// Seconds to the next arrival of a Poisson process of `rate` arrivals a second: exponentially distributed.
    pub(super) fn arrival(&mut self, rate: f64) -> f64 {
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        -(1.0 - uniform).ln() / rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_the_length_asked_for_and_differ() {
        // a token for each word, and one at the beginning
        let mut prompts = Prompts::new(1, 64, 65, 2);
        let (a, b) = (prompts.next(&[100]), prompts.next(&[100]));
        assert_eq!((a.split(' ').count(), b.split(' ').count()), (99, 99));
        assert_ne!(a, b);
        // two tokens for each
        let mut prompts = Prompts::new(1, 64, 128, 2);
        assert_eq!(prompts.next(&[100]).split(' ').count(), 50);
        assert_eq!(prompts.next(&[1]).split(' ').count(), 1);
    }

    #[test]
    fn arrivals_have_the_mean_and_the_spread_of_an_exponential() {
        let mut prompts = Prompts::new(3, 64, 64, 1);
        let gaps: Vec<f64> = (0..100_000).map(|_| prompts.arrival(20.0)).collect();
        let mean = gaps.iter().sum::<f64>() / 1e5;
        let late = gaps.iter().filter(|&&gap| gap > 0.05).count() as f64 / 1e5;
        assert!((mean - 0.05).abs() < 0.001, "{mean}");
        assert!((late - (-1f64).exp()).abs() < 0.01, "{late}");
    }
}
