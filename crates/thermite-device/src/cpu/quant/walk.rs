//! Which rows of activations meet which tiles when: weights are unpacked in registers for few rows, and kept unpacked
//! for many.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::Zeroable;

use super::Finish;
use super::activations::Block;
use super::lanes::{Lanes, Range as Weights};
use super::product::{STRIP, Unpacked, add_products, unpack};
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
            for at in panels.clone() {
                few_rows(l, all.panel(at), x, rows, &mut |row, sums| finish(row, at, sums));
            }
        }
    }
}

/// A panel times `n` rows, up to [`STRIP`] at a time: weights are unpacked in registers.
#[inline(always)]
fn few_rows<L: Lanes, T: Tiles>(
    l: L,
    panel: &[T],
    x: &[Block],
    n: usize,
    finish: &mut dyn FnMut(usize, &[f32; PANEL]),
) {
    let blocks = panel.len() * T::COUNT;
    for strip in strips(n, STRIP) {
        let x = &x[strip.start * blocks..strip.end * blocks];
        let finish = &mut |row, sums: &[f32; PANEL]| finish(strip.start + row, sums);
        match strip.len() {
            1 => exact_rows::<L, T, 1>(l, panel, x, finish),
            2 => exact_rows::<L, T, 2>(l, panel, x, finish),
            3 => exact_rows::<L, T, 3>(l, panel, x, finish),
            _ => exact_rows::<L, T, STRIP>(l, panel, x, finish),
        }
    }
}

#[inline(always)]
fn exact_rows<L: Lanes, T: Tiles, const R: usize>(
    l: L,
    panel: &[T],
    x: &[Block],
    finish: &mut dyn FnMut(usize, &[f32; PANEL]),
) {
    let blocks = panel.len() * T::COUNT;
    let rows = std::array::from_fn(|r| &x[r * blocks..(r + 1) * blocks]);
    let mut sums = [[0.0; PANEL]; R];
    add_products(l, panel, rows, &mut sums);
    sums.iter().enumerate().for_each(|(row, sums)| finish(row, sums));
}

/// The sums of a panel for a strip of rows.
type Sums = [[f32; PANEL]; STRIP];

thread_local! {
    /// Unpacked tiles, and the sums of a panel for all rows.
    static SCRATCH: RefCell<(Vec<Unpacked<()>>, Vec<Sums>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Panels times `n` rows, [`ROWS`] at most: a block of tiles is unpacked once, in the first-level cache, and serves all
/// rows, [`STRIP`] at a time.
#[inline(always)]
fn many_rows<L: Lanes, T: Tiles>(
    l: L,
    all: Panels<'_, T>,
    panels: Range<usize>,
    x: &[Block],
    n: usize,
    finish: Finish<'_>,
) {
    let (blocks, in_strips) = (all.len * T::COUNT, n - n % STRIP);
    // taken, not borrowed: a closure here would be compiled without the instructions
    let (mut kept, mut sums) = SCRATCH.take();
    kept.resize(UNPACKED, Unpacked::zeroed());
    sums.resize(ROWS / STRIP, [[0.0; PANEL]; STRIP]);
    let kept_tiles: &mut [Unpacked<T::Kind>] = bytemuck::cast_slice_mut(&mut kept);
    for at in panels {
        let panel = all.panel(at);
        let sums = &mut sums[..n / STRIP];
        sums.fill([[0.0; PANEL]; STRIP]);
        for (i, tiles) in panel.chunks(UNPACKED / T::COUNT).enumerate() {
            let unpacked = &mut kept_tiles[..tiles.len() * T::COUNT];
            unpack(l, tiles, unpacked);
            for (strip, sums) in sums.iter_mut().enumerate() {
                let row = |r: usize| (strip * STRIP + r) * blocks + i * UNPACKED;
                let rows = std::array::from_fn(|r| &x[row(r)..row(r) + unpacked.len()]);
                add_products(l, unpacked, rows, sums);
            }
        }
        for (row, sums) in sums.as_flattened().iter().enumerate() {
            finish(row, at, sums);
        }
        few_rows(l, panel, &x[in_strips * blocks..], n % STRIP, &mut |row, sums| {
            finish(in_strips + row, at, sums);
        });
    }
    SCRATCH.set((kept, sums));
}
