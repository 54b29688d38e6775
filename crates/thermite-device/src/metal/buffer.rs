//! Memory that CPU and GPU share.

#![allow(unsafe_code, reason = "the contents of a buffer are reached through a raw pointer")]

use std::fmt;
use std::sync::Arc;

use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::MTLBuffer;
use thermite_formats::FileBytes;

use super::hazards::BufferId;
use super::launcher::GRANULE;
use super::residency::Residency;
use crate::{Dtype, Error, Result};

/// A buffer in shared storage.
pub struct MetalBuffer {
    id: BufferId,
    raw: Retained<ProtocolObject<dyn MTLBuffer>>,
    /// Bytes of `raw` before the first element.
    start: usize,
    dtype: Dtype,
    len: usize,
    residency: Option<Arc<Residency>>,
    /// The mapped file whose pages these are: only read.
    file: Option<Arc<FileBytes>>,
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
        Self { id, raw, start: 0, dtype, len, residency, file: None }
    }

    /// The bytes of `file`, which `raw` begins with.
    pub(super) fn of_file(
        id: BufferId,
        raw: Retained<ProtocolObject<dyn MTLBuffer>>,
        file: Arc<FileBytes>,
        residency: Option<Arc<Residency>>,
    ) -> Self {
        let mut whole = Self::new(id, raw, Dtype::U8, file.len(), residency);
        whole.file = Some(file);
        whole
    }

    /// `bytes` where they lie in this file's buffer; none where they do not, or not aligned as kernels load them.
    pub(super) fn part(&self, dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        let file = self.file.as_ref()?;
        let start = bytes.as_ptr().addr().checked_sub(file.as_ptr().addr())?;
        let inside = start.checked_add(bytes.len()).is_some_and(|end| end <= file.len());
        if !inside || !start.is_multiple_of(GRANULE) {
            return None;
        }
        let len = bytes.len() / dtype.bytes();
        let (raw, file) = (self.raw.clone(), Some(file.clone()));
        Some(Self { id: self.id, raw, start, dtype, len, residency: None, file })
    }

    /// Whether this is the buffer of `file`.
    pub(super) fn is_of(&self, file: &Arc<FileBytes>) -> bool {
        self.file.as_ref().is_some_and(|own| Arc::ptr_eq(own, file))
    }

    /// Bytes of [`MetalBuffer::raw`] before the first element.
    pub(super) const fn start(&self) -> usize {
        self.start
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
        if self.file.is_some() {
            return Err(Error::shape("write", "buffer", "a file's", "the device's own"));
        }
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
        unsafe {
            let from = from.as_ptr().add(self.start + first);
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
        }
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
