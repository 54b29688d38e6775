//! Host memory for buffers: cache-line aligned, zeroed, in huge pages where it is large and the system has them.

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use crate::{Dtype, Error, Result};

/// Bytes from which a buffer gets pages of its own: they take memory once they are written, and not before.
const PAGES: usize = 128 << 10;

/// Bytes from which those are huge pages.
#[cfg(target_os = "linux")]
const HUGE: usize = 32 * PAGES;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// Zeroed bytes, aligned to 64.
pub(super) struct Memory {
    len: usize,
    backing: Backing,
}

enum Backing {
    Heap(Vec<Line>),
    Pages(MmapMut),
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} bytes)", self.len)
    }
}

impl Memory {
    pub(super) fn new(len: usize) -> Result<Self> {
        Ok(Self { len, backing: Backing::new(len)? })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.backing.bytes()[..self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.backing.bytes_mut()[..self.len]
    }
}

impl Backing {
    fn new(bytes: usize) -> Result<Self> {
        let error = |reason: String| Error::Memory { bytes, reason };
        if bytes < PAGES {
            return Ok(Self::Heap(vec![Line([0; 64]); bytes.div_ceil(64)]));
        }
        let pages = MmapMut::map_anon(bytes).map_err(|e| error(e.to_string()))?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE
            && let Err(e) = pages.advise(memmap2::Advice::HugePage)
        {
            // a kernel without huge pages still has pages
            drop(e);
        }
        Ok(Self::Pages(pages))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(lines) => bytemuck::cast_slice(lines),
            Self::Pages(pages) => pages,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(lines) => bytemuck::cast_slice_mut(lines),
            Self::Pages(pages) => pages,
        }
    }
}

/// A buffer of the CPU device.
pub struct CpuBuffer {
    dtype: Dtype,
    len: usize,
    memory: Memory,
}

impl std::fmt::Debug for CpuBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuBuffer({} x {})", self.len, self.dtype)
    }
}

impl CpuBuffer {
    pub(super) fn new(dtype: Dtype, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(dtype.bytes()).ok_or_else(|| Error::Memory {
            bytes: usize::MAX,
            reason: format!("{len} elements of {dtype} pass the address space"),
        })?;
        Ok(Self { dtype, len, memory: Memory::new(bytes)? })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The memory, of any dtype.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// All elements as `T`, whose size is the dtype's.
    pub(super) fn all<T: Pod>(&self) -> &[T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.bytes());
        bytemuck::cast_slice(self.bytes())
    }

    /// The memory as elements of a cache: vectors of the dtype, or its blocks.
    pub(super) fn elements<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(self.bytes())
    }

    /// As [`CpuBuffer::elements`], to write.
    pub(super) fn elements_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.memory.bytes_mut())
    }

    /// As [`CpuBuffer::all`], to write.
    pub(super) fn all_mut<T: Pod>(&mut self) -> &mut [T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.bytes());
        bytemuck::cast_slice_mut(self.memory.bytes_mut())
    }
}

/// Checked access to one kernel's operands.
#[derive(Clone, Copy)]
pub(super) struct Operands(pub(super) &'static str);

impl Operands {
    fn check(self, buffer: &CpuBuffer, operand: &'static str, need: Dtype, len: usize) -> Result<()> {
        if buffer.dtype != need {
            return Err(Error::Type { kernel: self.0, operand, have: buffer.dtype, need });
        }
        if buffer.len < len {
            return Err(Error::Size { kernel: self.0, operand, have: buffer.len, need: len });
        }
        Ok(())
    }

    /// The first `rows * width` floats.
    pub(super) fn f32<'a>(
        self,
        buffer: &'a CpuBuffer,
        operand: &'static str,
        len: usize,
    ) -> Result<&'a [f32]> {
        self.check(buffer, operand, Dtype::F32, len)?;
        Ok(&buffer.all()[..len])
    }

    pub(super) fn f32_mut<'a>(
        self,
        buffer: &'a mut CpuBuffer,
        operand: &'static str,
        len: usize,
    ) -> Result<&'a mut [f32]> {
        self.check(buffer, operand, Dtype::F32, len)?;
        Ok(&mut buffer.all_mut()[..len])
    }

    pub(super) fn i32<'a>(
        self,
        buffer: &'a CpuBuffer,
        operand: &'static str,
        len: usize,
    ) -> Result<&'a [i32]> {
        self.check(buffer, operand, Dtype::I32, len)?;
        Ok(&buffer.all()[..len])
    }

    pub(super) fn i32_mut<'a>(
        self,
        buffer: &'a mut CpuBuffer,
        operand: &'static str,
        len: usize,
    ) -> Result<&'a mut [i32]> {
        self.check(buffer, operand, Dtype::I32, len)?;
        Ok(&mut buffer.all_mut()[..len])
    }

    /// `indices`, each below `limit`.
    pub(super) fn indices<'a>(
        self,
        buffer: &'a CpuBuffer,
        operand: &'static str,
        len: usize,
        limit: usize,
    ) -> Result<&'a [i32]> {
        let indices = self.i32(buffer, operand, len)?;
        match indices.iter().position(|&i| i < 0 || i as usize >= limit) {
            None => Ok(indices),
            Some(at) => {
                Err(Error::Index { kernel: self.0, operand, at, index: i64::from(indices[at]), limit })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_and_aligned() {
        for len in [0, 1, 17, PAGES / 4 + 3, 32 * PAGES / 4 + 3] {
            let buffer = CpuBuffer::new(Dtype::F32, len).unwrap();
            let values: &[f32] = buffer.all();
            assert_eq!(values.len(), len);
            assert!(values.iter().all(|&x| x == 0.0));
            assert_eq!(values.as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(matches!(CpuBuffer::new(Dtype::F32, usize::MAX), Err(Error::Memory { .. })));
        assert!(matches!(CpuBuffer::new(Dtype::F16, usize::MAX / 4), Err(Error::Memory { .. })));
    }
}
