//! Eight lanes in one AVX2 register, with FMA and F16C.
//!
//! The intrinsics are safe to call because an [`X86`] is only made on a processor that has them.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Avx512, Chunk, Simd};

/// The proof that the processor has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

/// A proof that the processor has AVX2, FMA and F16C, if not more.
///
/// # Safety
/// There must be no value of the type on a processor without them.
pub(super) unsafe trait X86: Copy + Send + Sync {}

// SAFETY: `detect` alone makes one, and asks.
unsafe impl X86 for Avx2 {}
// SAFETY: an `Avx512` is made of an `Avx2`.
unsafe impl X86 for Avx512 {}

/// Wraps register arithmetic: an intrinsic without pointers.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { $e }
    };
}

impl<S: X86> Simd for S {
    type V = __m256;
    type I = __m256i;
    type Pairs = __m256i;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        op!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &Chunk) -> __m256 {
        // SAFETY: `from` is eight floats; `self` proves the instruction.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, from: &Chunk<f16>) -> __m256 {
        // SAFETY: `from` is sixteen bytes; `self` proves the instructions.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, from: &Chunk<bf16>) -> __m256 {
        // SAFETY: `from` is sixteen bytes; `self` proves the instructions.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn store(self, v: __m256, to: &mut Chunk) {
        // SAFETY: `to` is eight floats; `self` proves the instruction.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        op!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn max_or_nan(self, a: __m256, b: __m256) -> __m256 {
        // the bits of such numbers are ordered as they are, with NaN of either sign above all
        op!(_mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(a), _mm256_castps_si256(b))))
    }
    #[inline(always)]
    fn copysign(self, a: __m256, sign: __m256) -> __m256 {
        op!({
            let mask = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(mask, a), _mm256_and_ps(mask, sign))
        })
    }
    #[inline(always)]
    fn if_less(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        op!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        op!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn exp2i(self, n: __m256) -> __m256 {
        op!({
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> __m256i {
        op!(_mm256_set1_epi32(x))
    }
    #[inline(always)]
    fn to_floats(self, x: __m256i) -> __m256 {
        op!(_mm256_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn widen(self, from: &[i8; 16]) -> __m256i {
        // SAFETY: `from` is sixteen bytes; `self` proves the instructions.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn splat_pair(self, pair: [i16; 2]) -> __m256i {
        op!(_mm256_set1_epi32(bytemuck::cast(pair)))
    }
    #[inline(always)]
    fn add_products(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_add_epi32(acc, _mm256_madd_epi16(a, b)))
    }
    #[inline(always)]
    fn to_shorts(self, low: __m256, high: __m256) -> [i16; 16] {
        op!({
            let halves = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
            // packing goes by halves of the registers: put the quarters in order
            let shorts = _mm256_permute4x64_epi64::<0b11_01_10_00>(halves);
            std::mem::transmute::<__m256i, [i16; 16]>(shorts)
        })
    }
    #[inline(always)]
    fn prefetch<T>(self, memory: &[T]) {
        let start = memory.as_ptr().cast::<i8>();
        for at in (0..size_of_val(memory)).step_by(64) {
            // SAFETY: the address is in `memory`, and a prefetch is no access.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at)) }
        }
    }
}
