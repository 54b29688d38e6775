//! Keys and values in eight bits, as GGUF's Q8_0 has them: 32 channels of a token share a scale of 16 bits, and `x` is the
//! scale times an integer of `-127 ..= 127`. The scale is a bfloat16, which has the range of a float; it is off by less
//! than what a quarter of a step is of the largest number.
//!
//! Products are sums of integers: a query is rounded to 16 bits, each 32 channels with a scale of their own, and so are
//! the weights of a group's values, the scales of the values multiplied in. What the rounding to 16 bits costs is below a
//! hundredth of what the rounding of keys and values to eight costs.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::cached::{Cached, GROUP_TILES, Scores};
use super::pages::Pages;
use crate::Dtype;
use crate::cpu::simd::{LANES, Simd, Wide};
use crate::cpu::tile::{MAX_ROWS, PANEL, Panel};

/// Channels that share a scale.
const BLOCK: usize = Dtype::Q8_0.values();

/// The largest magnitude of a query's element, or of a weight.
const SHORT: f32 = 32767.0;

/// Pairs of bytes that are multiplied with one pair of a row, in sixteen lanes.
type Step = [[i8; PANEL]; 2];

/// 32 channels of sixteen tokens.
///
/// Of keys each step holds two channels, in a lane a token. Of values each step holds two tokens, in a lane a channel:
/// eight steps of the first sixteen channels, then eight of the others.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(in crate::cpu) struct Block {
    /// A token each.
    scales: [bf16; PANEL],
    steps: [Step; BLOCK / 2],
}

/// 32 channels of a query.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::cpu) struct Query {
    pairs: [[i16; 2]; BLOCK / 2],
    scale: f32,
}

/// A scale and its inverse for numbers up to `largest`, that they become integers up to `most`. Zero where the inverse
/// passes the numbers, not a number where `largest` is none or infinite: then so is every product.
#[inline(always)]
fn scale_of(largest: f32, most: f32) -> (f32, f32) {
    let inverse = most / largest;
    match (largest.is_finite(), inverse.is_finite()) {
        (true, true) => (largest / most, inverse),
        (true, false) => (0.0, 0.0),
        (false, _) => (f32::NAN, 0.0),
    }
}

/// The largest magnitude, or a number that is none if one of `x` is not finite.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    // the bits of magnitudes are ordered as the magnitudes are, with infinity and NaN above all
    f32::from_bits(x.iter().fold(0, |top, x| top.max(x.to_bits() & 0x7fff_ffff)))
}

/// 32 numbers in eight bits, and their scale.
fn quantize(x: &[f32]) -> ([i8; BLOCK], bf16) {
    let (scale, _) = scale_of(largest(x), 127.0);
    let scale = bf16::from_f32(scale);
    let inverse = scale.to_f32().recip();
    let mut q = [0; BLOCK];
    if inverse.is_finite() {
        // adding 1.5 * 2^23 rounds to the nearest integer, which is then in the low bits
        const SHIFT: f32 = 12_582_912.0;
        // a scale that was rounded down may leave a number above 127
        let nearest = |x: f32| ((x * inverse).clamp(-127.0, 127.0) + SHIFT).to_bits() as i8;
        q.iter_mut().zip(x).for_each(|(q, x)| *q = nearest(*x));
    }
    (q, scale)
}

impl Block {
    /// Where channel `channel` of the key of `slot` is.
    fn key(&mut self, slot: usize, channel: usize) -> &mut i8 {
        let lane = 2 * (slot % PANEL) + channel % 2;
        &mut self.steps[channel / 2][lane / PANEL][lane % PANEL]
    }

    /// Where channel `channel` of the value of `slot` is.
    fn value(&mut self, slot: usize, channel: usize) -> &mut i8 {
        let (token, lane) = (slot % PANEL, 2 * (channel % PANEL) + slot % 2);
        &mut self.steps[channel / PANEL * PANEL / 2 + token / 2][lane / PANEL][lane % PANEL]
    }
}

/// Stores `x` in the blocks of a tile, each byte where `place` says.
fn store(tile: &mut [Block], slot: usize, x: &[f32], place: impl Fn(&mut Block, usize, usize) -> &mut i8) {
    for (block, x) in tile.iter_mut().zip(x.chunks_exact(BLOCK)) {
        let (bytes, scale) = quantize(x);
        block.scales[slot % PANEL] = scale;
        bytes.iter().enumerate().for_each(|(channel, byte)| *place(block, slot, channel) = *byte);
    }
}

