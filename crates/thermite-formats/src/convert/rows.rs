//! The rows of a tensor as they will be written: read from the source, in another order where the formats differ.

use std::ops::Range;

use super::ConvertFault;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::quant;
use crate::tensor::TensorView;

/// How a GGUF tensor lies in the tensor that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As it is.
    Same,
    /// GPT-2's matrices, `[inputs, outputs]` in safetensors.
    Transposed,
    /// Query and key rows of a LLaMA: Hugging Face rotates row `i` of a head with row `i + head_dim / 2`, GGUF's
    /// `llama` rotates rows `2 i` and `2 i + 1`.
    Pairs {
        /// Rows of a head.
        head_dim: usize,
    },
    /// Gemma's norms: 1 is added, so that `1 + γ` becomes γ.
    PlusOne,
}

/// The rows of a tensor to be written.
#[derive(Debug, Clone)]
pub(super) enum Rows<'a> {
    /// Of a tensor of the source.
    Of(TensorView<'a>, Order),
    /// Made by the conversion: a vector.
    Given(Vec<f32>),
}

impl Rows<'_> {
    /// The shape that will be written.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Of(tensor, Order::Transposed) => tensor.shape.iter().rev().copied().collect(),
            Self::Of(tensor, _) => tensor.shape.to_vec(),
            Self::Given(values) => vec![values.len()],
        }
    }

    /// The rows' bytes, if `dtype` is what they are stored as and nothing changes.
    pub(super) fn as_stored(&self, dtype: DType) -> Option<&[u8]> {
        match self {
            Self::Of(tensor, Order::Same) if tensor.dtype == dtype => Some(tensor.data),
            _ => None,
        }
    }

    /// Checks that the order is one that the tensor can have.
    pub(super) fn check(&self) -> Result<()> {
        let Self::Of(tensor, order) = self else {
            return Ok(());
        };
        let fits = match order {
            Order::Same => true,
            Order::PlusOne => !tensor.dtype.is_quantized(),
            Order::Transposed => tensor.shape.len() == 2 && tensor.dtype.block_len() == 1,
            Order::Pairs { head_dim } => {
                let rows = tensor.shape.first().copied().unwrap_or(1);
                *head_dim > 0 && head_dim.is_multiple_of(2) && rows.is_multiple_of(*head_dim)
            }
        };
        let tensor_shape = || ConvertFault::Shape {
            tensor: tensor.name.to_owned(),
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
            order: format!("{order:?}"),
        };
        if fits {
            Ok(())
        } else {
            Err(Error::Convert { path: tensor.file.to_path_buf(), fault: tensor_shape() })
        }
    }

    /// Reads `rows` of `cols` elements each into `out`; a vector is one row.
    pub(super) fn read(&self, rows: Range<usize>, cols: usize, out: &mut [f32]) -> Result<()> {
        match self {
            Self::Given(values) => {
                out.copy_from_slice(&values[rows.start * cols..rows.end * cols]);
                Ok(())
            }
            Self::Of(tensor, Order::Same) => elements(tensor, rows.start * cols, out),
            Self::Of(tensor, Order::PlusOne) => {
                elements(tensor, rows.start * cols, out)?;
                out.iter_mut().for_each(|x| *x += 1.0);
                Ok(())
            }
            Self::Of(tensor, Order::Transposed) => {
                let (height, mut column) = (tensor.shape[1], vec![0.0; rows.len()]);
                for c in 0..cols {
                    elements(tensor, c * height + rows.start, &mut column)?;
                    for (r, &value) in column.iter().enumerate() {
                        out[r * cols + c] = value;
                    }
                }
                Ok(())
            }
            // of a vector, the elements are what rows are of a matrix
            Self::Of(tensor, Order::Pairs { head_dim }) => {
                let width = if tensor.shape.len() == 1 { 1 } else { cols };
                let first = rows.start * cols / width;
                for (i, row) in out.chunks_mut(width).enumerate() {
                    let (head, i) = ((first + i) / head_dim, (first + i) % head_dim);
                    let from = head * head_dim + i % 2 * (head_dim / 2) + i / 2;
                    elements(tensor, from * width, row)?;
                }
                Ok(())
            }
        }
    }
}

/// Elements of a tensor from `start` on: whole blocks of it.
fn elements(tensor: &TensorView<'_>, start: usize, out: &mut [f32]) -> Result<()> {
    let (len, bytes) = (tensor.dtype.block_len(), tensor.dtype.block_bytes());
    let data = &tensor.data[start / len * bytes..(start + out.len()) / len * bytes];
    quant::dequantize(tensor.dtype, data, out).map_err(|fault| Error::Quantize {
        path: tensor.file.to_path_buf(),
        name: tensor.name.to_owned(),
        fault,
    })
}
