//! Weight matrices in device memory, a row after another.

use half::f16;

use super::Launcher;
use crate::device::Stacked;
use crate::{Dtype, Layout, MatrixView, Result, WeightType};

/// A weight matrix `[rows, cols]`, row-major.
#[derive(Debug)]
pub struct LaunchedMatrix<B> {
    /// The values.
    pub buffer: B,
    /// Their type: `F32`, `F16` or `BF16`.
    pub dtype: Dtype,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

impl<B> LaunchedMatrix<B> {
    /// Puts `parts`, stacked, in the memory of `launcher`.
    pub(super) fn upload<L: Launcher<Buffer = B>>(launcher: &L, parts: &[MatrixView<'_>]) -> Result<Self> {
        let Stacked { rows, cols, dtype } = MatrixView::stacked(parts)?;
        let (dtype, stored) = match dtype.and_then(Dtype::of_weights) {
            Some(dtype) => (dtype, dtype.into()),
            // blocks, and parts of several types, are widened
            None => (Dtype::F16, WeightType::F16),
        };
        let mut bytes = Vec::with_capacity(rows * cols * dtype.bytes());
        for part in parts {
            let halves: Vec<f16>;
            let mut part = *part;
            if part.dtype != stored {
                halves = part.to_f32()?.into_iter().map(f16::from_f32).collect();
                part = MatrixView { dtype: stored, bytes: bytemuck::cast_slice(&halves), ..part };
            }
            match part.layout {
                Layout::RowMajor => bytes.extend_from_slice(part.bytes),
                Layout::ColumnMajor => transpose(&part, &mut bytes),
            }
        }
        let mut buffer = launcher.alloc(dtype, rows * cols)?;
        launcher.write(&mut buffer, &bytes)?;
        Ok(Self { buffer, dtype, rows, cols })
    }

    /// What the kernels' names say of the type: nothing for `F32`.
    pub(super) const fn suffix(&self) -> &'static str {
        suffix(self.dtype)
    }
}

/// What the kernels' names say of a storage type: nothing for `F32`.
pub(super) const fn suffix(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "_f16",
        Dtype::BF16 => "_bf16",
        Dtype::F32 | Dtype::I32 | Dtype::U32 => "",
    }
}

/// Appends the rows of a matrix whose columns lie together.
fn transpose(part: &MatrixView<'_>, bytes: &mut Vec<u8>) {
    let size = part.dtype.block_bytes();
    for row in 0..part.rows {
        for col in 0..part.cols {
            let at = (col * part.rows + row) * size;
            bytes.extend_from_slice(&part.bytes[at..at + size]);
        }
    }
}
