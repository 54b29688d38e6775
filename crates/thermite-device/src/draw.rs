//! From logits to drawn tokens: temperature, top-k, and the draw with top-p and min-p.

use crate::{Device, Result};

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Logits are divided by it; above 0.
    pub temperature: f32,
    /// Only the so many largest logits count; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens count, until they have this share of the probability: 0 to 1, which is all.
    pub top_p: f32,
    /// Only tokens count that are at least this fraction as likely as the likeliest: 0, which is all, to 1.
    pub min_p: f32,
}

impl Draw {
    /// Draws a token from each of `rows` rows of `v` logits, which are not kept: see [`Device::draw_sample`].
    ///
    /// # Errors
    /// The device's.
    pub fn tokens<D: Device>(
        &self,
        d: &D,
        logits: &mut D::Buffer,
        positions: &D::Buffer,
        seeds: &D::Buffer,
        out: &mut D::Buffer,
        rows: usize,
        v: usize,
    ) -> Result<()> {
        if self.temperature != 1.0 {
            d.temperature_scale(logits, rows, v, self.temperature)?;
        }
        if (1..v).contains(&self.top_k) {
            d.topk_mask(logits, rows, v, self.top_k)?;
        }
        d.draw_sample(logits, positions, seeds, out, rows, v, self.top_p, self.min_p)
    }
}

/// A seed as [`Device::draw_sample`] reads it.
#[must_use]
pub const fn seed_words(seed: u64) -> [i32; 2] {
    [seed as i32, (seed >> 32) as i32]
}

/// The seed of these words.
pub(crate) const fn seed_of([low, high]: [i32; 2]) -> u64 {
    (high as u32 as u64) << 32 | low as u32 as u64
}

/// Random point `n` of a row at `position`, in parts of 2^64: the first half of the block of Philox4x32-10 (Salmon et al.,
/// "Parallel random numbers: as easy as 1, 2, 3", SC 2011) of counter (`position`, `n`, 0, 0) under the key `seed`.
#[must_use]
pub const fn random_bits(seed: u64, position: i32, n: u32) -> u64 {
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    let mut c = [position as u32, n, 0, 0];
    let mut round = 0;
    while round < 10 {
        let (a, b) = (0xd251_1f53 * c[0] as u64, 0xcd9e_8d57 * c[2] as u64);
        c = [(b >> 32) as u32 ^ c[1] ^ k0, b as u32, (a >> 32) as u32 ^ c[3] ^ k1, a as u32];
        (k0, k1) = (k0.wrapping_add(0x9e37_79b9), k1.wrapping_add(0xbb67_ae85));
        round += 1;
    }
    (c[1] as u64) << 32 | c[0] as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answer of Random123, the authors' library, for zeros; others are with the kernels' own oracle.
    #[test]
    fn the_numbers_are_philoxs() {
        assert_eq!(random_bits(0, 0, 0), 0xe169_c58d_6627_e8d5);
    }

    #[test]
    fn seeds_come_back() {
        for seed in [0, 1, u64::MAX, 0x8000_0000, 0x0123_4567_89ab_cdef] {
            assert_eq!(seed_of(seed_words(seed)), seed);
        }
    }
}
