//! Sixteen lanes: one register where there are such, else two vectors of eight.

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::Avx2;
use super::{Chunk, Portable, Simd};

/// The arithmetic of products, on sixteen lanes.
pub(crate) trait Wide: Simd {
    type W: Copy;
    /// Whether there are registers for 24 such vectors and the operands of their sums; else there are for six.
    const MANY_REGISTERS: bool;

    fn splat_wide(self, x: f32) -> Self::W;
    fn load_wide(self, from: &[Chunk; 2]) -> Self::W;
    fn load_wide_f16(self, from: &[Chunk<f16>; 2]) -> Self::W;
    fn load_wide_bf16(self, from: &[Chunk<bf16>; 2]) -> Self::W;
    fn store_wide(self, v: Self::W, to: &mut [Chunk; 2]);
    /// `a * b + c`, as [`Simd::fma`].
    fn fma_wide(self, a: Self::W, b: Self::W, c: Self::W) -> Self::W;
}

/// Sixteen lanes are two vectors of eight.
trait InHalves: Simd {}

#[cfg(target_arch = "x86_64")]
impl InHalves for Avx2 {}
impl InHalves for Portable {}

impl<S: InHalves> Wide for S {
    type W = [S::V; 2];
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat_wide(self, x: f32) -> Self::W {
        [self.splat(x); 2]
    }
    #[inline(always)]
    fn load_wide(self, [low, high]: &[Chunk; 2]) -> Self::W {
        [self.load(low), self.load(high)]
    }
    #[inline(always)]
    fn load_wide_f16(self, [low, high]: &[Chunk<f16>; 2]) -> Self::W {
        [self.load_f16(low), self.load_f16(high)]
    }
    #[inline(always)]
    fn load_wide_bf16(self, [low, high]: &[Chunk<bf16>; 2]) -> Self::W {
        [self.load_bf16(low), self.load_bf16(high)]
    }
    #[inline(always)]
    fn store_wide(self, v: Self::W, [low, high]: &mut [Chunk; 2]) {
        self.store(v[0], low);
        self.store(v[1], high);
    }
    #[inline(always)]
    fn fma_wide(self, a: Self::W, b: Self::W, c: Self::W) -> Self::W {
        [self.fma(a[0], b[0], c[0]), self.fma(a[1], b[1], c[1])]
    }
}
