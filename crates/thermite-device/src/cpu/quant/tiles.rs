//! How the blocks of a quantised matrix lie in memory: a panel of sixteen rows, a tile of 32 columns after another.
//!
//! A tile holds for its sixteen rows what one block of the format (or an eighth of a K block) holds for one, in
//! [`Step`]s of four columns, so that a vector of any width takes whole outputs and nothing is summed across lanes.
//! Sizes are those of the format; K blocks grow by up to 4 per cent because their scales are bytes of their own.
//!
//! A weight is `scale * (q - offset) + min`.

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use half::f16;

use super::lanes::{Lanes, Range, STEPS, Step};
use crate::cpu::tile::PANEL;

/// Columns of a tile: the activations' block as well.
pub(in crate::cpu) const TILE: usize = 32;

/// Tiles of a panel, one or eight together.
pub(super) trait Tiles: AnyBitPattern + NoUninit + Send + Sync {
    /// Tiles that are the same once they are unpacked.
    type Kind: Tiles;
    /// Tiles of 32 columns in one value.
    const COUNT: usize;
    /// Of the stored `q`.
    const RANGE: Range;
    /// The offset as a power of two, where there is one.
    const OFFSET: Option<u32> = None;
    /// Whether there are minima.
    const MIN: bool = false;
    /// Whether scale and minimum stand for 16 columns rather than 32.
    const SPLIT: bool = false;
    /// Whether they come from memory, one after another.
    const STREAMS: bool = true;

    /// The stored `q` of step `k` of a tile.
    fn step<L: Lanes>(&self, l: L, tile: usize, k: usize) -> L::Bytes;
    /// The scale of a tile, or of one half of it.
    fn scale<L: Lanes>(&self, l: L, tile: usize, half: usize) -> L::Floats;
    /// The minimum.
    fn min<L: Lanes>(&self, l: L, _tile: usize, _half: usize) -> L::Floats {
        l.splat(0.0)
    }
}

/// Four bits of each weight: step `k` in the low half of the bytes, step `k + 4` in the high half.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(super) struct Nibbles(pub(super) [Step; 4]);

/// Two bits of each weight: step `k` at bit `2 (k mod 4)` of plane `k / 4`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(super) struct Twos(pub(super) [Step; 2]);

/// One bit of each weight: step `k` at bit `k`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(super) struct Ones(pub(super) Step);

impl Nibbles {
    #[inline(always)]
    fn step<L: Lanes>(&self, l: L, k: usize) -> L::Bytes {
        l.field(l.load(&self.0[k % 4]), 4 * (k / 4) as u32, 0, 0x0f)
    }
}

impl Twos {
    #[inline(always)]
    fn step<L: Lanes>(&self, l: L, k: usize, to: u32) -> L::Bytes {
        l.field(l.load(&self.0[k / 4]), 2 * (k % 4) as u32, to, 3 << to)
    }
}

impl Ones {
    #[inline(always)]
    fn step<L: Lanes>(&self, l: L, k: usize, to: u32) -> L::Bytes {
        l.field(l.load(&self.0), k as u32, to, 1 << to)
    }
}

/// One half-precision number a row.
pub(super) type Halves = [f16; PANEL];

macro_rules! plain {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* } $range:ident, $offset:expr, $min:tt, |$l:ident, $t:ident, $k:ident| $step:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(super) struct $name { pub(super) d: Halves, $(pub(super) $field: $type),* }

        impl Tiles for $name {
            type Kind = Self;
            const COUNT: usize = 1;
            const RANGE: Range = Range::$range;
            const OFFSET: Option<u32> = $offset;
            const MIN: bool = $min;

            #[inline(always)]
            fn step<L: Lanes>(&self, $l: L, _tile: usize, $k: usize) -> L::Bytes {
                let $t = self;
                $step
            }
            #[inline(always)]
            fn scale<L: Lanes>(&self, l: L, _tile: usize, _half: usize) -> L::Floats {
                l.load_f16(&self.d)
            }
            plain!(@min $min);
        }
    };
    (@min true) => {
        #[inline(always)]
        fn min<L: Lanes>(&self, l: L, _tile: usize, _half: usize) -> L::Floats {
            l.load_f16(&self.m)
        }
    };
    (@min false) => {};
}

