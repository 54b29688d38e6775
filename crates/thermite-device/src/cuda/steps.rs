//! Recorded decoding steps in one launch of threadgroups that stay.

use thermite_kernels::hopper::steps::{self, Recorded, THREADS};

use super::buffer::CudaBuffer;
use super::launcher::{CudaLauncher, Start};
use super::modules::Function;
use crate::launched::steps::ResidentSteps;
use crate::{Error, Result};

/// What takes the place of some recorded launches.
pub(super) struct CudaSteps {
    steps: ResidentSteps<CudaBuffer>,
    function: Function,
}

impl CudaLauncher {
    /// What takes the place of `launches`, if there is a plan for them on this GPU.
    pub(super) fn resident(&self, launches: &[Recorded]) -> Result<Option<CudaSteps>> {
        let Some(multiprocessors) = self.residents() else { return Ok(None) };
        let Some(plan) = steps::plan(launches, multiprocessors, self.shared_memory()?) else {
            return Ok(None);
        };
        let function = self.modules().steps(plan.variant)?;
        let steps = ResidentSteps::new(self, plan, CudaBuffer::address)?;
        Ok(Some(CudaSteps { steps, function }))
    }

    pub(super) fn start_resident(&self, CudaSteps { steps, function }: &CudaSteps) -> Result<()> {
        let (plan, mut program, mut count) = (&steps.plan, steps.program, steps.plan.steps);
        if THREADS > function.threads {
            let reason = format!("{THREADS} threads a threadgroup, this GPU has {}", function.threads);
            return Err(Error::Launch { kernel: steps::entry(), reason });
        }
        let pointers = vec![(&raw mut program).cast(), (&raw mut count).cast()];
        let (grid, block) = ([plan.threadgroups, 1, 1], [THREADS, 1, 1]);
        // SAFETY: the parameters are the function's; what the program's addresses name, the recorded launches used and
        // `steps` holds.
        unsafe {
            self.enqueue(
                &steps::entry(),
                function,
                grid,
                block,
                plan.shared_memory,
                Start::AllResident,
                pointers,
            )
        }
    }
}
