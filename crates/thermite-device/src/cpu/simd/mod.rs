//! Eight float lanes on any processor, and sixteen for products: kernels are written once over [`Simd`] and [`Wide`] and
//! compiled for each instruction set by [`simd_fn!`].

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod wide;

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::Amx;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
pub(crate) use math::{exp, exp_of_negative, tanh};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;
pub(crate) use wide::Wide;

/// Lanes of a vector.
pub(crate) const LANES: usize = 8;

/// One vector's worth of values in memory.
pub(crate) type Chunk<T = f32> = [T; LANES];

/// The instruction sets there are kernels for. A value of this type is only made by [`Isa::detect`] and
/// [`Isa::named`], which ask the processor first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust.
    Portable(Portable),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 with VNNI, for products; the rest as on AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// AMX, for products of bytes with many rows of activations, and for bfloat16 weights; the rest as on AVX-512.
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
    /// NEON with dot products, for products of bytes; the rest in plain Rust, which is compiled to NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// The best this processor has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().into_iter().next_back().unwrap_or(Self::Portable(Portable::new()))
    }

    /// All this processor has, the best last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::Portable(Portable::new())];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(Self::Avx2));
            all.extend(Avx512::detect().map(Self::Avx512));
            all.extend(Amx::detect().map(Self::Amx));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(Neon::detect().map(Self::Neon));
        all
    }

    /// The instruction set of that name, if this processor has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// Its name: `portable`, `avx2`, `avx512`, `amx`, `neon`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => "amx",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }
}

/// Arithmetic on eight lanes. A value of the type is the proof that the processor has the instructions.
pub(crate) trait Simd: Copy + Send + Sync {
    type V: Copy;
    /// Eight 32-bit integers.
    type I: Copy;
    /// Eight pairs of 16-bit integers.
    type Pairs: Copy;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, from: &Chunk) -> Self::V;
    fn load_f16(self, from: &Chunk<f16>) -> Self::V;
    fn load_bf16(self, from: &Chunk<bf16>) -> Self::V;
    fn store(self, v: Self::V, to: &mut Chunk);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of numbers that are not negative, NaN above all.
    fn max_or_nan(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` with the sign of `sign`.
    fn copysign(self, a: Self::V, sign: Self::V) -> Self::V;
    /// `yes` where `a < b`, else `no`.
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// To the nearest integer.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` for integral `n` in `-126 ..= 127`.
    fn exp2i(self, n: Self::V) -> Self::V;

    fn splat_int(self, x: i32) -> Self::I;
    fn to_floats(self, x: Self::I) -> Self::V;
    /// Sixteen bytes, sign and all.
    fn widen(self, from: &[i8; 2 * LANES]) -> Self::Pairs;
    fn splat_pair(self, pair: [i16; 2]) -> Self::Pairs;
    /// `acc + a[0] * b[0] + a[1] * b[1]`, pair by pair.
    fn add_products(self, acc: Self::I, a: Self::Pairs, b: Self::Pairs) -> Self::I;
    /// To the nearest integers, `low` before `high`; of what is beyond `-32767 ..= 32767` or no number, some integer.
    fn to_shorts(self, low: Self::V, high: Self::V) -> [i16; 2 * LANES];

    /// Asks for memory that will be read soon.
    #[inline(always)]
    fn prefetch<T>(self, _memory: &[T]) {}

    fn lanes(self, v: Self::V) -> Chunk {
        let mut out = [0.0; LANES];
        self.store(v, &mut out);
        out
    }
    /// The sum of the lanes, always in the same order.
    fn sum(self, v: Self::V) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.lanes(v);
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    /// The largest lane; NaN lanes do not count.
    fn max_lane(self, v: Self::V) -> f32 {
        self.lanes(v).into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// What a matrix or a cache stores, and how sixteen of it become floats.
pub(crate) trait Stored: bytemuck::Pod + Send + Sync {
    fn load<S: Wide>(s: S, from: &[Chunk<Self>; 2]) -> S::W;
    /// Converts `x` to `to`, which is as long.
    fn from_floats(x: &[f32], to: &mut [Self]);
    fn to_f32(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Wide>(s: S, from: &[Chunk; 2]) -> S::W {
        s.load_wide(from)
    }
    fn from_floats(x: &[f32], to: &mut [Self]) {
        to.copy_from_slice(x);
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn load<S: Wide>(s: S, from: &[Chunk<f16>; 2]) -> S::W {
        s.load_wide_f16(from)
    }
    fn from_floats(x: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(x);
    }
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn load<S: Wide>(s: S, from: &[Chunk<bf16>; 2]) -> S::W {
        s.load_wide_bf16(from)
    }
    fn from_floats(x: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(x);
    }
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

/// Makes `name(isa, args)` out of a body generic over [`Simd`] or [`Wide`], compiled once for each instruction set. The body
/// must be `#[inline(always)]`.
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($g:ident: $bound:path),+>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:expr;) => {
        $(#[$meta])*
        $vis fn $name $(<$($g: $bound),+>)? (isa: $crate::cpu::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2 $(<$($g: $bound),+>)? (simd: $crate::cpu::simd::Avx2, $($arg: $ty),*) $(-> $ret)? {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
            fn avx512 $(<$($g: $bound),+>)? (simd: $crate::cpu::simd::Avx512, $($arg: $ty),*) $(-> $ret)? {
                $body(simd, $($arg),*)
            }
            match isa {
                $crate::cpu::simd::Isa::Portable(simd) => $body(simd, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Avx2` exists only where the processor has these instructions.
                #[allow(unsafe_code)]
                $crate::cpu::simd::Isa::Avx2(simd) => unsafe { avx2 $(::<$($g),+>)? (simd, $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above, of `Avx512`.
                #[allow(unsafe_code)]
                $crate::cpu::simd::Isa::Avx512(simd) => unsafe { avx512 $(::<$($g),+>)? (simd, $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                #[allow(unsafe_code)]
                $crate::cpu::simd::Isa::Amx(proof) => unsafe { avx512 $(::<$($g),+>)? (proof.avx512(), $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::cpu::simd::Isa::Neon(proof) => $body(proof.portable(), $($arg),*),
            }
        }
    };
}
pub(crate) use simd_fn;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("abacus"), None);
    }
}
