//! Matrices of plain floats in panels of sixteen rows, and the products of floats: with their panels, or with panels
//! that are dequantised on the way.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::Zeroable;
use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::amx::dense::Activations;
use super::memory::{CpuBuffer, Line};
use super::pool::{Parts, Pool};
use super::quant::Packed;
use super::simd::{Isa, Stored, Wide, simd_fn};
use super::tile::{MAX_PANELS, MAX_ROWS, PANEL, Panel, multiply, panels_at_once, strips};
use crate::{Dtype, Layout, MatrixView, Result, WeightType};

/// Rows up to which widening a weight once for each strip of them costs less than keeping it widened.
const FEW_ROWS: usize = 24;

/// Steps of `k` for which a panel is made floats at a time: 16 KiB, and whole blocks of quantised weights.
const K_BLOCK: usize = 256;

/// Columns that are laid in a panel at a time.
const PLACED: usize = 32;

/// What takes sums: row of activations, panel, and the sums of it and of panels behind it.
pub(super) type Finish<'a> = &'a mut dyn FnMut(usize, usize, &[[f32; PANEL]]);

/// A matrix `[rows, cols]`, stored as `[ceil(rows / 16), cols, 16]`, the last panel filled with zeros.
#[derive(Debug)]
pub(super) struct Dense {
    cols: usize,
    data: CpuBuffer,
}

impl Dense {
    /// The matrices `parts`, stacked: of one width, and either all of one type or all of them blocks.
    pub(super) fn new(parts: &[MatrixView<'_>], rows: usize, cols: usize, pool: &Pool) -> Result<Self> {
        let dtype = parts.first().and_then(|part| Dtype::of_weights(part.dtype)).unwrap_or(Dtype::F32);
        let mut data = CpuBuffer::new(dtype, rows.div_ceil(PANEL) * PANEL * cols)?;
        let mut first_row = 0;
        for part in parts {
            match dtype {
                Dtype::F16 => place::<f16>(part, first_row, data.all_mut(), pool),
                Dtype::BF16 => place::<bf16>(part, first_row, data.all_mut(), pool),
                _ if part.dtype == WeightType::F32 => place::<f32>(part, first_row, data.all_mut(), pool),
                _ => {
                    let floats = part.to_f32()?;
                    let part = MatrixView { bytes: bytemuck::cast_slice(&floats), ..*part };
                    place::<f32>(&part, first_row, data.all_mut(), pool);
                }
            }
            first_row += part.rows;
        }
        Ok(Self { cols, data })
    }

    pub(super) fn panel_bytes(&self) -> usize {
        PANEL * self.cols * self.data.dtype().bytes()
    }

    /// All panels, `cols` steps each.
    fn panels<T: Stored>(&self) -> &[Panel<T>] {
        bytemuck::cast_slice(self.data.all::<T>())
    }

    /// Row `row` as floats: an embedding.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        fn walk<T: Stored>(m: &Dense, row: usize, out: &mut [f32]) {
            let first = row / PANEL * m.cols * PANEL + row % PANEL;
            let lane = m.data.all::<T>()[first..].iter().step_by(PANEL);
            out.iter_mut().zip(lane).for_each(|(out, w)| *out = w.to_f32());
        }
        match self.data.dtype() {
            Dtype::F16 => walk::<f16>(self, row, out),
            Dtype::BF16 => walk::<bf16>(self, row, out),
            _ => walk::<f32>(self, row, out),
        }
    }

    /// Whether [`amx`](super::amx) multiplies it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_for_amx(&self) -> bool {
        self.data.dtype() == Dtype::BF16
    }

    /// The products of some panels of a matrix that [is for it](Self::is_for_amx).
    #[cfg(target_arch = "x86_64")]
    pub(super) fn products_on_amx(&self, panels: Range<usize>, x: &Activations, finish: Finish<'_>) {
        x.products(self.panels::<bf16>(), panels, finish);
    }

    /// The products of some panels with `n` rows of `x`.
    pub(super) fn products(&self, isa: Isa, panels: Range<usize>, x: &[f32], n: usize, finish: Finish<'_>) {
        match self.data.dtype() {
            Dtype::F16 => run::<f16>(isa, self, panels, x, n, finish),
            Dtype::BF16 => run::<bf16>(isa, self, panels, x, n, finish),
            _ => run::<f32>(isa, self, panels, x, n, finish),
        }
    }
}

/// Puts the values of `part` in their lanes, its first row being row `first` of the matrix.
fn place<T: Stored>(part: &MatrixView<'_>, first: usize, data: &mut [T], pool: &Pool) {
    let value = |i: usize| -> T {
        let at = i * size_of::<T>();
        bytemuck::pod_read_unaligned(&part.bytes[at..at + size_of::<T>()])
    };
    let (rows, cols) = (part.rows, part.cols);
    let first_panel = first / PANEL;
    let panels = Parts::new(data);
    pool.run_ranges((first + rows).div_ceil(PANEL) - first_panel, 1, |range| {
        for panel in range.start + first_panel..range.end + first_panel {
            // SAFETY: a panel belongs to one task alone.
            #[allow(unsafe_code)]
            let panel_data = unsafe { panels.get(panel * PANEL * cols..(panel + 1) * PANEL * cols) };
            let (begin, end) = ((panel * PANEL).max(first), ((panel + 1) * PANEL).min(first + rows));
            // some columns at a time, so that what is written stays in the first-level cache
            for (block, steps) in panel_data.chunks_mut(PANEL * PLACED).enumerate() {
                for row in begin..end {
                    for (i, step) in steps.chunks_exact_mut(PANEL).enumerate() {
                        let k = block * PLACED + i;
                        step[row % PANEL] = value(match part.layout {
                            Layout::RowMajor => (row - first) * cols + k,
                            Layout::ColumnMajor => k * rows + row - first,
                        });
                    }
                }
            }
        }
    });
}

