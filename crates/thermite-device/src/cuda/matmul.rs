//! Products of many rows, by cuBLASLt: operands in the weights' type, sums in float32.
//!
//! Activations are float32 in our buffers: for narrow weights a kernel rounds them to the weights' type first (a relative
//! error of 2^-11 a term for f16, 2^-8 for bf16). Algorithm and workspace are chosen once a shape. The order of a row's
//! sum depends on the number of rows: where a result must not, this is not the way.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use super::buffer::CudaBuffer;
use super::driver::{DEVICE, Gpu, unavailable};
use super::probe::Library;
use crate::launched::Product;
use crate::{Dtype, Error, Fault, Result};

/// Bytes of scratch memory that an algorithm may use; what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;
/// From how many rows on a product is one of matrices. Fewer are matrix-vector products, each row on its own.
pub(super) const MANY_ROWS: usize = 8;

/// What an algorithm is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    dtype: Dtype,
    n: usize,
    rows: usize,
    cols: usize,
    biased: bool,
    accumulates: bool,
}

/// A product of one shape, laid out.
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt on one GPU.
pub(super) struct Products {
    gpu: Arc<Gpu>,
    handle: sys::cublasLtHandle_t,
    workspace: CudaBuffer,
    plans: HashMap<Shape, Plan>,
    /// Where activations are rounded to: the last is the one in use. Recordings may hold the ones before.
    narrowed: Vec<Arc<CudaBuffer>>,
}

// SAFETY: the handles are names that the library knows; it takes them from any thread, one at a time.
unsafe impl Send for Products {}

fn failed(call: &str, error: CublasError) -> Error {
    Error::Fault {
        device: DEVICE.to_owned(),
        fault: Fault::Internal,
        ran: call.to_owned(),
        reason: format!("{error:?}"),
    }
}

const fn kind(dtype: Dtype) -> Option<sys::cudaDataType> {
    match dtype {
        Dtype::F32 => Some(sys::cudaDataType::CUDA_R_32F),
        Dtype::F16 => Some(sys::cudaDataType::CUDA_R_16F),
        Dtype::BF16 => Some(sys::cudaDataType::CUDA_R_16BF),
        _ => None,
    }
}

impl Products {
    /// cuBLASLt, where it is installed.
    pub(super) fn open(gpu: &Arc<Gpu>) -> Result<Option<Self>> {
        if !Library::CublasLt.is_present() {
            return Ok(None);
        }
        gpu.bind()?;
        let handle = result::create_handle().map_err(|e| unavailable(format!("cublasLtCreate: {e}")))?;
        let workspace = CudaBuffer::zeros(gpu, Dtype::F32, WORKSPACE / 4)?;
        let (plans, narrowed) = (HashMap::new(), Vec::new());
        Ok(Some(Self { gpu: gpu.clone(), handle, workspace, plans, narrowed }))
    }

    /// Whether this is the way to compute `product`.
    pub(super) fn takes(product: &Product<'_, CudaBuffer>) -> bool {
        let weight = product.weight;
        // what has a width that is no multiple of 16 bytes is slow there, or refused
        let aligned = (weight.cols * weight.dtype.bytes()).is_multiple_of(16);
        product.n >= MANY_ROWS && weight.rows > 0 && aligned && kind(weight.dtype).is_some()
    }

    /// The buffer for `len` activations of type `dtype`.
    pub(super) fn narrowed(&mut self, dtype: Dtype, len: usize) -> Result<Arc<CudaBuffer>> {
        let fits = |buffer: &Arc<CudaBuffer>| buffer.shape().0 == dtype && buffer.shape().1 >= len;
        let found = match self.narrowed.iter().rposition(fits) {
            Some(found) => found,
            None => {
                let buffer = CudaBuffer::zeros(&self.gpu, dtype, len.next_power_of_two())?;
                self.narrowed.push(Arc::new(buffer));
                self.narrowed.len() - 1
            }
        };
        Ok(self.narrowed[found].clone())
    }

