//! From a file's bytes to checked metadata and tensor descriptions.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::fault::GgufFault;
use super::metadata::{Entry, Metadata};
use super::reader::Reader;
use crate::bytes::FileBytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::TensorEntry;

const MAGIC: &[u8; 4] = b"GGUF";
/// Where data begins and how tensors lie in it, unless `general.alignment` says otherwise.
const DEFAULT_ALIGNMENT: u32 = 32;
/// Dimensions of a tensor.
const MAX_DIMS: u32 = 4;
/// Bytes of the smallest pair: an empty key's length, a type, one byte.
const SMALLEST_PAIR: usize = 8 + 4 + 1;
/// Bytes of the smallest tensor description: an empty name's length, no dimensions, a type, an offset.
const SMALLEST_TENSOR: usize = 8 + 4 + 4 + 8;

/// Element types of the format that are not read, by number, for a message that names them.
const UNREAD: [(u32, &str); 23] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// Reads and checks a whole file; `path` is what errors call it. Tensors come in the order of their data.
pub(super) fn parse(path: &Path, bytes: &Arc<FileBytes>) -> Result<(Metadata, Vec<TensorEntry>)> {
    let fault = |fault| Error::Gguf { path: path.to_path_buf(), fault };
    let mut reader = Reader::new(bytes);
    let header = header(&mut reader).map_err(fault)?;
    let mut entries = Vec::new();
    for i in 0..header.pairs {
        entries.push(pair(&mut reader, i).map_err(fault)?);
    }
    let mut metadata =
        Metadata { path: path.to_path_buf(), version: header.version, bytes: Arc::clone(bytes), entries };
    sort_by_key(&mut metadata)?;
    let alignment = alignment(&metadata)?;

    let mut infos = Vec::new();
    for i in 0..header.tensors {
        infos.push(tensor_info(&mut reader, i).map_err(fault)?);
    }
    // without tensors there need be no data, nor the padding before it
    let data = (reader.position() as u64).next_multiple_of(u64::from(alignment));
    let placed: Result<Vec<_>> =
        infos.into_iter().map(|info| info.placed(path, data, alignment, bytes.len())).collect();
    let mut placed = placed?;
    placed.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    refuse_overlap(path, data, &placed)?;
    Ok((metadata, placed))
}

struct FileHeader {
    version: u32,
    tensors: usize,
    pairs: usize,
}

fn header(reader: &mut Reader<'_>) -> Result<FileHeader, GgufFault> {
    let found = &reader.rest()[..reader.rest().len().min(MAGIC.len())];
    if found != MAGIC {
        return Err(GgufFault::Magic { found: found.to_vec() });
    }
    reader.take(MAGIC.len())?;
    "the version".clone_into(&mut reader.what);
    let version = reader.u32()?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => return Err(GgufFault::BigEndian),
        _ => return Err(GgufFault::Version { version }),
    }
    "the number of tensors and pairs".clone_into(&mut reader.what);
    let tensors = reader.count("tensors", SMALLEST_TENSOR)?;
    let pairs = reader.count("metadata pairs", SMALLEST_PAIR)?;
    Ok(FileHeader { version, tensors, pairs })
}

fn pair(reader: &mut Reader<'_>, i: usize) -> Result<Entry, GgufFault> {
    reader.what = format!("the key of metadata pair {i}");
    let text = reader.name()?;
    let key = reader.position() - text.len()..reader.position();
    text.clone_into(&mut reader.what);
    let value_type = reader.value_type()?;
    let start = reader.position();
    reader.value(value_type)?;
    Ok(Entry { key, value_type, value: start..reader.position() })
}

fn sort_by_key(metadata: &mut Metadata) -> Result<()> {
    let mut entries = std::mem::take(&mut metadata.entries);
    entries.sort_by(|a, b| metadata.key(a).cmp(metadata.key(b)));
    if let Some([twice, _]) = entries.array_windows().find(|[a, b]| metadata.key(a) == metadata.key(b)) {
        let key = metadata.key(twice).to_owned();
        return Err(metadata.fault(GgufFault::DuplicateKey { key }));
    }
    metadata.entries = entries;
    Ok(())
}

