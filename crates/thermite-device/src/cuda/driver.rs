//! The context and its stream; every call's failure under the call's name.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, CudaStream, sys};

use crate::{Error, Fault, Result};

/// What the device is called in errors.
pub(super) const DEVICE: &str = "cuda";

/// A GPU: its context, the stream on which everything runs in order, and one beside it for reads.
pub(super) struct Gpu {
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
    pub(super) reads: Arc<CudaStream>,
    pub(super) name: String,
    /// Compute capability.
    pub(super) capability: (i32, i32),
    /// What the driver calls its version: 13000 for CUDA 13.0.
    pub(super) driver_version: i32,
    pub(super) memory: usize,
}

pub(super) fn unavailable(reason: String) -> Error {
    Error::Unavailable { device: DEVICE.to_owned(), reason }
}

impl Gpu {
    /// The first GPU that the driver lists.
    pub(super) fn open() -> Result<Arc<Self>> {
        let refused = |call: &str, e: DriverError| unavailable(format!("{call}: {}", words(e)));
        let context = CudaContext::new(0).map_err(|e| refused("cuInit and cuDevicePrimaryCtxRetain", e))?;
        // SAFETY: buffers are freed only once the work that uses them is over, whatever events would say.
        unsafe { context.disable_event_tracking() };
        let stream = || context.new_stream().map_err(|e| refused("cuStreamCreate", e));
        let (stream, reads) = (stream()?, stream()?);
        let name = context.name().map_err(|e| refused("cuDeviceGetName", e))?;
        let capability = context.compute_capability().map_err(|e| refused("cuDeviceGetAttribute", e))?;
        let memory = context.total_mem().map_err(|e| refused("cuDeviceTotalMem", e))?;
        let mut driver_version = 0;
        // SAFETY: the address is that of an int.
        let asked = unsafe { sys::cuDriverGetVersion(&raw mut driver_version) };
        asked.result().map_err(|e| refused("cuDriverGetVersion", e))?;
        Ok(Arc::new(Self { context, stream, reads, name, capability, driver_version, memory }))
    }

    /// Makes the context that of this thread.
    pub(super) fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| failed("cuCtxSetCurrent", e))
    }

    pub(super) fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<i32> {
        self.context.attribute(attribute).map_err(|e| failed("cuDeviceGetAttribute", e))
    }

    /// Waits for everything queued.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        self.stream.synchronize().map_err(|e| failed("cuStreamSynchronize", e))
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// `NAME: description`, as the driver says it.
pub(super) fn words(error: DriverError) -> String {
    let text = |found: std::result::Result<&std::ffi::CStr, DriverError>| {
        found.map_or_else(|_| format!("{:?}", error.0), |text| text.to_string_lossy().into_owned())
    };
    format!("{}, {}", text(error.error_name()), text(error.error_string()))
}

/// A failure of `call`, or of the work that was queued before it.
pub(super) fn failed(call: &str, error: DriverError) -> Error {
    use sys::CUresult as Code;
    let fault = match error.0 {
        Code::CUDA_ERROR_LAUNCH_TIMEOUT => Fault::Timeout,
        Code::CUDA_ERROR_ILLEGAL_ADDRESS | Code::CUDA_ERROR_MISALIGNED_ADDRESS => Fault::PageFault,
        Code::CUDA_ERROR_OUT_OF_MEMORY => Fault::OutOfMemory,
        Code::CUDA_ERROR_DEVICE_UNAVAILABLE | Code::CUDA_ERROR_NOT_PERMITTED => Fault::AccessRevoked,
        Code::CUDA_ERROR_ECC_UNCORRECTABLE | Code::CUDA_ERROR_HARDWARE_STACK_ERROR => Fault::DeviceLost,
        _ => Fault::Internal,
    };
    Error::Fault { device: DEVICE.to_owned(), fault, ran: call.to_owned(), reason: words(error) }
}
