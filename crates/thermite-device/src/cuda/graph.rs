//! Recorded launches: a CUDA graph.

use std::fmt;

use cudarc::driver::CudaGraph;

use super::driver::failed;
use crate::Result;

/// Launches that were recorded, to be started by one call.
pub struct CudaRecording {
    graph: CudaGraph,
    launches: usize,
}

// SAFETY: the driver wants one thread at a time to use a graph: the launcher's lock sees to it.
unsafe impl Send for CudaRecording {}
// SAFETY: as above.
unsafe impl Sync for CudaRecording {}

impl CudaRecording {
    pub(super) const fn new(graph: CudaGraph, launches: usize) -> Self {
        Self { graph, launches }
    }

    pub(super) fn start(&self) -> Result<()> {
        self.graph.launch().map_err(|e| failed("cuGraphLaunch", e))
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
