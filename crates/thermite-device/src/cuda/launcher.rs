//! The [`Launcher`] of NVIDIA GPUs.

use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaEvent, result, sys};
use thermite_kernels::catalogue;
use thermite_kernels::contract::{self, Dims, Launch, Limits};
use thermite_kernels::hopper;
use thermite_kernels::hopper::steps::Recorded;
use thermite_kernels::syntax::Kernel;

use super::buffer::CudaBuffer;
use super::driver::{Gpu, failed, unavailable, words};
use super::graph::CudaRecording;
use super::matmul::Products;
use super::modules::{Function, Modules};
use super::probe;
use super::staging::Staging;
use crate::launched::steps::recorded;
use crate::launched::{Argument, Launched, Launcher, Product, Variants};
use crate::{Dtype, Error, Result};

const MULTIPROCESSORS: sys::CUdevice_attribute =
    sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
const SHARED_MEMORY: sys::CUdevice_attribute =
    sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;

/// A device of an NVIDIA GPU.
pub type Cuda = Launched<CudaLauncher>;

/// How a [`Cuda`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which of the kernels' variants are launched.
    pub variants: Variants,
    /// Whether a kernel may start, and fetch what it needs of the weights, before the one it follows has ended. None:
    /// unless `THERMITE_CUDA_OVERLAP` is 0.
    pub overlap: Option<bool>,
    /// Whether recorded decoding steps of one sequence run in one launch, on Hopper. None: unless `THERMITE_CUDA_RESIDENT`
    /// is 0.
    pub resident: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self { variants: Variants::Fast, overlap: None, resident: None }
    }
}

impl Cuda {
    /// The first GPU.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where a library or a GPU is missing, or the GPU is too old.
    pub fn open(options: Options) -> Result<Self> {
        Ok(Self::new(CudaLauncher::open(options)?, options.variants))
    }
}

/// Launches kernels on an NVIDIA GPU, all on one stream.
pub struct CudaLauncher {
    gpu: Arc<Gpu>,
    modules: Modules,
    /// Whether launches may overlap with the end of the one before.
    overlap: bool,
    /// How many multiprocessors there are for the kernels that take the place of others; none where none does.
    replaces: Option<u32>,
    /// Whether decoding steps run in one launch where kernels are replaced.
    resident: bool,
    state: Mutex<State>,
}

/// How a function starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Maybe before the one before it has ended.
    Overlapping,
    /// When all of its threadgroups can run at once.
    AllResident,
}

/// What one thread at a time may use.
struct State {
    staging: Staging,
    products: Option<Products>,
    /// The recording under way.
    recorded: Option<Vec<Recorded>>,
}

impl CudaLauncher {
    fn open(options: Options) -> Result<Self> {
        if let Some(reason) = probe::missing() {
            return Err(unavailable(reason));
        }
        let gpu = Gpu::open()?;
        let (major, minor) = gpu.capability;
        if major < 8 {
            let name = &gpu.name;
            let wanted = "8.0 (Ampere) or later is needed, for bfloat16 and asynchronous copies";
            return Err(unavailable(format!("{name} has compute capability {major}.{minor}; {wanted}")));
        }
        let modules = Modules::new(&gpu)?;
        let replaces = match (gpu.capability, options.variants) {
            (_, Variants::Plain) => None,
            ((9, 0), _) => Some(gpu.attribute(MULTIPROCESSORS)?.cast_unsigned()),
            _ => None,
        };
        modules.compile_all(replaces.is_some());
        let is_left_on = |name: &str| std::env::var_os(name).is_none_or(|value| value != "0");
        let overlap = options.overlap.unwrap_or_else(|| is_left_on("THERMITE_CUDA_OVERLAP"));
        let resident = options.resident.unwrap_or_else(|| is_left_on("THERMITE_CUDA_RESIDENT"));
        let state = State { staging: Staging::new(&gpu)?, products: Products::open(&gpu)?, recorded: None };
        let overlap = overlap && major >= 9;
        Ok(Self { modules, overlap, replaces, resident, state: Mutex::new(state), gpu })
    }

