//! Where tiles of keys and values lie in the pages of a cache.

use std::ops::Range;

use super::cached::{Cached, Group};
use crate::KvShape;
use crate::cpu::tile::PANEL;

/// The geometry of a cache's pages.
///
/// Keys and values lie in tiles of sixteen tokens, a head's tiles of a page one after another, then the next head's. What
/// a tile is made of is the matter of [`Cached`].
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Pages {
    pub(in crate::cpu) n_kv_head: usize,
    pub(in crate::cpu) head_dim: usize,
    /// Tiles a block.
    pub(in crate::cpu) tiles: usize,
}

impl Pages {
    pub(in crate::cpu) fn of(shape: &KvShape) -> Self {
        Self { n_kv_head: shape.n_kv_head, head_dim: shape.head_dim, tiles: shape.block_size / PANEL }
    }

    /// Channels of a value tile, filled up to whole panels.
    pub(in crate::cpu) const fn value_dim(&self) -> usize {
        self.head_dim.next_multiple_of(PANEL)
    }

    /// Panels of channels of a value.
    pub(super) const fn panels(&self) -> usize {
        self.value_dim() / PANEL
    }

    /// The number of tile `tile` of `head` in `block`.
    const fn number(&self, block: usize, head: usize, tile: usize) -> usize {
        (block * self.n_kv_head + head) * self.tiles + tile
    }

    /// The number of the tile that holds `slot` (block * block_size + offset) of `head`.
    pub(in crate::cpu) const fn tile_of(&self, slot: usize, head: usize) -> usize {
        let block_size = self.tiles * PANEL;
        self.number(slot / block_size, head, slot % block_size / PANEL)
    }
}

/// The keys and values of one head of one sequence.
pub(super) struct Head<'a, T: Cached> {
    pub(super) keys: &'a [T],
    pub(super) values: &'a [T],
    pub(super) pages: Pages,
    pub(super) table: &'a [i32],
    pub(super) head: usize,
}

impl<T: Cached> Clone for Head<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Cached> Copy for Head<'_, T> {}

impl<'a, T: Cached> Head<'a, T> {
    /// The keys and the values of some tiles, at most [`GROUP_TILES`](super::cached::GROUP_TILES).
    #[inline(always)]
    pub(super) fn group(&self, tiles: Range<usize>) -> [Group<'a, T>; 2] {
        let (key_tile, value_tile) = (T::key_tile(&self.pages), T::value_tile(&self.pages));
        let [mut keys, mut values] = [Group::new(), Group::new()];
        // one division for all tiles
        let (mut block, mut tile) = (tiles.start / self.pages.tiles, tiles.start % self.pages.tiles);
        for _ in tiles {
            let number = self.pages.number(self.table[block] as usize, self.head, tile);
            keys.push(&self.keys[number * key_tile..][..key_tile]);
            values.push(&self.values[number * value_tile..][..value_tile]);
            tile += 1;
            if tile == self.pages.tiles {
                (block, tile) = (block + 1, 0);
            }
        }
        [keys, values]
    }
}
