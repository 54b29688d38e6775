//! The Metal kernels on the CPU, access by access: for tests and checks, never for speed.

mod recording;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thermite_kernels::contract::{Dims, Launch, Limits, Scalar};
use thermite_kernels::emulator::{self, Buffer, Build, Emulator, Steps};
use thermite_kernels::hopper::steps;
use thermite_kernels::syntax::Kernel;

use crate::launched::steps::{ResidentSteps, recorded};
use crate::launched::{Argument, Launched, Launcher, Variants, scalar};
use crate::{Dtype, Error, Result};

use recording::RecordedArgument;
use recording::ResidentRecording;
pub use recording::{RecordedLaunch, Recording};

/// A device of emulated kernels.
pub type Emulated = Launched<EmulatedLauncher>;

/// Launches kernels as fibers.
#[derive(Debug)]
pub struct EmulatedLauncher {
    emulator: Emulator,
    /// Names of the kernels launched, in order.
    launched: Mutex<Vec<String>>,
    records: Records,
    /// What is being recorded.
    recorded: Mutex<Option<Vec<RecordedLaunch>>>,
}

/// Whether it offers to record, and how a recording runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Records {
    Not,
    /// Launch by launch.
    Launches,
    /// Decoding steps in one launch, as far as there is a plan for them, threads in an order that the seed decides.
    Resident {
        multiprocessors: u32,
        seed: u64,
    },
}

/// Bytes a threadgroup, of the machine that decoding steps in one launch are planned for.
const SHARED_MEMORY: u32 = 160 * 1024;

impl Emulated {
    /// The kernels compiled for `build`.
    ///
    /// # Errors
    /// If there is no C++ compiler, or it rejects a kernel.
    pub fn open(build: Build, variants: Variants) -> Result<Self> {
        Self::with(build, variants, Records::Not)
    }

    /// As [`Emulated::open`]; it records launches as a GPU's graph does, frozen with their dimensions.
    ///
    /// # Errors
    /// As [`Emulated::open`].
    pub fn recording(build: Build, variants: Variants) -> Result<Self> {
        Self::with(build, variants, Records::Launches)
    }

    /// As [`Emulated::recording`]; recorded decoding steps run in one launch where there is a plan for them, as on Hopper,
    /// on so many multiprocessors, its threads in an order that `seed` decides.
    ///
    /// # Errors
    /// As [`Emulated::open`].
    pub fn resident(build: Build, multiprocessors: u32, seed: u64) -> Result<Self> {
        Self::with(build, Variants::Fast, Records::Resident { multiprocessors, seed })
    }

    fn with(build: Build, variants: Variants, records: Records) -> Result<Self> {
        let emulator = Emulator::new(build)
            .map_err(|e| Error::Unavailable { device: "emulated".to_owned(), reason: e.to_string() })?;
        let (launched, recorded) = (Mutex::default(), Mutex::default());
        Ok(Self::new(EmulatedLauncher { emulator, launched, records, recorded }, variants))
    }
}