    /// Bytes of the GPU's memory that are in use, by whomever.
    ///
    /// # Errors
    /// The driver's.
    pub fn memory_used(&self) -> Result<usize> {
        self.gpu.bind()?;
        let (free, total) = result::mem_get_info().map_err(|e| failed("cuMemGetInfo", e))?;
        Ok(total - free)
    }

    pub(super) const fn modules(&self) -> &Modules {
        &self.modules
    }

    /// Multiprocessors for decoding steps in one launch; none where they are launched kernel by kernel.
    pub(super) fn residents(&self) -> Option<u32> {
        self.replaces.filter(|_| self.resident)
    }

    /// Most bytes of shared memory a threadgroup.
    pub(super) fn shared_memory(&self) -> Result<u32> {
        Ok(self.gpu.attribute(SHARED_MEMORY)?.cast_unsigned())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, where nothing is being recorded: `what` cannot be.
    fn unrecorded(&self, what: &str) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        match state.recorded {
            None => Ok(state),
            Some(_) => Err(Error::Launch {
                kernel: what.to_owned(),
                reason: "launches are being recorded, and this is none".to_owned(),
            }),
        }
    }

    fn start(
        &self,
        kernel: &Kernel,
        function: &Function,
        geometry: &Launch,
        arguments: &[Argument<'_, CudaBuffer>],
    ) -> Result<()> {
        let refused = |reason: String| Error::Launch { kernel: kernel.name.clone(), reason };
        let threads: u32 = geometry.threadgroup.iter().product();
        if threads > function.threads {
            let most = function.threads;
            return Err(refused(format!(
                "{threads} threads a threadgroup, compiled for this GPU it takes {most}"
            )));
        }
        let mut values: Vec<u64> = Vec::with_capacity(arguments.len() + geometry.threadgroup_memory.len());
        for &index in &function.parameters {
            values.push(match arguments.get(index) {
                Some(Argument::Buffer { buffer, first }) => buffer.address(*first),
                Some(Argument::Int(value)) => value.cast_unsigned().into(),
                Some(Argument::Float(value)) => value.to_bits().into(),
                Some(Argument::Nil) | None => 0,
            });
        }
        let mut shared = 0;
        for (i, bytes) in geometry.threadgroup_memory.iter().enumerate() {
            if i > 0 {
                values.push(shared.into());
            }
            shared += bytes;
        }
        if shared > function.shared_memory {
            let most = function.shared_memory;
            return Err(refused(format!("{shared} bytes of threadgroup memory, this GPU has {most}")));
        }
        let pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        // SAFETY: the values are those of the function's parameters, as the contract's check saw them.
        unsafe {
            let (grid, block) = (geometry.grid, geometry.threadgroup);
            self.enqueue(&kernel.name, function, grid, block, shared, Start::Overlapping, pointers)
        }
    }

    /// Puts a function into the queue.
    ///
    /// # Safety
    /// `pointers` are those of the function's parameters, and the memory that they name is as large as it wants.
    pub(super) unsafe fn enqueue(
        &self,
        kernel: &str,
        function: &Function,
        [grid_x, grid_y, grid_z]: [u32; 3],
        [block_x, block_y, block_z]: [u32; 3],
        shared: u32,
        start: Start,
        mut pointers: Vec<*mut c_void>,
    ) -> Result<()> {
        use sys::CUlaunchAttributeID as Id;
        // SAFETY: zero is a value of every kind of attribute, and these two are ints.
        let (id, value) = unsafe {
            let mut value: sys::CUlaunchAttributeValue = std::mem::zeroed();
            match start {
                Start::Overlapping => {
                    value.programmaticStreamSerializationAllowed = 1;
                    (Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, value)
                }
                Start::AllResident => {
                    value.cooperative = 1;
                    (Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, value)
                }
            }
        };
        let mut attributes = [sys::CUlaunchAttribute { id, pad: [0; 4], value }];
        let config = sys::CUlaunchConfig {
            gridDimX: grid_x,
            gridDimY: grid_y,
            gridDimZ: grid_z,
            blockDimX: block_x,
            blockDimY: block_y,
            blockDimZ: block_z,
            sharedMemBytes: shared,
            hStream: self.gpu.stream.cu_stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: (start == Start::AllResident || self.overlap).into(),
        };
        // SAFETY: the caller's.
        let started = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.handle,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        started.result().map_err(|e| Error::Launch {
            kernel: kernel.to_owned(),
            reason: format!("cuLaunchKernelEx: {}", words(e)),
        })
    }

    /// `product` by cuBLASLt, its activations rounded to the weights' type first.
    fn multiply(&self, product: &Product<'_, CudaBuffer>) -> Result<()> {
        let &Product { x, weight, n, .. } = product;
        let (len, have) = (n * weight.cols, x.shape().0);
        let narrow = weight.dtype;
        let mut address = x.address(0);
        if have != narrow {
            let to = match self.state().products.as_mut() {
                Some(products) => products.narrowed(narrow, len)?,
                None => return Err(unavailable("libcublasLt cannot be loaded".to_owned())),
            };
            self.narrow(x, &to, len)?;
            address = to.address(0);
        } else if x.shape().1 < len {
            let (have, need) = (x.shape().1, len);
            return Err(Error::Size { kernel: "cublasLtMatmul", operand: "x", have, need });
        }
        let mut state = self.state();
        if let Some(launches) = &mut state.recorded {
            let (kernel, dims, values) = ("cublasLtMatmul".to_owned(), Dims::default(), Vec::new());
            launches.push(Recorded { kernel, dims, values });
        }
        match state.products.as_mut() {
            Some(products) => products.run(product, address),
            None => Err(unavailable("libcublasLt cannot be loaded".to_owned())),
        }
    }

    /// Rounds `len` floats of `x` to the type of `out`.
    fn narrow(&self, x: &CudaBuffer, out: &CudaBuffer, len: usize) -> Result<()> {
        let name = format!("narrow_{}_v4", out.shape().0);
        let failed = |reason: String| Error::Launch { kernel: name.clone(), reason };
        let found = catalogue::find(&name).map_err(|e| failed(e.to_string()))?;
        let kernel = &found.ok_or_else(|| failed("there is no such kernel".to_owned()))?.kernel;
        let dims = Dims::new(&[("N", len as u64)]);
        let geometry = contract::launch(&name, &dims, &self.limits()).map_err(|e| failed(e.to_string()))?;
        let length = i32::try_from(len).map_err(|_| failed(format!("{len} elements, above 2^31")))?;
        let whole = |buffer| Argument::Buffer { buffer, first: 0 };
        let arguments = [whole(x), whole(out), Argument::Int(length)];
        let (have, need) = (x.shape().1, len);
        if have < need {
            return Err(Error::Size { kernel: "cublasLtMatmul", operand: "x", have, need });
        }
        self.launch(kernel, &dims, &geometry, &arguments)
    }

    /// Copies out of `buffer` on `stream`, and waits.
    fn copy_out(
        &self,
        stream: sys::CUstream,
        buffer: &CudaBuffer,
        first: usize,
        bytes: &mut [u8],
    ) -> Result<()> {
        let (have, need) = (buffer.bytes(), first + bytes.len());
        if need > have {
            return Err(Error::Size { kernel: "read", operand: "bytes", have, need });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the buffer has the bytes; the wait keeps `bytes` until they are there.
        unsafe {
            result::memcpy_dtoh_async(bytes, buffer.address(0) + first as u64, stream)
                .map_err(|e| failed("cuMemcpyDtoHAsync", e))?;
            result::stream::synchronize(stream).map_err(|e| failed("cuStreamSynchronize", e))
        }
    }
}

impl Launcher for CudaLauncher {
    type Buffer = CudaBuffer;
    type Recording = CudaRecording;
    type Mark = CudaEvent;

    fn describe(&self) -> String {
        let Gpu { name, capability: (major, minor), driver_version, memory, .. } = &*self.gpu;
        let gib = *memory as f64 / f64::from(1 << 30);
        let cuda = format!("{}.{}", driver_version / 1000, driver_version % 1000 / 10);
        format!("CUDA {cuda}: {name}, compute capability {major}.{minor}, {gib:.0} GiB")
    }

    fn limits(&self) -> Limits {
        Limits::CUDA
    }

    fn alloc(&self, dtype: Dtype, len: usize) -> Result<CudaBuffer> {
        let _state = self.unrecorded("alloc")?;
        CudaBuffer::zeros(&self.gpu, dtype, len)
    }

    fn shape(buffer: &CudaBuffer) -> (Dtype, usize) {
        buffer.shape()
    }

    fn write(&self, buffer: &mut CudaBuffer, bytes: &[u8]) -> Result<()> {
        let (have, need) = (buffer.bytes(), bytes.len());
        if need > have {
            return Err(Error::Size { kernel: "write", operand: "bytes", have, need });
        }
        self.unrecorded("write")?.staging.upload(buffer.address(0), bytes)
    }

    fn read(&self, buffer: &CudaBuffer, first: usize, bytes: &mut [u8]) -> Result<()> {
        let _state = self.unrecorded("read")?;
        self.gpu.bind()?;
        self.copy_out(self.gpu.stream.cu_stream(), buffer, first, bytes)
    }

    fn launch(
        &self,
        kernel: &Kernel,
        dims: &Dims,
        geometry: &Launch,
        arguments: &[Argument<'_, CudaBuffer>],
    ) -> Result<()> {
        let replacement = self.replaces.and_then(|sms| hopper::replacement(&kernel.name, dims, sms));
        let function = match &replacement {
            Some(replacement) => self.modules.replacement(kernel, replacement)?,
            None => self.modules.get(kernel)?,
        };
        let mut state = self.state();
        self.gpu.bind()?;
        match &replacement {
            Some(replacement) => self.start_replacement(kernel, &function, replacement, arguments)?,
            None => self.start(kernel, &function, geometry, arguments)?,
        }
        if let Some(launches) = &mut state.recorded {
            launches.push(recorded(kernel, dims, arguments, CudaBuffer::address));
        }
        Ok(())
    }

    fn replaces(&self, kernel: &str) -> bool {
        self.replaces.is_some() && hopper::replaces(kernel)
    }

    fn submit(&self) -> Result<()> {
        let _state = self.unrecorded("submit")?;
        self.gpu.synchronize()
    }

    fn product(&self, product: &Product<'_, CudaBuffer>) -> Option<Result<()>> {
        let takes = self.state().products.is_some() && Products::takes(product);
        takes.then(|| self.multiply(product))
    }

    fn records(&self) -> bool {
        true
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<CudaRecording>> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        let mut state = self.unrecorded("record")?;
        self.gpu.stream.begin_capture(mode).map_err(|e| failed("cuStreamBeginCapture", e))?;
        state.recorded = Some(Vec::new());
        drop(state);
        let worked = work();
        let mut state = self.state();
        let launches = state.recorded.take().unwrap_or_default();
        let ended = self.gpu.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        drop(state);
        worked?;
        let graph = ended.map_err(|e| failed("cuStreamEndCapture and cuGraphInstantiate", e))?;
        let Some(graph) = graph else { return Ok(None) };
        if let Some(steps) = self.resident(&launches)? {
            return Ok(Some(CudaRecording::resident(steps)));
        }
        graph.upload().map_err(|e| failed("cuGraphUpload", e))?;
        Ok(Some(CudaRecording::graph(graph, launches.len())))
    }

    fn is_recording(&self) -> bool {
        self.state().recorded.is_some()
    }

    fn replay(&self, recording: &CudaRecording) -> Result<()> {
        let _state = self.unrecorded("replay")?;
        recording.start(self)
    }

    fn mark(&self) -> Result<CudaEvent> {
        let _state = self.unrecorded("mark")?;
        self.gpu.bind()?;
        self.gpu.stream.record_event(None).map_err(|e| failed("cuEventRecord", e))
    }

    fn read_after(
        &self,
        mark: &CudaEvent,
        buffer: &CudaBuffer,
        first: usize,
        bytes: &mut [u8],
    ) -> Result<()> {
        self.gpu.bind()?;
        mark.synchronize().map_err(|e| failed("cuEventSynchronize", e))?;
        self.copy_out(self.gpu.reads.cu_stream(), buffer, first, bytes)
    }
}

impl fmt::Debug for CudaLauncher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}
