//! One tensor, viewed where it lies.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytemuck::{AnyBitPattern, NoUninit};

use crate::bytes::{FileBytes, SharedBytes};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::quant;

/// One tensor of a file: its bytes are `file[range]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape, row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

/// A tensor of a file: row-major, little-endian, borrowed from the file's bytes.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: DType,
    /// Its shape, slowest dimension first (`[rows, cols]`); empty for a scalar.
    pub shape: &'a [usize],
    /// Its bytes: as many as type and shape say. They may lie at any address.
    pub data: &'a [u8],
    /// The file it is in.
    pub file: &'a Path,
    /// The bytes of that file, of which `data` is a part.
    pub(crate) owner: &'a Arc<FileBytes>,
    /// Where `data` starts in them.
    pub(crate) offset: usize,
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

    /// The data with a share in the file's bytes, which may outlive the model's [`crate::Tensors`].
    pub fn shared(&self) -> SharedBytes {
        SharedBytes::new(Arc::clone(self.owner), self.offset..self.offset + self.data.len())
    }

    /// The data as words of `T` (such as `u16` for F16 and BF16), in place where it is aligned to
    /// them and copied where not; `None` if `T` is not as wide as an element.
    pub fn words<T: AnyBitPattern + NoUninit>(&self) -> Option<Cow<'a, [T]>> {
        if self.dtype.block_len() != 1 || size_of::<T>() != self.dtype.block_bytes() {
            return None;
        }
        Some(match bytemuck::try_cast_slice(self.data) {
            Ok(words) => Cow::Borrowed(words),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(self.data)),
        })
    }

    /// The elements as f32, rounded to nearest where f32 cannot hold them; quantised ones by [`quant::dequantize`].
    ///
    /// # Errors
    /// [`Error::UnsupportedDType`] for complex numbers and floats of 8 bits and fewer.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.len()];
        quant::dequantize(self.dtype, self.data, &mut values).map_err(|_| Error::UnsupportedDType {
            path: self.file.to_path_buf(),
            name: self.name.to_owned(),
            dtype: self.dtype.to_string(),
        })?;
        Ok(values)
    }
}
