//! Attention on the CPU, naive and flash, over pages of keys and values.
//!
//! Keys and values lie in tiles of sixteen tokens: keys as `[head_dim, 16]`, so that a score is one lane, and values
//! as `[head_dim / 16, 16 tokens, 16]`, so that a channel is one. Both are panels of [`multiply`], so each score and
//! each channel is one sum in order. Tiles sit at fixed positions of the sequence, so a row's result does not depend
//! on how its prompt was cut into chunks.

use std::cell::RefCell;
use std::ops::Range;

use half::f16;

use super::pool::{Parts, Pool};
use super::rows::{exponentials, softmax_body};
use super::sampling::softcap_body;
use super::simd::{Isa, Simd, Stored, exp_of_negative, simd_fn};
use super::tile::{MAX_PANELS, MAX_ROWS, PANEL, Panel, multiply};
use crate::{AttentionKind, AttentionShape, Dtype, KvShape};

/// Tiles of keys that the flash kernel takes at once: 64 keys.
const FLASH_TILES: usize = 4;

/// Rows of queries that one task takes.
const TASK_ROWS: usize = 4 * MAX_ROWS;

/// Where tiles of keys and values lie.
#[derive(Clone, Copy)]
pub(super) struct Pages {
    pub(super) n_kv_head: usize,
    pub(super) head_dim: usize,
    /// Tiles a block.
    pub(super) tiles: usize,
}

impl Pages {
    pub(super) fn of(shape: &KvShape) -> Self {
        Self { n_kv_head: shape.n_kv_head, head_dim: shape.head_dim, tiles: shape.block_size / PANEL }
    }

    /// Channels of a value tile, filled up to whole panels.
    pub(super) const fn value_dim(&self) -> usize {
        self.head_dim.next_multiple_of(PANEL)
    }

    /// The number of tile `tile` of `head` in `block`.
    fn number(&self, block: usize, head: usize, tile: usize) -> usize {
        (block * self.n_kv_head + head) * self.tiles + tile
    }

    /// The number of the tile that holds `slot` (block * block_size + offset) of `head`.
    fn tile_of(&self, slot: usize, head: usize) -> usize {
        let block_size = self.tiles * PANEL;
        self.number(slot / block_size, head, slot % block_size / PANEL)
    }

    /// The tile of keys that holds `slot`.
    pub(super) fn key_tile(&self, slot: usize, head: usize) -> Range<usize> {
        let len = self.head_dim * PANEL;
        let start = self.tile_of(slot, head) * len;
        start..start + len
    }

    /// The tile of values that holds `slot`.
    pub(super) fn value_tile(&self, slot: usize, head: usize) -> Range<usize> {
        let len = self.value_dim() * PANEL;
        let start = self.tile_of(slot, head) * len;
        start..start + len
    }
}

/// Puts the key of `slot` in its tile: one lane, a channel a step.
pub(super) fn store_key<T: Stored>(tile: &mut [T], slot: usize, key: &[f32]) {
    let lane = tile.iter_mut().skip(slot % PANEL).step_by(PANEL);
    lane.zip(key).for_each(|(to, x)| *to = T::from_f32(*x));
}

/// The key of `slot`, out of its tile.
pub(super) fn load_key<T: Stored>(tile: &[T], slot: usize, key: &mut [f32]) {
    let lane = tile.iter().skip(slot % PANEL).step_by(PANEL);
    key.iter_mut().zip(lane).for_each(|(to, x)| *to = x.to_f32());
}

/// Puts the value of `slot` in its tile: sixteen channels side by side in each panel.
pub(super) fn store_value<T: Stored>(tile: &mut [T], slot: usize, value: &[f32]) {
    for (panel, channels) in tile.chunks_exact_mut(PANEL * PANEL).zip(value.chunks(PANEL)) {
        let lanes = &mut panel[slot % PANEL * PANEL..];
        lanes.iter_mut().zip(channels).for_each(|(to, x)| *to = T::from_f32(*x));
    }
}