fn alignment(metadata: &Metadata) -> Result<u32> {
    let alignment = metadata.find("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() {
        return Err(metadata.fault(GgufFault::Alignment { alignment }));
    }
    Ok(alignment)
}

/// A tensor's description as it stands in the file.
struct TensorInfo<'a> {
    name: &'a str,
    /// The fastest dimension first.
    dims: [u64; MAX_DIMS as usize],
    n_dims: usize,
    ggml_type: u32,
    offset: u64,
}

fn tensor_info<'a>(reader: &mut Reader<'a>, i: usize) -> Result<TensorInfo<'a>, GgufFault> {
    reader.what = format!("the name of tensor {i}");
    let name = reader.name()?;
    reader.what = format!("the description of tensor {name}");
    let n_dims = reader.u32()?;
    if n_dims > MAX_DIMS {
        return Err(GgufFault::Dimensions { name: name.to_owned(), dims: n_dims, limit: MAX_DIMS });
    }
    let n_dims = n_dims as usize;
    let mut dims = [1; MAX_DIMS as usize];
    for dim in &mut dims[..n_dims] {
        *dim = reader.u64()?;
    }
    Ok(TensorInfo { name, dims, n_dims, ggml_type: reader.u32()?, offset: reader.u64()? })
}

impl TensorInfo<'_> {
    /// The tensor's place in the file, if type, shape and offset fit each other and the file.
    fn placed(&self, path: &Path, data: u64, alignment: u32, have: usize) -> Result<TensorEntry> {
        let name = || self.name.to_owned();
        let fault = |fault| Error::Gguf { path: path.to_path_buf(), fault };
        let Some(dtype) = DType::from_ggml(self.ggml_type) else {
            return Err(match UNREAD.iter().find(|(number, _)| *number == self.ggml_type) {
                Some((_, dtype)) => Error::UnsupportedDType {
                    path: path.to_path_buf(),
                    name: name(),
                    dtype: (*dtype).to_owned(),
                },
                None => fault(GgufFault::TensorType { name: name(), number: self.ggml_type }),
            });
        };
        let row = self.dims[0];
        if !row.is_multiple_of(dtype.block_len() as u64) {
            return Err(fault(GgufFault::Row { name: name(), dtype, row }));
        }
        let dims = &self.dims[..self.n_dims];
        let shape: Option<Vec<usize>> = dims.iter().rev().map(|&d| d.try_into().ok()).collect();
        let sized = shape.and_then(|shape| Some((dtype.bytes_of(&shape)? as u64, shape)));
        let Some((bytes, shape)) = sized else {
            let shape = dims.iter().rev().copied().collect();
            return Err(Error::ImpossibleShape { path: path.to_path_buf(), name: name(), dtype, shape });
        };
        if !self.offset.is_multiple_of(u64::from(alignment)) {
            return Err(fault(GgufFault::Misaligned { name: name(), offset: self.offset, alignment }));
        }
        match self.range(data, bytes, have) {
            Some(range) => Ok(TensorEntry { name: name(), dtype, shape, range }),
            None => {
                let start = data.saturating_add(self.offset);
                let end = start.saturating_add(bytes);
                Err(fault(GgufFault::OutOfFile { name: name(), start, end, have }))
            }
        }
    }

    /// Its bytes in a file of `have` bytes whose data begins at `data`, if it has them.
    fn range(&self, data: u64, bytes: u64, have: usize) -> Option<Range<usize>> {
        let start = usize::try_from(data.checked_add(self.offset)?).ok()?;
        let end = start.checked_add(usize::try_from(bytes).ok()?)?;
        (end <= have).then_some(start..end)
    }
}

/// Checks that no two tensors, sorted by their place, share bytes.
fn refuse_overlap(path: &Path, data: u64, sorted: &[TensorEntry]) -> Result<()> {
    let mut filled = sorted.iter().filter(|tensor| !tensor.range.is_empty());
    let Some(mut before) = filled.next() else {
        return Ok(());
    };
    for tensor in filled {
        if tensor.range.start < before.range.end {
            return Err(Error::Overlap {
                path: path.to_path_buf(),
                first: before.name.clone(),
                second: tensor.name.clone(),
                end: before.range.end as u64 - data,
                start: tensor.range.start as u64 - data,
            });
        }
        before = tensor;
    }
    Ok(())
}
