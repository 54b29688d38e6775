//! The [`Launcher`] of Apple GPUs.

#![allow(unsafe_code, reason = "frameworks are linked, MPS is asked, and contents are copied")]

use std::convert::Infallible;
use std::fmt;
#[cfg(target_arch = "aarch64")]
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLCreateSystemDefaultDevice, MTLDevice, MTLGPUFamily, MTLResourceOptions};
use objc2_metal_performance_shaders::MPSSupportsMTLDevice;
use thermite_formats::FileBytes;
use thermite_kernels::contract::{Dims, Launch, Limits};
use thermite_kernels::syntax::Kernel;

use super::buffer::MetalBuffer;
use super::pipelines::Pipelines;
use super::queue::Queue;
use super::residency::Residency;
use super::{matmul, selftest};
use crate::launched::{Argument, Launched, Launcher, Product, Variants};
use crate::{Dtype, Error, Result};

// A command-line program finds the default device only with CoreGraphics linked.
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

/// Buffers are at least this large, and multiples of it: kernels load up to 16 bytes at a time.
pub(super) const GRANULE: usize = 16;
/// Bytes of a page on Apple silicon. Metal takes whole pages for a buffer that it does not copy.
#[cfg(target_arch = "aarch64")]
const PAGE: usize = 16 * 1024;

/// A device of Apple's GPU.
pub type Metal = Launched<MetalLauncher>;

/// How a [`Metal`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which of the kernels' variants are launched.
    pub variants: Variants,
    /// Whether buffers are kept resident between tokens (macOS 15). None: unless `THERMITE_METAL_RESIDENCY` is 0.
    pub residency: Option<bool>,
    /// Whether a few kernels are compared with the CPU at start. None: unless `THERMITE_METAL_SELF_TEST` is 0.
    pub self_test: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self { variants: Variants::Fast, residency: None, self_test: None }
    }
}

/// What was chosen, or what the environment says: 0 or 1.
fn switch(chosen: Option<bool>, name: &str) -> Result<bool> {
    if let Some(chosen) = chosen {
        return Ok(chosen);
    }
    match std::env::var_os(name) {
        None => Ok(true),
        Some(value) if value == "1" => Ok(true),
        Some(value) if value == "0" => Ok(false),
        Some(value) => Err(unavailable(format!("{name} is {}, must be 0 or 1", value.display()))),
    }
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable { device: "metal".to_owned(), reason }
}

impl Metal {
    /// The system's GPU.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is no GPU, the GPU or the system is too old, the self-test fails, or a variable
    /// of the environment is neither 0 nor 1.
    pub fn open(options: Options) -> Result<Self> {
        let residency = switch(options.residency, "THERMITE_METAL_RESIDENCY")?;
        let self_test = switch(options.self_test, "THERMITE_METAL_SELF_TEST")?;
        let device = Self::new(MetalLauncher::open(residency)?, options.variants);
        if self_test {
            selftest::run(&device)?;
        }
        Ok(device)
    }
}

/// Launches kernels on an Apple GPU.
pub struct MetalLauncher {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    limits: Limits,
    /// Whether Metal Performance Shaders take this GPU.
    mps: bool,
    pipelines: Pipelines,
    /// Its lock also guards the contents of all buffers.
    queue: Mutex<Queue>,
    residency: Option<Arc<Residency>>,
    /// Mapped files as buffers, each whole.
    files: Mutex<Vec<MetalBuffer>>,
    next_id: AtomicU64,
}

