//! Recorded decoding steps that one launch takes the place of.

use thermite_kernels::contract::Dims;
use thermite_kernels::hopper::steps::{Addresses, Plan, Program, Recorded, Value};
use thermite_kernels::syntax::Kernel;

use super::{Argument, Launcher};
use crate::{Dtype, Result};

/// A launch as it was recorded; `address`: of a buffer's element.
pub(crate) fn recorded<B>(
    kernel: &Kernel,
    dims: &Dims,
    arguments: &[Argument<'_, B>],
    address: impl Fn(&B, usize) -> u64,
) -> Recorded {
    let value = |argument: &Argument<'_, B>| match *argument {
        Argument::Buffer { buffer, first } => Value::Buffer(address(buffer, first)),
        Argument::Int(value) => Value::Int(value),
        Argument::Float(value) => Value::Float(value),
        Argument::Nil => Value::Nil,
    };
    Recorded {
        kernel: kernel.name.clone(),
        dims: dims.clone(),
        values: arguments.iter().map(value).collect(),
    }
}

/// A plan, and what it takes on the device.
#[derive(Debug)]
pub(crate) struct ResidentSteps<B> {
    pub(crate) plan: Plan,
    /// With all addresses.
    pub(crate) program: Program,
    /// Products, caches, mail, ballots, rounds.
    _memory: [B; 5],
}

impl<B> ResidentSteps<B> {
    pub(crate) fn new<L: Launcher<Buffer = B>>(
        launcher: &L,
        plan: Plan,
        address: impl Fn(&B, usize) -> u64,
    ) -> Result<Self> {
        let upload = |bytes: &[u8]| {
            let mut buffer = launcher.alloc(Dtype::U8, bytes.len())?;
            launcher.write(&mut buffer, bytes)?;
            Ok(buffer)
        };
        let memory = [
            upload(bytemuck::cast_slice(&plan.products))?,
            upload(bytemuck::cast_slice(&plan.caches))?,
            launcher.alloc(Dtype::F32, plan.mail as usize)?,
            launcher.alloc(Dtype::U32, 4 * plan.threadgroups as usize)?,
            launcher.alloc(Dtype::U32, 2)?,
        ];
        let [products, caches, mail, ballots, rounds] = memory.each_ref().map(|buffer| address(buffer, 0));
        let program = plan.program(Addresses { products, caches, mail, ballots, rounds });
        Ok(Self { plan, program, _memory: memory })
    }
}
