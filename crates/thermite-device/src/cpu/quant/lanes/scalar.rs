//! One output of a panel in plain Rust: how a row is read back, and how panels are on processors without lanes.

use half::f16;

use super::{Lanes, Range, Step};
use crate::cpu::tile::PANEL;

/// Output `.0` of a panel.
#[derive(Clone, Copy)]
pub(in crate::cpu::quant) struct One(pub(in crate::cpu::quant) usize);

impl Lanes for One {
    type Bytes = [u8; 4];
    type Ints = i32;
    type Floats = f32;

    #[inline(always)]
    fn load(self, from: &Step) -> [u8; 4] {
        let (outputs, _) = from.as_chunks();
        outputs[self.0]
    }
    #[inline(always)]
    fn store(self, bytes: [u8; 4], to: &mut Step) {
        let (outputs, _) = to.as_chunks_mut();
        outputs[self.0] = bytes;
    }
    #[inline(always)]
    fn or(self, a: [u8; 4], b: [u8; 4]) -> [u8; 4] {
        (u32::from_ne_bytes(a) | u32::from_ne_bytes(b)).to_ne_bytes()
    }
    #[inline(always)]
    fn field(self, a: [u8; 4], low: u32, to: u32, mask: u8) -> [u8; 4] {
        a.map(|a| a >> low << to & mask)
    }
    #[inline(always)]
    fn column(self, a: [u8; 4], c: usize, signed: bool) -> f32 {
        if signed { f32::from(a[c] as i8) } else { f32::from(a[c]) }
    }

    #[inline(always)]
    fn dot<const R: usize, const P: usize, const N: usize>(
        self,
        range: Range,
        weights: impl Fn(usize, usize) -> [u8; 4],
        rows: [&[i32; N]; R],
        _totals: [i32; R],
    ) -> [[i32; P]; R] {
        let product = |w: u8, x: u8| {
            let w = if range == Range::Signed8 { i32::from(w as i8) } else { i32::from(w) };
            w * i32::from(x as i8)
        };
        let step = |p, k, x: i32| -> i32 {
            weights(p, k).iter().zip(x.to_le_bytes()).map(|(w, x)| product(*w, x)).sum()
        };
        rows.map(|row| std::array::from_fn(|p| row.iter().enumerate().map(|(k, x)| step(p, k, *x)).sum()))
    }
    #[inline(always)]
    fn sub_shifted(self, a: i32, x: i32, shift: u32) -> i32 {
        a - (x << shift)
    }
    #[inline(always)]
    fn to_floats(self, a: i32) -> f32 {
        a as f32
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn load_f32(self, from: &[f32; PANEL]) -> f32 {
        from[self.0]
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; PANEL]) -> f32 {
        from[self.0].to_f32()
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; PANEL]) -> f32 {
        f32::from(from[self.0])
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; PANEL]) -> f32 {
        f32::from(from[self.0])
    }
    #[inline(always)]
    fn store_f32(self, a: f32, to: &mut [f32; PANEL]) {
        to[self.0] = a;
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}
}
