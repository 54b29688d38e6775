//! `hopper/steps.cu` on the CPU: all threadgroups at once, every thread a fiber, in an order that a seed decides.
#![allow(unsafe_code)] // Calls into a shared library compiled from dialect/hopper.

use std::ffi::{CStr, c_char};
use std::path::Path;

use super::compile::compile_steps;
use super::{Build, EmulatorError};
use crate::hopper::steps::{Program, THREADS, Variant, entry};

type Run = unsafe extern "C" fn(*const Program, u32, u32, u32, usize, u64) -> *const c_char;

/// The kernel, compiled for a variant.
#[derive(Debug)]
pub struct Steps {
    run: Run,
    /// Keeps the function loaded.
    _loaded: libloading::Library,
}

impl Steps {
    /// Compiled into the user's cache folder, or loaded from there.
    ///
    /// # Errors
    /// [`EmulatorError`] when there is no compiler, or the source does not compile or load.
    pub fn new(build: Build, variant: Variant) -> Result<Self, EmulatorError> {
        let path = compile_steps(build, variant)?;
        Self::load(&path).map_err(|e| EmulatorError::Load { path, message: e.to_string() })
    }

    fn load(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the library was compiled from this crate's own sources and has no constructors that ask anything.
        let loaded = unsafe { libloading::Library::new(path) }?;
        // SAFETY: the type is that of the declaration in dialect/hopper/steps_run.h.
        let run = unsafe { *loaded.get::<Run>(c"steps_run")? };
        Ok(Self { run, _loaded: loaded })
    }

    /// Runs `steps` steps of `program`.
    ///
    /// # Errors
    /// [`EmulatorError::Fault`] when threads wait for what never comes.
    ///
    /// # Safety
    /// Every address in `program` is that of memory as large as its plan says, which nobody else touches meanwhile.
    pub unsafe fn run(
        &self,
        program: &Program,
        steps: u32,
        threadgroups: u32,
        shared_memory: u32,
        seed: u64,
    ) -> Result<(), EmulatorError> {
        // SAFETY: the caller's; the text lives until this thread's next run.
        let message = unsafe {
            let message = (self.run)(program, steps, threadgroups, THREADS, shared_memory as usize, seed);
            (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
        };
        match message {
            None => Ok(()),
            Some(message) => Err(EmulatorError::Fault { kernel: entry(), message }),
        }
    }
}
