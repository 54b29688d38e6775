//! Products of quantised panels with activations, in eight bits or in floats.
//!
//! Every output is one sum over the tiles in order, and what a tile adds is an integer times a scale: the same for
//! one row of activations and for many, wherever the tiles were unpacked.

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

use super::activations::Block;
use super::lanes::{Lanes, Range, STEPS, Step};
use super::tiles::{TILE, Tiles};
use crate::cpu::tile::PANEL;

/// The most rows of activations that [`multiply`] takes at once.
pub(super) const MAX_ROWS: usize = 6;

/// The most panels that [`multiply`] takes at once.
pub(super) const MAX_PANELS: usize = 2;

/// Steps of the 16 columns that some formats have scales for.
pub(super) const HALF: usize = STEPS / 2;

/// Adds to `acc` what one tile of each panel gives to `R` rows.
#[inline(always)]
fn tile<L: Lanes, T: Tiles, const R: usize, const P: usize>(
    l: L,
    tiles: [&T; P],
    at: usize,
    rows: [&Block; R],
    acc: &mut [[L::Floats; P]; R],
) {
    if T::SPLIT {
        half(l, tiles, at, 0, rows, acc);
        half(l, tiles, at, 1, rows, acc);
        return;
    }
    let (mut q, mut totals) = ([&rows[0].q; R], [0; R]);
    for r in 0..R {
        (q[r], totals[r]) = (&rows[r].q, rows[r].total);
    }
    let sums = l.dot(
        T::RANGE,
        #[inline(always)]
        |p, k| tiles[p].step(l, at, k),
        q,
        totals,
    );
    add(l, tiles, at, 0, rows, sums, acc);
}

/// [`tile`] of the 16 columns that have a scale of their own.
#[inline(always)]
fn half<L: Lanes, T: Tiles, const R: usize, const P: usize>(
    l: L,
    tiles: [&T; P],
    at: usize,
    half: usize,
    rows: [&Block; R],
    acc: &mut [[L::Floats; P]; R],
) {
    let (mut q, mut totals) = ([&[0; HALF]; R], [0; R]);
    for r in 0..R {
        let (halves, _) = rows[r].q.as_chunks();
        (q[r], totals[r]) = (&halves[half], rows[r].half_totals[half]);
    }
    let sums = l.dot(
        T::RANGE,
        #[inline(always)]
        |p, k| tiles[p].step(l, at, half * HALF + k),
        q,
        totals,
    );
    add(l, tiles, at, half, rows, sums, acc);
}

/// Adds to `acc` what the `sums` of products of bytes are worth: those of a tile, or of one half of it.
#[inline(always)]
pub(super) fn add<L: Lanes, T: Tiles, const R: usize, const P: usize>(
    l: L,
    tiles: [&T; P],
    at: usize,
    half: usize,
    rows: [&Block; R],
    sums: [[L::Ints; P]; R],
    acc: &mut [[L::Floats; P]; R],
) {
    let (mut scales, mut minima) = ([l.splat(0.0); P], [l.splat(0.0); P]);
    for p in 0..P {
        scales[p] = tiles[p].scale(l, at, half);
        if T::MIN {
            minima[p] = tiles[p].min(l, at, half);
        }
    }
    for r in 0..R {
        let row = rows[r];
        let (total, sum) =
            if T::SPLIT { (row.half_totals[half], row.half_sums[half]) } else { (row.total, row.sum) };
        for p in 0..P {
            let products = match T::OFFSET {
                Some(shift) => l.sub_shifted(sums[r][p], total, shift),
                None => sums[r][p],
            };
            acc[r][p] = l.fma(l.to_floats(products), l.mul(scales[p], l.splat(row.scale)), acc[r][p]);
            if T::MIN {
                acc[r][p] = l.fma(minima[p], l.splat(sum), acc[r][p]);
            }
        }
    }
}

