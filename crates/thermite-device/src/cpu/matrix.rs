//! Weight matrices in panels of sixteen rows, and their products.

use std::cell::RefCell;
use std::ops::Range;

use super::Cpu;
#[cfg(target_arch = "x86_64")]
use super::amx::dense::Activations;
use super::dense::{Dense, Finish, dequantized};
use super::pool::{Parts, Pool};
use super::quant::{Block, Packed, TILE};
#[cfg(target_arch = "x86_64")]
use super::simd::Isa;
use super::tile::{MAX_PANELS, PANEL};
use crate::device::Stacked;
use crate::{MatrixView, Result};

/// Rows from which the work is dealt out in more shares than there are threads, if they are not too small.
const MANY_ROWS: usize = 8;

/// The most shares a thread is dealt.
const MAX_SHARES: usize = 8;

/// A weight matrix `[rows, cols]`: segments of one type, their rows one after another.
#[derive(Debug)]
pub struct CpuMatrix {
    pub(super) rows: usize,
    pub(super) cols: usize,
    segments: Vec<Segment>,
}

/// Consecutive rows of one type. Its panels are its own: a panel never holds rows of two segments.
#[derive(Debug)]
struct Segment {
    first_row: usize,
    rows: usize,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Dense(Dense),
    Quantized(Packed),
}

impl CpuMatrix {
    pub(super) fn pack(parts: &[MatrixView<'_>], pool: &Pool) -> Result<Self> {
        let Stacked { rows, cols, .. } = MatrixView::stacked(parts)?;
        let mut segments: Vec<Segment> = Vec::new();
        let mut first_row = 0;
        for parts in parts.chunk_by(|a, b| a.dtype == b.dtype) {
            let rows = parts.iter().map(|part| part.rows).sum();
            let data = if parts[0].dtype.is_quantized() && cols > 0 {
                Data::Quantized(Packed::new(parts, rows, cols, pool)?)
            } else {
                Data::Dense(Dense::new(parts, rows, cols, pool)?)
            };
            segments.push(Segment { first_row, rows, data });
            first_row += rows;
        }
        Ok(Self { rows, cols, segments })
    }

    fn panels(&self) -> usize {
        self.segments.iter().map(Segment::panels).sum()
    }

    /// Bytes that a product reads.
    pub(super) fn bytes(&self) -> usize {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// Row `row` as floats: an embedding.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        let segment = self.segments.iter().find(|s| row < s.first_row + s.rows);
        if let Some(segment) = segment {
            let row = row - segment.first_row;
            match &segment.data {
                Data::Dense(m) => m.row(row, out),
                Data::Quantized(m) => m.row(row, out),
            }
        }
    }

    fn is_quantized(&self) -> bool {
        self.segments.iter().any(|s| matches!(s.data, Data::Quantized(_)))
    }

    #[cfg(target_arch = "x86_64")]
    fn is_for_amx(&self) -> bool {
        self.segments.iter().any(|s| matches!(&s.data, Data::Dense(m) if m.is_for_amx()))
    }
}

impl Segment {
    fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Bytes of a panel, of which even an empty one has one: by them work is shared out.
    fn panel_bytes(&self) -> usize {
        let bytes = match &self.data {
            Data::Dense(m) => m.panel_bytes(),
            Data::Quantized(m) => m.panel_bytes(),
        };
        bytes.max(1)
    }

    fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// The panels that begin in bytes `begin .. end` of this segment.
    fn share(&self, begin: usize, end: usize) -> Range<usize> {
        let panel = |byte: usize| byte.div_ceil(self.panel_bytes()).min(self.panels());
        panel(begin)..panel(end)
    }
}

/// One of several products with the same rows of activations.
pub(super) struct Product<'a> {
    pub(super) weight: &'a CpuMatrix,
    pub(super) bias: Option<&'a [f32]>,
    /// `[n, rows]`.
    pub(super) out: &'a mut [f32],
}

/// The sums of some panels to their outputs, of which there may be fewer in the last.
fn copy(sums: &[[f32; PANEL]], out: &mut [f32]) {
    // a copy of known length is no call
    let (whole, rest) = out.as_chunks_mut::<PANEL>();
    whole.iter_mut().zip(sums).for_each(|(out, sums)| *out = *sums);
    if !rest.is_empty() {
        rest.copy_from_slice(&sums[whole.len()][..rest.len()]);
    }
}