/// What [`store`] stored.
fn load(tile: &[Block], slot: usize, x: &mut [f32], place: impl Fn(&mut Block, usize, usize) -> &mut i8) {
    for (block, x) in tile.iter().zip(x.chunks_exact_mut(BLOCK)) {
        let mut block = *block;
        let scale = block.scales[slot % PANEL].to_f32();
        x.iter_mut().enumerate().for_each(|(i, x)| *x = scale * f32::from(*place(&mut block, slot, i)));
    }
}

/// Calls a function that is generic over the number of rows.
macro_rules! by_rows {
    ($rows:expr, $f:ident($($arg:expr),*)) => {
        match $rows {
            1 => $f::<_, 1>($($arg),*),
            2 => $f::<_, 2>($($arg),*),
            3 => $f::<_, 3>($($arg),*),
            4 => $f::<_, 4>($($arg),*),
            5 => $f::<_, 5>($($arg),*),
            6 => $f::<_, 6>($($arg),*),
            rows => assert_eq!(rows, 0, "rows at once"),
        }
    };
}

impl Cached for Block {
    type Query = Query;

    fn key_tile(pages: &Pages) -> usize {
        pages.head_dim / BLOCK
    }

    fn value_tile(pages: &Pages) -> usize {
        pages.head_dim / BLOCK
    }

    fn query_len(head_dim: usize) -> usize {
        head_dim / BLOCK
    }

    fn store_key(tile: &mut [Self], slot: usize, key: &[f32]) {
        store(tile, slot, key, Self::key);
    }

    fn load_key(tile: &[Self], slot: usize, key: &mut [f32]) {
        load(tile, slot, key, Self::key);
    }

    fn store_value(tile: &mut [Self], slot: usize, value: &[f32]) {
        store(tile, slot, value, Self::value);
    }

    fn load_value(tile: &[Self], slot: usize, value: &mut [f32]) {
        load(tile, slot, value, Self::value);
    }

    #[inline(always)]
    fn query<S: Simd>(s: S, query: &[f32], out: &mut [Query]) {
        for (x, out) in query.chunks_exact(BLOCK).zip(out) {
            let (scale, inverse) = scale_of(largest(x), SHORT);
            let mut pairs = [[0; 2]; BLOCK / 2];
            for (x, pairs) in x.chunks_exact(PANEL).zip(pairs.chunks_exact_mut(PANEL / 2)) {
                let ((x, _), factor) = (x.as_chunks(), s.splat(inverse));
                let shorts = s.to_shorts(s.mul(s.load(&x[0]), factor), s.mul(s.load(&x[1]), factor));
                pairs.copy_from_slice(&bytemuck::cast::<[i16; PANEL], [[i16; 2]; PANEL / 2]>(shorts));
            }
            *out = Query { pairs, scale };
        }
    }

    #[inline(always)]
    fn scores<S: Wide>(s: S, queries: &[&[Query]], tiles: &[&[Self]], ahead: &[&[Self]], out: &mut Scores) {
        for (t, tile) in tiles.iter().enumerate() {
            let ahead = ahead.get(t).copied().unwrap_or_default();
            by_rows!(queries.len(), tile_scores(s, queries, tile, ahead, t * PANEL, out));
        }
    }

    #[inline(always)]
    fn mix<S: Wide>(
        s: S,
        weights: &Scores,
        seen: &[usize],
        tiles: &[&[Self]],
        ahead: &[&[Self]],
        panels: usize,
        out: &mut [Panel],
    ) {
        let rows = seen.len();
        let mut scaled = [Weights::zeroed(); MAX_ROWS];
        for panel in 0..panels {
            if (panel * PANEL).is_multiple_of(BLOCK) {
                by_rows!(rows, scale_weights(s, weights, tiles, panel * PANEL / BLOCK, &mut scaled));
            }
            let mut sums = [Panel::default(); MAX_ROWS];
            by_rows!(rows, panel_mix(s, &scaled, tiles, ahead, panel, &mut sums));
            for r in 0..rows {
                out[r * panels + panel] = sums[r];
            }
        }
    }
}

/// Two vectors of sums for each of `R` rows.
type Sums<S, const R: usize> = [[<S as Simd>::I; 2]; R];

/// `sums[r] += pairs[r] * step`, in sixteen lanes.
#[inline(always)]
fn multiply<S: Simd, const R: usize>(s: S, step: &Step, pairs: [[i16; 2]; R], sums: &mut Sums<S, R>) {
    let bytes = [s.widen(&step[0]), s.widen(&step[1])];
    for r in 0..R {
        let pair = s.splat_pair(pairs[r]);
        for half in 0..2 {
            sums[r][half] = s.add_products(sums[r][half], bytes[half], pair);
        }
    }
}