/// `sums[r * panels + p] += panels[p] * rows[r]`: products of some tiles of each panel with as many activations of each
/// row, of which there are at most [`Lanes::ROWS`] and [`Lanes::PANELS`].
#[inline(always)]
pub(super) fn multiply<L: Lanes, T: Tiles>(
    l: L,
    panels: &[&[T]],
    rows: &[&[Block]],
    sums: &mut [[f32; PANEL]],
) {
    match *rows {
        [a] => strip(l, panels, [a], sums),
        [a, b] => strip(l, panels, [a, b], sums),
        [a, b, c] => strip(l, panels, [a, b, c], sums),
        [a, b, c, d] => strip(l, panels, [a, b, c, d], sums),
        [a, b, c, d, e] if L::ROWS >= 5 => strip(l, panels, [a, b, c, d, e], sums),
        [a, b, c, d, e, f] if L::ROWS >= 6 => strip(l, panels, [a, b, c, d, e, f], sums),
        _ => assert!(rows.is_empty(), "{} rows at once", rows.len()),
    }
}

#[inline(always)]
fn strip<L: Lanes, T: Tiles, const R: usize>(
    l: L,
    panels: &[&[T]],
    rows: [&[Block]; R],
    sums: &mut [[f32; PANEL]],
) {
    match *panels {
        [a] => add_products(l, [a], rows, sums),
        [a, b] if L::PANELS >= 2 => add_products(l, [a, b], rows, sums),
        _ => assert!(panels.is_empty(), "{} panels at once", panels.len()),
    }
}

/// [`multiply`] of as many rows and panels as the sums are kept in registers for.
#[inline(always)]
fn add_products<L: Lanes, T: Tiles, const R: usize, const P: usize>(
    l: L,
    panels: [&[T]; P],
    rows: [&[Block]; R],
    sums: &mut [[f32; PANEL]],
) {
    let len = panels[0].len();
    assert!(panels.iter().all(|panel| panel.len() == len), "panels of one length");
    assert!(rows.iter().all(|row| row.len() == len * T::COUNT), "as many activations as weights");
    assert_eq!(sums.len(), R * P);
    let mut acc = [[l.splat(0.0); P]; R];
    for r in 0..R {
        for p in 0..P {
            acc[r][p] = l.load_f32(&sums[r * P + p]);
        }
    }
    for i in 0..len {
        let mut tiles = [&panels[0][i]; P];
        for p in 1..P {
            tiles[p] = &panels[p][i];
        }
        // what is near the end of a panel asks for the beginning of the one that will be read behind it
        let skipped = if (len - i) * size_of::<T>() < AHEAD { (P - 1) * size_of_val(panels[0]) } else { 0 };
        for t in 0..T::COUNT {
            if T::STREAMS {
                for tile in tiles {
                    prefetch::<L, T>(l, tile, t, AHEAD + skipped);
                }
            }
            let mut blocks = [&rows[0][i * T::COUNT + t]; R];
            for r in 1..R {
                blocks[r] = &rows[r][i * T::COUNT + t];
            }
            tile(l, tiles, t, blocks, &mut acc);
        }
    }
    for r in 0..R {
        for p in 0..P {
            l.store_f32(acc[r][p], &mut sums[r * P + p]);
        }
    }
}

/// How far ahead of the tile at work memory is asked for: the latency of memory at the speed of one core.
const AHEAD: usize = 4096;

/// Asks for the tile that is `ahead` bytes behind this one, which may belong to the panels behind.
#[inline(always)]
fn prefetch<L: Lanes, T: Tiles>(l: L, tiles: &T, at: usize, ahead: usize) {
    let (len, start) = (size_of::<T>() / T::COUNT, std::ptr::from_ref(tiles).cast::<u8>());
    for line in 0..len.div_ceil(64) {
        l.prefetch(start.wrapping_add(at * len + ahead + 64 * line));
    }
}

