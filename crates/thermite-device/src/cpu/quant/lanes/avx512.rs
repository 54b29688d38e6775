//! A panel in one AVX-512 register; VNNI multiplies bytes and sums four products to 32 bits.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::f16;

use super::{Lanes, Range, Step};
use crate::cpu::simd::Avx512;
use crate::cpu::tile::PANEL;

/// The proof that the processor has AVX-512 with VNNI, at work on panels.
#[derive(Clone, Copy)]
pub(in crate::cpu::quant) struct Avx512Lanes(pub(in crate::cpu::quant) Avx512);

/// Wraps register arithmetic: an intrinsic without pointers.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { $e }
    };
}

impl Lanes for Avx512Lanes {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;

    // what a row's activations are read for serves two panels: of such loads the processor has one a cycle, and of the
    // products two
    const ROWS: usize = 6;
    const PANELS: usize = 2;

    #[inline(always)]
    fn load(self, from: &Step) -> __m512i {
        // SAFETY: `from` is 64 bytes; `self` proves the instruction.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, bytes: __m512i, to: &mut Step) {
        // SAFETY: `to` is 64 bytes; `self` proves the instruction.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes) }
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn field(self, a: __m512i, low: u32, to: u32, mask: u8) -> __m512i {
        // 16 bits at a time: what crosses a byte is masked away
        op!({
            let moved = if low > to {
                _mm512_srl_epi16(a, _mm_cvtsi32_si128((low - to) as i32))
            } else {
                _mm512_sll_epi16(a, _mm_cvtsi32_si128((to - low) as i32))
            };
            _mm512_and_si512(moved, _mm512_set1_epi8(mask as i8))
        })
    }
    #[inline(always)]
    fn column(self, a: __m512i, c: usize, signed: bool) -> __m512 {
        op!({
            let top = _mm512_sll_epi32(a, _mm_cvtsi32_si128(24 - 8 * c as i32));
            let low = if signed { _mm512_srai_epi32::<24>(top) } else { _mm512_srli_epi32::<24>(top) };
            _mm512_cvtepi32_ps(low)
        })
    }

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "a step is one of all rows and of the weights")]
    fn dot<const R: usize, const P: usize, const N: usize>(
        self,
        range: Range,
        weights: impl Fn(usize, usize) -> __m512i,
        rows: [&[i32; N]; R],
        totals: [i32; R],
    ) -> [[__m512i; P]; R] {
        op!({
            let mut sums = [[_mm512_setzero_si512(); P]; R];
            // the instruction takes weights from 0 on: signed ones are 128 too large, and it is taken away before
            let signed = range == Range::Signed8;
            if signed {
                for r in 0..R {
                    sums[r] = [self.sub_shifted(_mm512_setzero_si512(), totals[r], 7); P];
                }
            }
            for k in 0..N {
                let mut w = [_mm512_setzero_si512(); P];
                for p in 0..P {
                    w[p] = weights(p, k);
                    if signed {
                        w[p] = _mm512_xor_si512(w[p], _mm512_set1_epi8(-128));
                    }
                }
                for r in 0..R {
                    let x = _mm512_set1_epi32(rows[r][k]);
                    for p in 0..P {
                        sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], w[p], x);
                    }
                }
            }
            sums
        })
    }
    #[inline(always)]
    fn sub_shifted(self, a: __m512i, x: i32, shift: u32) -> __m512i {
        op!(_mm512_sub_epi32(a, _mm512_set1_epi32(x << shift)))
    }
    #[inline(always)]
    fn to_floats(self, a: __m512i) -> __m512 {
        op!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load_f32(self, from: &[f32; PANEL]) -> __m512 {
        // SAFETY: `from` is sixteen floats; `self` proves the instruction.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; PANEL]) -> __m512 {
        // SAFETY: `from` is 32 bytes; `self` proves the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; PANEL]) -> __m512 {
        // SAFETY: `from` is 16 bytes; `self` proves the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; PANEL]) -> __m512 {
        // SAFETY: `from` is 16 bytes; `self` proves the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn store_f32(self, a: __m512, to: &mut [f32; PANEL]) {
        // SAFETY: `to` is sixteen floats; `self` proves the instruction.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), a) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch is no access, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}
