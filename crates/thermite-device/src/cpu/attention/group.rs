//! Attention of a few queries over a group of keys, and groups put together.

use std::ops::Range;

use super::Scoring;
use super::cached::{Cached, GROUP, GROUP_TILES, Group, Scores};
use super::pages::Head;
use crate::cpu::rows::{exponentials, map_inplace};
use crate::cpu::sampling::softcap_body;
use crate::cpu::simd::{Simd, Wide, exp_of_negative};
use crate::cpu::tile::{MAX_ROWS, PANEL, Panel};

/// The softmax of one row over some keys: the largest score, and the sum of the exponentials of the others' distance
/// from it. Where no key was seen the sum is 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Softmax {
    top: f32,
    sum: f32,
}

impl Softmax {
    /// Takes in the next group: its weighted `values` go to `acc`, brought to a common maximum.
    #[inline(always)]
    pub(super) fn merge<S: Simd>(&mut self, s: S, acc: &mut [Panel], group: Self, values: &[Panel]) {
        if group.sum == 0.0 {
            return;
        }
        if self.sum == 0.0 {
            acc.copy_from_slice(values);
            *self = group;
            return;
        }
        let top = self.top.max(group.top);
        let factors =
            exp_of_negative(s, s.load(&[self.top - top, group.top - top, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
        let [keep, add, ..] = s.lanes(factors);
        *self = Self { top, sum: self.sum * keep + group.sum * add };
        let (keep, add) = (s.splat(keep), s.splat(add));
        for (acc, value) in acc.as_flattened_mut().iter_mut().zip(values.as_flattened()) {
            s.store(s.fma(s.load(value), add, s.mul(s.load(acc), keep)), acc);
        }
    }

    /// What [`Softmax::merge`] gathered, divided by the sum; zeros where no key was seen.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(self, s: S, acc: &mut [Panel]) {
        let inverse = s.splat(if self.sum == 0.0 { 0.0 } else { self.sum.recip() });
        for half in acc.as_flattened_mut() {
            s.store(s.mul(s.load(half), inverse), half);
        }
    }
}

/// A few queries over one head's keys and values.
pub(super) struct Block<'a, T: Cached> {
    pub(super) head: Head<'a, T>,
    pub(super) queries: &'a [&'a [T::Query]],
    /// Position of the first query; query `r` sees keys up to `start + r * step`.
    pub(super) start: usize,
    /// 1 for successive tokens, 0 for heads of one.
    pub(super) step: usize,
    pub(super) scoring: Scoring,
}

impl<T: Cached> Block<'_, T> {
    /// The end of the keys that row `r` sees.
    const fn keys_of(&self, r: usize) -> usize {
        self.start + r * self.step + 1
    }

    /// The groups of keys that some row sees. Groups lie at the same places for all rows, so that a row's sums have one
    /// order.
    pub(super) fn groups(&self) -> Range<usize> {
        self.scoring.groups(self.start + 1).start
            ..self.scoring.groups(self.keys_of(self.queries.len() - 1)).end
    }

    /// The values of `group` weighted, `panels` panels a row, and each row's softmax. Asks for `ahead`, the head and the
    /// group that come next, meanwhile.
    #[inline(always)]
    pub(super) fn group<S: Wide>(
        &self,
        s: S,
        group: usize,
        ahead: Option<(Head<'_, T>, usize)>,
        scores: &mut Scores,
        values: &mut [Panel],
    ) -> [Softmax; MAX_ROWS] {
        let rows = self.queries.len();
        let keys = self.keys_of(rows - 1);
        let tiles = self.scoring.tiles(group, self.start + 1, keys);
        let (first, width) = (tiles.start * PANEL, tiles.len() * PANEL);
        let [k, v] = self.head.group(tiles);
        let [next_k, next_v] = match ahead {
            Some((head, group)) => head.group(self.scoring.tiles(group, keys, keys)),
            None => [Group::new(), Group::new()],
        };
        T::scores(s, self.queries, k.tiles(), next_k.tiles(), scores);
        let (mut softmax, mut seen) = ([Softmax::default(); MAX_ROWS], [0; MAX_ROWS]);
        for r in 0..rows {
            let end = self.keys_of(r);
            seen[r] = end.saturating_sub(first).min(width);
            let row = &mut scores[r][..width];
            self.scoring.score(s, &mut row[..seen[r]]);
            let unseen = self.scoring.first_key(end).saturating_sub(first).min(seen[r]);
            row[..unseen].fill(f32::NEG_INFINITY);
            row[seen[r]..].fill(f32::NEG_INFINITY);
            let (top, sum) = exponentials(s, row, f32::NEG_INFINITY);
            softmax[r] = Softmax { top, sum };
        }
        let panels = values.len() / rows;
        T::mix(s, scores, &seen[..rows], v.tiles(), next_v.tiles(), panels, values);
        softmax
    }
}

impl Scoring {
    /// The first key that the query with `keys` keys up to its own sees.
    pub(super) const fn first_key(&self, keys: usize) -> usize {
        match self.window {
            0 => 0,
            window => keys.saturating_sub(window),
        }
    }

    /// The groups of keys that the query with `keys` keys up to its own sees.
    pub(super) const fn groups(&self, keys: usize) -> Range<usize> {
        self.first_key(keys) / GROUP..keys.div_ceil(GROUP)
    }

    /// The tiles of `group` that some query sees, of those that have `first` to `last` keys up to their own.
    fn tiles(&self, group: usize, first: usize, last: usize) -> Range<usize> {
        let begin = (group * GROUP_TILES).max(self.first_key(first) / PANEL);
        begin..((group + 1) * GROUP_TILES).min(last.div_ceil(PANEL)).max(begin)
    }

    /// What becomes of the products of a query and some keys.
    #[inline(always)]
    fn score<S: Simd>(&self, s: S, products: &mut [f32]) {
        let factor = s.splat(self.scale);
        map_inplace(
            s,
            products,
            #[inline(always)]
            |x| s.mul(x, factor),
        );
        if self.cap != 0.0 {
            softcap_body(s, products, self.cap);
        }
    }
}
