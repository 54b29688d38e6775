//! Loaded machine code: a module a `.metal` file, a function a kernel.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{result, sys};
use thermite_kernels::catalogue;
use thermite_kernels::hopper::steps::{self, Variant};
use thermite_kernels::hopper::{self, Replacement};
use thermite_kernels::sources::sources;
use thermite_kernels::syntax::{Kernel, Role};
use thermite_kernels::wrap::{CudaProgram, cuda_entry, cuda_program};

use super::cache::{Cache, Key};
use super::compile;
use super::driver::{Gpu, failed, words};
use crate::{Error, Result};

/// Dynamic shared memory that a kernel may have without being told.
const PLAIN_SHARED_MEMORY: u32 = 48 * 1024;

/// A kernel on the GPU.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) handle: sys::CUfunction,
    /// The bindings by index that its parameters are, in their order; the index is into the bindings that a launch gives.
    pub(super) parameters: Vec<usize>,
    /// Most dynamic shared memory that it may be launched with.
    pub(super) shared_memory: u32,
    /// Most threads a block.
    pub(super) threads: u32,
}

// SAFETY: the handle is a name that the driver knows; it takes it from any thread.
unsafe impl Send for Function {}

/// Compiles and loads each file when the first of its kernels is asked for.
pub(super) struct Modules {
    gpu: Arc<Gpu>,
    cache: Cache,
    options: Vec<String>,
    compiler: (i32, i32),
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, sys::CUmodule>,
    functions: HashMap<String, Function>,
    steps: HashMap<Variant, Function>,
}

// SAFETY: as for functions.
unsafe impl Send for Loaded {}

impl Modules {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        Ok(Self {
            gpu: gpu.clone(),
            cache: Cache::of_user(),
            options: compile::options(gpu.capability),
            compiler: compile::version().map_err(super::driver::unavailable)?,
            loaded: Mutex::default(),
        })
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function of `kernel`.
    pub(super) fn get(&self, kernel: &Kernel) -> Result<Function> {
        let mut loaded = self.loaded();
        if let Some(function) = loaded.functions.get(&kernel.name) {
            return Ok(function.clone());
        }
        let refused = |reason: String| Error::Launch { kernel: kernel.name.clone(), reason };
        let found = catalogue::find(&kernel.name).map_err(|e| refused(e.to_string()))?;
        let source = found.ok_or_else(|| refused("there is no such kernel".to_owned()))?.source;
        let program = || cuda_program(source).map_err(|e| refused(e.to_string()));
        let module = self.module(&mut loaded, &kernel.name, source.file, program)?;
        let function = self.function(&kernel.name, &cuda_entry(&kernel.name), parameters(kernel), module)?;
        loaded.functions.insert(kernel.name.clone(), function.clone());
        Ok(function)
    }

    /// The function that takes the place of `kernel`.
    pub(super) fn replacement(&self, kernel: &Kernel, replacement: &Replacement) -> Result<Function> {
        let mut loaded = self.loaded();
        let key = format!("{}: {}", replacement.file, kernel.name);
        if let Some(function) = loaded.functions.get(&key) {
            return Ok(function.clone());
        }
        let absent = || Error::Launch {
            kernel: kernel.name.clone(),
            reason: format!("there is no {}", replacement.file),
        };
        let program = || hopper::program(replacement.file).ok_or_else(absent);
        let module = self.module(&mut loaded, &kernel.name, replacement.file, program)?;
        let function = self.function(&kernel.name, &replacement.entry, Vec::new(), module)?;
        if replacement.large_clusters {
            let attribute =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
            // SAFETY: the function is there.
            unsafe { result::function::set_function_attribute(function.handle, attribute, 1) }
                .map_err(|e| failed("cuFuncSetAttribute", e))?;
        }
        loaded.functions.insert(key, function.clone());
        Ok(function)
    }

    /// The function that runs decoding steps.
    pub(super) fn steps(&self, variant: Variant) -> Result<Function> {
        let mut loaded = self.loaded();
        if let Some(function) = loaded.steps.get(&variant) {
            return Ok(function.clone());
        }
        let entry = steps::entry();
        let code = self.code(steps::FILE, &variant.program());
        let code = code.map_err(|reason| Error::Launch { kernel: entry.clone(), reason })?;
        let module = self.load(steps::FILE, &code)?;
        let function = self.function(&entry, &entry, Vec::new(), module)?;
        loaded.steps.insert(variant, function.clone());
        Ok(function)
    }