impl EmulatedLauncher {
    /// Names of the kernels launched since the last call.
    pub fn take_launched(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.launched))
    }

    /// # Errors
    /// While launches are recorded: what is done at once would not be part of the recording.
    fn unrecorded(&self, call: &str) -> Result<()> {
        match self.is_recording() {
            false => Ok(()),
            true => Err(Error::Launch {
                kernel: call.to_owned(),
                reason: "launches are being recorded".to_owned(),
            }),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(kernel: &str, error: &emulator::EmulatorError) -> Error {
    Error::Launch { kernel: kernel.to_owned(), reason: error.to_string() }
}

/// Copies `$len` elements of type `$t`, as bytes.
macro_rules! by_width {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype.bytes() {
            1 => {
                type $t = u8;
                $body
            }
            2 => {
                type $t = u16;
                $body
            }
            _ => {
                type $t = u32;
                $body
            }
        }
    };
}

impl Launcher for EmulatedLauncher {
    type Buffer = Arc<Buffer>;
    type Recording = Recording;
    type Mark = ();

    fn describe(&self) -> String {
        format!("emulated Metal ({} build)", self.emulator.build())
    }

    fn limits(&self) -> Limits {
        Limits::APPLE
    }

    fn alloc(&self, dtype: Dtype, len: usize) -> Result<Arc<Buffer>> {
        self.unrecorded("alloc")?;
        let buffer = self.emulator.buffer("buffer", scalar(dtype), len as u64);
        buffer.map(Arc::new).map_err(|e| Error::Memory { bytes: len * dtype.bytes(), reason: e.to_string() })
    }

    fn shape(buffer: &Arc<Buffer>) -> (Dtype, usize) {
        let dtype = match buffer.scalar() {
            Scalar::F16 => Dtype::F16,
            Scalar::Bf16 => Dtype::BF16,
            Scalar::I32 => Dtype::I32,
            Scalar::U32 => Dtype::U32,
            Scalar::U8 => Dtype::U8,
            Scalar::F32 => Dtype::F32,
        };
        (dtype, buffer.length() as usize)
    }

    fn write(&self, buffer: &mut Arc<Buffer>, bytes: &[u8]) -> Result<()> {
        self.unrecorded("write")?;
        by_width!(Self::shape(buffer).0, T => {
            let values: Vec<T> = bytemuck::pod_collect_to_vec(bytes);
            buffer.upload(0, &values).map_err(|e| failed("write", &e))
        })
    }

    fn read(&self, buffer: &Arc<Buffer>, first: usize, bytes: &mut [u8]) -> Result<()> {
        self.unrecorded("read")?;
        by_width!(Self::shape(buffer).0, T => {
            let size = size_of::<T>();
            let values = buffer.download::<T>(first / size, bytes.len() / size).map_err(|e| failed("read", &e))?;
            bytes.copy_from_slice(bytemuck::cast_slice(&values));
            Ok(())
        })
    }

    fn launch(
        &self,
        kernel: &Kernel,
        dims: &Dims,
        geometry: &Launch,
        arguments: &[Argument<'_, Arc<Buffer>>],
    ) -> Result<()> {
        if let Some(recorded) = &mut *locked(&self.recorded) {
            let (kernel, dims, geometry) = (kernel.clone(), dims.clone(), geometry.clone());
            let arguments = arguments.iter().map(RecordedArgument::of).collect();
            recorded.push(RecordedLaunch { kernel, dims, geometry, arguments });
            return Ok(());
        }
        let tails: Vec<Option<Arc<Buffer>>> =
            arguments.iter().map(|argument| self.tail(argument)).collect::<Result<_>>()?;
        let arguments: Vec<_> = arguments
            .iter()
            .zip(&tails)
            .map(|(argument, tail)| match (argument, tail) {
                (_, Some(tail)) => emulator::Argument::Buffer(tail),
                (Argument::Buffer { buffer, .. }, _) => emulator::Argument::Buffer(buffer),
                (Argument::Int(value), _) => emulator::Argument::Int(*value),
                (Argument::Float(value), _) => emulator::Argument::Float(*value),
                (Argument::Nil, _) => emulator::Argument::Nil,
            })
            .collect();
        locked(&self.launched).push(kernel.name.clone());
        let done = self.emulator.launch(&kernel.name, dims, &self.limits(), &arguments);
        done.map(|_| ()).map_err(|e| failed(&kernel.name, &e))
    }

    fn submit(&self) -> Result<()> {
        self.unrecorded("submit")
    }

    fn has_matmul(&self) -> bool {
        false
    }

    fn records(&self) -> bool {
        self.records != Records::Not
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Recording>> {
        if !self.records() {
            return Ok(None);
        }
        self.unrecorded("record")?;
        *locked(&self.recorded) = Some(Vec::new());
        let worked = work();
        let Some(launches) = locked(&self.recorded).take() else { return Ok(None) };
        worked?;
        match self.records {
            Records::Resident { multiprocessors, seed } => {
                self.resident(launches, multiprocessors, seed).map(Some)
            }
            _ => Ok(Some(Recording::Launches(launches))),
        }
    }

    fn is_recording(&self) -> bool {
        locked(&self.recorded).is_some()
    }

    fn replay(&self, recording: &Recording) -> Result<()> {
        self.unrecorded("replay")?;
        let launches = match recording {
            Recording::Launches(launches) => launches,
            Recording::Resident(resident) => {
                locked(&self.launched).push(steps::entry());
                return resident.run().map_err(|e| failed(&steps::entry(), &e));
            }
        };
        launches.iter().try_for_each(|RecordedLaunch { kernel, dims, geometry, arguments }| {
            let arguments: Vec<_> = arguments.iter().map(RecordedArgument::argument).collect();
            self.launch(kernel, dims, geometry, &arguments)
        })
    }

    fn mark(&self) -> Result<()> {
        self.unrecorded("mark")
    }

    fn read_after(&self, _mark: &(), buffer: &Arc<Buffer>, first: usize, bytes: &mut [u8]) -> Result<()> {
        self.read(buffer, first, bytes)
    }
}

impl EmulatedLauncher {
    /// `launches`, or what takes their place if there is a plan for them.
    fn resident(&self, launches: Vec<RecordedLaunch>, multiprocessors: u32, seed: u64) -> Result<Recording> {
        let address = |buffer: &Arc<Buffer>, first: usize| buffer.address(first);
        let of = |launch: &RecordedLaunch| {
            let arguments: Vec<_> = launch.arguments.iter().map(RecordedArgument::argument).collect();
            recorded(&launch.kernel, &launch.dims, &arguments, address)
        };
        let named: Vec<_> = launches.iter().map(of).collect();
        let Some(plan) = steps::plan(&named, multiprocessors, SHARED_MEMORY) else {
            return Ok(Recording::Launches(launches));
        };
        let kernel =
            Steps::new(self.emulator.build(), plan.variant).map_err(|e| failed(&steps::entry(), &e))?;
        let steps = ResidentSteps::new(self, plan, address)?;
        let resident = ResidentRecording { kernel, steps, seed, _launches: launches };
        Ok(Recording::Resident(Box::new(resident)))
    }

    /// A copy of what a kernel sees of a buffer that it is not given from the start. Only tables that are read are
    /// bound so.
    fn tail(&self, argument: &Argument<'_, Arc<Buffer>>) -> Result<Option<Arc<Buffer>>> {
        let Argument::Buffer { buffer, first: first @ 1.. } = *argument else { return Ok(None) };
        let (dtype, len) = Self::shape(buffer);
        let mut bytes = vec![0; len.saturating_sub(first) * dtype.bytes()];
        self.read(buffer, first * dtype.bytes(), &mut bytes)?;
        let mut tail = self.alloc(dtype, len.saturating_sub(first))?;
        self.write(&mut tail, &bytes)?;
        Ok(Some(tail))
    }
}
