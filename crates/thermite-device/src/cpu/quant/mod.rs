//! Quantised weight matrices: repacked at load, multiplied in eight bits.
//!
//! - [`tiles`]: the layout, sixteen rows side by side; [`pack`] makes it of a file's blocks.
//! - [`activations`]: rows of activations in eight bits.
//! - [`lanes`]: what an instruction set must do, and the sets that do it.
//! - [`product`]: sums over tiles, in eight bits, or in floats over dequantised weights; [`walk`]: the order in which
//!   rows meet tiles; `amx`: both for many rows of activations at once, on the tile registers of processors that have
//!   them.

#![allow(unsafe_code, reason = "kernels are entered where the processor has their instructions")]

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod lanes;
mod pack;
mod product;
mod tiles;
mod walk;

use std::ops::Range;

pub(super) use activations::Block;
#[cfg(target_arch = "x86_64")]
use amx::products as products_on_amx;
use bytemuck::{AnyBitPattern, Zeroable};
use thermite_formats::DType;

use self::lanes::{Lanes, One};
use self::pack::Pack;
use self::product::{Unpacked, dequantize, unpack};
pub(super) use self::tiles::TILE;
use self::tiles::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Tiles};
use self::walk::{Panels, products};
use super::dense::Finish;
use super::memory::Memory;
use super::pool::{Parts, Pool};
use super::simd::Isa;
use super::tile::{PANEL, Panel};
use crate::{Error, MatrixView, Result};

/// The kernels of one format on one instruction set.
struct Kernels {
    block_bytes: usize,
    tiles_bytes: usize,
    /// Columns of one value of the tiles.
    columns: usize,
    pack: fn(blocks: &[u8], row: usize, panel: &mut [u8]),
}

/// A format's row of a table.
const fn kernels<T: Pack>() -> Kernels {
    Kernels {
        block_bytes: size_of::<T::Block>(),
        tiles_bytes: size_of::<T>(),
        columns: T::COUNT * TILE,
        pack: pack_row::<T>,
    }
}

fn pack_row<T: Pack>(blocks: &[u8], row: usize, panel: &mut [u8]) {
    let tiles: &mut [T] = bytemuck::cast_slice_mut(panel);
    for (tiles, block) in tiles.iter_mut().zip(bytemuck::cast_slice(blocks)) {
        tiles.put(row, block);
    }
}

/// Calls a function that is generic over the tiles, for the format of a matrix.
macro_rules! with_tiles {
    ($format:expr, $f:ident($($arg:expr),*)) => {
        match $format {
            Format::Q8_0 => $f::<Q8_0>($($arg),*),
            Format::Q4_0 => $f::<Q4_0>($($arg),*),
            Format::Q4_1 => $f::<Q4_1>($($arg),*),
            Format::Q5_0 => $f::<Q5_0>($($arg),*),
            Format::Q5_1 => $f::<Q5_1>($($arg),*),
            Format::Q2K => $f::<Q2K>($($arg),*),
            Format::Q3K => $f::<Q3K>($($arg),*),
            Format::Q4K => $f::<Q4K>($($arg),*),
            Format::Q5K => $f::<Q5K>($($arg),*),
            Format::Q6K => $f::<Q6K>($($arg),*),
        }
    };
}

