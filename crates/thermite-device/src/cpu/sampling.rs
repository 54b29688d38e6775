//! Kernels over the vocabulary.

use super::rows::{fold, map_inplace};
use super::simd::{Simd, simd_fn, tanh};

simd_fn! {
    /// Index of the largest: ties to the lowest index, NaN below everything.
    pub(super) fn argmax(x: &[f32]) -> usize = argmax_body;
}

#[inline(always)]
fn argmax_body<S: Simd>(s: S, x: &[f32]) -> usize {
    let lowest = f32::NEG_INFINITY;
    // the value comes first, so that a NaN gives way
    let top = s.max_lane(fold(
        s,
        x,
        lowest,
        s.splat(lowest),
        #[inline(always)]
        |acc, v| s.max(v, acc),
    ));
    x.iter().position(|&v| v == top).unwrap_or(0)
}

/// A key that orders floats as numbers, NaN lowest and the zeros equal.
fn order(x: f32) -> u32 {
    if x.is_nan() {
        return 0;
    }
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Keeps exactly the `k` largest, ties by the lowest index; the rest become `-inf`.
pub(super) fn topk(x: &mut [f32], k: usize) {
    if k >= x.len() {
        return;
    }
    if k == 0 {
        return x.fill(f32::NEG_INFINITY);
    }
    let mut keys: Vec<u32> = x.iter().map(|&v| order(v)).collect();
    let (above, &mut threshold, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    let mut ties = k - above.iter().filter(|&&key| key > threshold).count();
    for v in x {
        let key = order(*v);
        let tied = key == threshold && ties > 0;
        ties -= usize::from(tied);
        if key <= threshold && !tied {
            *v = f32::NEG_INFINITY;
        }
    }
}

simd_fn! {
    /// `cap * tanh(x / cap)`.
    pub(super) fn softcap(x: &mut [f32], cap: f32) = softcap_body;
}

#[inline(always)]
pub(super) fn softcap_body<S: Simd>(s: S, x: &mut [f32], cap: f32) {
    let cap = s.splat(cap);
    map_inplace(
        s,
        x,
        #[inline(always)]
        |v| s.mul(cap, tanh(s, s.div(v, cap))),
    );
}

simd_fn! {
    /// `x / by`.
    pub(super) fn divide(x: &mut [f32], by: f32) = divide_body;
}

#[inline(always)]
fn divide_body<S: Simd>(s: S, x: &mut [f32], by: f32) {
    let by = s.splat(by);
    map_inplace(
        s,
        x,
        #[inline(always)]
        |v| s.div(v, by),
    );
}

/// One seen token's logit after the penalties.
pub(super) fn penalized(x: f32, count: i32, repeat: f32, presence: f32, frequency: f32) -> f32 {
    let x = if x > 0.0 { x / repeat } else { x * repeat };
    x - presence - frequency * count as f32
}
