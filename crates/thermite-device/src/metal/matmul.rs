//! Products of many rows.
//!
//! - Weights in float: `MPSMatrixMultiplication`, all in float.
//! - Weights in half or bfloat: `matmul_simd` over simdgroup matrices. MPS takes no float activations beside narrow
//!   weights; like MPS on narrow copies, the kernel rounds the activations to the weights' type as it reads them (a
//!   relative error of 2^-11 or 2^-8 a term, sums in float), without the copies.
//! - Few rows: neither; a matrix-vector product a row is faster, and sums each in one order whoever else is there.

#![allow(unsafe_code, reason = "Metal Performance Shaders are unsafe throughout")]

use std::sync::{Arc, LazyLock};

use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_metal_performance_shaders::{MPSDataType, MPSMatrix, MPSMatrixDescriptor, MPSMatrixMultiplication};
use thermite_kernels::catalogue;
use thermite_kernels::contract::{Access, Bound, Dims, check_binding, launch};

use super::buffer::MetalBuffer;
use super::launcher::MetalLauncher;
use crate::launched::{Argument, LaunchedMatrix, Launcher, scalar};
use crate::{Dtype, Error, Result};

/// From how many rows on a product is one of matrices: half a tile of `matmul_simd`.
const MANY_ROWS: usize = 32;

/// What MPS's product is called in errors.
static NAME: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("MPSMatrixMultiplication"));

/// `out [n, rows] = x [n, cols] W^T` for many rows; none where this is not the way.
pub(super) fn matmul(
    launcher: &MetalLauncher,
    x: &MetalBuffer,
    weight: &LaunchedMatrix<MetalBuffer>,
    out: &MetalBuffer,
    n: usize,
) -> Option<Result<()>> {
    if n < MANY_ROWS || weight.rows == 0 || weight.cols == 0 {
        return None;
    }
    match weight.dtype {
        Dtype::F32 if launcher.has_mps() => Some(performance_shaders(launcher, x, weight, out, n)),
        Dtype::F16 => Some(simdgroup_matrices(launcher, "matmul_simd_f16", x, weight, out, n)),
        Dtype::BF16 => Some(simdgroup_matrices(launcher, "matmul_simd_bf16", x, weight, out, n)),
        _ => None,
    }
}

fn simdgroup_matrices(
    launcher: &MetalLauncher,
    name: &str,
    x: &MetalBuffer,
    weight: &LaunchedMatrix<MetalBuffer>,
    out: &MetalBuffer,
    n: usize,
) -> Result<()> {
    let failed = |reason: String| Error::Launch { kernel: name.to_owned(), reason };
    let found = catalogue::find(name).map_err(|e| failed(e.to_string()))?;
    let kernel = &found.ok_or_else(|| failed("there is no such kernel".to_owned()))?.kernel;
    let sizes = [("N", n), ("K", weight.cols), ("M", weight.rows)];
    let dims = Dims::new(&sizes.map(|(name, size)| (name, size as u64)));
    let geometry = launch(name, &dims, &launcher.limits()).map_err(|e| failed(e.to_string()))?;
    let whole = |buffer| Argument::Buffer { buffer, first: 0 };
    let mut arguments = vec![whole(x), whole(&weight.buffer), whole(out), Argument::Nil, Argument::Nil];
    for (name, size) in sizes {
        let size = i32::try_from(size).map_err(|_| failed(format!("{name} is {size}, above 2^31")))?;
        arguments.push(Argument::Int(size));
    }
    let bound: Vec<_> = arguments
        .iter()
        .map(|argument| match *argument {
            Argument::Buffer { buffer, .. } => {
                let (dtype, length) = buffer.shape();
                Bound::Buffer { scalar: scalar(dtype), length: length as u64 }
            }
            Argument::Int(value) => Bound::Int(value),
            Argument::Float(value) => Bound::Float(value),
            Argument::Nil => Bound::Nil,
        })
        .collect();
    check_binding(kernel, &dims, &bound).map_err(|e| failed(e.to_string()))?;
    launcher.launch(kernel, &dims, &geometry, &arguments)
}

fn performance_shaders(
    launcher: &MetalLauncher,
    x: &MetalBuffer,
    weight: &LaunchedMatrix<MetalBuffer>,
    out: &MetalBuffer,
    n: usize,
) -> Result<()> {
    let (rows, cols) = (weight.rows, weight.cols);
    let x_matrix = matrix("x", x, n, cols)?;
    let weight_matrix = matrix("W", &weight.buffer, rows, cols)?;
    let out_matrix = matrix("out", out, n, rows)?;
    // SAFETY: a product [n, cols] [rows, cols]^T = [n, rows] on a device that MPS takes.
    let product = unsafe {
        MPSMatrixMultiplication::initWithDevice_transposeLeft_transposeRight_resultRows_resultColumns_interiorColumns_alpha_beta(
            MPSMatrixMultiplication::alloc(), launcher.device(), false, true, n, rows, cols, 1.0, 0.0,
        )
    };
    let uses = [(x.id(), Access::Read), (weight.buffer.id(), Access::Read), (out.id(), Access::Write)];
    launcher.queue().encode(&NAME, &uses, |commands| {
        // SAFETY: the matrices have the shapes of the product; the command buffer retains what it uses.
        unsafe {
            product.encodeToCommandBuffer_leftMatrix_rightMatrix_resultMatrix(
                commands,
                &x_matrix,
                &weight_matrix,
                &out_matrix,
            );
        }
    })
}

/// `buffer` as a row-major float matrix.
fn matrix(
    operand: &'static str,
    buffer: &MetalBuffer,
    rows: usize,
    cols: usize,
) -> Result<Retained<MPSMatrix>> {
    let kernel = "MPSMatrixMultiplication";
    let (dtype, have) = buffer.shape();
    if dtype != Dtype::F32 {
        return Err(Error::Type { kernel, operand, have: dtype, need: Dtype::F32 });
    }
    let need = rows.saturating_mul(cols);
    if have < need {
        return Err(Error::Size { kernel, operand, have, need });
    }
    // SAFETY: the buffer holds rows * cols floats.
    Ok(unsafe {
        let descriptor = MPSMatrixDescriptor::matrixDescriptorWithRows_columns_rowBytes_dataType(
            rows,
            cols,
            cols * size_of::<f32>(),
            MPSDataType::Float32,
        );
        let (raw, start) = (buffer.raw(), buffer.start());
        MPSMatrix::initWithBuffer_offset_descriptor(MPSMatrix::alloc(), raw, start, &descriptor)
    })
}
