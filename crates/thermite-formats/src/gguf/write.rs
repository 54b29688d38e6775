//! What stands before the data of a GGUF file that is written: version 3, little-endian.

use std::collections::HashSet;
use std::path::Path;

use super::value::{Value, ValueType};
use crate::dtype::DType;
use crate::error::{Error, Result};

/// Where tensors begin: at multiples of this many bytes.
pub const ALIGNMENT: usize = 32;

/// Key-value pairs and tensor descriptions, in the order in which they will stand in the file.
#[derive(Debug, Clone, Default)]
pub struct HeaderWriter {
    /// Keys, and values with their types as the file has them.
    pairs: Vec<(String, Vec<u8>)>,
    tensors: Vec<TensorInfo>,
}

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
}

impl HeaderWriter {
    /// Sets `key` to a value of a Rust type, in place of the one that it had.
    pub fn set<T: Encode + ?Sized>(&mut self, key: impl Into<String>, value: &T) {
        let mut bytes = T::TYPE.number().to_le_bytes().to_vec();
        value.encode(&mut bytes);
        self.put(key.into(), bytes);
    }

    /// Sets `key` to a value of another file.
    pub fn copy(&mut self, key: &str, value: Value<'_>) {
        let mut bytes = value.value_type().number().to_le_bytes().to_vec();
        encode_value(value, &mut bytes);
        self.put(key.to_owned(), bytes);
    }

    fn put(&mut self, key: String, bytes: Vec<u8>) {
        match self.pairs.iter_mut().find(|(have, _)| *have == key) {
            Some((_, old)) => *old = bytes,
            None => self.pairs.push((key, bytes)),
        }
    }

    /// Adds a tensor; its data come after those of the tensors before it.
    pub fn tensor(&mut self, tensor: TensorInfo) {
        self.tensors.push(tensor);
    }

    /// The tensors in their order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The bytes of the file up to the data of its first tensor; `path` is what errors call it.
    ///
    /// # Errors
    /// A shape that its type does not have, or two tensors of one name.
    pub fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            key.as_str().encode(&mut out);
            out.extend(value);
        }
        let (mut offset, mut names) = (0_u64, HashSet::new());
        for tensor in &self.tensors {
            if !names.insert(&tensor.name) {
                let (path, name) = (path.to_path_buf(), tensor.name.clone());
                return Err(Error::DuplicateTensor { path, name, other: None });
            }
            tensor.name.as_str().encode(&mut out);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            out.extend(tensor.shape.iter().rev().flat_map(|&dim| (dim as u64).to_le_bytes()));
            let (ggml_type, bytes) = tensor.stored(path)?;
            out.extend(ggml_type.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += bytes.next_multiple_of(ALIGNMENT) as u64;
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        Ok(out)
    }
}

impl TensorInfo {
    /// The number of its type in the file, and its bytes.
    fn stored(&self, path: &Path) -> Result<(u32, usize)> {
        let stored = self.dtype.ggml_type().zip(self.dtype.bytes_of(&self.shape));
        stored.ok_or_else(|| Error::ImpossibleShape {
            path: path.to_path_buf(),
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.shape.iter().map(|&dim| dim as u64).collect(),
        })
    }
}

/// A Rust type that metadata can be written from.
pub trait Encode {
    /// Its type in the file.
    const TYPE: ValueType;

    /// Appends the value, without its type.
    fn encode(&self, out: &mut Vec<u8>);
}

macro_rules! encode_numbers {
    ($($rust:ty: $variant:ident,)*) => {$(
        impl Encode for $rust {
            const TYPE: ValueType = ValueType::$variant;

            fn encode(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        }
    )*};
}

encode_numbers! { u32: U32, i32: I32, f32: F32, u64: U64, }

impl Encode for bool {
    const TYPE: ValueType = ValueType::Bool;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Encode for str {
    const TYPE: ValueType = ValueType::String;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend((self.len() as u64).to_le_bytes());
        out.extend(self.as_bytes());
    }
}

impl Encode for String {
    const TYPE: ValueType = ValueType::String;

    fn encode(&self, out: &mut Vec<u8>) {
        self.as_str().encode(out);
    }
}

impl<T: Encode> Encode for [T] {
    const TYPE: ValueType = ValueType::Array;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(T::TYPE.number().to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        for element in self {
            element.encode(out);
        }
    }
}

fn encode_value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::U8(x) => out.push(x),
        Value::I8(x) => out.extend(x.to_le_bytes()),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => x.encode(out),
        Value::I32(x) => x.encode(out),
        Value::F32(x) => x.encode(out),
        Value::Bool(x) => x.encode(out),
        Value::String(x) => x.encode(out),
        Value::U64(x) => x.encode(out),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Array(array) => {
            out.extend(array.element.number().to_le_bytes());
            out.extend((array.len as u64).to_le_bytes());
            out.extend(array.bytes);
        }
    }
}
