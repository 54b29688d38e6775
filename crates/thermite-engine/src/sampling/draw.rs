//! The draw: top-p, min-p and the choice, on the host, from the device's probabilities.

use std::cmp::Ordering;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::params::{SamplingError, SamplingParams};

/// The seeded generator of draws: PCG XSL RR 128/64 (O'Neill 2014), the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generator(Pcg64);

impl Generator {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// The next number in [0, 1): a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A token and its probability.
type Candidate = (u32, f32);

/// Draws a token from `probs` `[n_vocab]`, which need not add up to exactly 1. At temperature 0 it is
/// the likeliest, the lowest id of those alike, and the generator is not used; else exactly one
/// number is. A token of probability 0 is never drawn.
///
/// # Errors
/// A probability that is none, or all of them 0: see [`SamplingError`].
pub fn draw(probs: &[f32], params: &SamplingParams, generator: &mut Generator) -> Result<u32, SamplingError> {
    if params.draws_from_all() {
        check(probs)?;
        let all = (0..).zip(probs.iter().copied());
        return choose(all, generator.uniform()).ok_or(SamplingError::NothingToDraw { tokens: probs.len() });
    }
    let mut candidates = candidates(probs)?;
    let likeliest = *candidates
        .iter()
        .min_by(|a, b| likelier(a, b))
        .ok_or(SamplingError::NothingToDraw { tokens: probs.len() })?;
    if params.is_greedy() {
        return Ok(likeliest.0);
    }
    if params.top_p < 1.0 {
        keep_top_p(&mut candidates, params.top_p);
    }
    if params.min_p > 0.0 {
        let least = f64::from(params.min_p) * f64::from(likeliest.1);
        candidates.retain(|&(_, p)| f64::from(p) >= least);
    }
    candidates.sort_unstable_by_key(|&(token, _)| token);
    Ok(choose(candidates.iter().copied(), generator.uniform()).unwrap_or(likeliest.0))
}

/// Whether all are probabilities.
fn check(probs: &[f32]) -> Result<(), SamplingError> {
    match probs.iter().position(|&value| !is_probability(value)) {
        Some(token) => Err(SamplingError::NotAProbability { token, value: probs[token] }),
        None => Ok(()),
    }
}

fn is_probability(value: f32) -> bool {
    value >= 0.0 && value.is_finite()
}

/// The tokens that may be drawn, in order of their ids.
fn candidates(probs: &[f32]) -> Result<Vec<Candidate>, SamplingError> {
    const BLOCK: usize = 32;
    let mut candidates = Vec::new();
    for (block, values) in probs.chunks(BLOCK).enumerate() {
        // After top-k nearly all are 0, and a whole block is seen to be so at once.
        if values.iter().fold(0, |bits, p| bits | p.to_bits()) == 0 {
            continue;
        }
        for (i, &value) in values.iter().enumerate() {
            let token = block * BLOCK + i;
            if !is_probability(value) {
                return Err(SamplingError::NotAProbability { token, value });
            }
            if value > 0.0 {
                candidates.push((token as u32, value));
            }
        }
    }
    Ok(candidates)
}

/// The likelier first, and of those alike the lower id.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Keeps the fewest candidates, the likeliest, that together have at least the share `top_p` of the
/// probability of all; at least one. They come out with the likeliest first.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    let all: f64 = candidates.iter().map(|&(_, p)| f64::from(p)).sum();
    let wanted = f64::from(top_p) * all;
    let (mut sorted, mut mass) = (0, 0.0);
    // Few are needed as a rule: only so many are put in order, four times as many at each try.
    let mut portion = 64;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let len = portion.min(rest.len());
        if len < rest.len() {
            rest.select_nth_unstable_by(len, likelier);
        }
        rest[..len].sort_unstable_by(likelier);
        for &(_, p) in &rest[..len] {
            sorted += 1;
            mass += f64::from(p);
            if mass >= wanted {
                candidates.truncate(sorted);
                return;
            }
        }
        portion *= 4;
    }
}

