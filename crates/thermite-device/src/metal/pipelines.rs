//! Kernels compiled at run time: a library a file, a pipeline a kernel, each on first use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLCompileOptions, MTLComputePipelineDescriptor, MTLComputePipelineState, MTLDevice, MTLLanguageVersion,
    MTLLibrary, MTLMathFloatingPointFunctions, MTLMathMode, MTLPipelineOption,
};
use thermite_kernels::catalogue;
use thermite_kernels::contract::{Access, Dispatch, bindable, contract_of};
use thermite_kernels::sources::{Source, headers};
use thermite_kernels::syntax::{Kernel, Role};

use super::source::self_contained;
use crate::{Error, Result};

/// Threads of a simdgroup, on which the kernels count.
const SIMDGROUP: usize = 32;
/// Threads that kernels with a threadgroup of any size are compiled for.
const MOST_THREADS: usize = 1024;

/// A kernel, ready to be launched.
pub(super) struct Pipeline {
    /// The kernel's name.
    pub name: Arc<str>,
    pub state: Retained<ProtocolObject<dyn MTLComputePipelineState>>,
    /// Index and access of each argument, in the order of the bindings; constants have no access.
    pub bindings: Vec<(usize, Option<Access>)>,
    /// Threads that a threadgroup may have.
    pub most_threads: usize,
}

type Library = Retained<ProtocolObject<dyn MTLLibrary>>;

/// The compiler and what it has compiled.
pub(super) struct Pipelines {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    compiled: Mutex<Compiled>,
}

/// What has been compiled. No kernel has function constants, so a name stands for all that a pipeline depends on.
#[derive(Default)]
struct Compiled {
    libraries: HashMap<&'static str, Library>,
    pipelines: HashMap<String, Arc<Pipeline>>,
}

impl Pipelines {
    pub(super) fn new(device: Retained<ProtocolObject<dyn MTLDevice>>) -> Self {
        Self { device, compiled: Mutex::default() }
    }

    /// The pipeline of `kernel`.
    ///
    /// # Errors
    /// [`Error::Launch`] with what the compiler says.
    pub(super) fn get(&self, kernel: &Kernel) -> Result<Arc<Pipeline>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = compiled.pipelines.get(&kernel.name) {
            return Ok(Arc::clone(found));
        }
        let failed = |reason: String| Error::Launch { kernel: kernel.name.clone(), reason };
        let found = catalogue::find(&kernel.name).map_err(|e| failed(e.to_string()))?;
        let source = found.ok_or_else(|| failed("no file has it".to_owned()))?.source;
        let library = match compiled.libraries.get(source.file) {
            Some(library) => library.clone(),
            None => {
                let library = self.compile(source).map_err(failed)?;
                compiled.libraries.insert(source.file, library.clone());
                library
            }
        };
        let pipeline = Arc::new(self.pipeline(kernel, &library).map_err(failed)?);
        compiled.pipelines.insert(kernel.name.clone(), Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// Compiles one file. Its floating-point arithmetic is IEEE's: NaN and infinities mean something to the kernels.
    pub(super) fn compile(&self, source: Source<'static>) -> std::result::Result<Library, String> {
        let text = self_contained(source.file, source.text, headers()).map_err(|e| e.to_string())?;
        let options = MTLCompileOptions::new();
        options.setLanguageVersion(MTLLanguageVersion::Version3_1); // the first with bfloat
        if objc2::available!(macos = 15.0) {
            options.setMathMode(MTLMathMode::Safe);
            // its own switch, fast by default even then: exp and tanh would be approximations
            options.setMathFloatingPointFunctions(MTLMathFloatingPointFunctions::Precise);
        } else {
            #[allow(deprecated, reason = "what there was before macOS 15")]
            options.setFastMathEnabled(false);
        }
        let text = NSString::from_str(&text);
        let library = self.device.newLibraryWithSource_options_error(&text, Some(&options));
        library.map_err(|e| format!("{} does not compile: {}", source.file, e.localizedDescription()))
    }

    fn pipeline(
        &self,
        kernel: &Kernel,
        library: &ProtocolObject<dyn MTLLibrary>,
    ) -> std::result::Result<Pipeline, String> {
        let contract = contract_of(&kernel.name).ok_or("it has no contract")?;
        let function = library.newFunctionWithName(&NSString::from_str(&kernel.name));
        let function = function.ok_or("its library does not have it")?;
        let descriptor = MTLComputePipelineDescriptor::new();
        descriptor.setLabel(Some(&NSString::from_str(&kernel.name)));
        descriptor.setComputeFunction(Some(&function));
        if kernel.max_threads.is_none() && !matches!(contract.dispatch, Dispatch::Groups { .. }) {
            // Otherwise the compiler may take so many registers that the widest rows cannot be launched.
            descriptor.setMaxTotalThreadsPerThreadgroup(MOST_THREADS);
        }
        let options = MTLPipelineOption::empty();
        let state = self.device.newComputePipelineStateWithDescriptor_options_reflection_error(
            &descriptor,
            options,
            None,
        );
        let state = state.map_err(|e| format!("no pipeline: {}", e.localizedDescription()))?;
        let width = state.threadExecutionWidth();
        if width != SIMDGROUP {
            return Err(format!("simdgroups have {width} threads, must have {SIMDGROUP}"));
        }
        let access =
            |name: &str| contract.buffers.iter().find(|rule| rule.name == name).map(|rule| rule.access);
        let bindings = bindable(kernel).into_iter().map(|(index, parameter)| match parameter.role {
            // a buffer that the contract does not know could be written
            Role::Buffer { .. } => (index, Some(access(&parameter.name).unwrap_or(Access::ReadWrite))),
            _ => (index, None),
        });
        Ok(Pipeline {
            name: Arc::from(kernel.name.as_str()),
            bindings: bindings.collect(),
            most_threads: state.maxTotalThreadsPerThreadgroup(),
            state,
        })
    }
}
