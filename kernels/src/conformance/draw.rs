//! Tokens that are drawn.

use super::case::{Case, CaseOf, Tolerance, stored};
use super::data::Data;
use super::sampling::{each_logits, masked};
use crate::syntax::Kernel;

/// What rounding may move, in parts of the whole: nothing is decided by less.
const EDGE: f64 = 1e-5;
/// Positions that are tried for a draw that is clear.
const MOST_TRIED: i32 = 100;
/// (top_p, min_p).
const FILTERS: &[(f32, f32)] = &[(1.0, 0.0), (0.9, 0.05), (0.3, 0.0), (1.0, 0.5), (0.0, 0.0), (0.5, 1.0)];
/// Logits that top-k leaves.
const KEPT: usize = 40;

pub(super) fn draw(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_logits(|kind, rows, v, threads, logits| {
        let filters = if kind.is_empty() && v < 10_000 { FILTERS } else { &FILTERS[..3] };
        let mut case = |about, logits: &Data, i: usize| {
            let drawn = (0..rows).map(|row| {
                let seed = 0x0123_4567_89ab_cdef_u64.rotate_left((5 * row + i) as u32);
                first_clear(&logits.values()[row * v..][..v], seed, 1000 * row as i32 - 1, FILTERS[i])
            });
            let Some(drawn) = drawn.collect::<Option<Vec<Draw>>>() else { return };
            let positions = drawn.iter().map(|draw| draw.position).collect();
            let seeds = drawn.iter().flat_map(|draw| [draw.seed as i32, (draw.seed >> 32) as i32]);
            let wanted = drawn.iter().map(|draw| draw.token as f64).collect();
            CaseOf::new(kernel, &[("rows", rows), ("V", v)])
                .about(about)
                .threads(threads)
                .read("logits", logits.clone())
                .read("positions", Data::I32(positions))
                .read("seeds", Data::I32(seeds.collect()))
                .float("top_p", FILTERS[i].0)
                .float("min_p", FILTERS[i].1)
                .write("out", wanted, Tolerance::EXACT)
                .visit(visit);
        };
        (0..filters.len()).for_each(|i| case(kind, &logits, i));
        if v > KEPT {
            let left: Vec<f64> = logits.values().chunks(v).flat_map(|row| masked(row, KEPT)).collect();
            case("after top-k", &stored(kernel, "logits", &left), 1);
        }
    });
}

/// What is drawn at a position.
struct Draw {
    seed: u64,
    position: i32,
    token: i64,
}

/// The draw at the first position from `position` on at which rounding decides nothing, if that comes soon.
fn first_clear(x: &[f64], seed: u64, position: i32, filters: (f32, f32)) -> Option<Draw> {
    (position..position + MOST_TRIED).find_map(|position| {
        let token = token_at(x, seed, position, filters)?;
        Some(Draw { seed, position, token })
    })
}

/// The token, by the definition; none where it is decided by less than rounding may move.
fn token_at(x: &[f64], seed: u64, position: i32, filters: (f32, f32)) -> Option<i64> {
    let (top_p, min_p) = (f64::from(filters.0), f64::from(filters.1));
    let top = x.iter().copied().filter(|x| !x.is_nan()).fold(f64::NEG_INFINITY, f64::max);
    if top.is_infinite() {
        return Some(-1);
    }
    let weight = |x: f64| if x.is_nan() { 0.0 } else { (x - top).exp() };
    let weights: Vec<f64> = x.iter().map(|&x| weight(x)).collect();
    let total: f64 = weights.iter().sum();
    // of those that come before the last one drawn, which are all at first
    let mut left: Vec<usize> = (0..x.len()).filter(|&i| weights[i] > 0.0).collect();
    for n in 0.. {
        let all: f64 = left.iter().map(|&i| weights[i]).sum();
        let point = random_bits(seed, position as u32, n) as f64 / 2f64.powi(64) * all;
        let mut end = 0.0;
        let found = left.iter().copied().find(|&i| {
            end += weights[i];
            point < end
        });
        let token = found?;
        if (end - point).min(point - (end - weights[token])) < EDGE * all {
            return None;
        }
        let own = weights[token];
        let close = |a: f64, b: f64| a != b && (a - b).abs() < EDGE * b;
        let before = |i: usize| weights[i] > own || (weights[i] == own && i < token);
        // two that rounding may put in another order
        if left.iter().any(|&i| close(weights[i], own)) {
            return None;
        }
        left.retain(|&i| before(i));
        let ahead: f64 = left.iter().map(|&i| weights[i]).sum();
        let share = top_p * total;
        if !left.is_empty() && top_p < 1.0 && close(ahead, share) || close(own, min_p) {
            return None;
        }
        if own >= min_p && (left.is_empty() || top_p >= 1.0 || ahead < share) {
            return Some(token as i64);
        }
    }
    None
}

/// Philox4x32-10 by its definition (Salmon et al., SC 2011, section 4.3): the first 64 bits of the block.
fn random_bits(seed: u64, position: u32, n: u32) -> u64 {
    let [low, high, ..] = philox([position, n, 0, 0], [seed as u32, (seed >> 32) as u32]);
    u64::from(high) << 32 | u64::from(low)
}

fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    (0..10).fold(counter, |[c0, c1, c2, c3], round| {
        let [k0, k1] = [0, 1].map(|i| key[i].wrapping_add(WEYL[i].wrapping_mul(round)));
        let [p0, p1] = [(MULTIPLIERS[0], c0), (MULTIPLIERS[1], c2)].map(|(m, c)| u64::from(m) * u64::from(c));
        [(p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123, the authors' library.
    #[test]
    fn the_numbers_are_philoxs() {
        for (counter, key, wanted) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), wanted);
        }
    }
}
