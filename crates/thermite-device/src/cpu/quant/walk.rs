//! Which rows of activations meet which tiles when: weights are unpacked in registers for few rows, and kept unpacked
//! for many.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::Zeroable;

use super::Finish;
use super::activations::Block;
use super::lanes::{Lanes, Range as Weights};
use super::product::{MAX_PANELS, MAX_ROWS, Unpacked, multiply, unpack};
use super::tiles::Tiles;
use crate::cpu::tile::{PANEL, strips};

/// Rows of activations that stay in the second-level cache while all panels pass.
pub(super) const ROWS: usize = 96;

/// Rows up to which unpacking weights once for each strip of them costs less than keeping them unpacked.
const fn few_rows_of<T: Tiles>() -> usize {
    match T::RANGE {
        // bytes lie as they are used
        Weights::Signed8 => usize::MAX,
        // halves of bytes with scales that are numbers already
        Weights::Bits4 if T::COUNT == 1 => 24,
        _ => 12,
    }
}

/// Tiles that stay unpacked in the first-level cache while those rows pass: 12 KiB.
pub(super) const UNPACKED: usize = 16;

/// A matrix: panels of `len` values of tiles, one after another.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a, T> {
    pub(super) tiles: &'a [T],
    pub(super) len: usize,
}

impl<'a, T> Panels<'a, T> {
    pub(super) fn panel(self, at: usize) -> &'a [T] {
        &self.tiles[at * self.len..(at + 1) * self.len]
    }
}

/// The products of some panels with `n` rows of activations.
#[inline(always)]
pub(super) fn products<L: Lanes, T: Tiles>(
    l: L,
    all: Panels<'_, T>,
    panels: Range<usize>,
    x: &[Block],
    n: usize,
    finish: Finish<'_>,
) {
    let blocks = all.len * T::COUNT;
    for first in (0..n).step_by(ROWS) {
        let rows = ROWS.min(n - first);
        let x = &x[first * blocks..(first + rows) * blocks];
        let finish: Finish<'_> = &mut |row, at, sums| finish(first + row, at, sums);
        if rows > few_rows_of::<T>() {
            many_rows(l, all, panels.clone(), x, rows, finish);
        } else {
            few_rows(l, all, panels.clone(), x, rows, finish);
        }
    }
}

/// `panels` in groups of [`Lanes::PANELS`]: the first of each, and their number.
#[inline(always)]
fn groups<L: Lanes>(panels: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    panels.clone().step_by(L::PANELS).map(
        #[inline(always)]
        move |first| (first, L::PANELS.min(panels.end - first)),
    )
}

/// Panels times `n` rows, up to [`Lanes::ROWS`] at a time: weights are unpacked in registers.
#[inline(always)]
fn few_rows<L: Lanes, T: Tiles>(
    l: L,
    all: Panels<'_, T>,
    panels: Range<usize>,
    x: &[Block],
    n: usize,
    finish: Finish<'_>,
) {
    let blocks = all.len * T::COUNT;
    let mut sums = [[0.0; PANEL]; MAX_ROWS * MAX_PANELS];
    for (first, width) in groups::<L>(panels) {
        let mut tiles = [[].as_slice(); MAX_PANELS];
        for (p, tiles) in tiles.iter_mut().enumerate().take(width) {
            *tiles = all.panel(first + p);
        }
        for strip in strips(n, L::ROWS) {
            let mut rows = [[].as_slice(); MAX_ROWS];
            for (row, r) in rows.iter_mut().zip(strip.clone()) {
                *row = &x[r * blocks..(r + 1) * blocks];
            }
            let sums = &mut sums[..strip.len() * width];
            sums.fill([0.0; PANEL]);
            multiply(l, &tiles[..width], &rows[..strip.len()], sums);
            for (r, row) in strip.enumerate() {
                finish(row, first, &sums[r * width..(r + 1) * width]);
            }
        }
    }
}

/// Unpacked tiles, and the sums of some panels for all rows.
type Scratch = (Vec<Unpacked<()>>, Vec<[f32; PANEL]>);

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Panels times `n` rows, [`ROWS`] at most: a block of tiles is unpacked once, in the first-level cache, and serves all
/// rows, [`Lanes::ROWS`] at a time.
#[inline(always)]
fn many_rows<L: Lanes, T: Tiles>(
    l: L,
    all: Panels<'_, T>,
    panels: Range<usize>,
    x: &[Block],
    n: usize,
    finish: Finish<'_>,
) {
    let blocks = all.len * T::COUNT;
    // taken, not borrowed: a closure here would be compiled without the instructions
    let (mut kept, mut kept_sums) = SCRATCH.take();
    kept.resize(UNPACKED * MAX_PANELS, Unpacked::zeroed());
    kept_sums.resize(ROWS * MAX_PANELS, [0.0; PANEL]);
    for (first, width) in groups::<L>(panels) {
        let sums = &mut kept_sums[..n * width];
        sums.fill([0.0; PANEL]);
        for from in (0..all.len).step_by(UNPACKED / T::COUNT) {
            let to = all.len.min(from + UNPACKED / T::COUNT);
            let (begin, end) = (from * T::COUNT, to * T::COUNT);
            let unpacked: &mut [Unpacked<T::Kind>] = bytemuck::cast_slice_mut(&mut kept);
            let mut tiles = [[].as_slice(); MAX_PANELS];
            for (p, (tiles, unpacked)) in
                tiles.iter_mut().zip(unpacked.chunks_exact_mut(UNPACKED)).enumerate().take(width)
            {
                let unpacked = &mut unpacked[..end - begin];
                unpack(l, &all.panel(first + p)[from..to], unpacked);
                *tiles = unpacked;
            }
            for strip in strips(n, L::ROWS) {
                let mut rows = [[].as_slice(); MAX_ROWS];
                for (row, r) in rows.iter_mut().zip(strip.clone()) {
                    *row = &x[r * blocks + begin..r * blocks + end];
                }
                let sums = &mut sums[strip.start * width..strip.end * width];
                multiply(l, &tiles[..width], &rows[..strip.len()], sums);
            }
        }
        for row in 0..n {
            finish(row, first, &sums[row * width..(row + 1) * width]);
        }
    }
    SCRATCH.set((kept, kept_sums));
}