    /// Compiles what the cache does not have yet, all files at a time; `with_hopper`: the replacements as well.
    pub(super) fn compile_all(&self, with_hopper: bool) {
        std::thread::scope(|scope| {
            // what fails here is met again, and reported, when a kernel of the file is asked for
            for source in sources() {
                scope.spawn(move || {
                    cuda_program(source).is_ok_and(|program| self.code(source.file, &program).is_ok())
                });
            }
            for file in hopper::files().filter(|_| with_hopper) {
                scope.spawn(move || {
                    hopper::program(file).is_some_and(|program| self.code(file, &program).is_ok())
                });
            }
        });
    }

    /// The module of a file, loaded when it is first asked for.
    fn module(
        &self,
        loaded: &mut Loaded,
        kernel: &str,
        file: &'static str,
        program: impl FnOnce() -> Result<CudaProgram>,
    ) -> Result<sys::CUmodule> {
        if let Some(&module) = loaded.modules.get(file) {
            return Ok(module);
        }
        let code = self.code(file, &program()?);
        let code = code.map_err(|reason| Error::Launch { kernel: kernel.to_owned(), reason })?;
        let module = self.load(file, &code)?;
        loaded.modules.insert(file, module);
        Ok(module)
    }

    /// The machine code of a file: from the cache, or compiled.
    fn code(&self, file: &str, program: &CudaProgram) -> std::result::Result<Vec<u8>, String> {
        let mut texts = vec![(file, program.source.as_str())];
        texts.extend(program.headers.iter().copied());
        let driver = self.gpu.driver_version;
        let name = Key { texts: &texts, options: &self.options, compiler: self.compiler, driver }.name();
        if let Some(code) = self.cache.read(&name) {
            return Ok(code);
        }
        let code = compile::compile(file, program, &self.options)?;
        // a folder that cannot be written costs time at the next start, nothing else
        let _ = self.cache.write(&name, &code);
        Ok(code)
    }

    fn load(&self, file: &str, code: &[u8]) -> Result<sys::CUmodule> {
        self.gpu.bind()?;
        // SAFETY: the bytes are those of a module of machine code.
        unsafe { result::module::load_data(code.as_ptr().cast::<c_void>()) }.map_err(|e| Error::Launch {
            kernel: file.to_owned(),
            reason: format!("cuModuleLoadData: {}", words(e)),
        })
    }

    fn function(
        &self,
        kernel: &str,
        entry: &str,
        parameters: Vec<usize>,
        module: sys::CUmodule,
    ) -> Result<Function> {
        use sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as MOST_SHARED;
        use sys::CUfunction_attribute_enum as Attribute;
        let refused = |reason: String| Error::Launch { kernel: kernel.to_owned(), reason };
        let name = CString::new(entry).map_err(|e| refused(e.to_string()))?;
        // SAFETY: the module is loaded.
        let handle = unsafe { result::module::get_function(module, name) }
            .map_err(|e| refused(format!("cuModuleGetFunction: {}", words(e))))?;
        let attribute = |attribute| {
            // SAFETY: the function is there.
            let value = unsafe { result::function::get_function_attribute(handle, attribute) };
            value.map(i32::cast_unsigned).map_err(|e| failed("cuFuncGetAttribute", e))
        };
        let fixed = attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let most = self.gpu.attribute(MOST_SHARED)?.cast_unsigned().saturating_sub(fixed);
        if most > PLAIN_SHARED_MEMORY {
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is there, and the GPU has so much.
            unsafe { result::function::set_function_attribute(handle, attribute, most.cast_signed()) }
                .map_err(|e| failed("cuFuncSetAttribute", e))?;
        }
        Ok(Function {
            handle,
            parameters,
            shared_memory: most,
            threads: attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        })
    }
}

/// Where the parameters of the wrapper stand among the bindings, which go by buffer index.
fn parameters(kernel: &Kernel) -> Vec<usize> {
    let index = |role: &Role| match role {
        Role::Buffer { index, .. } | Role::Constant { index } => Some(*index),
        Role::Threadgroup { .. } | Role::Position { .. } => None,
    };
    let written: Vec<usize> = kernel.parameters.iter().filter_map(|p| index(&p.role)).collect();
    let mut sorted = written.clone();
    sorted.sort_unstable();
    written.iter().map(|index| sorted.partition_point(|other| other < index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_among_the_bindings() {
        let text = "kernel void k(device float* c [[buffer(7)]], threadgroup float* s [[threadgroup(0)]],\n\
                    constant int& a [[buffer(0)]], device float* b [[buffer(3)]], uint i [[thread_position_in_grid]]) {}";
        let kernels = thermite_kernels::syntax::parse("k.metal", text).unwrap();
        assert_eq!(parameters(&kernels[0]), [2, 0, 1]);
    }
}