    /// Queues `product`, its activations at `x` and of the weights' type.
    pub(super) fn run(&mut self, product: &Product<'_, CudaBuffer>, x: u64) -> Result<()> {
        let &Product { weight, bias, accumulates, out, n, .. } = product;
        let (rows, cols, dtype) = (weight.rows, weight.cols, weight.dtype);
        let kernel = "cublasLtMatmul";
        for (operand, buffer, need, of) in [
            ("W", &weight.buffer, rows * cols, dtype),
            ("out", out, n * rows, Dtype::F32),
            ("bias", bias.unwrap_or(out), if bias.is_some() { rows } else { 0 }, Dtype::F32),
        ] {
            let (have_dtype, have) = buffer.shape();
            if have_dtype != of {
                return Err(Error::Type { kernel, operand, have: have_dtype, need: of });
            }
            if have < need {
                return Err(Error::Size { kernel, operand, have, need });
            }
        }
        self.gpu.bind()?;
        let shape = Shape { dtype, n, rows, cols, biased: bias.is_some(), accumulates };
        let plan = match self.plans.entry(shape) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(plan(self.handle, shape)?),
        };
        let (alpha, beta) = (1.0f32, if accumulates { 1.0f32 } else { 0.0 });
        let address = |address: u64| address as *mut c_void;
        // SAFETY: the layouts are those of the buffers, which are long enough; the library reads the scalars at once.
        unsafe {
            if let Some(bias) = bias {
                let pointer = address(bias.address(0));
                set(
                    plan.description,
                    sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                    &pointer,
                )?;
            }
            let done = result::matmul(
                self.handle,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                address(weight.buffer.address(0)),
                plan.weight,
                address(x),
                plan.x,
                address(out.address(0)),
                plan.out,
                address(out.address(0)),
                plan.out,
                &raw const plan.algorithm,
                address(self.workspace.address(0)),
                WORKSPACE,
                self.gpu.stream.cu_stream().cast(),
            );
            done.map_err(|e| {
                failed(&format!("cublasLtMatmul [{n}, {cols}] [{rows}, {cols}]^T in {dtype}"), e)
            })
        }
    }
}

/// Sets an attribute of a product.
///
/// # Safety
/// The description must be there, and the attribute have the type `T`.
unsafe fn set<T>(
    description: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &T,
) -> Result<()> {
    // SAFETY: as the caller says.
    unsafe {
        result::set_matmul_desc_attribute(
            description,
            attribute,
            std::ptr::from_ref(value).cast(),
            size_of::<T>(),
        )
    }
    .map_err(|e| failed("cublasLtMatmulDescSetAttribute", e))
}

/// Lays out a shape and chooses its algorithm. The library goes by columns: there W is `[cols, rows]` and transposed, x
/// `[cols, n]`, out `[rows, n]`.
fn plan(handle: sys::cublasLtHandle_t, shape: Shape) -> Result<Plan> {
    use sys::cublasLtMatmulDescAttributes_t as Attribute;
    let Shape { dtype, n, rows, cols, biased, .. } = shape;
    let f32 = sys::cudaDataType::CUDA_R_32F;
    let narrow = kind(dtype).unwrap_or(f32);
    let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
    let description =
        result::create_matmul_desc(compute, f32).map_err(|e| failed("cublasLtMatmulDescCreate", e))?;
    let layout = |kind, height: usize, width: usize| {
        result::create_matrix_layout(kind, height as u64, width as u64, height as i64)
            .map_err(|e| failed("cublasLtMatrixLayoutCreate", e))
    };
    let (weight, x, out) = (layout(narrow, cols, rows)?, layout(narrow, cols, n)?, layout(f32, rows, n)?);
    // SAFETY: everything is there, and the attributes have the types that the library's documentation says.
    let algorithm = unsafe {
        let transposed = 1i32; // CUBLAS_OP_T
        set(description, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &transposed)?;
        if biased {
            set(
                description,
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                &sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            )?;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &f32)?;
        }
        let preference =
            result::create_matmul_pref().map_err(|e| failed("cublasLtMatmulPreferenceCreate", e))?;
        let workspace = WORKSPACE;
        let most = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let chosen = result::set_matmul_pref_attribute(
            preference,
            most,
            (&raw const workspace).cast(),
            size_of::<usize>(),
        )
        .map_err(|e| failed("cublasLtMatmulPreferenceSetAttribute", e))
        .and_then(|()| {
            result::get_matmul_algo_heuristic(handle, description, weight, x, out, out, preference).map_err(
                |e| {
                    failed(
                        &format!(
                            "cublasLtMatmulAlgoGetHeuristic [{n}, {cols}] [{rows}, {cols}]^T in {dtype}"
                        ),
                        e,
                    )
                },
            )
        });
        result::destroy_matmul_pref(preference).map_err(|e| failed("cublasLtMatmulPreferenceDestroy", e))?;
        chosen?.algo
    };
    Ok(Plan { description, weight, x, out, algorithm })
}

impl Drop for Products {
    fn drop(&mut self) {
        // Products may be under way; a destructor cannot report.
        let _ = self.gpu.synchronize();
        for plan in self.plans.values() {
            // SAFETY: created here, and nothing uses them any more.
            unsafe {
                let _ = result::destroy_matrix_layout(plan.weight);
                let _ = result::destroy_matrix_layout(plan.x);
                let _ = result::destroy_matrix_layout(plan.out);
                let _ = result::destroy_matmul_desc(plan.description);
            }
        }
        // SAFETY: as above.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