thread_local! {
    /// Panels as floats, and their sums for every row: a step a line, for what crosses lines is read at half
    /// the speed.
    static SCRATCH: RefCell<(Vec<Line>, Vec<Line>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

simd_fn! {
    fn run<T: Stored>(m: &Dense, panels: Range<usize>, x: &[f32], n: usize, finish: Finish<'_>) = run_body::<_, T>;
}

#[inline(always)]
fn run_body<S: Wide, T: Stored>(
    s: S,
    m: &Dense,
    panels: Range<usize>,
    x: &[f32],
    n: usize,
    finish: Finish<'_>,
) {
    if n <= FEW_ROWS {
        return few_rows::<S, T>(s, m, panels, x, n, finish);
    }
    let all = m.panels::<T>();
    many_rows(
        s,
        m.cols,
        panels,
        x,
        n,
        #[inline(always)]
        |panel, from, wide| {
            for (to, w) in wide.iter_mut().zip(&all[panel * m.cols + from..]) {
                s.store_wide(T::load(s, w), to);
            }
        },
        finish,
    );
}

/// Weights are widened in registers, once for each strip of rows.
#[inline(always)]
fn few_rows<S: Wide, T: Stored>(
    s: S,
    m: &Dense,
    panels: Range<usize>,
    x: &[f32],
    n: usize,
    finish: Finish<'_>,
) {
    let k = m.cols;
    let all = m.panels::<T>();
    // several strips find their panels in the first-level cache
    let together = if n <= MAX_ROWS { MAX_PANELS } else { panels_at_once::<S>() };
    for group in strips(panels.len(), together) {
        let (first, count) = (panels.start + group.start, group.len());
        let mut group = [[].as_slice(); MAX_PANELS];
        for (p, panel) in group.iter_mut().enumerate().take(count) {
            *panel = &all[(first + p) * k..][..k];
        }
        for strip in strips(n, MAX_ROWS) {
            let mut rows = [[].as_slice(); MAX_ROWS];
            for (row, r) in rows.iter_mut().zip(strip.clone()) {
                *row = &x[r * k..][..k];
            }
            let mut acc = [Panel::default(); MAX_ROWS * MAX_PANELS];
            let acc = &mut acc[..strip.len() * count];
            multiply(s, &rows[..strip.len()], &group[..count], acc);
            for (r, row) in strip.enumerate() {
                finish(row, first, bytemuck::cast_slice(&acc[r * count..(r + 1) * count]));
            }
        }
    }
}

/// A block of a few panels is made floats once, by `widen(panel, first column, block)`, and serves all rows.
#[inline(always)]
fn many_rows<S: Wide>(
    s: S,
    k: usize,
    panels: Range<usize>,
    x: &[f32],
    n: usize,
    widen: impl Fn(usize, usize, &mut [Panel]),
    finish: Finish<'_>,
) {
    let together = panels_at_once::<S>();
    // taken, not borrowed: a closure here would be compiled without the instructions
    let (mut kept_wide, mut kept_sums) = SCRATCH.take();
    kept_wide.resize(K_BLOCK * together, Line::zeroed());
    kept_sums.resize((n * together).max(kept_sums.len()), Line::zeroed());
    let wide: &mut [Panel] = bytemuck::cast_slice_mut(&mut kept_wide);
    for group in strips(panels.len(), together) {
        let (first, count) = (panels.start + group.start, group.len());
        let sums: &mut [Panel] = bytemuck::cast_slice_mut(&mut kept_sums[..n * count]);
        sums.fill(Panel::default());
        for from in (0..k).step_by(K_BLOCK) {
            let len = K_BLOCK.min(k - from);
            let mut group = [[].as_slice(); MAX_PANELS];
            for (p, (block, wide)) in
                group.iter_mut().zip(wide.chunks_exact_mut(K_BLOCK)).enumerate().take(count)
            {
                widen(first + p, from, &mut wide[..len]);
                *block = &wide[..len];
            }
            for strip in strips(n, MAX_ROWS) {
                let mut rows = [[].as_slice(); MAX_ROWS];
                for (row, r) in rows.iter_mut().zip(strip.clone()) {
                    *row = &x[r * k + from..][..len];
                }
                let sums = &mut sums[strip.start * count..strip.end * count];
                multiply(s, &rows[..strip.len()], &group[..count], sums);
            }
        }
        for (row, sums) in sums.chunks_exact(count).enumerate() {
            finish(row, first, bytemuck::cast_slice(sums));
        }
    }
    SCRATCH.set((kept_wide, kept_sums));
}

/// The products of some panels of a quantised matrix with `n` rows of floats: exact weights, sums in single
/// precision.
pub(super) fn dequantized(
    isa: Isa,
    m: &Packed,
    panels: Range<usize>,
    x: &[f32],
    n: usize,
    finish: Finish<'_>,
) {
    dequantized_on(isa, isa, m, panels, x, n, finish);
}

simd_fn! {
    fn dequantized_on(on: Isa, m: &Packed, panels: Range<usize>, x: &[f32], n: usize, finish: Finish<'_>) =
        dequantized_body;
}

#[inline(always)]
fn dequantized_body<S: Wide>(
    s: S,
    isa: Isa,
    m: &Packed,
    panels: Range<usize>,
    x: &[f32],
    n: usize,
    finish: Finish<'_>,
) {
    many_rows(
        s,
        m.cols(),
        panels,
        x,
        n,
        #[inline(always)]
        |panel, from, wide| m.dequantize(isa, panel, from, wide),
        finish,
    );
}
