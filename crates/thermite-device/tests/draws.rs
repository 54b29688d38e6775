//! Draws follow the probabilities that top-p and min-p leave, and are the same on every device.
#![allow(clippy::unwrap_used)]

mod common;

use common::{instruction_sets, noise};
use thermite_device::cpu::{Cpu, Isa};
use thermite_device::draw::seed_words;
use thermite_device::{Device, Draw, Dtype};

/// (top_p, min_p): alone, together, and all.
const FILTERS: [(f32, f32); 4] = [(1.0, 0.0), (0.8, 0.0), (1.0, 0.3), (0.9, 0.15)];

/// What is drawn from `rows` copies of `logits`, at the positions from `position` on.
fn drawn<D: Device>(d: &D, logits: &[f32], draw: Draw, rows: usize, position: i32, seed: u64) -> Vec<i32> {
    let mut all = d.upload_f32(&logits.repeat(rows)).unwrap();
    let ints = |values: &[i32]| {
        let mut buffer = d.alloc(Dtype::I32, values.len()).unwrap();
        d.write_i32(&mut buffer, values).unwrap();
        buffer
    };
    let positions = ints(&(position..position + rows as i32).collect::<Vec<_>>());
    let seeds = ints(&seed_words(seed).repeat(rows));
    let mut out = ints(&vec![-7; rows]);
    draw.tokens(d, &mut all, &positions, &seeds, &mut out, rows, logits.len()).unwrap();
    let mut tokens = vec![0; rows];
    d.read_i32(&out, 0, &mut tokens).unwrap();
    tokens
}

/// The tokens that are kept and their probabilities, by the definitions, all sorted.
fn kept(logits: &[f32], draw: Draw) -> Vec<(usize, f64)> {
    let weight = |&x: &f32| (f64::from(x) / f64::from(draw.temperature)).exp();
    let mut order: Vec<(usize, f64)> = logits.iter().map(weight).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: the lowest index first
    order.truncate(if draw.top_k == 0 { usize::MAX } else { draw.top_k });
    let all: f64 = order.iter().map(|&(_, w)| w).sum();
    let mut before = 0.0;
    let largest = order[0].1;
    order.retain(|&(_, w)| {
        let in_share = draw.top_p >= 1.0 || before < f64::from(draw.top_p) * all;
        before += w;
        in_share && w >= f64::from(draw.min_p) * largest
    });
    let all: f64 = order.iter().map(|&(_, w)| w).sum();
    order.iter().map(|&(i, w)| (i, w / all)).collect()
}

/// Pearson's chi-square of the tokens against the probabilities, in standard deviations from its mean.
fn chi_square(tokens: &[i32], kept: &[(usize, f64)]) -> f64 {
    let count = |i: usize| tokens.iter().filter(|&&token| token as usize == i).count() as f64;
    assert!(tokens.iter().all(|&token| kept.iter().any(|&(i, _)| i as i32 == token)), "one that is not kept");
    let terms = kept.iter().map(|&(i, p)| {
        let expected = p * tokens.len() as f64;
        (count(i) - expected).powi(2) / expected
    });
    let degrees = (kept.len() - 1) as f64;
    (terms.sum::<f64>() - degrees).abs() / (2.0 * degrees).sqrt()
}

fn follows<D: Device>(d: &D, rows: usize, v: usize) {
    let logits: Vec<f32> = (0..v).map(|i| -0.07 * ((i * 7) % v) as f32).collect();
    for (i, (top_p, min_p)) in FILTERS.into_iter().enumerate() {
        for top_k in [0, v / 2] {
            let draw = Draw { temperature: 0.7, top_k, top_p, min_p };
            let tokens = drawn(d, &logits, draw, rows, 100, i as u64);
            // with these seeds for good
            let off = chi_square(&tokens, &kept(&logits, draw));
            assert!(off < 3.3, "{draw:?}: off by {off} standard deviations");
        }
    }
}

#[test]
fn draws_of_the_cpu_follow_the_probabilities() {
    follows(&Cpu::with(Some(1), Isa::detect()).unwrap(), 100_000, 50);
}

/// Numbers of one seed at many positions, and of many seeds at one position.
#[test]
fn seeds_and_positions_are_alike() {
    let d = Cpu::with(Some(1), Isa::detect()).unwrap();
    let logits = vec![0.0; 16];
    let draw = Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };
    let even: Vec<(usize, f64)> = (0..16).map(|i| (i, 1.0 / 16.0)).collect();
    let seeds: Vec<i32> = (0..20_000).flat_map(|seed| drawn(&d, &logits, draw, 1, 0, seed)).collect();
    assert!(chi_square(&seeds, &even) < 3.3);
    let positions = drawn(&d, &logits, draw, 20_000, 0, 0);
    assert!(chi_square(&positions, &even) < 3.3);
    // one tells nothing of the next
    let pairs: Vec<i32> = positions.windows(2).step_by(2).map(|two| two[0] * 16 + two[1]).collect();
    let even: Vec<(usize, f64)> = (0..256).map(|i| (i, 1.0 / 256.0)).collect();
    assert!(chi_square(&pairs, &even) < 3.3);
}

#[test]
fn every_instruction_set_draws_the_same() {
    let logits: Vec<f32> = noise(5, 5000).iter().map(|x| 9.0 * x).collect();
    let draw = Draw { temperature: 1.3, top_k: 0, top_p: 0.95, min_p: 0.01 };
    let tokens = |isa| drawn(&Cpu::with(Some(1), isa).unwrap(), &logits, draw, 60, 0, 1);
    let sets = instruction_sets();
    let first = tokens(sets[0]);
    assert!(sets.into_iter().all(|isa| tokens(isa) == first));
}

#[cfg(feature = "emulated")]
mod emulated {
    use super::*;
    use thermite_device::emulated::Emulated;
    use thermite_device::launched::Variants;
    use thermite_kernels::emulator::Build;

    #[test]
    fn draws_of_the_kernel_follow_the_probabilities() {
        follows(&Emulated::open(Build::Fast, Variants::Fast).unwrap(), 1000, 20);
    }

    #[test]
    fn the_kernel_draws_what_the_cpu_draws() {
        let (cpu, emulated) = (
            Cpu::with(Some(1), Isa::detect()).unwrap(),
            Emulated::open(Build::Fast, Variants::Fast).unwrap(),
        );
        for (v, rows) in [(1, 2), (33, 30), (2000, 2)] {
            let logits: Vec<f32> = noise(v as u64, v).iter().map(|x| 14.0 * x).collect();
            for (top_p, min_p) in FILTERS.into_iter().chain([(0.0, 0.0), (0.05, 1.0)]) {
                for top_k in [0, 40] {
                    // what a temperature of 0.1 leaves is little, of 10 much
                    for temperature in [0.1, 1.0, 10.0] {
                        let draw = Draw { temperature, top_k, top_p, min_p };
                        let seed = u64::MAX - v as u64;
                        let [cpu, emulated] = [
                            drawn(&cpu, &logits, draw, rows, 7, seed),
                            drawn(&emulated, &logits, draw, rows, 7, seed),
                        ];
                        assert_eq!(cpu, emulated, "{v} tokens, {draw:?}");
                    }
                }
            }
        }
    }
}
