//! The reference's attention kernels over contiguous `[bh, t, hs]` tensors.
//!
//! Keys and values are first laid in the tiles of the paged cache, one block a head; then the same code serves.

use super::attention::{Attention, Cached, Pages, Rows, Scoring, Strides};
use super::memory::CpuBuffer;
use super::pool::{Parts, Pool};
use super::sampling::softcap;
use super::simd::{Isa, Wide, simd_fn};
use super::tile::{MAX_ROWS, PANEL, Panel, multiply};
use crate::{Dtype, Result};

/// `bh` heads of `t` tokens of `hs` channels.
#[derive(Clone, Copy)]
pub(super) struct Square {
    pub(super) bh: usize,
    pub(super) t: usize,
    pub(super) hs: usize,
}

impl Square {
    pub(super) const fn len(self) -> usize {
        self.bh * self.t * self.hs
    }

    /// As a cache of one block.
    fn pages(self) -> Pages {
        Pages { n_kv_head: self.bh, head_dim: self.hs, tiles: self.t.div_ceil(PANEL) }
    }

    /// `x` in tiles of `width` channels, as a cache holds it.
    fn tiled(
        self,
        x: &[f32],
        width: usize,
        store: impl Fn(&mut [Panel], usize, &[f32]),
    ) -> Result<CpuBuffer> {
        let pages = self.pages();
        let mut tiles = CpuBuffer::new(Dtype::F32, self.bh * pages.tiles * PANEL * width)?;
        let out = tiles.elements_mut::<Panel>();
        for (row, values) in x.chunks_exact(self.hs).enumerate() {
            let (head, token) = (row / self.t, row % self.t);
            store(&mut out[pages.tile_of(token, head) * width..][..width], token, values);
        }
        Ok(tiles)
    }

    fn keys(self, k: &[f32]) -> Result<CpuBuffer> {
        self.tiled(k, self.hs, Panel::store_key)
    }

    fn values(self, v: &[f32]) -> Result<CpuBuffer> {
        self.tiled(v, self.pages().value_dim(), Panel::store_value)
    }

    /// Scores scaled by `1 / sqrt(hs)`.
    fn scale(self) -> f32 {
        1.0 / (self.hs as f32).sqrt()
    }

    pub(super) fn flash(
        self,
        isa: Isa,
        pool: &Pool,
        [q, k, v]: [&[f32]; 3],
        out: &mut [f32],
        window: usize,
        cap: f32,
    ) -> Result<()> {
        if self.len() == 0 {
            return Ok(());
        }
        let strides = Strides { row: self.hs, head: self.t * self.hs };
        let (keys, values) = (self.keys(k)?, self.values(v)?);
        let attention = Attention {
            q,
            q_strides: strides,
            out_strides: strides,
            n_head: self.bh,
            keys: keys.bytes(),
            values: values.bytes(),
            pages: self.pages(),
            dtype: Dtype::F32,
            scoring: Scoring { scale: self.scale(), window, cap },
        };
        let rows = Rows { first_row: 0, rows: self.t, start: 0, table: &[0] };
        attention.run(isa, pool, &[rows], out);
        Ok(())
    }

    pub(super) fn scores(self, isa: Isa, pool: &Pool, q: &[f32], k: &[f32], att: &mut [f32]) -> Result<()> {
        let keys = self.keys(k)?;
        let tile = self.hs * PANEL;
        let att = &Parts::new(att);
        let factor = self.scale();
        pool.run(self.bh, |head| {
            for first in (0..self.t).step_by(MAX_ROWS) {
                let count = MAX_ROWS.min(self.t - first);
                let rows = first..first + count;
                // SAFETY: a head belongs to one task alone.
                #[allow(unsafe_code)]
                let out =
                    unsafe { att.get((head * self.t + first) * self.t..(head * self.t + rows.end) * self.t) };
                out.fill(f32::NEG_INFINITY);
                let queries = &q[(head * self.t + first) * self.hs..][..count * self.hs];
                for column in (0..rows.end).step_by(PANEL) {
                    let number = head * self.t.div_ceil(PANEL) + column / PANEL;
                    let keys = &keys.all::<f32>()[number * tile..][..tile];
                    let mut acc = [Panel::default(); MAX_ROWS];
                    product(isa, queries, self.hs, keys, &mut acc[..count]);
                    for r in 0..count {
                        let seen = (first + r + 1).saturating_sub(column).min(PANEL);
                        let row = &mut out[r * self.t + column..][..seen];
                        let sums = acc[r].as_flattened();
                        row.iter_mut().zip(sums).for_each(|(o, s)| *o = s * factor);
                    }
                }
            }
        });
        Ok(())
    }

    pub(super) fn mix(self, isa: Isa, pool: &Pool, att: &[f32], v: &[f32], out: &mut [f32]) -> Result<()> {
        let values = self.values(v)?;
        let panels = self.pages().value_dim() / PANEL;
        let out = &Parts::new(out);
        pool.run(self.bh, |head| {
            for row in 0..self.t {
                let at = (head * self.t + row) * self.hs;
                let weights = &att[(head * self.t + row) * self.t..][..=row];
                // SAFETY: a head belongs to one task alone.
                #[allow(unsafe_code)]
                let out = unsafe { out.get(at..at + self.hs) };
                for panel in 0..panels {
                    let mut acc = [Panel::default()];
                    for (i, weights) in weights.chunks(PANEL).enumerate() {
                        let tile = head * self.t.div_ceil(PANEL) + i;
                        let first = (tile * panels + panel) * PANEL * PANEL;
                        let values = &values.all::<f32>()[first..][..weights.len() * PANEL];
                        product(isa, weights, weights.len(), values, &mut acc);
                    }
                    let to = &mut out[panel * PANEL..];
                    let len = to.len().min(PANEL);
                    to[..len].copy_from_slice(&acc[0].as_flattened()[..len]);
                }
            }
        });
        Ok(())
    }
}

/// What the query at `position` does not see becomes `-inf`, the rest of `scores` is capped.
pub(super) fn mask(isa: Isa, scores: &mut [f32], position: usize, window: usize, cap: f32) {
    let end = (position + 1).min(scores.len());
    let first = if window == 0 { 0 } else { end.saturating_sub(window) };
    scores[..first].fill(f32::NEG_INFINITY);
    scores[end..].fill(f32::NEG_INFINITY);
    if cap != 0.0 {
        softcap(isa, &mut scores[first..end], cap);
    }
}

simd_fn! {
    /// `acc[r] += rows[r] * panel`, rows of `k`.
    fn product(rows: &[f32], k: usize, panel: &[f32], acc: &mut [Panel]) = product_body;
}

#[inline(always)]
fn product_body<S: Wide>(s: S, rows: &[f32], k: usize, panel: &[f32], acc: &mut [Panel]) {
    let mut split = [[].as_slice(); MAX_ROWS];
    for (to, row) in split.iter_mut().zip(rows.chunks_exact(k)) {
        *to = row;
    }
    multiply::<S, f32>(s, &split[..acc.len()], &[bytemuck::cast_slice(panel)], acc);
}
