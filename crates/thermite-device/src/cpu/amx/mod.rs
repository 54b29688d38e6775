//! Products on AMX: a tile is a register of up to sixteen rows of 64 bytes, and one instruction multiplies two of them
//! into a third.
//!
//! A tile of sums has a row of activations in each row and a panel's sixteen outputs across; the tile of weights that
//! goes with it holds a panel as [`quant`](super::quant) and [`dense`] lay it, four bytes or two bfloat16 of each output
//! side by side. The sums of a row do not depend on the rows beside it, and those of bytes are exact.
#![allow(unsafe_code, reason = "tile instructions have no stable intrinsics")]

pub(super) mod dense;

use std::arch::asm;

use super::simd::Amx;

/// Rows of a tile.
pub(super) const ROWS: usize = 16;

/// Bytes of a row of a tile.
pub(super) const ROW: usize = 64;

/// The shape of a tile.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: u8,
    /// Bytes of a row.
    pub(super) row: u16,
}

/// What `ldtilecfg` loads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tiles of this thread, configured until this is dropped.
pub(super) struct Tiles {
    /// Tiles belong to a thread.
    here: std::marker::PhantomData<*const ()>,
}

impl Tiles {
    /// Tiles 0 to 3 for `sums`, 4 and 5 for `activations`, 6 and 7 for `weights`, with undefined values.
    pub(super) fn new(_proof: Amx, sums: Shape, activations: Shape, weights: Shape) -> Self {
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let shapes = [sums, sums, sums, sums, activations, activations, weights, weights];
        for (i, shape) in shapes.into_iter().enumerate() {
            assert!(
                usize::from(shape.rows) <= ROWS && usize::from(shape.row) <= ROW,
                "a tile is 16 rows of 64 bytes"
            );
            (config.rows[i], config.row_bytes[i]) = (shape.rows, shape.row);
        }
        // SAFETY: `Amx` proves the instruction; the configuration is 64 bytes, and its shapes are within bounds.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags));
        }
        Self { here: std::marker::PhantomData }
    }

    /// Tile `T` becomes zero.
    #[inline(always)]
    pub(super) fn zero<const T: usize>(&self) {
        // SAFETY: tiles exist, as `self` proves; no code but that of this module uses them.
        unsafe { asm!("tilezero tmm{}", const T, options(nostack, nomem, preserves_flags)) }
    }

    /// Loads tile `T`, its rows `stride` bytes apart.
    ///
    /// # Safety
    /// All rows of the tile's shape can be read.
    #[inline(always)]
    pub(super) unsafe fn load<const T: usize>(&self, from: *const u8, stride: usize) {
        // SAFETY: by contract.
        unsafe {
            asm!(
                "tileloadd tmm{}, [{} + {}*1]", const T, in(reg) from, in(reg) stride,
                options(nostack, readonly, preserves_flags)
            );
        }
    }

    /// Stores tile `T`, its rows `stride` bytes apart.
    ///
    /// # Safety
    /// All rows of the tile's shape can be written.
    #[inline(always)]
    pub(super) unsafe fn store<const T: usize>(&self, to: *mut u8, stride: usize) {
        // SAFETY: by contract.
        unsafe {
            asm!(
                "tilestored [{} + {}*1], tmm{}", in(reg) to, in(reg) stride, const T,
                options(nostack, preserves_flags)
            );
        }
    }

    /// `C += A B` of signed bytes, to 32-bit integers: `A` `[rows, 4 k]`, `B` `[k, 16 outputs of 4]`.
    #[inline(always)]
    pub(super) fn multiply_bytes<const C: usize, const A: usize, const B: usize>(&self) {
        // SAFETY: tiles exist, and a product touches nothing else. Their shapes fit, or the processor refuses.
        unsafe {
            asm!("tdpbssd tmm{}, tmm{}, tmm{}", const C, const A, const B, options(nostack, nomem, preserves_flags));
        }
    }

    /// `C += A B` of bfloat16, to floats: `A` `[rows, 2 k]`, `B` `[k, 16 outputs of 2]`. The even and the odd terms are
    /// summed apart from zero, then added, then added to `C`; what is subnormal is zero.
    #[inline(always)]
    pub(super) fn multiply_bf16<const C: usize, const A: usize, const B: usize>(&self) {
        // SAFETY: as above.
        unsafe {
            asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const C, const A, const B, options(nostack, nomem, preserves_flags));
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles of this thread, which nobody else uses.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}
