//! Launches that the emulator kept, to be made again.
#![allow(unsafe_code, reason = "a program of steps has the addresses of what it works on")]

use std::sync::Arc;

use thermite_kernels::contract::{Dims, Launch};
use thermite_kernels::emulator::{Buffer, EmulatorError, Steps};
use thermite_kernels::syntax::Kernel;

use crate::launched::Argument;
use crate::launched::steps::ResidentSteps;

/// What was recorded, to be run again.
#[derive(Debug)]
pub enum Recording {
    /// The launches, to be made one after another.
    Launches(Vec<RecordedLaunch>),
    /// What takes their place.
    Resident(Box<ResidentRecording>),
}

/// Decoding steps in one launch.
#[derive(Debug)]
pub struct ResidentRecording {
    pub(super) kernel: Steps,
    pub(super) steps: ResidentSteps<Arc<Buffer>>,
    pub(super) seed: u64,
    /// What the program's addresses are of.
    pub(super) _launches: Vec<RecordedLaunch>,
}

impl ResidentRecording {
    pub(super) fn run(&self) -> Result<(), EmulatorError> {
        let ResidentSteps { plan, program, .. } = &self.steps;
        let (threadgroups, shared_memory) = (plan.threadgroups, plan.shared_memory);
        // SAFETY: the addresses are those of buffers that `_launches` and `steps` hold.
        unsafe { self.kernel.run(program, plan.steps, threadgroups, shared_memory, self.seed) }
    }
}

/// A launch that was recorded, with all that it was given.
#[derive(Debug)]
pub struct RecordedLaunch {
    pub(super) kernel: Kernel,
    pub(super) dims: Dims,
    pub(super) geometry: Launch,
    pub(super) arguments: Vec<RecordedArgument>,
}

/// [`Argument`] of a recorded launch.
#[derive(Debug)]
pub(super) enum RecordedArgument {
    Buffer { buffer: Arc<Buffer>, first: usize },
    Int(i32),
    Float(f32),
    Nil,
}

impl RecordedArgument {
    pub(super) fn of(argument: &Argument<'_, Arc<Buffer>>) -> Self {
        match *argument {
            Argument::Buffer { buffer, first } => Self::Buffer { buffer: Arc::clone(buffer), first },
            Argument::Int(value) => Self::Int(value),
            Argument::Float(value) => Self::Float(value),
            Argument::Nil => Self::Nil,
        }
    }

    pub(super) const fn argument(&self) -> Argument<'_, Arc<Buffer>> {
        match self {
            Self::Buffer { buffer, first } => Argument::Buffer { buffer, first: *first },
            Self::Int(value) => Argument::Int(*value),
            Self::Float(value) => Argument::Float(*value),
            Self::Nil => Argument::Nil,
        }
    }
}