/// A tile of `T` unpacked: a byte a weight, floats for its scale. Many rows of activations then share the work.
#[repr(C, align(64))]
pub(super) struct Unpacked<T> {
    pub(super) q: [Step; STEPS],
    scale: [[f32; PANEL]; 2],
    min: [[f32; PANEL]; 2],
    of: PhantomData<T>,
}

impl<T> Clone for Unpacked<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Unpacked<T> {}
// SAFETY: arrays of bytes and floats without padding; the marker has no size.
#[allow(unsafe_code)]
unsafe impl<T> Zeroable for Unpacked<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: 'static> Pod for Unpacked<T> {}

impl<T: Tiles> Tiles for Unpacked<T> {
    type Kind = T;
    const COUNT: usize = 1;
    const RANGE: Range = T::RANGE;
    const OFFSET: Option<u32> = T::OFFSET;
    const MIN: bool = T::MIN;
    const SPLIT: bool = T::SPLIT;
    const STREAMS: bool = false;

    #[inline(always)]
    fn step<L: Lanes>(&self, l: L, _tile: usize, k: usize) -> L::Bytes {
        l.load(&self.q[k])
    }
    #[inline(always)]
    fn scale<L: Lanes>(&self, l: L, _tile: usize, half: usize) -> L::Floats {
        l.load_f32(&self.scale[half])
    }
    #[inline(always)]
    fn min<L: Lanes>(&self, l: L, _tile: usize, half: usize) -> L::Floats {
        l.load_f32(&self.min[half])
    }
}

/// Unpacks some tiles, and asks for as many behind them.
#[inline(always)]
pub(super) fn unpack<L: Lanes, T: Tiles>(l: L, tiles: &[T], out: &mut [Unpacked<T::Kind>]) {
    let behind = size_of_val(tiles);
    for (tiles, out) in tiles.iter().zip(out.chunks_exact_mut(T::COUNT)) {
        for (t, out) in out.iter_mut().enumerate() {
            prefetch::<L, T>(l, tiles, t, behind);
            for (k, step) in out.q.iter_mut().enumerate() {
                l.store(tiles.step(l, t, k), step);
            }
            for half in 0..1 + usize::from(T::SPLIT) {
                l.store_f32(tiles.scale(l, t, half), &mut out.scale[half]);
                if T::MIN {
                    l.store_f32(tiles.min(l, t, half), &mut out.min[half]);
                }
            }
        }
    }
}

/// Unpacked tiles as floats: a column a line, sixteen rows side by side.
#[inline(always)]
pub(super) fn dequantize<L: Lanes, T: Tiles>(l: L, tiles: &[Unpacked<T>], out: &mut [[f32; PANEL]]) {
    let form = Form {
        signed: T::RANGE == Range::Signed8,
        offset: T::OFFSET.map_or(0.0, |shift| -((1 << shift) as f32)),
        split: T::SPLIT,
        min: T::MIN,
    };
    dequantize_as(l, form, bytemuck::cast_slice(tiles), out);
}

/// What [`Tiles`] says of a format, as values: one loop serves all.
#[derive(Clone, Copy)]
struct Form {
    signed: bool,
    offset: f32,
    split: bool,
    min: bool,
}

#[inline(always)]
fn dequantize_as<L: Lanes>(l: L, form: Form, tiles: &[Unpacked<()>], out: &mut [[f32; PANEL]]) {
    let (columns, _) = out.as_chunks_mut::<TILE>();
    let offset = l.splat(form.offset);
    for (tile, columns) in tiles.iter().zip(columns) {
        for (k, columns) in columns.chunks_exact_mut(4).enumerate() {
            let half = if form.split { k / HALF } else { 0 };
            let (scale, min) = (l.load_f32(&tile.scale[half]), l.load_f32(&tile.min[half]));
            let bytes = l.load(&tile.q[k]);
            for (c, column) in columns.iter_mut().enumerate() {
                let product = l.mul(scale, l.add(l.column(bytes, c, form.signed), offset));
                l.store_f32(if form.min { l.add(product, min) } else { product }, column);
            }
        }
    }
}
