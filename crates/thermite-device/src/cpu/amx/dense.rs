//! Panels of bfloat16 weights times floats, on tiles, exact but for the sums.
//!
//! A float is the sum of three bfloat16, so nothing is rounded before it is multiplied. The parts of an activation are rows
//! of a tile, so that five rows of activations fill one. Sums are in single precision, those of an activation's parts are
//! added last. A row's sums are the same for any number of rows.
//!
//! Half-precision weights, of two parts each, decode at half the speed so, and stay with the other kernels.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::{ROW, ROWS, Shape, Tiles};
use crate::cpu::dense::Finish;
use crate::cpu::pool::{Parts, Pool};
use crate::cpu::simd::Amx;
use crate::cpu::tile::{PANEL, Panel};

/// Parts of a float.
const PARTS: usize = 3;

/// Rows of activations in a tile.
const STRIP: usize = ROWS / PARTS;

/// Columns of a tile.
const DEPTH: usize = ROW / size_of::<bf16>();

/// Tiles of columns of a panel that stay in the second-level cache while all activations pass.
const DEPTHS: usize = 16;

/// Panels that do so together.
const GROUP: usize = 8;

/// What of a float's bits is a bfloat16.
const TOP: u32 = 0xffff_0000;

/// Where the columns of two panels lie in a row of a tile: an output's two side by side.
const ORDER: [u16; DEPTH] = {
    let mut order = [0; DEPTH];
    let mut i = 0;
    while i < DEPTH {
        order[i] = (i / 2 + i % 2 * PANEL) as u16;
        i += 1;
    }
    order
};

/// The bits of sixteen rows of bfloat16.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Tile([[u16; DEPTH]; ROWS]);

/// Sums of sixteen rows with the outputs of a panel.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Sums([[f32; PANEL]; ROWS]);