thread_local! {
    /// Activations in eight bits.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

impl Cpu {
    /// `out = x W^T + bias` for every one of `products`; `x` `[n, cols]`.
    pub(super) fn products<const P: usize>(&self, x: &[f32], n: usize, products: [Product<'_>; P]) {
        let mut blocks = BLOCKS.take();
        let quantized = products.iter().any(|p| p.weight.is_quantized()) && self.is_quantizing();
        if quantized {
            self.quantize(x, &mut blocks);
        }
        #[cfg(target_arch = "x86_64")]
        let tiles = match self.isa {
            Isa::Amx(amx) if products.iter().any(|p| p.weight.is_for_amx()) => {
                Some(Activations::new(amx, &self.pool, x, n))
            }
            _ => None,
        };
        let input = Input {
            x,
            blocks: quantized.then_some(&blocks),
            #[cfg(target_arch = "x86_64")]
            tiles: tiles.as_ref(),
            n,
        };
        let bytes: usize = products.iter().map(|p| p.weight.bytes()).sum();
        let panels: usize = products.iter().map(|p| p.weight.panels()).sum();
        let threads = self.threads();
        let shares =
            if n < MANY_ROWS { 1 } else { (panels / MAX_PANELS / threads).clamp(1, MAX_SHARES) } * threads;
        let outs = products.map(|p| (p.weight, p.bias, Parts::new(p.out)));
        self.pool.run(shares, |share| {
            let (mut begin, mut end) = (bytes * share / shares, bytes * (share + 1) / shares);
            for (weight, bias, out) in &outs {
                for segment in &weight.segments {
                    let panels = segment.share(begin, end);
                    self.share(segment, panels, input, &mut |row, panel, sums| {
                        let at = segment.first_row + panel * PANEL;
                        let len = (sums.len() * PANEL).min(segment.rows - panel * PANEL);
                        // SAFETY: a panel of one product belongs to one share alone.
                        #[allow(unsafe_code)]
                        let out = unsafe { out.get(row * weight.rows + at..row * weight.rows + at + len) };
                        match bias {
                            None => copy(sums, out),
                            Some(bias) => {
                                let sums = sums.as_flattened().iter().zip(&bias[at..]);
                                out.iter_mut().zip(sums).for_each(|(out, (sum, bias))| *out = sum + bias);
                            }
                        }
                    });
                    (begin, end) =
                        (begin.saturating_sub(segment.bytes()), end.saturating_sub(segment.bytes()));
                }
            }
        });
        BLOCKS.set(blocks);
    }

    /// One share of one segment.
    fn share(&self, segment: &Segment, panels: Range<usize>, input: Input<'_>, finish: Finish<'_>) {
        if panels.is_empty() {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if let (Data::Dense(m), Some(tiles)) = (&segment.data, input.tiles)
            && m.is_for_amx()
        {
            return m.products_on_amx(panels, tiles, finish);
        }
        match (&segment.data, input.blocks) {
            (Data::Dense(m), _) => m.products(self.isa, panels, input.x, input.n, finish),
            (Data::Quantized(m), Some(blocks)) => m.products(self.isa, panels, blocks, input.n, finish),
            (Data::Quantized(m), None) => dequantized(self.isa, m, panels, input.x, input.n, finish),
        }
    }

    /// `x` in eight bits.
    fn quantize(&self, x: &[f32], out: &mut Vec<Block>) {
        let (x, _) = x.as_chunks::<TILE>();
        if out.len() < x.len() {
            out.resize(x.len(), Block::default());
        }
        let out = Parts::new(out);
        self.pool.run_ranges(x.len(), super::GRAIN / TILE, |range| {
            // SAFETY: the ranges are disjoint.
            #[allow(unsafe_code)]
            let out = unsafe { out.get(range.clone()) };
            super::quant::quantize(self.isa, &x[range], out);
        });
    }
}

/// The rows of activations of a product, in floats and, where that is asked for, in eight bits.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    blocks: Option<&'a Vec<Block>>,
    /// In tiles of bfloat16, where weights are multiplied on AMX.
    #[cfg(target_arch = "x86_64")]
    tiles: Option<&'a Activations>,
    n: usize,
}
