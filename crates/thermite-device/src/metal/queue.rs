//! Work on its way to the GPU: a command buffer that is being filled, and those that run.

#![allow(unsafe_code, reason = "binding arguments is unsafe, and command buffers are not marked as Send")]

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLBarrierScope, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue,
    MTLComputeCommandEncoder, MTLDevice, MTLDispatchType, MTLSize,
};
use thermite_kernels::contract::{Access, Launch};

use super::buffer::MetalBuffer;
use super::fault::{self, Ran};
use super::hazards::{BufferId, Hazards};
use super::pipelines::Pipeline;
use super::residency::Residency;
use crate::launched::Argument;
use crate::{Error, Result};

/// Launches in one command buffer: a token's are fewer; a long prompt's are cut, so that the GPU begins before all are
/// encoded and no command buffer runs into the system's time limit.
const MOST_LAUNCHES: usize = 512;
/// Command buffers under way at once.
const MOST_COMMITTED: usize = 8;

type CommandBuffer = Retained<ProtocolObject<dyn MTLCommandBuffer>>;
type Encoder = Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>;

/// A command queue and what has been put in it. Everything takes effect in the order in which it was put in.
pub(super) struct Queue {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    residency: Option<Arc<Residency>>,
    raw: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    open: Option<Open>,
    committed: VecDeque<(CommandBuffer, Ran)>,
    hazards: Hazards,
    /// Bytes of each threadgroup argument, as the encoder has them.
    threadgroup_memory: Vec<u32>,
}

/// The command buffer that is being filled.
struct Open {
    buffer: CommandBuffer,
    encoder: Option<Encoder>,
    ran: Ran,
}

// SAFETY: command buffers and encoders are bound to no thread, only to one thread at a time; a queue's are reached through
// `&mut self` alone.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) fn new(
        device: Retained<ProtocolObject<dyn MTLDevice>>,
        residency: Option<Arc<Residency>>,
    ) -> Result<Self> {
        let raw = raw_queue(&device, residency.as_deref())?;
        let (committed, hazards) = (VecDeque::new(), Hazards::default());
        Ok(Self { device, residency, raw, open: None, committed, hazards, threadgroup_memory: Vec::new() })
    }

    /// Puts in one launch, after a barrier where what it uses is not ready. The arguments lie in the order of the
    /// pipeline's bindings, and fit them.
    pub(super) fn launch(
        &mut self,
        pipeline: &Pipeline,
        geometry: &Launch,
        arguments: &[Argument<'_, MetalBuffer>],
    ) -> Result<()> {
        let encoder = self.encoder()?;
        let uses: Vec<_> = pipeline
            .bindings
            .iter()
            .zip(arguments)
            .filter_map(|(&(_, access), argument)| match argument {
                Argument::Buffer { buffer, .. } => Some((buffer.id(), access?)),
                _ => None,
            })
            .collect();
        if self.hazards.launch(&uses) {
            encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        }
        encoder.setComputePipelineState(&pipeline.state);
        for (&(index, _), argument) in pipeline.bindings.iter().zip(arguments) {
            bind(&encoder, index, argument);
        }
        self.size_threadgroup_memory(&encoder, &geometry.threadgroup_memory);
        encoder.dispatchThreadgroups_threadsPerThreadgroup(size(geometry.grid), size(geometry.threadgroup));
        self.ran(&pipeline.name)
    }

    /// Sets the length of each threadgroup argument. Those that an earlier launch left at higher indices shrink to the
    /// least: lengths stay with the encoder, and their sum may count against the device's limit.
    fn size_threadgroup_memory(
        &mut self,
        encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>,
        lengths: &[u32],
    ) {
        let set = self.threadgroup_memory.len().max(lengths.len());
        self.threadgroup_memory.resize(set, 0);
        for (index, now) in self.threadgroup_memory.iter_mut().enumerate() {
            let wanted = lengths.get(index).copied().unwrap_or(0).max(1).next_multiple_of(16);
            if *now != wanted {
                // SAFETY: within the device's limit by the launch's geometry, and a multiple of 16 as Metal wants it.
                unsafe { encoder.setThreadgroupMemoryLength_atIndex(wanted as usize, index) };
                *now = wanted;
            }
        }
    }

    /// Puts in work that encodes itself, such as a product of Metal Performance Shaders.
    pub(super) fn encode(
        &mut self,
        name: &Arc<str>,
        uses: &[(BufferId, Access)],
        encode: impl FnOnce(&ProtocolObject<dyn MTLCommandBuffer>),
    ) -> Result<()> {
        self.end_encoder();
        self.hazards.launch(uses);
        encode(&self.open()?.buffer);
        self.hazards.end_encoder();
        self.ran(name)
    }

    /// Whether work that has not been waited for uses a buffer.
    pub(super) fn uses(&self, id: BufferId) -> bool {
        self.hazards.is_unfinished(id)
    }

    /// Starts everything and waits for it.
    ///
    /// # Errors
    /// The first failure, by what ran. All that was under way has ended then, and the queue takes new work.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.commit();
        self.drain(Ok(()))
    }

    /// Waits for all that is committed; the first failure counts, beginning with `outcome`.
    fn drain(&mut self, mut outcome: Result<()>) -> Result<()> {
        while let Some((buffer, ran)) = self.committed.pop_front() {
            outcome = outcome.and(self.wait(&buffer, &ran));
        }
        self.hazards.finish();
        if outcome.is_err() {
            // the system refuses further work on a queue whose work hung or faulted
            self.raw =
                raw_queue(&self.device, self.residency.as_deref()).unwrap_or_else(|_| self.raw.clone());
        }
        outcome
    }

    /// Notes a launch, and cuts the command buffer where it is long enough.
    fn ran(&mut self, name: &Arc<str>) -> Result<()> {
        let open = self.open()?;
        open.ran.add(name);
        if open.ran.launches() < MOST_LAUNCHES {
            return Ok(());
        }
        self.commit();
        if self.committed.len() < MOST_COMMITTED {
            return Ok(());
        }
        let Some((buffer, ran)) = self.committed.pop_front() else { return Ok(()) };
        // if the oldest failed, so did what was built on it
        self.wait(&buffer, &ran).or_else(|fault| self.drain(Err(fault)))
    }

    /// Starts the command buffer that is being filled.
    fn commit(&mut self) {
        self.end_encoder();
        if let Some(Open { buffer, ran, .. }) = self.open.take() {
            if let Some(residency) = &self.residency {
                residency.touch();
            }
            buffer.commit();
            self.committed.push_back((buffer, ran));
        }
    }

    fn wait(&self, buffer: &ProtocolObject<dyn MTLCommandBuffer>, ran: &Ran) -> Result<()> {
        buffer.waitUntilCompleted();
        if buffer.status() == MTLCommandBufferStatus::Completed {
            return Ok(());
        }
        let device = self.device.name().to_string();
        Err(match buffer.error() {
            Some(error) => {
                let (domain, message) =
                    (error.domain().to_string(), error.localizedDescription().to_string());
                fault::error(&device, ran, &domain, error.code(), &message)
            }
            None => fault::error(&device, ran, "status", buffer.status().0 as isize, "no reason given"),
        })
    }

    fn open(&mut self) -> Result<&mut Open> {
        if let Some(ref mut open) = self.open {
            return Ok(open);
        }
        let buffer = self.raw.commandBuffer().ok_or_else(|| self.unavailable("no command buffer"))?;
        Ok(self.open.insert(Open { buffer, encoder: None, ran: Ran::default() }))
    }

    /// The encoder of the command buffer that is being filled.
    fn encoder(&mut self) -> Result<Encoder> {
        let open = self.open()?;
        if let Some(encoder) = &open.encoder {
            return Ok(encoder.clone());
        }
        match open.buffer.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent) {
            Some(encoder) => {
                open.encoder = Some(encoder.clone());
                Ok(encoder)
            }
            None => Err(self.unavailable("no compute encoder")),
        }
    }

    fn end_encoder(&mut self) {
        if let Some(encoder) = self.open.as_mut().and_then(|open| open.encoder.take()) {
            encoder.endEncoding();
        }
        self.threadgroup_memory.clear();
        self.hazards.end_encoder();
    }

    fn unavailable(&self, reason: &str) -> Error {
        Error::Unavailable { device: self.device.name().to_string(), reason: reason.to_owned() }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // an encoder that is released before it has ended brings the process down
        self.end_encoder();
    }
}

