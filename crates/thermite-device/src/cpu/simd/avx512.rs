//! AVX-512 with VNNI: what products use. Vectors of eight floats are those of AVX2.
//!
//! The intrinsics are safe to call because an [`Avx512`] is only made on a processor that has them.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Avx2, Chunk, Wide};

/// The proof that the processor has AVX2 and AVX-512 F, BW, VL and VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(Avx2);

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        Avx2::detect().filter(|_| has).map(Self)
    }
}

impl Wide for Avx512 {
    type W = __m512;
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat_wide(self, x: f32) -> __m512 {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load_wide(self, from: &[Chunk; 2]) -> __m512 {
        // SAFETY: `from` is sixteen floats; `self` proves the instruction.
        unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn load_wide_f16(self, from: &[Chunk<f16>; 2]) -> __m512 {
        // SAFETY: `from` is 32 bytes; `self` proves the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_wide_bf16(self, from: &[Chunk<bf16>; 2]) -> __m512 {
        // SAFETY: `from` is 32 bytes; `self` proves the instructions.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn store_wide(self, v: __m512, to: &mut [Chunk; 2]) {
        // SAFETY: `to` is sixteen floats; `self` proves the instruction.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn fma_wide(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}
