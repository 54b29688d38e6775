//! Activations in eight bits: blocks of 32, each with a scale of its own.
//!
//! `x` becomes `scale * q` with `scale = max |x| / 127` and `q` the nearest integer, so that one activation is off by
//! at most half a scale, and a product by at most half the scale times the sum of the weights' magnitudes.

use super::lanes::STEPS;
use super::tiles::TILE;

/// 32 activations of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Block {
    /// Four a step, the first in the lowest byte.
    pub(super) q: [i32; STEPS],
    /// What `q` is multiplied by. Not a number where an activation is not finite: then so is every product.
    pub(super) scale: f32,
    /// `scale` times the sum of all `q`.
    pub(super) sum: f32,
    /// `scale` times the sum of either half.
    pub(super) half_sums: [f32; 2],
    /// The sum of all `q`, and of either half.
    pub(super) total: i32,
    pub(super) half_totals: [i32; 2],
}

impl Block {
    /// 32 values in eight bits.
    #[inline(always)]
    pub(super) fn of(x: &[f32; TILE]) -> Self {
        // the bits of magnitudes are ordered as the magnitudes are, with infinity and NaN above all
        let top = x.iter().fold(0, |top, x| top.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(top);
        let inverse = 127.0 / largest;
        if !largest.is_finite() || !inverse.is_finite() {
            // too small to matter, or no number
            let scale = if largest.is_finite() { 0.0 } else { f32::NAN };
            return Self { scale, sum: scale, half_sums: [scale; 2], ..Self::default() };
        }
        // adding 1.5 * 2^23 rounds to the nearest integer, which is then in the low bits
        const SHIFT: f32 = 12_582_912.0;
        let mut nearest = [0; TILE];
        for (to, x) in nearest.iter_mut().zip(x) {
            *to = (x * inverse + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32;
        }
        let (low, high) = nearest.split_at(TILE / 2);
        let half_totals = [low.iter().sum::<i32>(), high.iter().sum()];
        let mut q = [0i8; TILE];
        q.iter_mut().zip(nearest).for_each(|(q, nearest)| *q = nearest as i8);
        let scale = largest / 127.0;
        let total = half_totals[0] + half_totals[1];
        Self {
            q: bytemuck::cast::<[i8; TILE], [i32; STEPS]>(q).map(i32::from_le),
            scale,
            sum: scale * total as f32,
            half_sums: half_totals.map(|total| scale * total as f32),
            total,
            half_totals,
        }
    }
}