fn raw_queue(
    device: &ProtocolObject<dyn MTLDevice>,
    residency: Option<&Residency>,
) -> Result<Retained<ProtocolObject<dyn MTLCommandQueue>>> {
    let queue = device.newCommandQueue().ok_or_else(|| Error::Unavailable {
        device: device.name().to_string(),
        reason: "no command queue".to_owned(),
    })?;
    if let Some(residency) = residency {
        residency.attach(&queue);
    }
    Ok(queue)
}

/// Binds one argument. Nil is bound as nil, which also takes away what an earlier launch left at the index: the kernel sees
/// a null pointer and tests for it (`mean != nullptr`). Metal's API validation (`MTL_DEBUG_LAYER=1`) reports an argument
/// that is used and has no buffer; a dummy in its place would be written to, so that report is what one lives with. The
/// self-test launches such kernels.
fn bind(
    encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>,
    index: usize,
    argument: &Argument<'_, MetalBuffer>,
) {
    let constant = |bits: u32| {
        // SAFETY: Metal copies the four bytes before it returns; the index is a constant of four bytes in the kernel.
        unsafe {
            let bytes = NonNull::from(&bits).cast::<c_void>();
            encoder.setBytes_length_atIndex(bytes, size_of::<u32>(), index);
        }
    };
    match *argument {
        // SAFETY: the command buffer retains the buffer; index, type and length were checked against the kernel's
        // signature and contract, and `first` lies within the buffer.
        Argument::Buffer { buffer, first } => unsafe {
            let offset = buffer.start() + first * buffer.shape().0.bytes();
            encoder.setBuffer_offset_atIndex(Some(buffer.raw()), offset, index);
        },
        // SAFETY: the kernel's contract allows nil here.
        Argument::Nil => unsafe { encoder.setBuffer_offset_atIndex(None, 0, index) },
        Argument::Int(value) => constant(value.cast_unsigned()),
        Argument::Float(value) => constant(value.to_bits()),
    }
}

const fn size([width, height, depth]: [u32; 3]) -> MTLSize {
    MTLSize { width: width as usize, height: height as usize, depth: depth as usize }
}