/// The value of `slot`, out of its tile.
pub(super) fn load_value<T: Stored>(tile: &[T], slot: usize, value: &mut [f32]) {
    for (panel, channels) in tile.chunks_exact(PANEL * PANEL).zip(value.chunks_mut(PANEL)) {
        let lanes = &panel[slot % PANEL * PANEL..];
        channels.iter_mut().zip(lanes).for_each(|(to, x)| *to = x.to_f32());
    }
}

/// The keys and values of one head of one sequence.
#[derive(Clone, Copy)]
struct Head<'a, T> {
    keys: &'a [Panel<T>],
    values: &'a [Panel<T>],
    pages: Pages,
    table: &'a [i32],
    head: usize,
}

impl<'a, T> Head<'a, T> {
    #[inline(always)]
    fn number(&self, tile: usize) -> usize {
        let block = self.table[tile / self.pages.tiles] as usize;
        self.pages.number(block, self.head, tile % self.pages.tiles)
    }

    /// Keys of sixteen tokens, `head_dim` steps.
    #[inline(always)]
    fn keys(&self, tile: usize) -> &'a [Panel<T>] {
        let dim = self.pages.head_dim;
        &self.keys[self.number(tile) * dim..][..dim]
    }

    /// Sixteen channels of the first `len` of sixteen tokens.
    #[inline(always)]
    fn values(&self, tile: usize, panel: usize, len: usize) -> &'a [Panel<T>] {
        &self.values[self.number(tile) * self.pages.value_dim() + panel * PANEL..][..len]
    }
}

/// Attention of the rows of several sequences.
pub(super) struct Attention<'a> {
    pub(super) q: &'a [f32],
    pub(super) q_strides: Strides,
    pub(super) out_strides: Strides,
    pub(super) n_head: usize,
    pub(super) pages: Pages,
    pub(super) dtype: Dtype,
    pub(super) kind: AttentionKind,
    pub(super) scores: Scores,
}

/// What becomes of the product of a query and a key.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    pub(super) scale: f32,
    /// Tokens that a query sees, its own among them; all at 0.
    pub(super) window: usize,
    /// `cap * tanh(score / cap)`; not at 0.
    pub(super) cap: f32,
}

impl Scores {
    pub(super) const fn of(shape: &AttentionShape) -> Self {
        Self { scale: shape.scale, window: shape.window, cap: shape.cap }
    }
}

/// From one row, and from one head, to the next.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub(super) row: usize,
    pub(super) head: usize,
}

impl Strides {
    const fn at(self, row: usize, head: usize) -> usize {
        row * self.row + head * self.head
    }
}

/// Rows of one sequence: row `first_row + i` is at position `start + i`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) start: usize,
    pub(super) table: &'a [i32],
}

/// Some rows of one sequence: one head of each, or several heads of a single row that share keys and values.
struct Task<'a> {
    attention: &'a Attention<'a>,
    share: Share<'a>,
    keys: &'a [u8],
    values: &'a [u8],
    out: &'a Parts<'a, f32>,
}

/// What one task computes.
#[derive(Clone, Copy)]
struct Share<'a> {
    rows: Rows<'a>,
    head: usize,
    heads: usize,
}

