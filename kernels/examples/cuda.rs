//! Runs the conformance suite on an NVIDIA GPU, from modules that the example `nvrtc` compiled; needs its driver alone:
//!
//! ```text
//! cargo run -p thermite-kernels --example cuda -- FOLDER [NAME...]
//! ```
#![allow(unsafe_code)] // CUDA's driver interface, loaded at run time.

use std::collections::HashMap;
use std::env;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::ExitCode;
use std::ptr;
use std::time::Instant;

use half::{bf16, f16};
use libloading::{Library, Symbol};
use thermite_kernels::catalogue;
use thermite_kernels::conformance::{Argument, Case, Data, Runner, check, each_case_of};
use thermite_kernels::contract::{Limits, bindable, launch};
use thermite_kernels::syntax::Role;
use thermite_kernels::wrap::cuda_entry;

const LARGE_MEMORY: u32 = 48 * 1024;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;

#[derive(Debug, thiserror::Error)]
enum CudaError {
    #[error("{call} returns {code}")]
    Driver { call: &'static str, code: c_int },
    #[error("{0}")]
    Other(String),
}

type Handle = *mut c_void;
type Address = u64;

struct Gpu {
    driver: Library,
    functions: HashMap<String, Handle>,
}

/// Calls a driver function; the types are those of cuda.h.
macro_rules! call {
    ($driver:expr, $name:literal, ($($type:ty),*), ($($argument:expr),*)) => {{
        let name: &'static str = $name;
        // SAFETY: the signature is that of cuda.h, and every pointer outlives the call.
        let code = unsafe {
            let function: Symbol<'_, unsafe extern "C" fn($($type),*) -> c_int> =
                $driver.get(name.as_bytes()).map_err(|e| CudaError::Other(e.to_string()))?;
            function($($argument),*)
        };
        if code == 0 { Ok(()) } else { Err(CudaError::Driver { call: name, code }) }
    }};
}

impl Gpu {
    fn new(folder: &Path) -> Result<Self, CudaError> {
        let other = |e: &dyn std::fmt::Display| CudaError::Other(e.to_string());
        // SAFETY: the driver's constructors ask nothing of the caller.
        let driver = unsafe { Library::new("libcuda.so.1") }.map_err(|e| other(&e))?;
        let (mut device, mut context): (c_int, Handle) = (0, ptr::null_mut());
        call!(driver, "cuInit", (c_uint), (0))?;
        call!(driver, "cuDeviceGet", (*mut c_int, c_int), (&mut device, 0))?;
        call!(driver, "cuDevicePrimaryCtxRetain", (*mut Handle, c_int), (&mut context, device))?;
        call!(driver, "cuCtxSetCurrent", (Handle), (context))?;
        let mut functions = HashMap::new();
        let mut modules = HashMap::new();
        for entry in catalogue::kernels().map_err(|e| other(&e))? {
            let file = entry.source.file;
            if !modules.contains_key(file) {
                let path = folder.join(file).with_extension("cubin");
                let image = std::fs::read(&path).map_err(|e| other(&format!("{}: {e}", path.display())))?;
                let mut module: Handle = ptr::null_mut();
                call!(driver, "cuModuleLoadData", (*mut Handle, *const u8), (&mut module, image.as_ptr()))?;
                modules.insert(file, module);
            }
            let name = CString::new(cuda_entry(&entry.kernel.name)).map_err(|e| other(&e))?;
            let mut function: Handle = ptr::null_mut();
            call!(
                driver,
                "cuModuleGetFunction",
                (*mut Handle, Handle, *const c_char),
                (&mut function, modules[file], name.as_ptr())
            )?;
            functions.insert(entry.kernel.name.clone(), function);
        }
        Ok(Self { driver, functions })
    }

    fn upload(&self, bytes: &[u8]) -> Result<Address, CudaError> {
        let mut address: Address = 0;
        call!(self.driver, "cuMemAlloc_v2", (*mut Address, usize), (&mut address, bytes.len().max(1)))?;
        call!(
            self.driver,
            "cuMemcpyHtoD_v2",
            (Address, *const u8, usize),
            (address, bytes.as_ptr(), bytes.len())
        )?;
        Ok(address)
    }

    fn download(&self, address: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        call!(
            self.driver,
            "cuMemcpyDtoH_v2",
            (*mut u8, Address, usize),
            (bytes.as_mut_ptr(), address, bytes.len())
        )
    }
}

impl Runner for Gpu {
    type Error = CudaError;

