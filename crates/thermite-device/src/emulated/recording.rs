//! Launches that the emulator kept, to be made again.

use std::sync::Arc;

use thermite_kernels::contract::{Dims, Launch};
use thermite_kernels::emulator::Buffer;
use thermite_kernels::syntax::Kernel;

use crate::launched::Argument;

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
