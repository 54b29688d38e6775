//! Weight matrices packed in panels of sixteen outputs, and their products.

use std::cell::RefCell;
use std::ops::Range;

use half::{bf16, f16};

use super::memory::CpuBuffer;
use super::pool::{Parts, Pool};
use super::simd::{Isa, LANES, Simd, Stored, simd_fn};
use super::tile::{MAX_PANELS, MAX_ROWS, PANEL, Panel, multiply};
use crate::device::Stacked;
use crate::{Dtype, Layout, MatrixView, Result, WeightType};

/// Steps of `k` whose panel stays in the first-level cache as floats: 32 KiB.
const K_BLOCK: usize = 512;

/// A weight matrix `[rows, cols]`, stored as `[ceil(rows / 16), cols, 16]`, the last panel filled with zeros.
#[derive(Debug)]
pub struct CpuMatrix {
    pub(super) rows: usize,
    pub(super) cols: usize,
    data: CpuBuffer,
}

impl CpuMatrix {
    pub(super) fn pack(parts: &[MatrixView<'_>]) -> Result<Self> {
        let Stacked { rows, cols, dtype } = MatrixView::stacked(parts)?;
        // blocks, and parts of several types, are laid out as floats
        let dtype = dtype.and_then(Dtype::of_weights).unwrap_or(Dtype::F32);
        let mut data = CpuBuffer::new(dtype, rows.div_ceil(PANEL) * PANEL * cols)?;
        let mut first_row = 0;
        for part in parts {
            match dtype {
                Dtype::F16 => place::<f16>(part, first_row, data.all_mut()),
                Dtype::BF16 => place::<bf16>(part, first_row, data.all_mut()),
                _ if part.dtype == WeightType::F32 => place::<f32>(part, first_row, data.all_mut()),
                _ => {
                    let floats = part.to_f32()?;
                    let part = MatrixView { bytes: bytemuck::cast_slice(&floats), ..*part };
                    place::<f32>(&part, first_row, data.all_mut());
                }
            }
            first_row += part.rows;
        }
        Ok(Self { rows, cols, data })
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.data.dtype()
    }

    /// All panels, `cols` steps each.
    fn panels<T: Stored>(&self) -> &[Panel<T>] {
        bytemuck::cast_slice(self.data.all::<T>())
    }

    /// Row `row` as floats: an embedding.
    pub(super) fn row(&self, row: usize, mut each: impl FnMut(usize, f32)) {
        fn walk<T: Stored>(m: &CpuMatrix, row: usize, each: &mut impl FnMut(usize, f32)) {
            let first = row / PANEL * m.cols * PANEL + row % PANEL;
            let lane = m.data.all::<T>()[first..].iter().step_by(PANEL).take(m.cols);
            lane.enumerate().for_each(|(i, w)| each(i, w.to_f32()));
        }
        match self.dtype() {
            Dtype::F16 => walk::<f16>(self, row, &mut each),
            Dtype::BF16 => walk::<bf16>(self, row, &mut each),
            Dtype::F32 | Dtype::I32 | Dtype::U32 | Dtype::U8 => walk::<f32>(self, row, &mut each),
        }
    }
}

/// Puts the values of `part` in their lanes, its first row being row `first` of the matrix.
fn place<T: Stored>(part: &MatrixView<'_>, first: usize, data: &mut [T]) {
    let value = |i: usize| -> T {
        let at = i * size_of::<T>();
        bytemuck::pod_read_unaligned(&part.bytes[at..at + size_of::<T>()])
    };
    let (rows, cols) = (part.rows, part.cols);
    let lane = |row: usize| (first + row) / PANEL * cols * PANEL + (first + row) % PANEL;
    match part.layout {
        Layout::RowMajor => {
            for row in 0..rows {
                let lanes = data[lane(row)..].iter_mut().step_by(PANEL).take(cols);
                lanes.enumerate().for_each(|(k, to)| *to = value(row * cols + k));
            }
        }
        Layout::ColumnMajor => {
            for row in (0..rows).step_by(PANEL) {
                let width = PANEL.min(rows - row);
                for k in 0..cols {
                    for i in 0..width {
                        data[lane(row + i) + k * PANEL] = value(k * rows + row + i);
                    }
                }
            }
        }
    }
}

thread_local! {
    /// A panel as floats, and the sums of one panel for every row.
    static SCRATCH: RefCell<(Vec<Panel>, Vec<Panel>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// `out = x W^T + bias`; `x` `[n, cols]`, `out` `[n, rows]`.
pub(super) fn linear(
    isa: Isa,
    pool: &Pool,
    x: &[f32],
    weight: &CpuMatrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
    n: usize,
) {
    let out = Parts::new(out);
    // pairs of panels: few enough to share them out evenly
    pool.run_ranges(weight.rows.div_ceil(PANEL), 2, |panels| {
        let job = Job { x, weight, bias, out: &out, n, panels };
        match weight.dtype() {
            Dtype::F16 => run::<f16>(isa, &job),
            Dtype::BF16 => run::<bf16>(isa, &job),
            Dtype::F32 | Dtype::I32 | Dtype::U32 | Dtype::U8 => run::<f32>(isa, &job),
        }
    });
}

/// One thread's share of a product.
struct Job<'a> {
    x: &'a [f32],
    weight: &'a CpuMatrix,
    bias: Option<&'a [f32]>,
    out: &'a Parts<'a, f32>,
    n: usize,
    panels: Range<usize>,
}

simd_fn! { fn run<T: Stored>(job: &Job<'_>) = run_body::<_, T>; }

#[inline(always)]
fn run_body<S: Simd, T: Stored>(s: S, job: &Job<'_>) {
    if job.n <= MAX_ROWS {
        few_rows::<S, T>(s, job);
    } else {
        many_rows::<S, T>(s, job);
    }
}

/// Every weight is read once and widened in registers.
#[inline(always)]
fn few_rows<S: Simd, T: Stored>(s: S, job: &Job<'_>) {
    let k = job.weight.cols;
    let all = job.weight.panels::<T>();
    let mut rows = [[].as_slice(); MAX_ROWS];
    for (r, row) in rows.iter_mut().enumerate().take(job.n) {
        *row = &job.x[r * k..][..k];
    }
    for first in job.panels.clone().step_by(MAX_PANELS) {
        let count = MAX_PANELS.min(job.panels.end - first);
        let mut panels = [[].as_slice(); MAX_PANELS];
        for (p, panel) in panels.iter_mut().enumerate().take(count) {
            *panel = &all[(first + p) * k..][..k];
        }
        let mut acc = [Panel::default(); MAX_ROWS * MAX_PANELS];
        let acc = &mut acc[..job.n * count];
        multiply(s, &rows[..job.n], &panels[..count], acc);
        for p in 0..count {
            let bias = job.bias(first + p);
            for row in 0..job.n {
                job.finish(s, row, first + p, &acc[row * count + p], &bias);
            }
        }
    }
}

/// A block of a panel is widened once and serves all rows.
#[inline(always)]
fn many_rows<S: Simd, T: Stored>(s: S, job: &Job<'_>) {
    let k = job.weight.cols;
    let all = job.weight.panels::<T>();
    // taken, not borrowed: a closure here would be compiled without the instructions
    let (mut wide, mut sums) = SCRATCH.take();
    wide.resize(K_BLOCK, Panel::default());
    for panel in job.panels.clone() {
        sums.clear();
        sums.resize(job.n, Panel::default());
        for from in (0..k).step_by(K_BLOCK) {
            let len = K_BLOCK.min(k - from);
            let block = &all[panel * k + from..][..len];
            for (to, w) in wide.iter_mut().zip(block) {
                for half in 0..2 {
                    s.store(T::load(s, &w[half]), &mut to[half]);
                }
            }
            for first in (0..job.n).step_by(MAX_ROWS) {
                let count = MAX_ROWS.min(job.n - first);
                let mut rows = [[].as_slice(); MAX_ROWS];
                for (r, row) in rows.iter_mut().enumerate().take(count) {
                    *row = &job.x[(first + r) * k + from..][..len];
                }
                let acc = &mut sums[first..first + count];
                multiply(s, &rows[..count], &[&wide[..len]], acc);
            }
        }
        let bias = job.bias(panel);
        for (row, sums) in sums.iter().enumerate() {
            job.finish(s, row, panel, sums, &bias);
        }
    }
    SCRATCH.set((wide, sums));
}

impl Job<'_> {
    /// The bias of one panel's outputs.
    fn bias(&self, panel: usize) -> Panel {
        let mut bias = Panel::default();
        if let Some(all) = self.bias {
            let from = all[panel * PANEL..].iter();
            bias.as_flattened_mut().iter_mut().zip(from).for_each(|(to, b)| *to = *b);
        }
        bias
    }

    /// Adds the bias to the sums of one panel for one row, and puts them where they belong.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, row: usize, panel: usize, sums: &Panel, bias: &Panel) {
        let width = self.weight.rows;
        let len = PANEL.min(width - panel * PANEL);
        let start = row * width + panel * PANEL;
        // SAFETY: a panel belongs to one thread alone.
        #[allow(unsafe_code)]
        let out = unsafe { self.out.get(start..start + len) };
        let (chunks, tail) = out.as_chunks_mut::<LANES>();
        let whole = chunks.len();
        for half in 0..2 {
            let done = s.add(s.load(&sums[half]), s.load(&bias[half]));
            match chunks.get_mut(half) {
                Some(to) => s.store(done, to),
                None if half == whole => tail.copy_from_slice(&s.lanes(done)[..tail.len()]),
                None => {}
            }
        }
    }
}
