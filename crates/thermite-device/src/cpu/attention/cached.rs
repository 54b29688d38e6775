//! What a type of keys and values must do for attention.

use bytemuck::Pod;

use super::pages::Pages;
use crate::cpu::simd::{Simd, Wide};
use crate::cpu::tile::{MAX_ROWS, PANEL, Panel};

/// Tiles that attention takes at once: 128 tokens, between which a softmax has one maximum.
pub(super) const GROUP_TILES: usize = 8;

/// Tokens of a group of tiles.
pub(super) const GROUP: usize = GROUP_TILES * PANEL;

/// The scores of a few rows with a group's keys, and then their weights.
pub(super) type Scores = [[f32; GROUP]; MAX_ROWS];

/// An element of a tile of keys or values.
///
/// Rows are queries, at most [`MAX_ROWS`]. Every score and every channel of a group is one sum of its own in one order,
/// whatever is computed beside it.
pub(in crate::cpu) trait Cached: Pod + Send + Sync {
    /// An element of a query, as scores take it.
    type Query: Pod + Send + Sync;

    /// Elements of a tile of sixteen keys.
    fn key_tile(pages: &Pages) -> usize;
    /// Elements of a tile of sixteen values.
    fn value_tile(pages: &Pages) -> usize;
    /// Elements of a query of `head_dim` channels.
    fn query_len(head_dim: usize) -> usize;

    /// Puts the key of `slot` in its tile.
    fn store_key(tile: &mut [Self], slot: usize, key: &[f32]);
    /// The key of `slot`, out of its tile.
    fn load_key(tile: &[Self], slot: usize, key: &mut [f32]);
    /// Puts the value of `slot` in its tile.
    fn store_value(tile: &mut [Self], slot: usize, value: &[f32]);
    /// The value of `slot`, out of its tile.
    fn load_value(tile: &[Self], slot: usize, value: &mut [f32]);

    /// One head's query as scores take it.
    fn query<S: Simd>(s: S, query: &[f32], out: &mut [Self::Query]);

    /// The products of `queries` with the keys of `tiles`, sixteen of each row a tile. `ahead` are tiles that will be
    /// read next.
    fn scores<S: Wide>(
        s: S,
        queries: &[&[Self::Query]],
        tiles: &[&[Self]],
        ahead: &[&[Self]],
        out: &mut Scores,
    );

    /// The values of `tiles` weighted: `panels` panels of channels a row. Row `r` sees `seen[r]` tokens: what lies behind
    /// them in the tiles may be anything.
    fn mix<S: Wide>(
        s: S,
        weights: &Scores,
        seen: &[usize],
        tiles: &[&[Self]],
        ahead: &[&[Self]],
        panels: usize,
        out: &mut [Panel],
    );
}

/// Up to [`GROUP_TILES`] tiles.
pub(super) struct Group<'a, T> {
    tiles: [&'a [T]; GROUP_TILES],
    len: usize,
}

impl<'a, T> Group<'a, T> {
    pub(super) const fn new() -> Self {
        Self { tiles: [&[]; GROUP_TILES], len: 0 }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, tile: &'a [T]) {
        self.tiles[self.len] = tile;
        self.len += 1;
    }

    pub(super) fn tiles(&self) -> &[&'a [T]] {
        &self.tiles[..self.len]
    }
}
