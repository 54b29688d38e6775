//! Compiles every kernel file with NVRTC for one architecture; needs NVRTC's library and no GPU:
//!
//! ```text
//! cargo run -p thermite-kernels --example nvrtc -- PATH/libnvrtc.so.13 [sm_90 [FOLDER]]
//! ```
//!
//! With FOLDER, the compiled modules are left there, for the example `cuda`.
#![allow(unsafe_code)] // NVRTC's C interface, loaded at run time.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs, ptr};

use libloading::{Library, Symbol};
use thermite_kernels::hopper;
use thermite_kernels::hopper::steps::Variant;
use thermite_kernels::sources::sources;
use thermite_kernels::wrap::{CudaProgram, NVRTC_OPTIONS, cuda_entry, cuda_program};

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let Some(path) = arguments.first() else {
        eprintln!("usage: nvrtc PATH/libnvrtc.so.13 [ARCHITECTURE]");
        return ExitCode::from(2);
    };
    let architecture = arguments.get(1).map_or("sm_90", String::as_str);
    match compile_all(path, architecture, arguments.get(2).map(Path::new)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("{failed} files fail");
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn compile_all(path: &str, architecture: &str, folder: Option<&Path>) -> Result<usize, String> {
    // SAFETY: NVRTC has no constructors that ask anything of the caller.
    let library = unsafe { Library::new(path) }.map_err(|e| format!("{path}: {e}"))?;
    let mut failed = 0;
    for source in sources() {
        let program = cuda_program(source).map_err(|e| e.to_string())?;
        failed += usize::from(!compile_one(&library, source.file, &program, architecture, folder));
    }
    for file in hopper::files() {
        let program = hopper::program(file).ok_or_else(|| format!("{file} is not embedded"))?;
        failed += usize::from(!compile_one(&library, file, &program, "sm_90a", folder));
    }
    for (variant, name) in Variant::samples().into_iter().zip(["steps.1.cu", "steps.2.cu", "steps.3.cu"]) {
        failed += usize::from(!compile_one(&library, name, &variant.program(), "sm_90a", folder));
    }
    Ok(failed)
}

/// Compiles a file, leaves its module in `folder`, and says how it went.
fn compile_one(
    library: &Library,
    file: &str,
    program: &CudaProgram,
    architecture: &str,
    folder: Option<&Path>,
) -> bool {
    let start = Instant::now();
    let result = compile(library, file, program, architecture).and_then(|module| {
        look_at(&module.ptx, program)?;
        let Some(folder) = folder else { return Ok(()) };
        let path =
            folder.join(file).with_extension(if file.ends_with(".cu") { "hopper.cubin" } else { "cubin" });
        fs::write(&path, module.cubin).map_err(|e| format!("{}: {e}", path.display()))
    });
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(()) => println!("{file}: compiled for {architecture}, {seconds:.1} s"),
        Err(message) => println!("{file}: {message}"),
    }
    result.is_ok()
}

/// Every kernel must be there, and none may have slipped into double precision.
fn look_at(ptx: &str, program: &CudaProgram) -> Result<(), String> {
    for kernel in &program.kernels {
        let entry = format!(".entry {}(", cuda_entry(&kernel.name));
        if !ptx.contains(&entry) {
            return Err(format!("the compiled module lacks {}", kernel.name));
        }
    }
    let double = ptx.lines().find(|line| line.contains(".f64"));
    double.map_or(Ok(()), |line| Err(format!("arithmetic in double precision: {}", line.trim())))
}

struct Module {
    ptx: String,
    cubin: Vec<u8>,
}

/// The compiled program, or the compiler's log.
fn compile(
    library: &Library,
    file: &str,
    program: &CudaProgram,
    architecture: &str,
) -> Result<Module, String> {
    let c_string = |text: &str| CString::new(text).map_err(|e| e.to_string());
    let (source, name) = (c_string(&program.source)?, c_string(file)?);
    let names: Vec<_> = program.headers.iter().map(|h| c_string(h.0)).collect::<Result<_, _>>()?;
    let texts: Vec<_> = program.headers.iter().map(|h| c_string(h.1)).collect::<Result<_, _>>()?;
    let architecture = format!("--gpu-architecture={architecture}");
    let options = NVRTC_OPTIONS.iter().copied().chain([architecture.as_str()]);
    let options: Vec<_> = options.map(c_string).collect::<Result<_, _>>()?;
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let (name_pointers, text_pointers, option_pointers) =
        (pointers(&names), pointers(&texts), pointers(&options));

    let mut handle: Program = ptr::null_mut();
    // SAFETY: the signatures are those of nvrtc.h, and every pointer outlives the calls.
    let code = unsafe {
        let create: Symbol<'_, Create> = library.get(b"nvrtcCreateProgram").map_err(|e| e.to_string())?;
        let compile: Symbol<'_, Compile> = library.get(b"nvrtcCompileProgram").map_err(|e| e.to_string())?;
        let count = program.headers.len() as c_int;
        let created = create(
            &mut handle,
            source.as_ptr(),
            name.as_ptr(),
            count,
            text_pointers.as_ptr(),
            name_pointers.as_ptr(),
        );
        if created != 0 {
            return Err(format!("nvrtcCreateProgram returns {created}"));
        }
        compile(handle, options.len() as c_int, option_pointers.as_ptr())
    };
    if code == 0 {
        let ptx = output(library, handle, b"nvrtcGetPTXSize", b"nvrtcGetPTX")?;
        let cubin = output(library, handle, b"nvrtcGetCUBINSize", b"nvrtcGetCUBIN")?;
        return Ok(Module { ptx: text(&ptx), cubin });
    }
    Err(text(&output(library, handle, b"nvrtcGetProgramLogSize", b"nvrtcGetProgramLog")?))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn output(
    library: &Library,
    program: Program,
    size_name: &[u8],
    text_name: &[u8],
) -> Result<Vec<u8>, String> {
    let mut size = 0;
    // SAFETY: as in `compile`; the buffer has the size that NVRTC asks for.
    unsafe {
        let get_size: Symbol<'_, Size> = library.get(size_name).map_err(|e| e.to_string())?;
        let get_text: Symbol<'_, Text> = library.get(text_name).map_err(|e| e.to_string())?;
        get_size(program, &mut size);
        let mut buffer = vec![0u8; size];
        get_text(program, buffer.as_mut_ptr().cast());
        Ok(buffer)
    }
}