thread_local! {
    /// Activations in tiles, between products.
    static TILES: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
    /// Weights in tiles, and the sums of a group of panels for every strip.
    static SCRATCH: RefCell<(Vec<Tile>, Vec<Sums>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Rows of activations in tiles: five rows a strip, the columns of a strip one tile after another.
pub(in crate::cpu) struct Activations {
    amx: Amx,
    n: usize,
    cols: usize,
    tiles: Vec<Tile>,
}

impl Drop for Activations {
    fn drop(&mut self) {
        TILES.set(std::mem::take(&mut self.tiles));
    }
}

impl Activations {
    /// The `n` rows of `x`.
    pub(in crate::cpu) fn new(amx: Amx, pool: &Pool, x: &[f32], n: usize) -> Self {
        let cols = x.len().checked_div(n).unwrap_or(0);
        let (blocks, strips) = (cols.div_ceil(DEPTH), n.div_ceil(STRIP));
        let mut tiles = TILES.take();
        tiles.resize(tiles.len().max(strips * blocks), Tile::zeroed());
        let out = Parts::new(&mut tiles);
        pool.run_ranges(strips, 1, |range| {
            for strip in range {
                // SAFETY: a strip belongs to one task alone.
                let tiles = unsafe { out.get(strip * blocks..(strip + 1) * blocks) };
                for row in strip * STRIP..n.min((strip + 1) * STRIP) {
                    for (Tile(tile), x) in tiles.iter_mut().zip(x[row * cols..][..cols].chunks(DEPTH)) {
                        let (rows, _) = tile.as_chunks_mut();
                        parts(x, &mut rows[row % STRIP]);
                    }
                }
            }
        });
        Self { amx, n, cols, tiles }
    }

    /// The products with some of the panels, each as wide as the activations.
    pub(in crate::cpu) fn products(&self, panels: &[Panel<bf16>], range: Range<usize>, finish: Finish<'_>) {
        let &Self { amx, n, cols, .. } = self;
        if n == 0 {
            return;
        }
        let (blocks, strips) = (cols.div_ceil(DEPTH), n.div_ceil(STRIP));
        let rows = (PARTS * n.min(STRIP)) as u8;
        let activations = Shape { rows, row: ROW as u16 };
        let weights = Shape { rows: ROWS as u8, row: ROW as u16 };
        let registers = Tiles::new(amx, activations, activations, weights);
        let (mut tiles, mut sums) = SCRATCH.take();
        tiles.resize(GROUP * DEPTHS, Tile::zeroed());
        for group in range.clone().step_by(GROUP) {
            let count = GROUP.min(range.end - group);
            sums.clear();
            sums.resize(strips * count, Sums::zeroed());
            for first in (0..blocks).step_by(DEPTHS) {
                let depth = DEPTHS.min(blocks - first);
                let columns = first * DEPTH..cols.min((first + depth) * DEPTH);
                for (panel, tiles) in tiles.chunks_mut(depth).take(count).enumerate() {
                    let columns = &panels[(group + panel) * cols..][columns.clone()];
                    // SAFETY: AMX comes with AVX-512 F and BW.
                    unsafe { lay(columns, tiles) };
                }
                let strip = |s: usize| &self.tiles[s * blocks + first..][..depth];
                let panel = |p: usize| &tiles[p * depth..][..depth];
                multiply_all(&registers, strips, strip, count, panel, &mut sums);
            }
            for row in 0..n {
                for panel in 0..count {
                    let Sums(sums) = &sums[row / STRIP * count + panel];
                    let (rows, _) = sums.as_chunks::<PARTS>();
                    let [large, middle, small] = &rows[row % STRIP];
                    finish(row, group + panel, &[std::array::from_fn(|i| large[i] + (middle[i] + small[i]))]);
                }
            }
        }
        SCRATCH.set((tiles, sums));
    }
}

/// The parts of up to 32 activations, in order of magnitude; zeros behind the last.
fn parts(x: &[f32], [large, middle, small]: &mut [[u16; DEPTH]; PARTS]) {
    let mut floats = [0.0; DEPTH];
    floats[..x.len()].copy_from_slice(x);
    for (i, x) in floats.into_iter().enumerate() {
        // cutting off leaves the rest exact, and eight bits of it after the second cut
        let first = f32::from_bits(x.to_bits() & TOP);
        let rest = x - first;
        let second = f32::from_bits(rest.to_bits() & TOP);
        let third = rest - second;
        (large[i], middle[i], small[i]) =
            ((first.to_bits() >> 16) as u16, (second.to_bits() >> 16) as u16, (third.to_bits() >> 16) as u16);
    }
}

/// `sums += strip(s) panel(p)` for all strips and panels, two of each at a time.
fn multiply_all<'a>(
    registers: &Tiles,
    strips: usize,
    strip: impl Fn(usize) -> &'a [Tile],
    panels: usize,
    panel: impl Fn(usize) -> &'a [Tile],
    sums: &mut [Sums],
) {
    for s in (0..strips).step_by(2) {
        for p in (0..panels).step_by(2) {
            // where one of the two is missing, the other takes its place and has no sums
            let [s1, p1] = [strips.min(s + 2) - 1, panels.min(p + 2) - 1];
            let (a, b) = ([strip(s), strip(s1)], [panel(p), panel(p1)]);
            let at = [s * panels + p, s * panels + p1, s1 * panels + p, s1 * panels + p1];
            match (s1 > s, p1 > p) {
                (true, true) => multiply::<2, 2>(registers, a, b, sums, at),
                (true, false) => multiply::<2, 1>(registers, a, b, sums, at),
                (false, true) => multiply::<1, 2>(registers, a, b, sums, at),
                (false, false) => multiply::<1, 1>(registers, a, b, sums, at),
            }
        }
    }
}

/// Columns of a panel as tiles, zeros behind the last column.
#[target_feature(enable = "avx512f,avx512bw")]
fn lay(columns: &[Panel<bf16>], tiles: &mut [Tile]) {
    for (Tile(tile), columns) in tiles.iter_mut().zip(columns.chunks(DEPTH)) {
        let (pairs, odd) = columns.as_chunks::<2>();
        for (i, row) in tile.iter_mut().enumerate() {
            let pair = match pairs.get(i) {
                Some(pair) => pair,
                None if i == pairs.len() && !odd.is_empty() => &[odd[0], Panel::zeroed()],
                None => &Zeroable::zeroed(),
            };
            // SAFETY: two columns are 64 bytes, and so is a row; the caller has the instructions.
            unsafe {
                let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
                let pair = _mm512_loadu_si512(pair.as_ptr().cast());
                _mm512_storeu_si512(row.as_mut_ptr().cast(), _mm512_permutexvar_epi16(order, pair));
            }
        }
    }
}

/// `sums[at] += a b` of `S` strips and `P` panels: tiles of activations, and the tile of weights for each of them.
#[inline(always)]
fn multiply<const S: usize, const P: usize>(
    registers: &Tiles,
    a: [&[Tile]; 2],
    b: [&[Tile]; 2],
    sums: &mut [Sums],
    at: [usize; 4],
) {
    let [c0, c1, c2, c3] = at.map(|at| std::ptr::from_mut(&mut sums[at]).cast::<u8>());
    // SAFETY: a tile is sixteen rows of 64 bytes in memory, as many as a register has at most.
    unsafe {
        registers.load::<0>(c0, ROW);
        if P == 2 {
            registers.load::<1>(c1, ROW);
        }
        if S == 2 {
            registers.load::<2>(c2, ROW);
        }
        if S == 2 && P == 2 {
            registers.load::<3>(c3, ROW);
        }
        for ((a0, a1), (b0, b1)) in a[0].iter().zip(a[1]).zip(b[0].iter().zip(b[1])) {
            registers.load::<4>(std::ptr::from_ref(a0).cast(), ROW);
            registers.load::<6>(std::ptr::from_ref(b0).cast(), ROW);
            registers.multiply_bf16::<0, 4, 6>();
            if S == 2 {
                registers.load::<5>(std::ptr::from_ref(a1).cast(), ROW);
                registers.multiply_bf16::<2, 5, 6>();
            }
            if P == 2 {
                registers.load::<7>(std::ptr::from_ref(b1).cast(), ROW);
                registers.multiply_bf16::<1, 4, 7>();
                if S == 2 {
                    registers.multiply_bf16::<3, 5, 7>();
                }
            }
        }
        registers.store::<0>(c0, ROW);
        if P == 2 {
            registers.store::<1>(c1, ROW);
        }
        if S == 2 {
            registers.store::<2>(c2, ROW);
        }
        if S == 2 && P == 2 {
            registers.store::<3>(c3, ROW);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_float_are_the_float() {
        let mut x = 1e-30f32;
        while x < 1e38 {
            for x in [x, -x] {
                let mut rows = [[7; DEPTH]; PARTS];
                parts(&[x, 0.0], &mut rows);
                let [large, middle, small] = rows.map(|row| bf16::from_bits(row[0]).to_f32());
                assert_eq!(large + (middle + small), x);
                assert!(
                    rows.iter().all(|row| row[1..].iter().all(|&bits| bits == 0)),
                    "zeros behind the last"
                );
            }
            x *= 1.234_567_9;
        }
    }
}
