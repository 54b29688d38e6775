//! Pinned host memory through which bytes go to the GPU: the copy up is asynchronous, and the caller's bytes are free
//! as soon as the call returns.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, result};

use super::driver::{Gpu, failed};
use crate::{Error, Result};

/// Bytes of each half.
const HALF: usize = 8 << 20;
/// Where a piece may begin.
const ALIGN: usize = 64;

/// Two halves, used in turn: one is filled while the other is on its way.
pub(super) struct Staging {
    gpu: Arc<Gpu>,
    memory: *mut u8,
    /// Which half is being filled, and how far.
    half: usize,
    used: usize,
    /// When the copies out of each half are over; none where there were none.
    over: [Option<CudaEvent>; 2],
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Staging {}

impl Staging {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        gpu.bind()?;
        // SAFETY: the context is that of this thread.
        let memory = unsafe { result::malloc_host(2 * HALF, 0) }.map_err(|e| Error::Memory {
            bytes: 2 * HALF,
            reason: format!("cuMemHostAlloc: {}", super::driver::words(e)),
        })?;
        Ok(Self { gpu: gpu.clone(), memory: memory.cast(), half: 0, used: 0, over: [None, None] })
    }

    /// Queues a copy of `bytes` to `address`.
    pub(super) fn upload(&mut self, mut address: u64, bytes: &[u8]) -> Result<()> {
        self.gpu.bind()?;
        for piece in bytes.chunks(HALF) {
            if self.used + piece.len() > HALF {
                self.turn()?;
            }
            // SAFETY: the piece fits behind what is used of this half, whose earlier contents are on the GPU.
            let staged = unsafe {
                let at = self.memory.add(self.half * HALF + self.used);
                at.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
                std::slice::from_raw_parts(at, piece.len())
            };
            // SAFETY: the caller's buffer holds the bytes; the staged piece stays until the event of its half.
            unsafe { result::memcpy_htod_async(address, staged, self.gpu.stream.cu_stream()) }
                .map_err(|e| failed("cuMemcpyHtoDAsync", e))?;
            self.used = (self.used + piece.len()).next_multiple_of(ALIGN);
            address += piece.len() as u64;
        }
        Ok(())
    }

    /// Goes on in the other half, once its copies are over.
    fn turn(&mut self) -> Result<()> {
        let event = self.gpu.stream.record_event(None).map_err(|e| failed("cuEventRecord", e))?;
        self.over[self.half] = Some(event);
        (self.half, self.used) = (1 - self.half, 0);
        match self.over[self.half].take() {
            Some(event) => event.synchronize().map_err(|e| failed("cuEventSynchronize", e)),
            None => Ok(()),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Copies may be under way; a destructor cannot report.
        let _ = self.gpu.synchronize();
        // SAFETY: allocated by malloc_host, and nothing uses it any more.
        let _ = unsafe { result::free_host(self.memory.cast()) };
    }
}