plain! { Q8_0 { q: [Step; STEPS] } Signed8, None, false, |l, t, k| l.load(&t.q[k]) }
plain! { Q4_0 { q: Nibbles } Bits4, Some(3), false, |l, t, k| t.q.step(l, k) }
plain! { Q4_1 { m: Halves, q: Nibbles } Bits4, None, true, |l, t, k| t.q.step(l, k) }
plain! { Q5_0 { q: Nibbles, h: Ones } Bits5, Some(4), false, |l, t, k| l.or(t.q.step(l, k), t.h.step(l, k, 4)) }
plain! { Q5_1 { m: Halves, q: Nibbles, h: Ones } Bits5, None, true, |l, t, k| l.or(t.q.step(l, k), t.h.step(l, k, 4)) }

/// Eight tiles with a scale of their own, a signed byte for every 16 columns.
macro_rules! scaled {
    ($name:ident, $tile:ident { $($field:ident: $type:ty),* } $range:ident, $offset:expr, |$l:ident, $t:ident, $k:ident| $step:expr) => {
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(super) struct $tile { pub(super) scale: [[i8; PANEL]; 2], $(pub(super) $field: $type),* }

        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(super) struct $name { pub(super) d: Halves, pub(super) tiles: [$tile; 8] }

        impl Tiles for $name {
            type Kind = Self;
            const COUNT: usize = 8;
            const RANGE: Range = Range::$range;
            const OFFSET: Option<u32> = Some($offset);
            const SPLIT: bool = true;

            #[inline(always)]
            fn step<L: Lanes>(&self, $l: L, tile: usize, $k: usize) -> L::Bytes {
                let $t = &self.tiles[tile];
                $step
            }
            #[inline(always)]
            fn scale<L: Lanes>(&self, l: L, tile: usize, half: usize) -> L::Floats {
                l.mul(l.load_f16(&self.d), l.load_i8(&self.tiles[tile].scale[half]))
            }
        }
    };
}

scaled! { Q3K, Q3KTile { q: Twos, h: Ones } Bits4, 2, |l, t, k| l.or(t.q.step(l, k, 0), t.h.step(l, k, 2)) }
scaled! { Q6K, Q6KTile { q: Nibbles, h: Twos } Bits6, 5, |l, t, k| l.or(t.q.step(l, k), t.h.step(l, k, 4)) }

/// Eight tiles with `n` scales and minima of their own, a byte each; `dmin` is negated.
macro_rules! with_minima {
    ($name:ident, $tile:ident { $($field:ident: $type:ty),* } $range:ident, $n:literal, $kind:ty, |$l:ident, $t:ident, $k:ident| $step:expr) => {
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(super) struct $tile {
            pub(super) scale: [[u8; PANEL]; $n],
            pub(super) min: [[u8; PANEL]; $n],
            $(pub(super) $field: $type),*
        }

        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(super) struct $name {
            pub(super) d: Halves,
            pub(super) dmin: Halves,
            pub(super) tiles: [$tile; 8],
        }

        impl Tiles for $name {
            type Kind = $kind;
            const COUNT: usize = 8;
            const RANGE: Range = Range::$range;
            const MIN: bool = true;
            const SPLIT: bool = $n == 2;

            #[inline(always)]
            fn step<L: Lanes>(&self, $l: L, tile: usize, $k: usize) -> L::Bytes {
                let $t = &self.tiles[tile];
                $step
            }
            #[inline(always)]
            fn scale<L: Lanes>(&self, l: L, tile: usize, half: usize) -> L::Floats {
                l.mul(l.load_f16(&self.d), l.load_u8(&self.tiles[tile].scale[half]))
            }
            #[inline(always)]
            fn min<L: Lanes>(&self, l: L, tile: usize, half: usize) -> L::Floats {
                l.mul(l.load_f16(&self.dmin), l.load_u8(&self.tiles[tile].min[half]))
            }
        }
    };
}

with_minima! { Q2K, Q2KTile { q: Twos } Bits4, 2, Self, |l, t, k| t.q.step(l, k, 0) }
with_minima! { Q4K, Q4KTile { q: Nibbles } Bits4, 1, Q4_1, |l, t, k| t.q.step(l, k) }
with_minima! { Q5K, Q5KTile { q: Nibbles, h: Ones } Bits5, 1, Q5_1, |l, t, k| l.or(t.q.step(l, k), t.h.step(l, k, 4)) }
