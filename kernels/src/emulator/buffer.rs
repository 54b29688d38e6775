//! Memory that kernels read and write, outside Rust's own heap.
#![allow(unsafe_code)] // Copies to and from memory of the emulator's runtime.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytemuck::Pod;

use super::EmulatorError;
use super::library::Library;
use crate::contract::{Access, Scalar};

/// A buffer of one element type. Guard words (or the sanitizer's, or the checker's margins) stand round it.
#[derive(Debug)]
pub struct Buffer {
    library: Arc<Library>,
    memory: NonNull<u8>,
    name: String,
    scalar: Scalar,
    length: usize,
    /// Held by whoever touches the memory.
    lock: RwLock<()>,
}

// SAFETY: the memory belongs to the buffer alone, and is touched only under its lock.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared references touch it under the lock, too.
unsafe impl Sync for Buffer {}

/// A buffer's memory, for as long as this lives.
pub(super) enum Held<'b> {
    Read { _lock: RwLockReadGuard<'b, ()> },
    Write { _lock: RwLockWriteGuard<'b, ()> },
}

/// Holds the buffers of a launch, each once, in the order of their addresses: two launches never wait for each other.
pub(super) fn hold<'b>(mut buffers: Vec<(&'b Buffer, Access)>) -> Vec<Held<'b>> {
    buffers.sort_by_key(|(buffer, _)| buffer.memory);
    let same = |a: &(&Buffer, Access), b: &(&Buffer, Access)| a.0.memory == b.0.memory;
    let one = |group: &[(&'b Buffer, Access)]| {
        let only_read = group.iter().all(|(_, access)| *access == Access::Read);
        if only_read { group[0].0.read() } else { group[0].0.write() }
    };
    buffers.chunk_by(same).map(one).collect()
}

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
        Ok(Self { library, memory, name: name.to_owned(), scalar, length, lock: RwLock::default() })
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

    fn read(&self) -> Held<'_> {
        Held::Read { _lock: self.lock.read().unwrap_or_else(PoisonError::into_inner) }
    }

    fn write(&self) -> Held<'_> {
        Held::Write { _lock: self.lock.write().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Copies `values` in, from element `offset` on.
    ///
    /// # Errors
    /// [`EmulatorError::Transfer`] when they do not fit.
    pub fn upload<T: Pod>(&self, offset: usize, values: &[T]) -> Result<(), EmulatorError> {
        let start = self.byte_range::<T>(offset, values.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let _held = self.write();
        // SAFETY: the range lies inside the buffer, and nobody else touches it meanwhile.
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
        let _held = self.read();
        // SAFETY: the range lies inside the buffer, and nobody writes it meanwhile.
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