impl MetalLauncher {
    fn open(residency: bool) -> Result<Self> {
        autoreleasepool(|_| {
            if !objc2::available!(macos = 14.0) {
                return Err(unavailable("macOS 14 or later is needed (Metal 3.1, for bfloat)".to_owned()));
            }
            let device = MTLCreateSystemDefaultDevice();
            let device = device.ok_or_else(|| unavailable("the system has no GPU for Metal".to_owned()))?;
            if !device.supportsFamily(MTLGPUFamily::Apple7) {
                let name = device.name();
                let wanted =
                    "is not of the family Apple 7 (M1) or later, whose simdgroup operations are needed";
                return Err(unavailable(format!("{name} {wanted}")));
            }
            let residency = if residency { Residency::open(&device)? } else { None };
            Ok(Self {
                limits: limits(&device),
                // SAFETY: asks a question of a device that is there.
                mps: unsafe { MPSSupportsMTLDevice(Some(&device)) },
                pipelines: Pipelines::new(device.clone()),
                queue: Mutex::new(Queue::new(device.clone(), residency.clone())?),
                residency,
                files: Mutex::default(),
                next_id: AtomicU64::new(0),
                device,
            })
        })
    }

    pub(super) fn device(&self) -> &ProtocolObject<dyn MTLDevice> {
        &self.device
    }

    pub(super) const fn has_mps(&self) -> bool {
        self.mps
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, Vec<MetalBuffer>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages of a mapped file as a buffer; none for bytes that are not mapped, and where Metal takes none.
    #[cfg(target_arch = "aarch64")]
    fn map(&self, file: &Arc<FileBytes>) -> Option<MetalBuffer> {
        let FileBytes::Mapped(bytes) = file.as_ref() else { return None };
        let size = bytes.len().checked_next_multiple_of(PAGE)?;
        if !bytes.as_ptr().addr().is_multiple_of(PAGE) || self.check_memory(size).is_err() {
            return None;
        }
        autoreleasepool(|_| {
            let pointer = NonNull::new(bytes.as_ptr().cast_mut().cast())?;
            let options = MTLResourceOptions::StorageModeShared;
            // SAFETY: the mapping's pages are there for as long as the file, which the buffer keeps; the last one is mapped
            // to its end. Kernels only read weights, and nothing is called to free them.
            let raw = unsafe {
                self.device.newBufferWithBytesNoCopy_length_options_deallocator(pointer, size, options, None)
            }?;
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            Some(MetalBuffer::of_file(id, raw, file.clone(), self.residency.clone()))
        })
    }

    /// Pages are of another size there.
    #[cfg(not(target_arch = "aarch64"))]
    const fn map(&self, _file: &Arc<FileBytes>) -> Option<MetalBuffer> {
        None
    }

    /// Whether `bytes` more are within what the device holds without paging.
    fn check_memory(&self, bytes: usize) -> Result<()> {
        let refused = |reason: String| Err(Error::Memory { bytes, reason });
        let longest = self.device.maxBufferLength();
        if bytes > longest {
            return refused(format!("a buffer of this GPU has at most {longest}"));
        }
        // 0: the device does not say
        let limit = Some(self.device.recommendedMaxWorkingSetSize()).filter(|&limit| limit > 0);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let fits = || self.device.currentAllocatedSize().saturating_add(bytes) <= limit;
        if !fits()
            && let Some(residency) = &self.residency
        {
            residency.settle();
        }
        if fits() {
            return Ok(());
        }
        let used = self.device.currentAllocatedSize();
        refused(format!("{used} are in use, and the GPU's working set is {limit}"))
    }
}

fn limits(device: &ProtocolObject<dyn MTLDevice>) -> Limits {
    let at_most = |limit: u32, has: usize| u32::try_from(has).unwrap_or(u32::MAX).min(limit);
    let Limits { threads, grid, .. } = Limits::APPLE;
    Limits {
        threads: at_most(threads, device.maxThreadsPerThreadgroup().width),
        threadgroup_memory: at_most(u32::MAX, device.maxThreadgroupMemoryLength()),
        grid,
    }
}

impl Launcher for MetalLauncher {
    type Buffer = MetalBuffer;
    type Recording = Infallible;
    type Mark = ();

