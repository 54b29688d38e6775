//! Memory that CPU and GPU share.

#![allow(unsafe_code, reason = "the contents of a buffer are reached through a raw pointer")]

use std::fmt;
use std::sync::Arc;

use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::MTLBuffer;

use super::hazards::BufferId;
use super::residency::Residency;
use crate::{Dtype, Error, Result};

/// A buffer in shared storage.
pub struct MetalBuffer {
    id: BufferId,
    raw: Retained<ProtocolObject<dyn MTLBuffer>>,
    dtype: Dtype,
    len: usize,
    residency: Option<Arc<Residency>>,
}

// SAFETY: Metal's buffers may be used from any thread. Their contents are copied under the lock of the queue alone, while
// no work that uses them is under way (`MetalLauncher::{read, write}`).
unsafe impl Send for MetalBuffer {}
// SAFETY: as above; a shared reference gives no access to the contents outside this device.
unsafe impl Sync for MetalBuffer {}

impl MetalBuffer {
    /// Owns `raw`, of at least `len` elements, and keeps it resident.
    pub(super) fn new(
        id: BufferId,
        raw: Retained<ProtocolObject<dyn MTLBuffer>>,
        dtype: Dtype,
        len: usize,
        residency: Option<Arc<Residency>>,
    ) -> Self {
        if let Some(residency) = &residency {
            residency.add(&raw);
        }
        Self { id, raw, dtype, len, residency }
    }

    pub(super) const fn id(&self) -> BufferId {
        self.id
    }

    pub(super) fn raw(&self) -> &ProtocolObject<dyn MTLBuffer> {
        &self.raw
    }

    pub(super) const fn shape(&self) -> (Dtype, usize) {
        (self.dtype, self.len)
    }

    /// Copies `bytes` to the start.
    ///
    /// # Safety
    /// No work under way uses the buffer, and nobody else copies to or from it.
    pub(super) unsafe fn copy_in(&mut self, bytes: &[u8]) -> Result<()> {
        self.check("write", 0, bytes.len())?;
        let to = self.raw.contents().cast::<u8>();
        // SAFETY: the buffer has this many bytes (checked), `bytes` is other memory, and the caller keeps all else away.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies from byte `first` on.
    ///
    /// # Safety
    /// No work under way writes the buffer, and nobody else copies to it.
    pub(super) unsafe fn copy_out(&self, first: usize, bytes: &mut [u8]) -> Result<()> {
        self.check("read", first, bytes.len())?;
        let from = self.raw.contents().cast::<u8>();
        // SAFETY: the buffer has these bytes (checked), `bytes` is other memory, and the caller keeps writers away.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr().add(first), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn check(&self, kernel: &'static str, first: usize, bytes: usize) -> Result<()> {
        let size = self.dtype.bytes();
        match first.checked_add(bytes) {
            Some(end) if end <= self.len * size => Ok(()),
            _ => {
                let need = first.saturating_add(bytes).div_ceil(size);
                Err(Error::Size { kernel, operand: "buffer", have: self.len, need })
            }
        }
    }
}

impl Drop for MetalBuffer {
    fn drop(&mut self) {
        // queued work that uses the buffer keeps it alive by itself
        if let Some(residency) = &self.residency {
            residency.remove(&self.raw);
        }
    }
}

impl fmt::Debug for MetalBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetalBuffer {} ({} x {})", self.id, self.len, self.dtype)
    }
}
