//! The bytes of a file: memory-mapped, embedded in the program, or made by it.
#![allow(unsafe_code, reason = "a memory map is the one thing here that needs it")]

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::error::{Error, Result};

/// The bytes of one file, read-only, for as long as this value lives.
#[derive(Debug)]
pub enum FileBytes {
    /// A private map of a file: it starts at a page's boundary.
    Mapped(Mmap),
    /// Part of the program.
    Embedded(&'static [u8]),
    /// Made by the program.
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps the file at `path`. An empty file is zero bytes.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        let metadata = file.metadata().map_err(|source| Error::io(path, source))?;
        if metadata.len() == 0 {
            return Ok(Self::Embedded(&[])); // zero bytes cannot be mapped
        }
        // SAFETY: the map is private and read-only, and every access goes through `&[u8]`. Like
        // every reader of mapped files, we rely on nobody shrinking the file while it is open.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, source))?;
        Ok(Self::Mapped(map))
    }

    /// Lets go of the memory that holds `range`: if it is read again, it comes from the file again.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is private and never written, so its pages hold what the file holds.
            let done =
                unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            // advice that is not taken changes nothing
            drop(done);
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Some bytes of a file, which keep the whole file's bytes alive: a device can hold weights where they are mapped.
#[derive(Debug, Clone)]
pub struct SharedBytes {
    file: Arc<FileBytes>,
    range: Range<usize>,
}

impl SharedBytes {
    /// # Panics
    /// If `range` is not in the file.
    pub(crate) fn new(file: Arc<FileBytes>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= file.len());
        Self { file, range }
    }

    /// All bytes of the file.
    pub fn file(&self) -> &Arc<FileBytes> {
        &self.file
    }

    /// Where in the file these are.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}
