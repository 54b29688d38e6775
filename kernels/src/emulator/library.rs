//! The compiled library: loading it, and the calls into it.
#![allow(unsafe_code)] // Calls into a shared library compiled from dialect/cpu.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ops::Range;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffer::hold;
use super::{Argument, Build, EmulatorError};
use crate::contract::{Access, Launch};

/// The checked build keeps what a launch accesses in globals, which all handles of one library share.
static CHECKED: Mutex<()> = Mutex::new(());

/// `EmulatorLaunch` of dialect/cpu/runtime.h.
#[repr(C)]
struct RawLaunch {
    kernel: *const c_char,
    grid: [c_uint; 3],
    threadgroup: [c_uint; 3],
    first: [c_uint; 3],
    end: [c_uint; 3],
    buffers: *const *mut c_void,
    access: *const c_int,
    buffer_count: c_uint,
    threadgroup_bytes: *const usize,
    threadgroup_count: c_uint,
}

type LaunchFunction = unsafe extern "C" fn(*const RawLaunch) -> *const c_char;
type HasFunction = unsafe extern "C" fn(*const c_char) -> c_int;
type AllocateFunction = unsafe extern "C" fn(usize, *const c_char) -> *mut c_void;
type FreeFunction = unsafe extern "C" fn(*mut c_void);

/// A checked launch, ready to run.
pub(super) struct Call<'c> {
    pub(super) kernel: &'c str,
    pub(super) launch: &'c Launch,
    pub(super) part: [Range<u32>; 3],
    /// By buffer index.
    pub(super) arguments: &'c [Argument<'c>],
    pub(super) access: &'c [Access],
}

#[derive(Debug)]
pub(super) struct Library {
    build: Build,
    launch: LaunchFunction,
    has: HasFunction,
    allocate: AllocateFunction,
    free: FreeFunction,
    /// Keeps the functions loaded.
    _loaded: libloading::Library,
}

impl Library {
    pub(super) fn load(path: &Path, build: Build) -> Result<Self, EmulatorError> {
        if build == Build::Sanitized && !sanitizer_is_loaded() {
            return Err(EmulatorError::Load {
                path: path.to_owned(),
                message: "the sanitized build needs the address sanitizer's library in LD_PRELOAD".to_owned(),
            });
        }
        let failed = |error: libloading::Error| EmulatorError::Load {
            path: path.to_owned(),
            message: error.to_string(),
        };
        // SAFETY: the library was compiled from this crate's own sources; its constructors only register kernels.
        let loaded = unsafe { libloading::Library::new(path) }.map_err(failed)?;
        // SAFETY: the types are those of the declarations in dialect/cpu/runtime.h.
        unsafe {
            Ok(Self {
                build,
                launch: *loaded.get::<LaunchFunction>(c"emulator_launch").map_err(failed)?,
                has: *loaded.get::<HasFunction>(c"emulator_has").map_err(failed)?,
                allocate: *loaded.get::<AllocateFunction>(c"emulator_allocate").map_err(failed)?,
                free: *loaded.get::<FreeFunction>(c"emulator_free").map_err(failed)?,
                _loaded: loaded,
            })
        }
    }

    /// Launches of the other builds run beside one another.
    fn alone(&self) -> Option<MutexGuard<'static, ()>> {
        (self.build == Build::Checked).then(|| CHECKED.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn has(&self, kernel: &str) -> bool {
        let Ok(name) = CString::new(kernel) else {
            return false;
        };
        // SAFETY: the name is a C string.
        unsafe { (self.has)(name.as_ptr()) != 0 }
    }

    /// `bytes` zeros, or none when there is no memory.
    pub(super) fn allocate(&self, bytes: usize, name: &CStr) -> Option<NonNull<u8>> {
        let _alone = self.alone();
        // SAFETY: the name is a C string.
        NonNull::new(unsafe { (self.allocate)(bytes, name.as_ptr()) }.cast())
    }

    /// Gives back what [`Library::allocate`] gave.
    pub(super) fn free(&self, memory: NonNull<u8>) {
        let _alone = self.alone();
        // SAFETY: a buffer frees its own memory once.
        unsafe { (self.free)(memory.as_ptr().cast()) };
    }

    /// Runs a launch whose arguments have been checked against signature and contract.
    pub(super) fn launch(&self, call: &Call<'_>) -> Result<(), String> {
        let kernel = CString::new(call.kernel).map_err(|e| e.to_string())?;
        // Constants are copied: a kernel gets their address.
        let mut constants: Vec<u32> = call.arguments.iter().map(constant_bits).collect();
        let constants = constants.as_mut_ptr();
        let address = |(i, argument): (usize, &Argument<'_>)| match argument {
            Argument::Buffer(buffer) => buffer.memory().as_ptr().cast(),
            Argument::Nil => ptr::null_mut(),
            // SAFETY: `i` is below the length of `constants`.
            Argument::Int(_) | Argument::Float(_) => unsafe { constants.add(i) }.cast(),
        };
        let buffers: Vec<*mut c_void> = call.arguments.iter().enumerate().map(address).collect();
        let access: Vec<c_int> = call.access.iter().map(|a| access_code(*a)).collect();
        let bytes: Vec<usize> = call.launch.threadgroup_memory.iter().map(|&b| b as usize).collect();
        let raw = RawLaunch {
            kernel: kernel.as_ptr(),
            grid: call.launch.grid,
            threadgroup: call.launch.threadgroup,
            first: [0, 1, 2].map(|i| call.part[i].start),
            end: [0, 1, 2].map(|i| call.part[i].end),
            buffers: buffers.as_ptr(),
            access: access.as_ptr(),
            buffer_count: buffers.len() as c_uint, // at most 31
            threadgroup_bytes: bytes.as_ptr(),
            threadgroup_count: bytes.len() as c_uint, // at most 31
        };
        let bound = call.arguments.iter().zip(call.access).filter_map(|(argument, access)| match argument {
            Argument::Buffer(buffer) => Some((*buffer, *access)),
            _ => None,
        });
        let _held = hold(bound.collect());
        let _alone = self.alone();
        // SAFETY: every pointer in `raw` outlives the call; the buffers are as long as the contract says, so a kernel
        // that keeps its contract stays within them, and nobody else touches them meanwhile.
        let message = unsafe { (self.launch)(&raw) };
        if message.is_null() {
            return Ok(());
        }
        // SAFETY: a C string of the runtime, valid until this thread's next launch.
        Err(unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned())
    }
}

fn constant_bits(argument: &Argument<'_>) -> u32 {
    match argument {
        Argument::Int(value) => value.cast_unsigned(),
        Argument::Float(value) => value.to_bits(),
        Argument::Buffer(_) | Argument::Nil => 0,
    }
}

/// `EmulatorAccess` of dialect/cpu/runtime.h.
fn access_code(access: Access) -> c_int {
    match access {
        Access::Read => 0,
        Access::Write => 1,
        Access::ReadWrite => 2,
    }
}

#[cfg(unix)]
fn sanitizer_is_loaded() -> bool {
    let this = libloading::os::unix::Library::this();
    // SAFETY: the symbol is only looked for.
    unsafe { this.get::<*const c_void>(c"__asan_init") }.is_ok()
}

#[cfg(not(unix))]
fn sanitizer_is_loaded() -> bool {
    false
}
