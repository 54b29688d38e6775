//! The bytes of a file: memory-mapped, embedded in the program, or made by it.
#![allow(unsafe_code)] // a memory map is the one thing here that needs it

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// The bytes of one file, read-only, for as long as this value lives.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
    Owned(Vec<u8>),
}

impl Bytes {
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
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}
