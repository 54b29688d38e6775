//! Tensors that the program makes up, to measure speed with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bytes::FileBytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::TensorEntry;
use crate::tensors::Tensors;

/// Tensors of one type, and what their bytes repeat.
#[derive(Debug, Clone)]
pub struct Filler {
    /// Type of the tensors.
    pub dtype: DType,
    /// Whole blocks of that type; zeros where it is empty.
    pub pattern: Vec<u8>,
    /// Names and shapes.
    pub tensors: Vec<(String, Vec<usize>)>,
}

impl Tensors {
    /// Tensors whose bytes are those of a pattern, over and over. They lie one after another in memory of at most `most`
    /// bytes a filler (and no less than its largest tensor), and begin afresh where it ends: a model may be larger than
    /// the memory there is for it.
    ///
    /// # Errors
    /// A shape that its type cannot have, and a name that is there twice.
    pub fn filled(name: &str, most: usize, fillers: &[Filler]) -> Result<Self> {
        let path = Path::new(name);
        let mut tensors = Self::empty(path);
        for filler in fillers {
            let (bytes, entries) = filler.lay_out(path, most)?;
            tensors.add(path.to_path_buf(), Arc::new(FileBytes::Owned(bytes)), entries)?;
        }
        Ok(tensors)
    }
}

impl Filler {
    fn lay_out(&self, path: &Path, most: usize) -> Result<(Vec<u8>, Vec<TensorEntry>)> {
        let sizes = self.tensors.iter().map(|(name, shape)| self.bytes_of(path, name, shape));
        let sizes = sizes.collect::<Result<Vec<_>>>()?;
        let largest = sizes.iter().copied().max().unwrap_or(0);
        let total = sizes.iter().fold(0_usize, |total, &size| total.saturating_add(size));
        let len = total.min(most.max(largest));
        let mut start = 0;
        let entries = self.tensors.iter().zip(sizes).map(|((name, shape), size)| {
            if start + size > len {
                start = 0;
            }
            let range = start..start + size;
            start = range.end;
            TensorEntry { name: name.clone(), dtype: self.dtype, shape: shape.clone(), range }
        });
        let entries = entries.collect();
        Ok((self.repeated(len), entries))
    }

    fn bytes_of(&self, path: &Path, name: &str, shape: &[usize]) -> Result<usize> {
        self.dtype.bytes_of(shape).ok_or_else(|| Error::ImpossibleShape {
            path: PathBuf::from(path),
            name: name.to_owned(),
            dtype: self.dtype,
            shape: shape.iter().map(|&dim| dim as u64).collect(),
        })
    }

    fn repeated(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        if self.pattern.is_empty() {
            return bytes;
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // each thread begins with the pattern
        let part = len.div_ceil(threads).next_multiple_of(self.pattern.len());
        std::thread::scope(|scope| {
            for part in bytes.chunks_mut(part) {
                scope.spawn(|| {
                    for chunk in part.chunks_mut(self.pattern.len()) {
                        chunk.copy_from_slice(&self.pattern[..chunk.len()]);
                    }
                });
            }
        });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filler(tensors: &[(&str, &[usize])]) -> Filler {
        let tensors = tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec()));
        Filler { dtype: DType::F16, pattern: vec![1, 2, 3, 4], tensors: tensors.collect() }
    }

    #[test]
    fn tensors_share_what_memory_there_is() {
        let all: [(&str, &[usize]); 3] = [("a", &[2, 3]), ("b", &[5]), ("c", &[4])];
        let roomy = Tensors::filled("m", 1000, &[filler(&all)]).unwrap();
        assert_eq!(roomy.get("b").unwrap().data, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]);
        assert_eq!(roomy.get("c").unwrap().data[..2], [3, 4]);
        // no less than the largest tensor
        let tight = Tensors::filled("m", 4, &[filler(&all)]).unwrap();
        assert!(tight.iter().all(|t| t.data[..2] == [1, 2] && t.data.len() == 2 * t.len()));
    }

    #[test]
    fn impossible_tensors_are_errors() {
        let huge = filler(&[("a", &[usize::MAX, 2])]);
        let error = Tensors::filled("m", 10, &[huge]).unwrap_err().to_string();
        assert!(error.starts_with("m: tensor a: F16 "), "{error}");
        let twice = filler(&[("a", &[1]), ("a", &[1])]);
        assert!(matches!(Tensors::filled("m", 10, &[twice]), Err(Error::DuplicateTensor { .. })));
    }
}
