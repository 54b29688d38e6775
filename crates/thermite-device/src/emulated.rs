//! The Metal kernels on the CPU, access by access: for tests and checks, never for speed.

use std::convert::Infallible;
use std::sync::Mutex;

use thermite_kernels::contract::{Dims, Launch, Limits, Scalar};
use thermite_kernels::emulator::{self, Buffer, Build, Emulator};
use thermite_kernels::syntax::Kernel;

use crate::launched::{Argument, Launched, Launcher, Variants, scalar};
use crate::{Dtype, Error, Result};

/// A device of emulated kernels.
pub type Emulated = Launched<EmulatedLauncher>;

/// Launches kernels as fibers.
#[derive(Debug)]
pub struct EmulatedLauncher {
    emulator: Emulator,
    /// Names of the kernels launched, in order.
    launched: Mutex<Vec<String>>,
}

impl Emulated {
    /// The kernels compiled for `build`.
    ///
    /// # Errors
    /// If there is no C++ compiler, or it rejects a kernel.
    pub fn open(build: Build, variants: Variants) -> Result<Self> {
        let emulator = Emulator::new(build)
            .map_err(|e| Error::Unavailable { device: "emulated".to_owned(), reason: e.to_string() })?;
        Ok(Self::new(EmulatedLauncher { emulator, launched: Mutex::default() }, variants))
    }
}

impl EmulatedLauncher {
    /// Names of the kernels launched since the last call.
    pub fn take_launched(&self) -> Vec<String> {
        self.launched.lock().map(|mut names| std::mem::take(&mut *names)).unwrap_or_default()
    }
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
    type Buffer = Buffer;
    type Recording = Infallible;
    type Mark = ();

    fn describe(&self) -> String {
        format!("emulated Metal ({} build)", self.emulator.build())
    }

    fn limits(&self) -> Limits {
        Limits::APPLE
    }

    fn alloc(&self, dtype: Dtype, len: usize) -> Result<Buffer> {
        let buffer = self.emulator.buffer("buffer", scalar(dtype), len as u64);
        buffer.map_err(|e| Error::Memory { bytes: len * dtype.bytes(), reason: e.to_string() })
    }

    fn shape(buffer: &Buffer) -> (Dtype, usize) {
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

    fn write(&self, buffer: &mut Buffer, bytes: &[u8]) -> Result<()> {
        by_width!(Self::shape(buffer).0, T => {
            let values: Vec<T> = bytemuck::pod_collect_to_vec(bytes);
            buffer.upload(0, &values).map_err(|e| failed("write", &e))
        })
    }

    fn read(&self, buffer: &Buffer, first: usize, bytes: &mut [u8]) -> Result<()> {
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
        _geometry: &Launch,
        arguments: &[Argument<'_, Buffer>],
    ) -> Result<()> {
        let tails: Vec<Option<Buffer>> =
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
        if let Ok(mut names) = self.launched.lock() {
            names.push(kernel.name.clone());
        }
        let done = self.emulator.launch(&kernel.name, dims, &self.limits(), &arguments);
        done.map(|_| ()).map_err(|e| failed(&kernel.name, &e))
    }

    fn submit(&self) -> Result<()> {
        Ok(())
    }

    fn has_matmul(&self) -> bool {
        false
    }

    fn replay(&self, recording: &Infallible) -> Result<()> {
        match *recording {}
    }

    fn mark(&self) -> Result<()> {
        Ok(())
    }

    fn read_after(&self, _mark: &(), buffer: &Buffer, first: usize, bytes: &mut [u8]) -> Result<()> {
        self.read(buffer, first, bytes)
    }
}

impl EmulatedLauncher {
    /// A copy of what a kernel sees of a buffer that it is not given from the start. Only tables that are read are
    /// bound so.
    fn tail(&self, argument: &Argument<'_, Buffer>) -> Result<Option<Buffer>> {
        let Argument::Buffer { buffer, first: first @ 1.. } = *argument else { return Ok(None) };
        let (dtype, len) = Self::shape(buffer);
        let mut bytes = vec![0; len.saturating_sub(first) * dtype.bytes()];
        self.read(buffer, first * dtype.bytes(), &mut bytes)?;
        let mut tail = self.alloc(dtype, len.saturating_sub(first))?;
        self.write(&mut tail, &bytes)?;
        Ok(Some(tail))
    }
}
