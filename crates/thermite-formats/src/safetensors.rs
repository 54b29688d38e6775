//! The safetensors header: eight bytes of length, a JSON object, then the data.
//!
//! Format: <https://huggingface.co/docs/safetensors>. Everything about a header that could be wrong
//! is refused here, by name and number; sizes are checked without overflow before any is trusted.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::TensorEntry;

/// The longest header that the format allows, in bytes.
pub const MAX_HEADER_LEN: u64 = 100_000_000;

const LEN_BYTES: usize = 8;

/// A checked header: every range lies in the file and is as long as type and shape say, no two
/// overlap, and no byte of the data is left over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The tensors, by their place in the file.
    pub tensors: Vec<TensorEntry>,
    /// The free text pairs of `__metadata__`.
    pub metadata: HashMap<String, String>,
}

impl Header {
    /// Reads and checks the header of a whole `file`; `path` is what errors call it.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self> {
        let json = header_json(path, file)?;
        let raw: RawHeader = serde_json::from_slice(json).map_err(|e| Error::json(path, e))?;
        let mut names = HashSet::new();
        if let Some((name, _)) = raw.tensors.iter().find(|(name, _)| !names.insert(name)) {
            return Err(Error::DuplicateTensor { path: path.to_path_buf(), name: name.clone(), other: None });
        }
        let mut tensors = raw.tensors;
        tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let data = LEN_BYTES + json.len();
        Ok(Self { tensors: lay_out(path, tensors, data, file.len())?, metadata: raw.metadata })
    }
}

/// The JSON text of the header.
fn header_json<'a>(path: &Path, file: &'a [u8]) -> Result<&'a [u8]> {
    let truncated =
        |what, need| Error::Truncated { path: path.to_path_buf(), what, need, have: file.len() as u64 };
    let Some((len, rest)) = file.split_first_chunk::<LEN_BYTES>() else {
        return Err(truncated("the header's length", LEN_BYTES as u64));
    };
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER_LEN {
        return Err(Error::HeaderTooLarge { path: path.to_path_buf(), len, limit: MAX_HEADER_LEN });
    }
    rest.get(..len as usize).ok_or_else(|| truncated("the header", LEN_BYTES as u64 + len))
}

/// Checks that `tensors`, sorted by offset, tile the data from byte `data` of the file to its end.
fn lay_out(
    path: &Path,
    tensors: Vec<(String, RawTensor)>,
    data: usize,
    file_len: usize,
) -> Result<Vec<TensorEntry>> {
    let mut placed = Vec::<TensorEntry>::with_capacity(tensors.len());
    let mut position = 0;
    for (name, raw) in tensors {
        let (start, end) = raw.data_offsets;
        let (dtype, shape) = raw.size(path, &name)?;
        if start < position {
            return Err(Error::Overlap {
                path: path.to_path_buf(),
                first: placed.pop().map_or_else(String::new, |before| before.name),
                second: name,
                end: position,
                start,
            });
        }
        if start > position {
            return Err(Error::Gap { path: path.to_path_buf(), name, from: position, to: start });
        }
        position = end;
        // Saturated: beyond the file's end in any case, which is refused below.
        let place = |offset| usize::try_from(offset).map_or(usize::MAX, |o| data.saturating_add(o));
        placed.push(TensorEntry { name, dtype, shape, range: place(start)..place(end) });
    }
    let (described, have) = ((data as u64).saturating_add(position), file_len as u64);
    let path = || path.to_path_buf();
    match described.cmp(&have) {
        std::cmp::Ordering::Equal => Ok(placed),
        std::cmp::Ordering::Greater => {
            Err(Error::Truncated { path: path(), what: "the data", need: described, have })
        }
        std::cmp::Ordering::Less => Err(Error::TrailingBytes { path: path(), described, have }),
    }
}

/// What the header's JSON says of one tensor.
#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawTensor {
    /// Type and shape, if the offsets span what they need.
    fn size(&self, path: &Path, name: &str) -> Result<(DType, Vec<usize>)> {
        let path = || path.to_path_buf();
        let Some(dtype) = DType::from_safetensors(&self.dtype) else {
            return Err(Error::UnsupportedDType {
                path: path(),
                name: name.to_owned(),
                dtype: self.dtype.clone(),
            });
        };
        let shape: Option<Vec<usize>> = self.shape.iter().map(|&d| d.try_into().ok()).collect();
        let sized = shape.and_then(|shape| Some((dtype.bytes_of(&shape)? as u64, shape)));
        let Some((need, shape)) = sized else {
            return Err(Error::ImpossibleShape {
                path: path(),
                name: name.to_owned(),
                dtype,
                shape: self.shape.clone(),
            });
        };
        let (start, end) = self.data_offsets;
        if end.checked_sub(start) != Some(need) {
            return Err(Error::WrongSpan {
                path: path(),
                name: name.to_owned(),
                dtype,
                shape: self.shape.clone(),
                need,
                start,
                end,
            });
        }
        Ok((dtype, shape))
    }
}

/// The header's JSON as it stands, every key kept: a map would drop the first of two alike.
#[derive(Default)]
struct RawHeader {
    metadata: HashMap<String, String>,
    tensors: Vec<(String, RawTensor)>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawHeaderVisitor)
    }
}

struct RawHeaderVisitor;

impl<'de> Visitor<'de> for RawHeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a safetensors header: a map from tensor names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        while let Some(name) = map.next_key::<String>()? {
            let named = |e| de::Error::custom(format_args!("{name}: {e}"));
            if name == "__metadata__" {
                let metadata: Option<_> = map.next_value().map_err(named)?;
                header.metadata = metadata.unwrap_or_default();
            } else {
                let tensor = map.next_value().map_err(named)?;
                header.tensors.push((name, tensor));
            }
        }
        Ok(header)
    }
}