/// Makes `name(isa, args)` out of a body that is given lanes, compiled once for each instruction set, and of another
/// for processors that have none. What the body calls must be `#[inline(always)]`.
macro_rules! lanes_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$t:ident: $bound:path>)? ($($arg:ident: $ty:ty),*) = |$l:ident| $body:expr, portable $portable:expr;) => {
        $(#[$meta])*
        $vis fn $name $(<$t: $bound>)? (isa: Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2 $(<$t: $bound>)? ($l: lanes::Avx2Lanes, $($arg: $ty),*) {
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
            fn avx512 $(<$t: $bound>)? ($l: lanes::Avx512Lanes, $($arg: $ty),*) {
                $body
            }
            #[cfg(target_arch = "aarch64")]
            fn neon $(<$t: $bound>)? ($l: lanes::NeonLanes, $($arg: $ty),*) {
                $body
            }
            match isa {
                Isa::Portable(_) => $portable,
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Avx2` exists only where the processor has these instructions.
                Isa::Avx2(proof) => unsafe { avx2 $(::<$t>)? (lanes::Avx2Lanes(proof), $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Avx512` exists only where the processor has these instructions.
                Isa::Avx512(proof) => unsafe { avx512 $(::<$t>)? (lanes::Avx512Lanes(proof), $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above; AMX comes with AVX-512.
                Isa::Amx(proof) => unsafe { avx512 $(::<$t>)? (lanes::Avx512Lanes(proof.avx512()), $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Isa::Neon(proof) => neon $(::<$t>)? (lanes::NeonLanes(proof), $($arg),*),
            }
        }
    };
}

/// The quantised types there are kernels for: all of GGUF's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl Format {
    const fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::Q8_0 => Self::Q8_0,
            DType::Q4_0 => Self::Q4_0,
            DType::Q4_1 => Self::Q4_1,
            DType::Q5_0 => Self::Q5_0,
            DType::Q5_1 => Self::Q5_1,
            DType::Q2K => Self::Q2K,
            DType::Q3K => Self::Q3K,
            DType::Q4K => Self::Q4K,
            DType::Q5K => Self::Q5K,
            DType::Q6K => Self::Q6K,
            _ => return None,
        })
    }
}

/// A matrix `[rows, cols]` in tiles; the last panel is filled up with zeros.
#[derive(Debug)]
pub(super) struct Packed {
    format: Format,
    cols: usize,
    panel_bytes: usize,
    data: Memory,
}

impl Packed {
    /// Repacks stacked matrices of one quantised type and at least one column, on all threads.
    ///
    /// # Errors
    /// If there is no memory for it, or the type is none of the quantised ones.
    pub(super) fn new(parts: &[MatrixView<'_>], rows: usize, cols: usize, pool: &Pool) -> Result<Self> {
        let dtype = parts[0].dtype;
        let Some(format) = Format::of(dtype) else {
            return Err(Error::shape("matrix", "dtype", dtype, "a block type"));
        };
        let Kernels { block_bytes, tiles_bytes, columns, pack } = with_tiles!(format, kernels());
        let row_bytes = cols / columns * block_bytes;
        let panel_bytes = cols / columns * tiles_bytes;
        let mut data = Memory::new(rows.div_ceil(PANEL) * panel_bytes)?;
        let blocks: Vec<&[u8]> = parts.iter().flat_map(|part| part.bytes.chunks_exact(row_bytes)).collect();
        let panels = Parts::new(data.bytes_mut());
        pool.run_ranges(rows.div_ceil(PANEL), 1, |range| {
            for panel in range {
                // SAFETY: a panel belongs to one task alone.
                let to = unsafe { panels.get(panel * panel_bytes..(panel + 1) * panel_bytes) };
                let from = blocks[panel * PANEL..].iter().take(PANEL);
                from.enumerate().for_each(|(row, blocks)| pack(blocks, row, to));
            }
        });
        Ok(Self { format, cols, panel_bytes, data })
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }

    /// The tiles of all panels, and how many there are in each.
    fn panels<T: AnyBitPattern>(&self) -> Panels<'_, T> {
        Panels { tiles: bytemuck::cast_slice(self.data.bytes()), len: self.panel_bytes / size_of::<T>() }
    }

    /// Row `row` as floats.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        with_tiles!(self.format, read_row(self, row, out));
    }

    /// Columns `first ..` of a panel as floats, sixteen rows side by side; `first` and the number of columns are
    /// multiples of 256, or the columns the last.
    pub(super) fn dequantize(&self, isa: Isa, panel: usize, first: usize, out: &mut [Panel]) {
        with_tiles!(self.format, dequantize_panel(isa, self, panel, first, out));
    }

    /// The products of some panels with `n` rows of activations.
    pub(super) fn products(&self, isa: Isa, panels: Range<usize>, x: &[Block], n: usize, finish: Finish<'_>) {
        #[cfg(target_arch = "x86_64")]
        if let Isa::Amx(amx) = isa
            && n >= amx::MANY
        {
            return with_tiles!(self.format, products_on_amx(amx, self.panels(), panels, x, n, finish));
        }
        with_tiles!(self.format, panel_products(isa, self.panels(), panels, x, n, finish));
    }
}

fn read_row<T: Tiles>(packed: &Packed, row: usize, out: &mut [f32]) {
    let mut tile = [Unpacked::zeroed(); 8];
    let mut columns = [[0.0; PANEL]; 8 * TILE];
    let (l, tiles) = (One(row % PANEL), packed.panels::<T>().panel(row / PANEL));
    for (tiles, out) in tiles.chunks(1).zip(out.chunks_mut(T::COUNT * TILE)) {
        unpack(l, tiles, &mut tile);
        dequantize(l, &tile[..T::COUNT], &mut columns);
        out.iter_mut().zip(&columns).for_each(|(out, column)| *out = column[l.0]);
    }
}

lanes_fn! {
    fn dequantize_panel<T: Tiles>(packed: &Packed, panel: usize, first: usize, out: &mut [Panel]) =
        |l| dequantize_columns::<_, T>(l, packed, panel, first, bytemuck::cast_slice_mut(out)),
        portable for row in 0..PANEL {
            dequantize_columns::<_, T>(One(row), packed, panel, first, bytemuck::cast_slice_mut(out));
        };
}

#[inline(always)]
fn dequantize_columns<L: Lanes, T: Tiles>(
    l: L,
    packed: &Packed,
    panel: usize,
    first: usize,
    out: &mut [[f32; PANEL]],
) {
    let mut tile = [Unpacked::zeroed(); 8];
    let tiles = &packed.panels::<T>().panel(panel)[first / TILE / T::COUNT..];
    for (tiles, out) in tiles.chunks(1).zip(out.chunks_mut(T::COUNT * TILE)) {
        unpack(l, tiles, &mut tile);
        dequantize(l, &tile[..T::COUNT], out);
    }
}

lanes_fn! {
    fn panel_products<T: Tiles>(all: Panels<'_, T>, panels: Range<usize>, x: &[Block], n: usize, finish: Finish<'_>) =
        |l| products(l, all, panels, x, n, finish),
        portable unreachable!("{n} rows of bytes for panels {panels:?}, without products of bytes");
}

lanes_fn! {
    /// Rows of 32 activations in eight bits.
    pub(super) fn quantize(x: &[[f32; TILE]], out: &mut [Block]) =
        |_l| x.iter().zip(out).for_each(
            #[inline(always)]
            |(x, out)| *out = Block::of(x),
        ),
        portable x.iter().zip(out).for_each(|(x, out)| *out = Block::of(x));
}
