//! Quantised panels times sixteen rows of activations at once, on tiles of bytes.
//!
//! Unpacked steps of a panel are the rows of a tile as they lie, and so are blocks of activations. A tile of 32-bit sums
//! is what the lanes' products are, and is worth what they are worth: a row's result is that of AVX-512, bit for bit.

use std::arch::x86_64::*;
use std::ops::Range;
use std::slice;

use bytemuck::Zeroable;

use super::activations::Block;
use super::lanes::{Avx512Lanes, Lanes, STEPS, Step};
use super::product::{HALF, Unpacked, add, unpack};
use super::tiles::Tiles;
use super::walk::{Panels, ROWS, UNPACKED};
use crate::cpu::amx::{self, ROW, Shape};
use crate::cpu::dense::Finish;
use crate::cpu::simd::Amx;
use crate::cpu::tile::PANEL;

/// Rows of activations that are multiplied at once.
pub(super) const STRIP: usize = amx::ROWS;

/// From so many rows on this is faster than AVX-512, whose sums are the same: with one strip it has three quarters of its
/// speed, with 512 rows a tenth more.
pub(super) const MANY: usize = 2 * STRIP;

/// Tiles of sums that are made before the first is used.
const AHEAD: usize = 4;

/// Sums of a strip with the outputs of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([[i32; PANEL]; STRIP]);

/// The products of some panels with `n` rows of activations, of which there are at least [`STRIP`].
pub(super) fn products<T: Tiles>(
    amx: Amx,
    all: Panels<'_, T>,
    panels: Range<usize>,
    x: &[Block],
    n: usize,
    finish: Finish<'_>,
) {
    let steps = if T::SPLIT { HALF } else { STEPS } as u8;
    let rows = STRIP as u8;
    let registers = amx::Tiles::new(
        amx,
        Shape { rows, row: ROW as u16 },
        Shape { rows, row: u16::from(steps) * size_of::<i32>() as u16 },
        Shape { rows: steps, row: ROW as u16 },
    );
    // SAFETY: an `Amx` exists only where the processor has these instructions.
    unsafe { configured::<T>(Avx512Lanes(amx.avx512()), &registers, all, panels, x, n, finish) }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn configured<T: Tiles>(
    l: Avx512Lanes,
    registers: &amx::Tiles,
    all: Panels<'_, T>,
    panels: Range<usize>,
    x: &[Block],
    n: usize,
    finish: Finish<'_>,
) {
    let blocks = all.len * T::COUNT;
    let mut unpacked = [Unpacked::<T::Kind>::zeroed(); UNPACKED];
    let mut sums = [[[0.0; PANEL]; STRIP]; ROWS / STRIP];
    for first in (0..n).step_by(ROWS) {
        let end = n.min(first + ROWS);
        // the last strip begins where it has all its rows, some of which another has too
        let begin = |strip: usize| (first + strip * STRIP).min(n - STRIP);
        for at in panels.clone() {
            let sums = &mut sums[..(end - first).div_ceil(STRIP)];
            sums.fill([[0.0; PANEL]; STRIP]);
            for (i, tiles) in all.panel(at).chunks(UNPACKED / T::COUNT).enumerate() {
                let unpacked = &mut unpacked[..tiles.len() * T::COUNT];
                unpack(l, tiles, unpacked);
                for (strip, sums) in sums.iter_mut().enumerate() {
                    let x = &x[begin(strip) * blocks + i * UNPACKED..];
                    add_products(l, registers, unpacked, x, blocks, sums);
                }
            }
            for row in first..end {
                let strip = (row - first) / STRIP;
                finish(row, at, slice::from_ref(&sums[strip][row - begin(strip)]));
            }
        }
    }
}

/// Adds to `sums` the products of some tiles of one panel with a strip, whose rows are `blocks` apart.
#[inline(always)]
fn add_products<T: Tiles>(
    l: Avx512Lanes,
    registers: &amx::Tiles,
    tiles: &[Unpacked<T>],
    x: &[Block],
    blocks: usize,
    sums: &mut [[f32; PANEL]; STRIP],
) {
    assert!(x.len() >= (STRIP - 1) * blocks + tiles.len(), "as many activations as weights");
    let halves = if T::SPLIT { 2 } else { 1 };
    let mut acc = [[l.splat(0.0)]; STRIP];
    for r in 0..STRIP {
        acc[r] = [l.load_f32(&sums[r])];
    }
    let mut ints = [Sums([[0; PANEL]; STRIP]); AHEAD];
    for first in (0..tiles.len()).step_by(AHEAD / halves) {
        let count = (tiles.len() - first) * halves;
        for (i, ints) in ints.iter_mut().enumerate().take(count) {
            let (tile, half) = (first + i / halves, i % halves);
            let weights = tiles[tile].q[half * HALF..].as_ptr().cast();
            // SAFETY: half a block is within a block.
            let activations = unsafe { x.as_ptr().add(tile).cast::<i32>().add(half * HALF).cast() };
            let stride = blocks * size_of::<Block>();
            // SAFETY: the registers' shapes are a tile or half of it, and `x` has all rows of it; a register has its
            // number in the instruction.
            unsafe {
                match i {
                    0 => multiply::<0, 4, 6>(registers, activations, stride, weights, ints),
                    1 => multiply::<1, 5, 7>(registers, activations, stride, weights, ints),
                    2 => multiply::<2, 4, 6>(registers, activations, stride, weights, ints),
                    _ => multiply::<3, 5, 7>(registers, activations, stride, weights, ints),
                }
            }
        }
        for (i, Sums(ints)) in ints.iter().enumerate().take(count) {
            let (tile, half) = (first + i / halves, i % halves);
            // a row at a time: arrays of sixteen would be copied about
            for r in 0..STRIP {
                let row = [&x[r * blocks + tile]];
                add(
                    l,
                    [&tiles[tile]],
                    0,
                    half,
                    row,
                    [[load(l, &ints[r])]],
                    std::array::from_mut(&mut acc[r]),
                );
            }
        }
    }
    for r in 0..STRIP {
        l.store_f32(acc[r][0], &mut sums[r]);
    }
}

#[inline(always)]
fn load(_l: Avx512Lanes, ints: &[i32; PANEL]) -> __m512i {
    // SAFETY: `ints` is 64 bytes; the lanes prove the instruction.
    unsafe { _mm512_loadu_si512(ints.as_ptr().cast()) }
}

/// The sums of products of bytes, in registers `C`, `A` and `B`: activations are `stride` bytes apart, weights a step.
///
/// # Safety
/// All rows of the shapes of `A` and `B` can be read.
#[inline(always)]
unsafe fn multiply<const C: usize, const A: usize, const B: usize>(
    registers: &amx::Tiles,
    activations: *const u8,
    stride: usize,
    weights: *const u8,
    ints: &mut Sums,
) {
    registers.zero::<C>();
    // SAFETY: by contract, and `Sums` has sixteen rows of 64 bytes.
    unsafe {
        registers.load::<A>(activations, stride);
        registers.load::<B>(weights, size_of::<Step>());
        registers.multiply_bytes::<C, A, B>();
        registers.store::<C>(std::ptr::from_mut(ints).cast(), ROW);
    }
}
