//! Eight lanes in plain Rust, which the compiler vectorises as far as the target's baseline goes.

use half::{bf16, f16};

use super::{Chunk, LANES, Simd};

/// Plain Rust, on any processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portable(());

impl Portable {
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> Chunk {
    let mut out = [0.0; LANES];
    for (i, o) in out.iter_mut().enumerate() {
        *o = f(i);
    }
    out
}

impl Simd for Portable {
    type V = Chunk;
    type I = [i32; LANES];
    type Pairs = [[i16; 2]; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Chunk {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &Chunk) -> Chunk {
        *from
    }
    #[inline(always)]
    fn load_f16(self, from: &Chunk<f16>) -> Chunk {
        each(|i| from[i].to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, from: &Chunk<bf16>) -> Chunk {
        each(|i| f32::from_bits(u32::from(from[i].to_bits()) << 16))
    }
    #[inline(always)]
    fn store(self, v: Chunk, to: &mut Chunk) {
        *to = v;
    }
    #[inline(always)]
    fn add(self, a: Chunk, b: Chunk) -> Chunk {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Chunk, b: Chunk) -> Chunk {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Chunk, b: Chunk) -> Chunk {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Chunk, b: Chunk) -> Chunk {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Chunk, b: Chunk, c: Chunk) -> Chunk {
        // without the instruction `mul_add` is a slow library call
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            each(|i| a[i].mul_add(b[i], c[i]))
        } else {
            each(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    fn max(self, a: Chunk, b: Chunk) -> Chunk {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Chunk, b: Chunk) -> Chunk {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn max_or_nan(self, a: Chunk, b: Chunk) -> Chunk {
        // the bits of such numbers are ordered as they are, with NaN of either sign above all
        each(|i| f32::from_bits(a[i].to_bits().max(b[i].to_bits())))
    }
    #[inline(always)]
    fn copysign(self, a: Chunk, sign: Chunk) -> Chunk {
        each(|i| a[i].copysign(sign[i]))
    }
    #[inline(always)]
    fn if_less(self, a: Chunk, b: Chunk, yes: Chunk, no: Chunk) -> Chunk {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn round(self, a: Chunk) -> Chunk {
        // adding 1.5 * 2^23 pushes the fraction out; exact below 2^22, which is all that `exp` asks for
        const SHIFT: f32 = 12_582_912.0;
        each(|i| (a[i] + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn exp2i(self, n: Chunk) -> Chunk {
        each(|i| f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> [i32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    fn to_floats(self, x: [i32; LANES]) -> Chunk {
        each(|i| x[i] as f32)
    }
    #[inline(always)]
    fn widen(self, from: &[i8; 2 * LANES]) -> [[i16; 2]; LANES] {
        let mut out = [[0; 2]; LANES];
        for (o, pair) in out.iter_mut().zip(from.chunks_exact(2)) {
            *o = [i16::from(pair[0]), i16::from(pair[1])];
        }
        out
    }
    #[inline(always)]
    fn splat_pair(self, pair: [i16; 2]) -> [[i16; 2]; LANES] {
        [pair; LANES]
    }
    #[inline(always)]
    fn add_products(self, mut acc: [i32; LANES], a: [[i16; 2]; LANES], b: [[i16; 2]; LANES]) -> [i32; LANES] {
        for i in 0..LANES {
            acc[i] += i32::from(a[i][0]) * i32::from(b[i][0]) + i32::from(a[i][1]) * i32::from(b[i][1]);
        }
        acc
    }
    #[inline(always)]
    fn to_shorts(self, low: Chunk, high: Chunk) -> [i16; 2 * LANES] {
        let mut out = [0; 2 * LANES];
        for (o, x) in out.iter_mut().zip(self.round(low).into_iter().chain(self.round(high))) {
            *o = x as i16;
        }
        out
    }
}
