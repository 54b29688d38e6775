//! Device memory.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::driver::{Gpu, failed};
use crate::{Dtype, Error, Result};

/// Buffers are multiples of this: kernels load up to 16 bytes at a time.
const GRANULE: usize = 16;

/// A linear piece of a GPU's memory.
pub struct CudaBuffer {
    gpu: Arc<Gpu>,
    address: sys::CUdeviceptr,
    dtype: Dtype,
    len: usize,
}

impl CudaBuffer {
    /// `len` zeros. The stream fills it before anything queued later.
    pub(super) fn zeros(gpu: &Arc<Gpu>, dtype: Dtype, len: usize) -> Result<Self> {
        let refused = |reason: String| Error::Memory { bytes: len.saturating_mul(dtype.bytes()), reason };
        let bytes = len.checked_mul(dtype.bytes()).and_then(|b| b.max(1).checked_next_multiple_of(GRANULE));
        let bytes = bytes.ok_or_else(|| refused("more than there are addresses".to_owned()))?;
        gpu.bind()?;
        // SAFETY: the context is that of this thread.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => refused(match result::mem_get_info() {
                Ok((free, total)) => format!("{free} of {total} bytes are free on {}", gpu.name),
                Err(_) => "the GPU has no more".to_owned(),
            }),
            _ => failed("cuMemAlloc", e),
        })?;
        let buffer = Self { gpu: gpu.clone(), address, dtype, len };
        // SAFETY: the buffer has so many bytes, and outlives the work.
        unsafe { result::memset_d8_async(address, 0, bytes, gpu.stream.cu_stream()) }
            .map_err(|e| failed("cuMemsetD8Async", e))?;
        Ok(buffer)
    }

    pub(super) const fn shape(&self) -> (Dtype, usize) {
        (self.dtype, self.len)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.len * self.dtype.bytes()
    }

    /// The address of element `first`.
    pub(super) const fn address(&self, first: usize) -> sys::CUdeviceptr {
        self.address + (first * self.dtype.bytes()) as u64
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        // A destructor cannot report: what goes wrong here the next call meets again.
        if self.gpu.bind().is_ok() {
            // SAFETY: cuMemFree waits for the work that uses the memory; nobody else has the address.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

impl fmt::Debug for CudaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on {}", self.len, self.dtype, self.gpu.name)
    }
}
