//! Memory that kernels read and write, outside Rust's own heap.
#![allow(unsafe_code)] // Copies to and from memory of the emulator's runtime.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;

use super::EmulatorError;
use super::library::{Library, lock_runtime};
use crate::contract::Scalar;

/// A buffer of one element type. Guard words (or the sanitizer's, or the checker's margins) stand round it.
#[derive(Debug)]
pub struct Buffer {
    library: Arc<Library>,
    memory: NonNull<u8>,
    name: String,
    scalar: Scalar,
    length: usize,
}

// SAFETY: the memory belongs to the buffer alone, and is touched only while the runtime is locked.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared references only copy, under the lock.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(super) fn new(
        library: Arc<Library>,
        name: &str,
        scalar: Scalar,
        length: u64,
    ) -> Result<Self, EmulatorError> {
        let out_of_memory = || EmulatorError::OutOfMemory {
            name: name.to_owned(),
            bytes: length.saturating_mul(scalar.bytes() as u64),
        };
        let length = usize::try_from(length).map_err(|_| out_of_memory())?;
        let bytes = length.checked_mul(scalar.bytes()).ok_or_else(out_of_memory)?;
        let c_name = CString::new(name.replace('\0', "")).unwrap_or_default();
        let memory = library.allocate(bytes, &c_name).ok_or_else(out_of_memory)?;
        Ok(Self { library, memory, name: name.to_owned(), scalar, length })
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element type.
    pub fn scalar(&self) -> Scalar {
        self.scalar
    }

    /// Where element `first` lies.
    pub fn address(&self, first: usize) -> u64 {
        (self.memory.as_ptr() as usize + first * self.scalar.bytes()) as u64
    }

    /// Elements.
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    pub(super) fn memory(&self) -> NonNull<u8> {
        self.memory
    }

    /// Copies `values` in, from element `offset` on.
    ///
    /// # Errors
    /// [`EmulatorError::Transfer`] when they do not fit.
    pub fn upload<T: Pod>(&self, offset: usize, values: &[T]) -> Result<(), EmulatorError> {
        let start = self.byte_range::<T>(offset, values.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let _guard = lock_runtime();
        // SAFETY: the range lies inside the buffer, and nobody else touches it while the runtime is locked.
        unsafe {
            self.memory.add(start).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        };
        Ok(())
    }

    /// Copies `count` elements out, from element `offset` on.
    ///
    /// # Errors
    /// [`EmulatorError::Transfer`] when there are not as many.
    pub fn download<T: Pod>(&self, offset: usize, count: usize) -> Result<Vec<T>, EmulatorError> {
        let start = self.byte_range::<T>(offset, count)?;
        let mut values = vec![T::zeroed(); count];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let _guard = lock_runtime();
        // SAFETY: the range lies inside the buffer, and nobody else touches it while the runtime is locked.
        unsafe {
            self.memory.add(start).copy_to_nonoverlapping(NonNull::from(&mut *bytes).cast(), bytes.len());
        };
        Ok(values)
    }

    /// The first `count` elements of an index buffer.
    pub(super) fn first_ints(&self, count: u64) -> Result<Vec<i32>, EmulatorError> {
        self.download(0, usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Where `count` elements from `offset` on start, in bytes.
    fn byte_range<T>(&self, offset: usize, count: usize) -> Result<usize, EmulatorError> {
        let size = self.scalar.bytes();
        let failed = |message: String| EmulatorError::Transfer { name: self.name.clone(), message };
        if size_of::<T>() != size {
            let given = size_of::<T>();
            return Err(failed(format!("elements of {given} bytes, the buffer's have {size}")));
        }
        match offset.checked_add(count) {
            Some(end) if end <= self.length => Ok(offset * size),
            _ => Err(failed(format!("{count} elements from {offset} on, the buffer has {}", self.length))),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.library.free(self.memory);
    }
}