impl Attention<'_> {
    /// Runs over all `spans`; `keys` and `values` are the cache's memory.
    pub(super) fn run(
        &self,
        isa: Isa,
        pool: &Pool,
        spans: &[Rows<'_>],
        keys: &[u8],
        values: &[u8],
        out: &mut [f32],
    ) {
        let shares = self.shares(spans, pool.threads());
        let out = &Parts::new(out);
        pool.run(shares.len(), |i| {
            let task = Task { attention: self, share: shares[i], keys, values, out };
            match self.dtype {
                Dtype::F16 => attend::<f16>(isa, &task),
                _ => attend::<f32>(isa, &task),
            }
        });
    }

    /// Tasks for `threads` threads. No result depends on how rows and heads are dealt out.
    fn shares<'s>(&self, spans: &[Rows<'s>], threads: usize) -> Vec<Share<'s>> {
        let group = self.n_head / self.pages.n_kv_head;
        let mut shares = Vec::new();
        for span in spans {
            if span.rows == 1 {
                for first in (0..self.n_head).step_by(group) {
                    for head in (first..first + group).step_by(MAX_ROWS) {
                        shares.push(Share { rows: *span, head, heads: MAX_ROWS.min(first + group - head) });
                    }
                }
                continue;
            }
            for from in (0..span.rows).step_by(TASK_ROWS) {
                let rows = Rows {
                    first_row: span.first_row + from,
                    rows: TASK_ROWS.min(span.rows - from),
                    start: span.start + from,
                    ..*span
                };
                shares.extend((0..self.n_head).map(|head| Share { rows, head, heads: 1 }));
            }
        }
        // the longest contexts come last in a prompt: begin with them
        shares.reverse();
        // what is left when every thread has had as much as the others is divided among them
        let even = shares.len() - shares.len() % threads;
        for left in shares.split_off(even) {
            let most = left.heads.div_ceil(threads);
            for head in (left.head..left.head + left.heads).step_by(most) {
                shares.push(Share { head, heads: most.min(left.head + left.heads - head), ..left });
            }
        }
        shares
    }
}

