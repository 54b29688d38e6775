//! A panel in two AVX2 registers. Products of bytes are summed in pairs to 16 bits, and in 16 bits as long as the
//! range of the weights allows.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use half::f16;

use super::{Lanes, Range, Step};
use crate::cpu::simd::Avx2;
use crate::cpu::tile::PANEL;

/// The proof that the processor has AVX2, FMA and F16C, at work on panels.
#[derive(Clone, Copy)]
pub(in crate::cpu::quant) struct Avx2Lanes(pub(in crate::cpu::quant) Avx2);

/// Wraps register arithmetic: an intrinsic without pointers.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { $e }
    };
}

/// `sums + w x`, pairs of products in 16 bits.
///
/// Written as instructions: as arithmetic, the compiler puts all sums of a tile into trees, for which there are not
/// registers enough by far.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pairs(mut sums: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: arithmetic on registers, with instructions that are enabled here.
    unsafe {
        asm!(
            "vpmaddubsw {pairs}, {w}, {x}",
            "vpaddw {sums}, {sums}, {pairs}",
            pairs = out(ymm_reg) _, sums = inout(ymm_reg) sums, w = in(ymm_reg) w, x = in(ymm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Steps whose products may be summed in 16 bits.
const fn steps_in_pairs(range: Range) -> usize {
    match range {
        Range::Bits4 => 8,
        Range::Bits5 => 4,
        Range::Bits6 => 2,
        Range::Signed8 => 1,
    }
}

/// The body once for every step below `N`, of which there are eight at most: the compiler would keep the loop.
macro_rules! each_step {
    ($n:ident, |$k:ident| $body:block) => {
        each_step!(@ $n $k $body 0 1 2 3 4 5 6 7)
    };
    (@ $n:ident $k:ident $body:block $($i:literal)*) => {
        $(if $i < $n {
            let $k: usize = $i;
            $body
        })*
    };
}

impl Lanes for Avx2Lanes {
    type Bytes = [__m256i; 2];
    type Ints = [__m256i; 2];
    type Floats = [__m256; 2];

    #[inline(always)]
    fn load(self, from: &Step) -> [__m256i; 2] {
        let at: *const __m256i = from.as_ptr().cast();
        // SAFETY: `from` is 64 bytes; `self` proves the instruction.
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }
    #[inline(always)]
    fn store(self, bytes: [__m256i; 2], to: &mut Step) {
        let at: *mut __m256i = to.as_mut_ptr().cast();
        // SAFETY: `to` is 64 bytes; `self` proves the instruction.
        unsafe {
            _mm256_storeu_si256(at, bytes[0]);
            _mm256_storeu_si256(at.add(1), bytes[1]);
        }
    }
    #[inline(always)]
    fn or(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        op!([_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn field(self, a: [__m256i; 2], low: u32, to: u32, mask: u8) -> [__m256i; 2] {
        // 16 bits at a time: what crosses a byte is masked away
        op!({
            let moved = if low > to {
                let by = _mm_cvtsi32_si128((low - to) as i32);
                [_mm256_srl_epi16(a[0], by), _mm256_srl_epi16(a[1], by)]
            } else if low < to {
                let by = _mm_cvtsi32_si128((to - low) as i32);
                [_mm256_sll_epi16(a[0], by), _mm256_sll_epi16(a[1], by)]
            } else {
                a
            };
            let mask = _mm256_set1_epi8(mask as i8);
            [_mm256_and_si256(moved[0], mask), _mm256_and_si256(moved[1], mask)]
        })
    }
    #[inline(always)]
    fn column(self, a: [__m256i; 2], c: usize, signed: bool) -> [__m256; 2] {
        let up = op!(_mm_cvtsi32_si128(24 - 8 * c as i32));
        self.to_floats(a.map(
            #[inline(always)]
            |a| {
                op!({
                    let top = _mm256_sll_epi32(a, up);
                    if signed { _mm256_srai_epi32::<24>(top) } else { _mm256_srli_epi32::<24>(top) }
                })
            },
        ))
    }

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "a step is one of all rows and of the weights")]
    fn dot<const R: usize, const P: usize, const N: usize>(
        self,
        range: Range,
        weights: impl Fn(usize, usize) -> [__m256i; 2],
        rows: [&[i32; N]; R],
        _totals: [i32; R],
    ) -> [[[__m256i; 2]; P]; R] {
        op!({
            let ones = _mm256_set1_epi16(1);
            let zero = _mm256_setzero_si256();
            let mut sums = [[[zero; 2]; P]; R];
            if range == Range::Signed8 {
                for k in 0..N {
                    for p in 0..P {
                        let w = weights(p, k);
                        for r in 0..R {
                            let x = _mm256_set1_epi32(rows[r][k]);
                            for half in 0..2 {
                                let (size, signed) = (_mm256_abs_epi8(w[half]), _mm256_sign_epi8(x, w[half]));
                                let quads = _mm256_madd_epi16(_mm256_maddubs_epi16(size, signed), ones);
                                sums[r][p][half] = _mm256_add_epi32(sums[r][p][half], quads);
                            }
                        }
                    }
                }
                return sums;
            }
            let group = steps_in_pairs(range);
            let mut pairs = [[[zero; 2]; P]; R];
            each_step!(N, |k| {
                for p in 0..P {
                    let w = weights(p, k);
                    for r in 0..R {
                        let x = _mm256_set1_epi32(rows[r][k]);
                        for half in 0..2 {
                            let (pairs, sums) = (&mut pairs[r][p][half], &mut sums[r][p][half]);
                            *pairs = if k.is_multiple_of(group) {
                                _mm256_maddubs_epi16(w[half], x)
                            } else {
                                add_pairs(*pairs, w[half], x)
                            };
                            if (k + 1).is_multiple_of(group) || k + 1 == N {
                                let quads = _mm256_madd_epi16(*pairs, ones);
                                *sums = if k < group { quads } else { _mm256_add_epi32(*sums, quads) };
                            }
                        }
                    }
                }
            });
            sums
        })
    }
    #[inline(always)]
    fn sub_shifted(self, a: [__m256i; 2], x: i32, shift: u32) -> [__m256i; 2] {
        op!({
            let x = _mm256_sll_epi32(_mm256_set1_epi32(x), _mm_cvtsi32_si128(shift as i32));
            [_mm256_sub_epi32(a[0], x), _mm256_sub_epi32(a[1], x)]
        })
    }
    #[inline(always)]
    fn to_floats(self, a: [__m256i; 2]) -> [__m256; 2] {
        op!([_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])])
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        op!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn load_f32(self, from: &[f32; PANEL]) -> [__m256; 2] {
        let at = from.as_ptr();
        // SAFETY: `from` is sixteen floats; `self` proves the instruction.
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; PANEL]) -> [__m256; 2] {
        let at: *const __m128i = from.as_ptr().cast();
        // SAFETY: `from` is 32 bytes; `self` proves the instructions.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))] }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; PANEL]) -> [__m256; 2] {
        let at: *const __m128i = from.as_ptr().cast();
        // SAFETY: `from` is 16 bytes; `self` proves the instructions.
        unsafe {
            let bytes = _mm_loadu_si128(at);
            self.to_floats([
                _mm256_cvtepu8_epi32(bytes),
                _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)),
            ])
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; PANEL]) -> [__m256; 2] {
        let at: *const __m128i = from.as_ptr().cast();
        // SAFETY: `from` is 16 bytes; `self` proves the instructions.
        unsafe {
            let bytes = _mm_loadu_si128(at);
            self.to_floats([
                _mm256_cvtepi8_epi32(bytes),
                _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)),
            ])
        }
    }
    #[inline(always)]
    fn store_f32(self, a: [__m256; 2], to: &mut [f32; PANEL]) {
        let at = to.as_mut_ptr();
        // SAFETY: `to` is sixteen floats; `self` proves the instruction.
        unsafe {
            _mm256_storeu_ps(at, a[0]);
            _mm256_storeu_ps(at.add(8), a[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        op!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        op!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        op!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch is no access, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}
