//! Keys and values in floats: keys as `[head_dim, 16 tokens]`, so that a score is one lane, and values as
//! `[head_dim / 16, 16 tokens, 16]`, so that a channel is one. Both are panels of [`multiply`].

use super::cached::{Cached, Scores};
use super::pages::Pages;
use crate::cpu::simd::{LANES, Simd, Stored, Wide};
use crate::cpu::tile::{MAX_PANELS, MAX_ROWS, PANEL, Panel, multiply};

/// Channels of keys between which the next keys are asked for: a few cache lines at a time, for a processor waits for so
/// many and no more.
const STEP: usize = 8;

impl<T: Stored> Cached for Panel<T> {
    type Query = f32;

    fn key_tile(pages: &Pages) -> usize {
        pages.head_dim
    }

    fn value_tile(pages: &Pages) -> usize {
        pages.value_dim()
    }

    fn query_len(head_dim: usize) -> usize {
        head_dim
    }

    fn store_key(tile: &mut [Self], slot: usize, key: &[f32]) {
        let (half, lane) = (slot % PANEL / LANES, slot % LANES);
        let mut converted = [T::zeroed(); PANEL];
        for (tile, key) in tile.chunks_mut(PANEL).zip(key.chunks(PANEL)) {
            T::from_floats(key, &mut converted[..key.len()]);
            tile.iter_mut().zip(converted).for_each(|(to, x)| to[half][lane] = x);
        }
    }

    fn load_key(tile: &[Self], slot: usize, key: &mut [f32]) {
        let (half, lane) = (slot % PANEL / LANES, slot % LANES);
        key.iter_mut().zip(tile).for_each(|(to, x)| *to = x[half][lane].to_f32());
    }

    fn store_value(tile: &mut [Self], slot: usize, value: &[f32]) {
        for (panel, channels) in tile.chunks_exact_mut(PANEL).zip(value.chunks(PANEL)) {
            let lanes = panel[slot % PANEL].as_flattened_mut();
            T::from_floats(channels, &mut lanes[..channels.len()]);
        }
    }

    fn load_value(tile: &[Self], slot: usize, value: &mut [f32]) {
        for (panel, channels) in tile.chunks_exact(PANEL).zip(value.chunks_mut(PANEL)) {
            let lanes = panel[slot % PANEL].as_flattened();
            channels.iter_mut().zip(lanes).for_each(|(to, x)| *to = x.to_f32());
        }
    }

    #[inline(always)]
    fn query<S: Simd>(_s: S, query: &[f32], out: &mut [f32]) {
        out.copy_from_slice(query);
    }

    #[inline(always)]
    fn scores<S: Wide>(s: S, queries: &[&[f32]], tiles: &[&[Self]], ahead: &[&[Self]], out: &mut Scores) {
        let (rows, dim) = (queries.len(), queries[0].len());
        let step = if ahead.is_empty() { dim } else { STEP };
        for first in (0..tiles.len()).step_by(MAX_PANELS) {
            let count = MAX_PANELS.min(tiles.len() - first);
            let mut acc = [Panel::default(); MAX_ROWS * MAX_PANELS];
            for from in (0..dim).step_by(step) {
                let channels = from..dim.min(from + step);
                let (mut x, mut keys) = ([[].as_slice(); MAX_ROWS], [[].as_slice(); MAX_PANELS]);
                for r in 0..rows {
                    x[r] = &queries[r][channels.clone()];
                }
                for p in 0..count {
                    keys[p] = &tiles[first + p][channels.clone()];
                    if let Some(ahead) = ahead.get(first + p) {
                        s.prefetch(&ahead[channels.clone()]);
                    }
                }
                multiply(s, &x[..rows], &keys[..count], &mut acc[..rows * count]);
            }
            for r in 0..rows {
                for p in 0..count {
                    let to = &mut out[r][(first + p) * PANEL..][..PANEL];
                    to.copy_from_slice(acc[r * count + p].as_flattened());
                }
            }
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
        for first in (0..panels).step_by(MAX_PANELS) {
            let count = MAX_PANELS.min(panels - first);
            let mut acc = [Panel::default(); MAX_ROWS * MAX_PANELS];
            let acc = &mut acc[..rows * count];
            for (t, tile) in tiles.iter().enumerate() {
                if let Some(ahead) = ahead.get(t) {
                    s.prefetch(&ahead[first * PANEL..(first + count) * PANEL]);
                }
                let (mut w, mut len) = ([[].as_slice(); MAX_ROWS], [0; MAX_ROWS]);
                for r in 0..rows {
                    len[r] = seen[r].saturating_sub(t * PANEL).min(PANEL);
                    w[r] = &weights[r][t * PANEL..][..len[r]];
                }
                if len[0] == len[rows - 1] {
                    multiply(s, &w[..rows], &values(tile, first, count, len[0])[..count], acc);
                    continue;
                }
                for r in 0..rows {
                    let acc = &mut acc[r * count..][..count];
                    multiply(s, &[w[r]], &values(tile, first, count, len[r])[..count], acc);
                }
            }
            for r in 0..rows {
                out[r * panels + first..][..count].copy_from_slice(&acc[r * count..][..count]);
            }
        }
    }
}

/// `count` panels of a tile of values from `first` on: their first `len` tokens.
#[inline(always)]
fn values<T>(tile: &[T], first: usize, count: usize, len: usize) -> [&[T]; MAX_PANELS] {
    let mut values = [[].as_slice(); MAX_PANELS];
    for (p, values) in values.iter_mut().enumerate().take(count) {
        *values = &tile[(first + p) * PANEL..][..len];
    }
    values
}
