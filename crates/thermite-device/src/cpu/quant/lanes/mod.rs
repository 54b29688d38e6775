//! Integer arithmetic on a panel: sixteen outputs side by side, four columns of each in a step.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2Lanes;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512Lanes;
use half::f16;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::NeonLanes;
pub(super) use scalar::One;

use crate::cpu::tile::PANEL;

/// Four columns of sixteen outputs: byte `4 * output + column`.
pub(in crate::cpu) type Step = [u8; 4 * PANEL];

/// Steps of a tile of 32 columns.
pub(super) const STEPS: usize = 8;

/// How the bytes of a tile are weights, and so how they may be summed before a sum passes 16 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// `0 ..= 15`, or less.
    Bits4,
    /// `0 ..= 31`.
    Bits5,
    /// `0 ..= 63`.
    Bits6,
    /// `-128 ..= 127`.
    Signed8,
}

/// Arithmetic on sixteen outputs. A value of the type is the proof that the processor has the instructions.
pub(super) trait Lanes: Copy + Send + Sync {
    /// A [`Step`] in registers.
    type Bytes: Copy;
    /// Sixteen 32-bit integers.
    type Ints: Copy;
    /// Sixteen floats.
    type Floats: Copy;

    /// Rows of activations, and panels, whose sums the registers hold at once.
    const ROWS: usize = 4;
    const PANELS: usize = 1;

    fn load(self, from: &Step) -> Self::Bytes;
    fn store(self, bytes: Self::Bytes, to: &mut Step);
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The bits of each byte from bit `low` on, moved to bit `to`; what `mask` leaves of them there.
    fn field(self, a: Self::Bytes, low: u32, to: u32, mask: u8) -> Self::Bytes;
    /// Column `c` of the four, unsigned or signed, as floats.
    fn column(self, a: Self::Bytes, c: usize, signed: bool) -> Self::Floats;

    /// The sums over the steps of weights times activations, four columns a step, for `R` rows of activations and `P`
    /// panels. Weights, given by panels and steps, are as `range` says, activations within `-127 ..= 127`, and `totals`
    /// are the sums of the rows.
    fn dot<const R: usize, const P: usize, const N: usize>(
        self,
        range: Range,
        weights: impl Fn(usize, usize) -> Self::Bytes,
        rows: [&[i32; N]; R],
        totals: [i32; R],
    ) -> [[Self::Ints; P]; R];
    /// `a - x * 2^shift` in every lane.
    fn sub_shifted(self, a: Self::Ints, x: i32, shift: u32) -> Self::Ints;
    fn to_floats(self, a: Self::Ints) -> Self::Floats;

    fn splat(self, x: f32) -> Self::Floats;
    fn load_f32(self, from: &[f32; PANEL]) -> Self::Floats;
    fn load_f16(self, from: &[f16; PANEL]) -> Self::Floats;
    fn load_u8(self, from: &[u8; PANEL]) -> Self::Floats;
    fn load_i8(self, from: &[i8; PANEL]) -> Self::Floats;
    fn store_f32(self, a: Self::Floats, to: &mut [f32; PANEL]);
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Asks for memory that will be read soon. Any address may be given.
    fn prefetch(self, at: *const u8);
}
