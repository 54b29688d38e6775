//! Weight matrices in device memory, a row after another.

use half::f16;

use super::Launcher;
use crate::device::Stacked;
use crate::{Dtype, Layout, MatrixView, Result, WeightType};

/// A weight matrix `[rows, cols]`, row-major.
#[derive(Debug)]
pub struct LaunchedMatrix<B> {
    /// The values: elements, or bytes of blocks.
    pub buffer: B,
    /// The buffer's type: `F32`, `F16`, `BF16`, or `U8` for blocks.
    pub dtype: Dtype,
    /// How the weights are stored: as `dtype`, or in the blocks of a type that the kernels read.
    pub stored: WeightType,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Whether the buffer is memory of the file that the weights came from.
    pub adopted: bool,
}

impl<B> LaunchedMatrix<B> {
    /// Puts `parts`, stacked, in the memory of `launcher`, unless they lie there already. Blocks that no kernel reads, and
    /// parts of several types, are widened to `F16`.
    pub(super) fn upload<L: Launcher<Buffer = B>>(launcher: &L, parts: &[MatrixView<'_>]) -> Result<Self> {
        let Stacked { rows, cols, dtype } = MatrixView::stacked(parts)?;
        let stored = dtype.filter(|&dtype| is_read(dtype)).unwrap_or(WeightType::F16);
        let dtype = Dtype::of_weights(stored).unwrap_or(Dtype::U8);
        if let [part] = parts
            && part.layout == Layout::RowMajor
            && part.dtype == stored
            && let Some(buffer) = launcher.adopted(dtype, part.bytes)
        {
            return Ok(Self { buffer, dtype, stored, rows, cols, adopted: true });
        }
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.bytes.len()).sum());
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
        let mut buffer = launcher.alloc(dtype, bytes.len() / dtype.bytes())?;
        launcher.write(&mut buffer, &bytes)?;
        Ok(Self { buffer, dtype, stored, rows, cols, adopted: false })
    }

    /// Bytes of memory beside the file.
    pub(super) const fn own_bytes(&self) -> usize {
        if self.adopted {
            0
        } else {
            self.rows * self.cols / self.stored.block_len() * self.stored.block_bytes()
        }
    }

    /// What the names of kernels say of the storage where floats are not mentioned.
    pub(super) const fn suffix(&self) -> &'static str {
        match self.dtype {
            Dtype::F32 => "",
            _ => self.storage(),
        }
    }

    /// Whether the elements are of 16 bits.
    pub(super) const fn is_narrow(&self) -> bool {
        !self.is_quantized() && matches!(self.dtype, Dtype::F16 | Dtype::BF16)
    }

    /// What the names of kernels say of the storage.
    pub(super) const fn storage(&self) -> &'static str {
        match block_suffix(self.stored) {
            Some(suffix) => suffix,
            None if matches!(self.dtype, Dtype::F32) => "_f32",
            None => suffix(self.dtype),
        }
    }

    /// Whether the weights lie in quantised blocks.
    pub(super) const fn is_quantized(&self) -> bool {
        matches!(self.dtype, Dtype::U8)
    }
}

/// Whether kernels read weights of this type.
const fn is_read(stored: WeightType) -> bool {
    Dtype::of_weights(stored).is_some() || block_suffix(stored).is_some()
}

/// What the names of kernels say of a block type; none for plain weights, and for blocks that no kernel reads.
const fn block_suffix(stored: WeightType) -> Option<&'static str> {
    match stored {
        WeightType::Q8_0 => Some("_q8_0"),
        WeightType::Q4_0 => Some("_q4_0"),
        WeightType::Q4_1 => Some("_q4_1"),
        WeightType::Q4K => Some("_q4_k"),
        WeightType::Q6K => Some("_q6_k"),
        _ => None,
    }
}

/// What the kernels' names say of an element type: nothing for `F32`.
pub(super) const fn suffix(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "_f16",
        Dtype::BF16 => "_bf16",
        Dtype::F32 | Dtype::I32 | Dtype::U32 | Dtype::U8 | Dtype::Q8_0 => "",
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