thread_local! {
    /// Scores of up to [`MAX_ROWS`] rows, and their outputs, panel by panel with the rows side by side.
    static SCRATCH: RefCell<(Vec<f32>, Vec<Panel>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

simd_fn! { fn attend<T: Stored>(task: &Task<'_>) = attend_body::<_, T>; }

#[inline(always)]
fn attend_body<S: Simd, T: Stored>(s: S, task: &Task<'_>) {
    let Attention { q, q_strides, out_strides, n_head, pages, kind, scores: form, .. } = *task.attention;
    let Share { rows: Rows { first_row, rows, start, table }, head: first_head, heads } = task.share;
    let dim = pages.head_dim;
    let head = Head::<T> {
        keys: bytemuck::cast_slice(task.keys),
        values: bytemuck::cast_slice(task.values),
        pages,
        table,
        head: first_head / (n_head / pages.n_kv_head),
    };
    // taken, not borrowed: a closure here would be compiled without the instructions
    let (mut scores, mut sums) = SCRATCH.take();
    let mut from = 0;
    while from < rows {
        let flash = kind.is_flash(start + from + 1);
        // rows on both sides of the threshold are not computed together
        let same = (from..rows).take_while(|r| kind.is_flash(start + r + 1) == flash);
        let (count, step) = if heads > 1 { (heads, 0) } else { (same.take(MAX_ROWS).count(), 1) };
        let place =
            |strides: Strides, r: usize| strides.at(first_row + from + r * step, first_head + r * (1 - step));
        let mut queries = [[].as_slice(); MAX_ROWS];
        for r in 0..count {
            queries[r] = &q[place(q_strides, r)..][..dim];
        }
        let block = Block { head: &head, queries: &queries[..count], start: start + from, step, form };
        sums.clear();
        sums.resize(count * pages.value_dim() / PANEL, Panel::default());
        if flash {
            block.flash(s, &mut scores, &mut sums);
        } else {
            block.naive(s, &mut scores, &mut sums);
        }
        for r in 0..count {
            let at = place(out_strides, r);
            // SAFETY: one head of one row belongs to one task alone.
            #[allow(unsafe_code)]
            let out = unsafe { task.out.get(at..at + dim) };
            for (channels, panel) in out.chunks_mut(PANEL).zip(sums.chunks_exact(count)) {
                channels.copy_from_slice(&panel[r].as_flattened()[..channels.len()]);
            }
        }
        from += if heads > 1 { 1 } else { count };
    }
    SCRATCH.set((scores, sums));
}

/// A few queries over one head's keys and values.
struct Block<'a, T> {
    head: &'a Head<'a, T>,
    queries: &'a [&'a [f32]],
    /// Position of the first query; query `r` sees keys up to `start + r * step`.
    start: usize,
    /// 1 for successive tokens, 0 for heads of one.
    step: usize,
    form: Scores,
}

impl<T: Stored> Block<'_, T> {
    /// The end of the keys that row `r` sees.
    const fn keys_of(&self, r: usize) -> usize {
        self.start + r * self.step + 1
    }

    /// The first key that row `r` sees.
    const fn first_key(&self, r: usize) -> usize {
        match self.form.window {
            0 => 0,
            window => self.keys_of(r).saturating_sub(window),
        }
    }

    /// The end of the keys that the last row sees.
    const fn keys(&self) -> usize {
        self.keys_of(self.queries.len() - 1)
    }

    /// Scores, softmax, mix: with all scores in memory.
    #[inline(always)]
    fn naive<S: Simd>(&self, s: S, scores: &mut Vec<f32>, sums: &mut [Panel]) {
        let begin = self.first_key(0) / PANEL;
        let tiles = self.keys().div_ceil(PANEL);
        let width = (tiles - begin) * PANEL;
        scores.clear();
        scores.resize(self.queries.len() * width, 0.0);
        for first in (begin..tiles).step_by(MAX_PANELS) {
            self.scores(s, first, MAX_PANELS.min(tiles - first), scores, width, (first - begin) * PANEL);
        }
        for (r, row) in scores.chunks_exact_mut(width).enumerate() {
            row[..self.first_key(r) - begin * PANEL].fill(f32::NEG_INFINITY);
            row[self.keys_of(r) - begin * PANEL..].fill(f32::NEG_INFINITY);
            softmax_body(s, row);
        }
        for tile in begin..tiles {
            self.mix(s, tile, scores, width, (tile - begin) * PANEL, sums);
        }
    }

    /// A running softmax over the keys: with the scores of 64 keys in memory.
    #[inline(always)]
    fn flash<S: Simd>(&self, s: S, scores: &mut Vec<f32>, sums: &mut [Panel]) {
        const WIDTH: usize = FLASH_TILES * PANEL;
        let tiles = self.keys().div_ceil(PANEL);
        let rows = self.queries.len();
        let mut top = [f32::NEG_INFINITY; MAX_ROWS];
        let mut total = [0.0f32; MAX_ROWS];
        scores.clear();
        scores.resize(rows * WIDTH, 0.0);
        // groups of tiles begin at the same places for all rows, so that a row's sums have one order
        let begin = self.first_key(0) / WIDTH * FLASH_TILES;
        for first in (begin..tiles).step_by(FLASH_TILES) {
            let count = FLASH_TILES.min(tiles - first);
            self.scores(s, first, count, scores, WIDTH, 0);
            for (r, row) in scores.chunks_exact_mut(WIDTH).enumerate() {
                let seen = self.keys_of(r).saturating_sub(first * PANEL).min(WIDTH);
                if seen == 0 {
                    continue;
                }
                row[..self.first_key(r).saturating_sub(first * PANEL).min(WIDTH)].fill(f32::NEG_INFINITY);
                row[seen..].fill(f32::NEG_INFINITY);
                let (m, sum) = exponentials(s, row, top[r]);
                // the first tile has nothing to correct
                let keep = if top[r] == f32::NEG_INFINITY {
                    0.0
                } else {
                    s.lanes(exp_of_negative(s, s.splat(top[r] - m)))[0]
                };
                (top[r], total[r]) = (m, total[r] * keep + sum);
                scale(s, sums, r, rows, keep);
            }
            for tile in 0..count {
                self.mix(s, first + tile, scores, WIDTH, tile * PANEL, sums);
            }
        }
        for (r, total) in total.iter().enumerate().take(rows) {
            let inverse = if *total == 0.0 { 0.0 } else { 1.0 / total };
            scale(s, sums, r, rows, inverse);
        }
    }

    /// The scaled scores of `count` tiles from `first` on, into columns `column ..` of `scores`.
    #[inline(always)]
    fn scores<S: Simd>(
        &self,
        s: S,
        first: usize,
        count: usize,
        scores: &mut [f32],
        width: usize,
        column: usize,
    ) {
        let mut keys = [[].as_slice(); MAX_PANELS];
        for (i, panel) in keys.iter_mut().enumerate().take(count) {
            *panel = self.head.keys(first + i);
        }
        // tiles lie apart, and no processor guesses where the next one is; many rows leave it time to find out
        let few = self.step == 0 || self.queries.len() == 1;
        for tile in (first..first + count).filter(|_| few) {
            s.prefetch(self.head.values(tile, 0, self.head.pages.value_dim()));
            if (tile + count) * PANEL < self.keys() {
                s.prefetch(self.head.keys(tile + count));
            }
        }
        let mut acc = [Panel::default(); MAX_ROWS * MAX_PANELS];
        let acc = &mut acc[..self.queries.len() * count];
        multiply(s, self.queries, &keys[..count], acc);
        let factor = s.splat(self.form.scale);
        for (r, row) in acc.chunks_exact(count).enumerate() {
            let to = &mut scores[r * width + column..][..count * PANEL];
            let (to, _) = to.as_chunks_mut();
            for (to, from) in to.iter_mut().zip(row.as_flattened()) {
                s.store(s.mul(s.load(from), factor), to);
            }
            if self.form.cap != 0.0 {
                softcap_body(s, to.as_flattened_mut(), self.form.cap);
            }
        }
    }

    /// Adds the values of one tile, weighted by columns `column ..` of `weights`. A row takes only the keys it
    /// sees: what lies behind them may be anything.
    #[inline(always)]
    fn mix<S: Simd>(
        &self,
        s: S,
        tile: usize,
        weights: &[f32],
        width: usize,
        column: usize,
        sums: &mut [Panel],
    ) {
        let rows = self.queries.len();
        let panels = sums.len() / rows;
        let seen = |r: usize| self.keys_of(r).saturating_sub(tile * PANEL).min(PANEL);
        let weight = |r: usize, len: usize| &weights[r * width + column..][..len];
        if rows == 1 {
            let len = seen(0);
            for first in (0..panels).step_by(MAX_PANELS) {
                let count = MAX_PANELS.min(panels - first);
                let mut values = [[].as_slice(); MAX_PANELS];
                for (i, panel) in values.iter_mut().enumerate().take(count) {
                    *panel = self.head.values(tile, first + i, len);
                }
                multiply(s, &[weight(0, len)], &values[..count], &mut sums[first..first + count]);
            }
        } else if seen(0) == seen(rows - 1) {
            let len = seen(0);
            let mut w = [[].as_slice(); MAX_ROWS];
            for (r, w) in w.iter_mut().enumerate().take(rows) {
                *w = weight(r, len);
            }
            for (panel, sums) in sums.chunks_exact_mut(rows).enumerate() {
                multiply(s, &w[..rows], &[self.head.values(tile, panel, len)], sums);
            }
        } else {
            for (panel, sums) in sums.chunks_exact_mut(rows).enumerate() {
                for (r, sum) in sums.iter_mut().enumerate() {
                    let len = seen(r);
                    let values = self.head.values(tile, panel, len);
                    multiply(s, &[weight(r, len)], &[values], std::slice::from_mut(sum));
                }
            }
        }
    }
}

/// Row `r`'s sums times `factor`.
#[inline(always)]
fn scale<S: Simd>(s: S, sums: &mut [Panel], r: usize, rows: usize, factor: f32) {
    let factor = s.splat(factor);
    for panel in sums.chunks_exact_mut(rows) {
        for half in &mut panel[r] {
            s.store(s.mul(s.load(half), factor), half);
        }
    }
}
