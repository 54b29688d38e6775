//! What can go wrong on a device.

use crate::Dtype;

/// An error of a device: it names the kernel and the operand and gives the numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A buffer is too small for what a kernel was asked to do.
    #[error("{kernel}: {operand} holds {have} elements, needs {need}")]
    Size {
        /// The kernel.
        kernel: &'static str,
        /// The operand, by its name in the kernel's signature.
        operand: &'static str,
        /// Elements there.
        have: usize,
        /// Elements needed.
        need: usize,
    },
    /// A buffer holds elements of another type than the kernel reads or writes.
    #[error("{kernel}: {operand} holds {have} elements, must hold {need}")]
    Type {
        /// The kernel.
        kernel: &'static str,
        /// The operand.
        operand: &'static str,
        /// Type there.
        have: Dtype,
        /// Type needed.
        need: Dtype,
    },
    /// An index in device memory (a token id, a position, a row, a block) is outside its table.
    #[error("{kernel}: {operand}[{at}] is {index}, must be below {limit}")]
    Index {
        /// The kernel.
        kernel: &'static str,
        /// The operand that holds the index.
        operand: &'static str,
        /// Where in the operand.
        at: usize,
        /// The index found.
        index: i64,
        /// One past the largest index allowed.
        limit: usize,
    },
    /// A dimension or a constant does not fit the others.
    #[error("{kernel}: {what} is {have}, must be {need}")]
    Shape {
        /// The kernel or the operation.
        kernel: &'static str,
        /// The dimension or constant.
        what: &'static str,
        /// Its value.
        have: String,
        /// What is allowed.
        need: String,
    },
    /// A kernel could not be launched, or went wrong.
    #[error("kernel {kernel}: {reason}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// What does not fit, or what happened.
        reason: String,
    },
    /// Memory could not be had.
    #[error("out of memory: {bytes} bytes could not be allocated ({reason})")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The system's reason.
        reason: String,
    },
    /// A device has no kernels for keys and values of that type.
    #[error("--kv-type {have}: {device} keeps keys and values as f32 or f16; q8_0 is for the device cpu")]
    KvType {
        /// The device.
        device: String,
        /// The type asked for.
        have: Dtype,
    },
    /// The device is not there, or not usable here.
    #[error("device {device} is not available: {reason}")]
    Unavailable {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// Queued work failed on the device; what it wrote is lost. The device takes new work.
    #[error("{device}: {fault} while running {ran} ({reason})")]
    Fault {
        /// The device.
        device: String,
        /// What kind of failure.
        fault: Fault,
        /// The kernels that were queued together.
        ran: String,
        /// The system's own words.
        reason: String,
    },
}

/// How queued work can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It took longer than the system allows.
    Timeout,
    /// It touched memory that it may not.
    PageFault,
    /// The device ran out of memory.
    OutOfMemory,
    /// The system took the device away from this process.
    AccessRevoked,
    /// The device is gone.
    DeviceLost,
    /// Anything else.
    Internal,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Timeout => "time-out",
            Self::PageFault => "page fault",
            Self::OutOfMemory => "out of memory",
            Self::AccessRevoked => "access revoked",
            Self::DeviceLost => "device lost",
            Self::Internal => "internal error",
        })
    }
}

/// A result of a device.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A [`Error::Shape`] with its values formatted.
    #[allow(clippy::needless_pass_by_value)]
    pub fn shape(
        kernel: &'static str,
        what: &'static str,
        have: impl std::fmt::Display,
        need: impl std::fmt::Display,
    ) -> Self {
        Self::Shape { kernel, what, have: have.to_string(), need: need.to_string() }
    }
}
