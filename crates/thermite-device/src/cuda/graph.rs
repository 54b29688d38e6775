//! Recorded launches: a CUDA graph, or decoding steps in one launch.

use std::fmt;

use cudarc::driver::CudaGraph;

use super::driver::failed;
use super::launcher::CudaLauncher;
use super::steps::CudaSteps;
use crate::Result;

/// Launches that were recorded, to be started by one call.
pub struct CudaRecording {
    what: What,
    launches: usize,
}

enum What {
    Graph(CudaGraph),
    Resident(Box<CudaSteps>),
}

// SAFETY: the driver wants one thread at a time to use a graph: the launcher's lock sees to it.
unsafe impl Send for CudaRecording {}
// SAFETY: as above.
unsafe impl Sync for CudaRecording {}

impl CudaRecording {
    pub(super) const fn graph(graph: CudaGraph, launches: usize) -> Self {
        Self { what: What::Graph(graph), launches }
    }

    pub(super) fn resident(steps: CudaSteps) -> Self {
        Self { what: What::Resident(Box::new(steps)), launches: 1 }
    }

    pub(super) fn start(&self, launcher: &CudaLauncher) -> Result<()> {
        match &self.what {
            What::Graph(graph) => graph.launch().map_err(|e| failed("cuGraphLaunch", e)),
            What::Resident(steps) => launcher.start_resident(steps),
        }
    }

    /// How many launches it holds.
    #[must_use]
    pub const fn launches(&self) -> usize {
        self.launches
    }
}

impl fmt::Debug for CudaRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} launches", self.launches)
    }
}