/// The products of `R` queries with sixteen keys, from column `at` of `out` on.
#[inline(always)]
fn tile_scores<S: Simd, const R: usize>(
    s: S,
    queries: &[&[Query]],
    tile: &[Block],
    ahead: &[Block],
    at: usize,
    out: &mut Scores,
) {
    let mut scores = [[s.splat(0.0); 2]; R];
    for (b, block) in tile.iter().enumerate() {
        if let Some(ahead) = ahead.get(b) {
            s.prefetch(std::slice::from_ref(ahead));
        }
        let mut x = [&queries[0][b]; R];
        for r in 1..R {
            x[r] = &queries[r][b];
        }
        let mut sums: Sums<S, R> = [[s.splat_int(0); 2]; R];
        for (k, step) in block.steps.iter().enumerate() {
            let mut pairs = [[0; 2]; R];
            for r in 0..R {
                pairs[r] = x[r].pairs[k];
            }
            multiply(s, step, pairs, &mut sums);
        }
        let (scales, _) = block.scales.as_chunks();
        for half in 0..2 {
            let scale = s.load_bf16(&scales[half]);
            for r in 0..R {
                let factor = s.mul(scale, s.splat(x[r].scale));
                scores[r][half] = s.fma(s.to_floats(sums[r][half]), factor, scores[r][half]);
            }
        }
    }
    for r in 0..R {
        let (to, _) = out[r][at..].as_chunks_mut();
        s.store(scores[r][0], &mut to[0]);
        s.store(scores[r][1], &mut to[1]);
    }
}

/// The weights of one row for 32 channels of a group's values, their scales multiplied in.
#[derive(Clone, Copy, Zeroable)]
struct Weights {
    /// Pairs of tokens, eight a tile.
    pairs: [[[i16; 2]; PANEL / 2]; GROUP_TILES],
    scale: f32,
}

/// The weights of `R` rows for the channels of block `block` of each tile.
#[inline(always)]
fn scale_weights<S: Simd, const R: usize>(
    s: S,
    weights: &Scores,
    tiles: &[&[Block]],
    block: usize,
    out: &mut [Weights; MAX_ROWS],
) {
    let zero = s.splat(0.0);
    let mut products = [[[[0.0; LANES]; 2]; GROUP_TILES]; R];
    let mut top = [zero; R];
    for (t, tile) in tiles.iter().enumerate() {
        let (scales, _) = tile[block].scales.as_chunks();
        for half in 0..2 {
            let scale = s.load_bf16(&scales[half]);
            for r in 0..R {
                let (weights, _) = weights[r].as_chunks();
                let weight = s.load(&weights[2 * t + half]);
                // what is not seen has the weight zero, and its scale may be anything
                let product = s.if_less(zero, weight, s.mul(weight, scale), zero);
                s.store(product, &mut products[r][t][half]);
                top[r] = s.max_or_nan(top[r], product);
            }
        }
    }
    for r in 0..R {
        let (scale, inverse) = scale_of(largest(&s.lanes(top[r])), SHORT);
        out[r].scale = scale;
        let factor = s.splat(inverse);
        for (pairs, [low, high]) in out[r].pairs.iter_mut().zip(&products[r]).take(tiles.len()) {
            *pairs = bytemuck::cast(s.to_shorts(s.mul(s.load(low), factor), s.mul(s.load(high), factor)));
        }
    }
}

/// Sixteen channels of a group's values, weighted for `R` rows.
#[inline(always)]
fn panel_mix<S: Simd, const R: usize>(
    s: S,
    weights: &[Weights; MAX_ROWS],
    tiles: &[&[Block]],
    ahead: &[&[Block]],
    panel: usize,
    out: &mut [Panel; MAX_ROWS],
) {
    const STEPS: usize = PANEL / 2;
    let (block, first) = (panel * PANEL / BLOCK, panel * PANEL % BLOCK / PANEL * STEPS);
    let mut sums: Sums<S, R> = [[s.splat_int(0); 2]; R];
    for (t, tile) in tiles.iter().enumerate() {
        if let Some(ahead) = ahead.get(t) {
            s.prefetch(&ahead[block].steps[first..first + STEPS]);
        }
        for (k, step) in tile[block].steps[first..first + STEPS].iter().enumerate() {
            let mut pairs = [[0; 2]; R];
            for r in 0..R {
                pairs[r] = weights[r].pairs[t][k];
            }
            multiply(s, step, pairs, &mut sums);
        }
    }
    for r in 0..R {
        let scale = s.splat(weights[r].scale);
        for half in 0..2 {
            s.store(s.mul(s.to_floats(sums[r][half]), scale), &mut out[r][half]);
        }
    }
}