/// The candidate in whose part of the line from 0 to the sum of all the point `at` (of 1) falls: none of probability 0.
fn choose(candidates: impl Iterator<Item = Candidate> + Clone, at: f64) -> Option<u32> {
    let all: f64 = candidates.clone().map(|(_, p)| f64::from(p)).sum();
    let point = at * all;
    let mut end = 0.0;
    let chosen = candidates.clone().find(|&(_, p)| {
        end += f64::from(p);
        point < end
    });
    // Only if `at` is so near 1 that the product was rounded up to the sum.
    let (token, _) = chosen.or_else(|| candidates.filter(|&(_, p)| p > 0.0).last())?;
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(top_p: f32, min_p: f32) -> SamplingParams {
        SamplingParams { temperature: 1.0, top_k: 0, top_p, min_p, ..SamplingParams::default() }
    }

    /// The kept tokens by the definitions, sorting everything.
    fn naive_kept(probs: &[f32], top_p: f32, min_p: f32) -> Vec<u32> {
        let mut order: Vec<usize> = (0..probs.len()).filter(|&i| probs[i] > 0.0).collect();
        let all: f64 = order.iter().map(|&i| f64::from(probs[i])).sum();
        order.sort_by(|&a, &b| probs[b].total_cmp(&probs[a])); // stable: the lowest id first
        let mut mass = 0.0;
        let needed = order.iter().position(|&i| {
            mass += f64::from(probs[i]);
            top_p < 1.0 && mass >= f64::from(top_p) * all
        });
        order.truncate(needed.map_or(order.len(), |last| last + 1));
        let least = f64::from(min_p) * f64::from(probs[order[0]]);
        order.retain(|&i| f64::from(probs[i]) >= least);
        order.sort_unstable();
        order.into_iter().map(|i| i as u32).collect()
    }

    /// The token whose part of the kept probabilities a point falls in, by the definition.
    fn naive_draw(probs: &[f32], kept: &[u32], at: f64) -> u32 {
        let sums: Vec<f64> = kept
            .iter()
            .scan(0.0, |sum, &token| {
                *sum += f64::from(probs[token as usize]);
                Some(*sum)
            })
            .collect();
        let point = at * sums[sums.len() - 1];
        let place = sums.partition_point(|&sum| sum <= point);
        kept[place.min(kept.len() - 1)]
    }

    fn probabilities() -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![
            2 => Just(0.0_f32),
            3 => prop::sample::select(vec![0.125_f32, 0.25, 0.5]), // many alike
            3 => 1e-6_f32..1.0,
            1 => Just(f32::MIN_POSITIVE / 8.0),
        ];
        prop::collection::vec(value, 1..600)
            .prop_filter("something to draw", |probs| probs.iter().any(|&p| p > 0.0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_draw_is_the_one_by_definition(
            probs in probabilities(),
            top_p in prop_oneof![Just(1.0_f32), Just(0.0), 0.0_f32..1.0],
            min_p in prop_oneof![Just(0.0_f32), Just(1.0), 0.0_f32..1.0],
            seed in any::<u64>(),
        ) {
            let kept = naive_kept(&probs, top_p, min_p);
            let mut generator = Generator::new(seed);
            let at = generator.clone().uniform();
            let token = draw(&probs, &params(top_p, min_p), &mut generator).unwrap();
            prop_assert_eq!(token, naive_draw(&probs, &kept, at));
            prop_assert!(probs[token as usize] > 0.0);
            // One number was used, whatever was kept.
            let mut one_on = Generator::new(seed);
            one_on.uniform();
            prop_assert_eq!(generator, one_on);
        }

        #[test]
        fn greedy_takes_the_first_of_the_likeliest(probs in probabilities()) {
            let mut generator = Generator::new(0);
            let token = draw(&probs, &SamplingParams::greedy(), &mut generator).unwrap();
            let most = probs.iter().copied().fold(0.0, f32::max);
            prop_assert_eq!(Some(token as usize), probs.iter().position(|&p| p == most));
            prop_assert_eq!(generator, Generator::new(0));
        }
    }

    #[test]
    fn ties_at_the_edge_of_top_p_keep_the_lowest_ids() {
        let mut candidates = candidates(&[0.25, 0.25, 0.25, 0.25]).unwrap();
        keep_top_p(&mut candidates, 0.5);
        assert_eq!(candidates, [(0, 0.25), (1, 0.25)]);
    }

    #[test]
    fn the_ends_of_the_line_belong_to_the_first_and_the_last() {
        let candidates = [(3, 0.5), (7, 0.25), (9, 0.25)];
        for (at, token) in [(0.0, 3), (0.49, 3), (0.5, 7), (0.75, 9), (1.0, 9)] {
            assert_eq!(choose(candidates.iter().copied(), at), Some(token), "{at}");
        }
    }

    #[test]
    fn no_probabilities_are_errors() {
        let mut generator = Generator::new(0);
        let mut draw = |probs: &[f32]| draw(probs, &params(1.0, 0.0), &mut generator);
        for bad in [f32::NAN, -0.1, f32::INFINITY] {
            let error = draw(&[0.5, bad]).unwrap_err().to_string();
            assert_eq!(error, format!("the probability of token 1 is {bad}"));
        }
        assert_eq!(draw(&[0.0; 3]), Err(SamplingError::NothingToDraw { tokens: 3 }));
        assert_eq!(draw(&[]), Err(SamplingError::NothingToDraw { tokens: 0 }));
    }

    #[test]
    fn the_generator_is_the_same_everywhere_and_always() {
        let mut generator = Generator::new(42);
        let drawn: Vec<u64> = (0..3).map(|_| generator.0.next_u64()).collect();
        assert_eq!(drawn, [4178418447715145737, 4410739922618931473, 14034899209665866285]);
        let other = Generator::new(43).uniform();
        assert_ne!(Generator::new(42).uniform().to_bits(), other.to_bits());
    }

    /// Pearson's chi-square of 200,000 draws against the probabilities that top-p and min-p leave.
    fn chi_square(probs: &[f32], top_p: f32, min_p: f32, seed: u64) -> (f64, usize) {
        const DRAWS: usize = 200_000;
        let mut generator = Generator::new(seed);
        let mut counts = vec![0_usize; probs.len()];
        for _ in 0..DRAWS {
            let token = draw(probs, &params(top_p, min_p), &mut generator).unwrap();
            counts[token as usize] += 1;
        }
        let kept = naive_kept(probs, top_p, min_p);
        assert_eq!(kept.iter().map(|&i| counts[i as usize]).sum::<usize>(), DRAWS);
        let all: f64 = kept.iter().map(|&i| f64::from(probs[i as usize])).sum();
        let terms = kept.iter().map(|&i| {
            let expected = f64::from(probs[i as usize]) / all * DRAWS as f64;
            (counts[i as usize] as f64 - expected).powi(2) / expected
        });
        (terms.sum(), kept.len() - 1)
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let probs: Vec<f32> = (0..50).map(|i| (-0.1 * i as f32).exp() * 0.1).collect();
        for (top_p, min_p, seed) in [(1.0, 0.0, 1), (0.8, 0.0, 2), (1.0, 0.3, 3), (0.9, 0.15, 4)] {
            let (statistic, degrees) = chi_square(&probs, top_p, min_p, seed);
            // Within 3.3 standard deviations of its mean: with these seeds, for good.
            let (mean, deviation) = (degrees as f64, (2.0 * degrees as f64).sqrt());
            assert!((statistic - mean).abs() < 3.3 * deviation, "{statistic} for {degrees} degrees");
        }
    }
}
