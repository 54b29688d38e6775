//! NVRTC: from a `.metal` file, its wrappers and the dialect's headers to machine code.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use cudarc::nvrtc::result::{self, NvrtcError};
use cudarc::nvrtc::sys;
use thermite_kernels::wrap::{CudaProgram, NVRTC_OPTIONS};

/// The options for compute capability `major.minor`: from 9.0 on with the instructions of that chip alone.
pub(super) fn options((major, minor): (i32, i32)) -> Vec<String> {
    let own = if major >= 9 { "a" } else { "" };
    let architecture = format!("--gpu-architecture=sm_{major}{minor}{own}");
    NVRTC_OPTIONS.iter().map(|&option| option.to_owned()).chain([architecture]).collect()
}

/// The compiler's version.
pub(super) fn version() -> Result<(i32, i32), String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both addresses are those of ints.
    let asked = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    asked.result().map_err(|e| format!("nvrtcVersion: {e}"))?;
    Ok((major, minor))
}

/// A program of the compiler, freed at the end.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created, and not used any more. A destructor cannot report.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Machine code of all kernels of `file`; what the compiler says if it refuses.
pub(super) fn compile(file: &str, program: &CudaProgram, options: &[String]) -> Result<Vec<u8>, String> {
    let c_string = |text: &str| CString::new(text).map_err(|e| format!("{file}: {e}"));
    let (source, name) = (c_string(&program.source)?, c_string(file)?);
    let names: Vec<_> = program.headers.iter().map(|h| c_string(h.0)).collect::<Result<_, _>>()?;
    let texts: Vec<_> = program.headers.iter().map(|h| c_string(h.1)).collect::<Result<_, _>>()?;
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<*const c_char>>();
    let (name_pointers, text_pointers) = (pointers(&names), pointers(&texts));
    let headers = i32::try_from(names.len()).map_err(|e| e.to_string())?;
    let named = |call: &'static str| move |e: NvrtcError| format!("{call}: {e}");

    let mut handle = ptr::null_mut();
    // SAFETY: the strings outlive the program, and there are as many as is said.
    let created = unsafe {
        sys::nvrtcCreateProgram(
            &raw mut handle,
            source.as_ptr(),
            name.as_ptr(),
            headers,
            text_pointers.as_ptr(),
            name_pointers.as_ptr(),
        )
    };
    created.result().map_err(named("nvrtcCreateProgram"))?;
    let handle = Program(handle);
    // SAFETY: the program is there.
    unsafe { result::compile_program(handle.0, options) }
        .map_err(|e| format!("nvrtcCompileProgram: {e}\n{}", log(&handle)))?;
    let mut size = 0;
    // SAFETY: the program is compiled; the code has the size that it says.
    unsafe {
        sys::nvrtcGetCUBINSize(handle.0, &raw mut size).result().map_err(named("nvrtcGetCUBINSize"))?;
        let mut code = vec![0u8; size];
        sys::nvrtcGetCUBIN(handle.0, code.as_mut_ptr().cast()).result().map_err(named("nvrtcGetCUBIN"))?;
        Ok(code)
    }
}

/// What the compiler said.
fn log(program: &Program) -> String {
    // SAFETY: the program is there, and its log ends with a zero.
    unsafe {
        let Ok(text) = result::get_program_log(program.0) else { return String::new() };
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::options;

    #[test]
    fn the_architecture_is_the_chips_own() {
        assert!(options((9, 0)).contains(&"--gpu-architecture=sm_90a".to_owned()));
        assert!(options((8, 6)).contains(&"--gpu-architecture=sm_86".to_owned()));
    }
}
