//! One tensor, viewed where it lies.

use std::borrow::Cow;
use std::path::Path;

use bytemuck::{AnyBitPattern, NoUninit};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::dtype::DType;
use crate::error::{Error, Result};

/// A tensor of a file: row-major, little-endian, borrowed from the file's bytes.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: DType,
    /// Its shape; empty for a scalar.
    pub shape: &'a [usize],
    /// Its bytes: as many as type and shape say. They may lie at any address.
    pub data: &'a [u8],
    /// The file it is in.
    pub file: &'a Path,
}

impl<'a> TensorView<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements (a dimension is 0).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data as words of `T` (such as `u16` for F16 and BF16), in place where it is aligned to
    /// them and copied where not; `None` if `T` is not as wide as an element.
    pub fn words<T: AnyBitPattern + NoUninit>(&self) -> Option<Cow<'a, [T]>> {
        if size_of::<T>() * 8 != self.dtype.bits() {
            return None;
        }
        Some(match bytemuck::try_cast_slice(self.data) {
            Ok(words) => Cow::Borrowed(words),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(self.data)),
        })
    }

    /// The elements as f32, rounded to nearest where f32 cannot hold them.
    ///
    /// # Errors
    /// [`Error::UnsupportedDType`] for complex numbers and floats of 8 bits and fewer.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        Ok(match self.dtype {
            DType::F32 => self.each(f32::from_le_bytes),
            DType::F16 => self.halves(f16::from_bits, HalfFloatSliceExt::convert_to_f32_slice),
            DType::BF16 => self.halves(bf16::from_bits, HalfFloatSliceExt::convert_to_f32_slice),
            DType::F64 => self.each(|b| f64::from_le_bytes(b) as f32),
            DType::I8 => self.each(|b| f32::from(i8::from_le_bytes(b))),
            DType::I16 => self.each(|b| f32::from(i16::from_le_bytes(b))),
            DType::I32 => self.each(|b| i32::from_le_bytes(b) as f32),
            DType::I64 => self.each(|b| i64::from_le_bytes(b) as f32),
            DType::U8 => self.each(|b| f32::from(u8::from_le_bytes(b))),
            DType::U16 => self.each(|b| f32::from(u16::from_le_bytes(b))),
            DType::U32 => self.each(|b| u32::from_le_bytes(b) as f32),
            DType::U64 => self.each(|b| u64::from_le_bytes(b) as f32),
            DType::Bool => self.each(|[b]| f32::from(u8::from(b != 0))),
            DType::C64
            | DType::F8E4M3
            | DType::F8E5M2
            | DType::F8E4M3Fnuz
            | DType::F8E5M2Fnuz
            | DType::F8E8M0
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4 => {
                return Err(Error::UnsupportedDType {
                    path: self.file.to_path_buf(),
                    name: self.name.to_owned(),
                    dtype: self.dtype.to_string(),
                });
            }
        })
    }

    fn each<const N: usize>(&self, value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        let (elements, _) = self.data.as_chunks::<N>();
        elements.iter().map(|&bytes| value(bytes)).collect()
    }

    /// Blocks at a time, so that the processor's own conversion is used, at any address.
    fn halves<H: Copy>(&self, half: fn(u16) -> H, convert: fn(&[H], &mut [f32])) -> Vec<f32> {
        const BLOCK: usize = 1024;
        let mut values = vec![0.0; self.len()];
        let mut block = [half(0); BLOCK];
        let (elements, _) = self.data.as_chunks::<2>();
        for (values, bytes) in values.chunks_mut(BLOCK).zip(elements.chunks(BLOCK)) {
            let halves = &mut block[..bytes.len()];
            for (element, &bytes) in halves.iter_mut().zip(bytes) {
                *element = half(u16::from_le_bytes(bytes));
            }
            convert(halves, values);
        }
        values
    }
}
