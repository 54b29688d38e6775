//! Draws by the softmax as `draw.metal` makes them: in the same integers, and so with the same token.

use super::simd::{Isa, Simd, simd_fn};
use crate::draw::random_bits;

/// The weight of the likeliest.
const ONE: f32 = (1_u64 << 40) as f32;
/// Logits further below the largest have no weight.
const REACH: f32 = -28.0;
/// Elements whose weights are added up together.
const BLOCK: usize = 64;

/// What a row is drawn by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) seed: u64,
    pub(super) position: i32,
    pub(super) top_p: f32,
    pub(super) min_p: f32,
}

/// A token that was drawn; at first none, which all that have a weight come before.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    index: i32,
    weight: u64,
}

simd_fn! {
    /// The token drawn from logits `x`, the largest of which is `top`; -1 where there is none.
    pub(super) fn draw(x: &[f32], top: f32, point: Point) -> i32 = draw_body;
}

#[inline(always)]
fn draw_body<S: Simd>(_: S, x: &[f32], top: f32, point: Point) -> i32 {
    let Point { seed, position, top_p, min_p } = point;
    let least = ((min_p * ONE) as u64).max(1);
    let mut drawn = Drawn { index: -1, weight: 0 };
    let mut share = 0;
    let mut sums = vec![0; x.len().div_ceil(BLOCK)];
    for n in 0.. {
        for (i, (block, sum)) in x.chunks(BLOCK).zip(&mut sums).enumerate() {
            *sum = sum_before(block, i * BLOCK, top, drawn);
        }
        let all: u64 = sums.iter().sum();
        if n == 0 {
            share = if top_p < 1.0 { fraction_of(((top_p * ONE) as u64) << 24, all) } else { all };
        }
        if all == 0 || (drawn.weight >= least && all < share) {
            break;
        }
        let mut left = fraction_of(random_bits(seed, position, n), all);
        let mut first = 0;
        for sum in &sums {
            if left < *sum {
                break;
            }
            left -= sum;
            first += BLOCK;
        }
        for (i, &x) in x.iter().enumerate().skip(first).take(BLOCK) {
            let own = weight_before(x - top, i, drawn);
            if left < own {
                drawn = Drawn { index: i as i32, weight: own };
                break;
            }
            left -= own;
        }
        if drawn.weight >= least && top_p >= 1.0 {
            break;
        }
    }
    drawn.index
}

/// The sum of the weights of `x`, whose first element is element `first` of the row, as far as they come before `drawn`.
#[inline(always)]
fn sum_before(x: &[f32], first: usize, top: f32, drawn: Drawn) -> u64 {
    // after top-k nearly all are -inf, and a whole block is seen to be so at once
    if !x.iter().fold(false, |any, &x| any | (x - top > REACH)) {
        return 0;
    }
    x.iter().enumerate().map(|(i, &x)| weight_before(x - top, first + i, drawn)).sum()
}

/// The weight of element `i` if it comes before `drawn`: is likelier, or as likely and has a lower index.
#[inline(always)]
fn weight_before(x: f32, i: usize, drawn: Drawn) -> u64 {
    let w = weight_of(x);
    if w > drawn.weight || (w == drawn.weight && (i as i32) < drawn.index) { w } else { 0 }
}

/// 2^40 e^x for x <= 0, rounded down; 0 from x = -28 on, and for a NaN: bit for bit as in `draw.metal`, which is why it
/// calls for a fused multiply-add even where the processor has none.
#[inline(always)]
fn weight_of(x: f32) -> u64 {
    const TAYLOR: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let in_reach = x > REACH;
    let x = if in_reach { x } else { 0.0 };
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let e = TAYLOR.iter().fold(1.0 / 5040.0_f32, |e, c| e.mul_add(r, *c));
    let w = e * f32::from_bits(((n as i32 + 40 + 127) as u32) << 23);
    if in_reach { w as u64 } else { 0 }
}

/// `of` times the fraction `a` of 2^64, rounded down.
#[inline(always)]
const fn fraction_of(a: u64, of: u64) -> u64 {
    ((a as u128 * of as u128) >> 64) as u64
}

/// The largest of `x`, NaN below everything.
pub(super) fn top_of(isa: Isa, x: &[f32]) -> f32 {
    x.get(super::sampling::argmax(isa, x)).copied().unwrap_or(f32::NAN)
}