    fn describe(&self) -> String {
        let gib = self.device.recommendedMaxWorkingSetSize() as f64 / f64::from(1 << 30);
        let residency = if self.residency.is_some() { "" } else { ", memory not kept resident" };
        format!("Metal: {}, working set {gib:.1} GiB{residency}", self.device.name())
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn alloc(&self, dtype: Dtype, len: usize) -> Result<MetalBuffer> {
        let bytes = len.checked_mul(dtype.bytes()).and_then(|b| b.max(1).checked_next_multiple_of(GRANULE));
        let refused = |reason: &str| Error::Memory {
            bytes: len.saturating_mul(dtype.bytes()),
            reason: reason.to_owned(),
        };
        let bytes = bytes.ok_or_else(|| refused("more than there are addresses"))?;
        self.check_memory(bytes)?;
        autoreleasepool(|_| {
            // Metal fills a new buffer with zeros
            let options = MTLResourceOptions::StorageModeShared;
            let raw = self.device.newBufferWithLength_options(bytes, options);
            let raw = raw.ok_or_else(|| refused("Metal gave none"))?;
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            Ok(MetalBuffer::new(id, raw, dtype, len, self.residency.clone()))
        })
    }

    fn shape(buffer: &MetalBuffer) -> (Dtype, usize) {
        buffer.shape()
    }

    fn write(&self, buffer: &mut MetalBuffer, bytes: &[u8]) -> Result<()> {
        let mut queue = self.queue();
        if queue.uses(buffer.id()) {
            autoreleasepool(|_| queue.finish())?;
        }
        // SAFETY: nothing under way uses the buffer, and the queue's lock keeps all others away until the copy is done.
        unsafe { buffer.copy_in(bytes) }
    }

    fn read(&self, buffer: &MetalBuffer, first: usize, bytes: &mut [u8]) -> Result<()> {
        let mut queue = self.queue();
        autoreleasepool(|_| queue.finish())?;
        // SAFETY: nothing is under way, and the queue's lock keeps all others away until the copy is done.
        unsafe { buffer.copy_out(first, bytes) }
    }

    fn adopt(&self, file: &Arc<FileBytes>) -> Result<()> {
        let mut files = self.files();
        if !files.iter().any(|own| own.is_of(file)) {
            files.extend(self.map(file));
        }
        Ok(())
    }

    fn adopted(&self, dtype: Dtype, bytes: &[u8]) -> Option<MetalBuffer> {
        self.files().iter().find_map(|file| file.part(dtype, bytes))
    }

    fn launch(
        &self,
        kernel: &Kernel,
        _dims: &Dims,
        geometry: &Launch,
        arguments: &[Argument<'_, MetalBuffer>],
    ) -> Result<()> {
        autoreleasepool(|_| {
            let pipeline = self.pipelines.get(kernel)?;
            let threads: u32 = geometry.threadgroup.iter().product();
            if threads as usize > pipeline.most_threads {
                let most = pipeline.most_threads;
                let reason =
                    format!("{threads} threads a threadgroup, compiled for this GPU it takes {most}");
                return Err(Error::Launch { kernel: kernel.name.clone(), reason });
            }
            self.queue().launch(&pipeline, geometry, arguments)
        })
    }

    fn submit(&self) -> Result<()> {
        let mut queue = self.queue();
        autoreleasepool(|_| queue.finish())
    }

    fn product(&self, product: &Product<'_, MetalBuffer>) -> Option<Result<()>> {
        let &Product { x, weight, bias, accumulates, out, n } = product;
        if bias.is_some() || accumulates {
            return None;
        }
        autoreleasepool(|_| matmul::matmul(self, x, weight, out, n))
    }

    fn replay(&self, recording: &Infallible) -> Result<()> {
        match *recording {}
    }

    fn mark(&self) -> Result<()> {
        Ok(())
    }

    fn read_after(&self, _mark: &(), buffer: &MetalBuffer, first: usize, bytes: &mut [u8]) -> Result<()> {
        self.read(buffer, first, bytes)
    }
}

impl fmt::Debug for MetalLauncher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}