    fn launch(&mut self, case: &Case) -> Result<Vec<Option<Data>>, CudaError> {
        let other = |e: &dyn std::fmt::Display| CudaError::Other(e.to_string());
        let entry = catalogue::find(&case.kernel).map_err(|e| other(&e))?;
        let kernel = &entry.ok_or_else(|| other(&"no such kernel"))?.kernel;
        let geometry = launch(&case.kernel, &case.dims, &Limits { ..case.limits }).map_err(|e| other(&e))?;

        // Values by buffer index; then in the order of the parameters, as the wrapper takes them.
        let mut values: HashMap<usize, u64> = HashMap::new();
        let mut buffers = Vec::new();
        for ((index, _), argument) in bindable(kernel).into_iter().zip(&case.arguments) {
            let value = match argument {
                Argument::Buffer(data) => {
                    let address = self.upload(&bytes_of(data))?;
                    buffers.push(Some((address, data)));
                    address
                }
                Argument::Int(v) => v.cast_unsigned().into(),
                Argument::Float(v) => v.to_bits().into(),
                Argument::Nil => 0,
            };
            if !matches!(argument, Argument::Buffer(_)) {
                buffers.push(None);
            }
            values.insert(index, value);
        }
        let mut parameters: Vec<u64> = Vec::new();
        for parameter in &kernel.parameters {
            if let Role::Buffer { index, .. } | Role::Constant { index } = parameter.role {
                parameters.push(values[&index]);
            }
        }
        let mut shared = 0;
        for (i, bytes) in geometry.threadgroup_memory.iter().enumerate() {
            if i > 0 {
                parameters.push(shared.into());
            }
            shared += bytes;
        }
        let mut pointers: Vec<*mut u64> = parameters.iter_mut().map(ptr::from_mut).collect();
        let function = self.functions[&case.kernel];
        if shared > LARGE_MEMORY {
            let (attribute, bytes) = (MAX_DYNAMIC_SHARED_SIZE_BYTES, shared as c_int);
            call!(self.driver, "cuFuncSetAttribute", (Handle, c_int, c_int), (function, attribute, bytes))?;
        }
        if !geometry.is_empty() {
            let mut grid = geometry.grid;
            grid.iter_mut().zip(case.surplus).for_each(|(g, s)| *g += s);
            let threads = geometry.threadgroup;
            call!(
                self.driver,
                "cuLaunchKernel",
                (
                    Handle,
                    c_uint,
                    c_uint,
                    c_uint,
                    c_uint,
                    c_uint,
                    c_uint,
                    c_uint,
                    Handle,
                    *mut *mut u64,
                    Handle
                ),
                (
                    function,
                    grid[0],
                    grid[1],
                    grid[2],
                    threads[0],
                    threads[1],
                    threads[2],
                    shared,
                    ptr::null_mut(),
                    pointers.as_mut_ptr(),
                    ptr::null_mut()
                )
            )?;
            call!(self.driver, "cuCtxSynchronize", (), ())?;
        }
        let mut contents = Vec::new();
        for buffer in buffers {
            let Some((address, before)) = buffer else {
                contents.push(None);
                continue;
            };
            let mut bytes = bytes_of(before);
            self.download(address, &mut bytes)?;
            call!(self.driver, "cuMemFree_v2", (Address), (address))?;
            contents.push(Some(data_of(before, &bytes)));
        }
        Ok(contents)
    }
}

fn bytes_of(data: &Data) -> Vec<u8> {
    match data {
        Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::Bf16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U8(v) => v.clone(),
    }
}

fn data_of(before: &Data, bytes: &[u8]) -> Data {
    let words = || bytes.as_chunks::<4>().0.iter().copied();
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match before {
        Data::F32(_) => Data::F32(words().map(f32::from_le_bytes).collect()),
        Data::F16(_) => Data::F16(halves().map(f16::from_le_bytes).collect()),
        Data::Bf16(_) => Data::Bf16(halves().map(bf16::from_le_bytes).collect()),
        Data::I32(_) => Data::I32(words().map(i32::from_le_bytes).collect()),
        Data::U32(_) => Data::U32(words().map(u32::from_le_bytes).collect()),
        Data::U8(_) => Data::U8(bytes.to_vec()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let Some((folder, names)) = arguments.split_first() else {
        eprintln!("usage: cuda FOLDER [NAME...]");
        return ExitCode::from(2);
    };
    let start = Instant::now();
    let mut gpu = match Gpu::new(Path::new(folder)) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let wanted = |kernel: &str| names.is_empty() || names.iter().any(|n| kernel.starts_with(n.as_str()));
    let (mut count, mut failed) = (0, 0);
    let visited = each_case_of(&wanted, &mut |case| {
        count += 1;
        if let Err(failure) = check(&mut gpu, &case) {
            failed += 1;
            println!("FAILED {failure}");
        }
    });
    if let Err(error) = visited {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    println!("{count} cases, {failed} failed, {:.1} s", start.elapsed().as_secs_f64());
    if failed == 0 && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
