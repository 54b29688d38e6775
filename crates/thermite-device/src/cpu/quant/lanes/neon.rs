//! A panel in four NEON registers; `sdot` multiplies bytes and sums four products to 32 bits.
//!
//! `sdot` and the conversion from half precision are written as instructions: their intrinsics are not stable.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::{Lanes, Range, Step};
use crate::cpu::simd::Neon;
use crate::cpu::tile::PANEL;

/// The proof that the processor has NEON with dot products, at work on panels.
#[derive(Clone, Copy)]
pub(in crate::cpu::quant) struct NeonLanes(pub(in crate::cpu::quant) Neon);

/// Wraps register arithmetic: an intrinsic without pointers.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { $e }
    };
}

/// `f` of each of the four registers.
#[inline(always)]
fn each<T>(f: impl Fn(usize) -> T) -> [T; 4] {
    [f(0), f(1), f(2), f(3)]
}

/// `sum + a . b` by fours.
#[inline(always)]
fn sdot(mut sum: int32x4_t, a: uint8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers; lanes exist only where the processor has the instruction.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

impl Lanes for NeonLanes {
    type Bytes = [uint8x16_t; 4];
    type Ints = [int32x4_t; 4];
    type Floats = [float32x4_t; 4];

    #[inline(always)]
    fn load(self, from: &Step) -> [uint8x16_t; 4] {
        // SAFETY: `from` is 64 bytes.
        each(|i| unsafe { vld1q_u8(from.as_ptr().add(16 * i)) })
    }
    #[inline(always)]
    fn store(self, bytes: [uint8x16_t; 4], to: &mut Step) {
        let at = to.as_mut_ptr();
        // SAFETY: `to` is 64 bytes.
        each(|i| unsafe { vst1q_u8(at.add(16 * i), bytes[i]) });
    }
    #[inline(always)]
    fn or(self, a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        each(|i| op!(vorrq_u8(a[i], b[i])))
    }
    #[inline(always)]
    fn field(self, a: [uint8x16_t; 4], low: u32, to: u32, mask: u8) -> [uint8x16_t; 4] {
        each(|i| {
            op!({
                let moved = vshlq_u8(a[i], vdupq_n_s8(to as i8 - low as i8));
                vandq_u8(moved, vdupq_n_u8(mask))
            })
        })
    }
    #[inline(always)]
    fn column(self, a: [uint8x16_t; 4], c: usize, signed: bool) -> [float32x4_t; 4] {
        each(|i| {
            op!({
                let top = vshlq_u32(vreinterpretq_u32_u8(a[i]), vdupq_n_s32(24 - 8 * c as i32));
                if signed {
                    vcvtq_f32_s32(vshrq_n_s32::<24>(vreinterpretq_s32_u32(top)))
                } else {
                    vcvtq_f32_u32(vshrq_n_u32::<24>(top))
                }
            })
        })
    }

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "a step is one of all rows and of the weights")]
    fn dot<const R: usize, const P: usize, const N: usize>(
        self,
        _range: Range,
        weights: impl Fn(usize, usize) -> [uint8x16_t; 4],
        rows: [&[i32; N]; R],
        _totals: [i32; R],
    ) -> [[[int32x4_t; 4]; P]; R] {
        // weights from 0 on are below 128, so all are signed bytes
        let mut sums = [[[op!(vdupq_n_s32(0)); 4]; P]; R];
        for k in 0..N {
            for p in 0..P {
                let w = weights(p, k);
                for r in 0..R {
                    let x = op!(vreinterpretq_s8_s32(vdupq_n_s32(rows[r][k])));
                    for i in 0..4 {
                        sums[r][p][i] = sdot(sums[r][p][i], w[i], x);
                    }
                }
            }
        }
        sums
    }
    #[inline(always)]
    fn sub_shifted(self, a: [int32x4_t; 4], x: i32, shift: u32) -> [int32x4_t; 4] {
        each(|i| op!(vsubq_s32(a[i], vdupq_n_s32(x << shift))))
    }
    #[inline(always)]
    fn to_floats(self, a: [int32x4_t; 4]) -> [float32x4_t; 4] {
        each(|i| op!(vcvtq_f32_s32(a[i])))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [float32x4_t; 4] {
        each(|_| op!(vdupq_n_f32(x)))
    }
    #[inline(always)]
    fn load_f32(self, from: &[f32; PANEL]) -> [float32x4_t; 4] {
        // SAFETY: `from` is sixteen floats.
        each(|i| unsafe { vld1q_f32(from.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; PANEL]) -> [float32x4_t; 4] {
        each(|i| {
            let out: float32x4_t;
            // SAFETY: four of the sixteen halves are read, and widened in a register.
            unsafe {
                let four = vld1_u16(from.as_ptr().cast::<u16>().add(4 * i));
                asm!("fcvtl {out:v}.4s, {four:v}.4h", out = out(vreg) out, four = in(vreg) four,
                    options(pure, nomem, nostack, preserves_flags));
            }
            out
        })
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; PANEL]) -> [float32x4_t; 4] {
        self.load_f32(&from.map(f32::from))
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; PANEL]) -> [float32x4_t; 4] {
        self.load_f32(&from.map(f32::from))
    }
    #[inline(always)]
    fn store_f32(self, a: [float32x4_t; 4], to: &mut [f32; PANEL]) {
        let at = to.as_mut_ptr();
        // SAFETY: `to` is sixteen floats.
        each(|i| unsafe { vst1q_f32(at.add(4 * i), a[i]) });
    }
    #[inline(always)]
    fn add(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        each(|i| op!(vaddq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn mul(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        each(|i| op!(vmulq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn fma(self, a: [float32x4_t; 4], b: [float32x4_t; 4], c: [float32x4_t; 4]) -> [float32x4_t; 4] {
        each(|i| op!(vfmaq_f32(c[i], a[i], b[i])))
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch is no access, whatever the address.
        unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags)) }
    }
}
