//! The native CPU device.
//!
//! Kernels are written once over eight lanes (`simd`) and compiled for each instruction set; products of floats go
//! through one inner loop (`tile`), quantised ones through another (`quant`); work is shared out by a pool of threads ([`pool`]) in ways that no result depends on.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod dense;
mod device;
mod draw;
mod matrix;
mod memory;
pub mod pool;
mod quant;
mod rows;
mod sampling;
mod simd;
mod square;
mod tile;

use std::thread::available_parallelism;

pub use matrix::CpuMatrix;
pub use memory::CpuBuffer;
pub use simd::Isa;

use self::pool::{Parts, Pool};
use crate::{Error, Result};

/// The environment variable that forces an instruction set: `portable`, `avx2`, `avx512`, `amx`, `neon`. Of `avx512`
/// quantised products alone make use, of `amx` they and those of bfloat16, of `neon` they and what the compiler does.
pub const ISA_VARIABLE: &str = "THERMITE_CPU_ISA";

/// The environment variable that says how activations meet quantised weights: `int8` or `f32`.
pub const ACTIVATIONS_VARIABLE: &str = "THERMITE_CPU_ACTIVATIONS";

/// How activations meet quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuantizedActivations {
    /// In eight bits, with a scale for every 32; where the processor has no fast products of bytes, as `F32`.
    #[default]
    Int8,
    /// In single precision, on dequantised weights: exact, and several times slower.
    F32,
}

/// An environment variable that says something.
fn setting(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Elements below which a kernel is not worth sharing out.
const GRAIN: usize = 4 * 1024;

/// The CPU of this machine.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    activations: QuantizedActivations,
    pool: Pool,
}

impl Cpu {
    /// A device of `threads` threads (all cores if none is given), with the best instructions there are, or those
    /// that [`ISA_VARIABLE`] names; activations as [`ACTIVATIONS_VARIABLE`] says.
    ///
    /// # Errors
    /// If a variable names what there is not, an instruction set that this processor lacks, or the system gives no threads.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let isa = match setting(ISA_VARIABLE) {
            None => Isa::detect(),
            Some(name) => Isa::named(&name).ok_or_else(|| Error::Unavailable {
                device: "cpu".to_owned(),
                reason: format!(
                    "{ISA_VARIABLE}={name}, but this processor has {}",
                    Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
                ),
            })?,
        };
        let activations = match setting(ACTIVATIONS_VARIABLE).as_deref() {
            None | Some("int8") => QuantizedActivations::Int8,
            Some("f32") => QuantizedActivations::F32,
            Some(name) => {
                return Err(Error::Unavailable {
                    device: "cpu".to_owned(),
                    reason: format!("{ACTIVATIONS_VARIABLE}={name}, but there are int8 and f32"),
                });
            }
        };
        Ok(Self::with(threads, isa)?.with_activations(activations))
    }

    /// A device of `threads` threads and the instructions of `isa`.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn with(threads: Option<usize>, isa: Isa) -> Result<Self> {
        let threads = threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
        let pool = Pool::new(threads).map_err(|e| Error::Unavailable {
            device: "cpu".to_owned(),
            reason: format!("{threads} threads could not be started: {e}"),
        })?;
        Ok(Self { isa, activations: QuantizedActivations::default(), pool })
    }

    /// This device, with quantised weights met by `activations`.
    #[must_use]
    pub fn with_activations(self, activations: QuantizedActivations) -> Self {
        Self { activations, ..self }
    }

    /// Whether activations are quantised for quantised weights.
    fn is_quantizing(&self) -> bool {
        self.activations == QuantizedActivations::Int8 && !matches!(self.isa, Isa::Portable(_))
    }

    /// Threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set in use.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs `f(i, row)` on each of the rows of `out`, `width` long, on all threads where it pays.
    fn each_row(&self, out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        let rows = out.len().checked_div(width).unwrap_or(0);
        let parts = Parts::new(out);
        let grain = GRAIN.div_ceil(width.max(1)).max(1);
        self.pool.run_ranges(rows, grain, |range| {
            for row in range {
                // SAFETY: the ranges are disjoint, so each row is written by one thread.
                #[allow(unsafe_code)]
                f(row, unsafe { parts.get(row * width..(row + 1) * width) });
            }
        });
    }

    /// Runs `f(range, part)` on contiguous parts of `out`, on all threads where it pays.
    fn each_part(&self, out: &mut [f32], f: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync) {
        let len = out.len();
        let parts = Parts::new(out);
        self.pool.run_ranges(len, GRAIN, |range| {
            // SAFETY: the ranges are disjoint.
            #[allow(unsafe_code)]
            f(range.clone(), unsafe { parts.get(range) });
        });
    }
}
