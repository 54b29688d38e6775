//! Numbers, texts and values one after the other, each checked against the bytes that are left.

use super::fault::GgufFault;
use super::value::{Array, Value, ValueType};

/// How deep arrays may be nested.
pub(super) const MAX_NESTING: usize = 4;

/// Bytes of a key at most, by the format; of a tensor's name too, here.
pub(super) const MAX_NAME: u64 = u16::MAX as u64;

/// Reads from `bytes`, from the front.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What errors call the thing being read.
    pub(super) what: String,
}

type Result<T, E = GgufFault> = std::result::Result<T, E>;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, what: String::new() }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn truncated(&self, need: u64) -> GgufFault {
        GgufFault::Truncated { what: self.what.clone(), at: self.at, need, left: self.left() }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some(taken) = self.rest().get(..len) else {
            return Err(self.truncated(len as u64));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(&taken) = self.rest().first_chunk() else {
            return Err(self.truncated(N as u64));
        };
        self.at += N;
        Ok(taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things, each of at least `least` bytes, which the rest of the file can hold.
    pub(super) fn count(&mut self, things: &str, least: usize) -> Result<usize> {
        let count = self.u64()?;
        let room = (self.left() / least) as u64;
        if count > room {
            return Err(GgufFault::Count { what: things.to_owned(), of: self.what.clone(), count, room });
        }
        Ok(count as usize)
    }

    /// A length of 64 bits, then so many bytes of UTF-8.
    pub(super) fn string(&mut self) -> Result<&'a str> {
        let len = self.u64()?;
        let bytes = match usize::try_from(len) {
            Ok(len) => self.take(len)?,
            Err(_) => return Err(self.truncated(len)),
        };
        str::from_utf8(bytes).map_err(|error| GgufFault::NotUtf8 {
            what: self.what.clone(),
            at: self.at - bytes.len() + error.valid_up_to(),
        })
    }

    /// A key, or the name of a tensor.
    pub(super) fn name(&mut self) -> Result<&'a str> {
        let len = self.clone().u64()?;
        if len > MAX_NAME {
            return Err(GgufFault::NameTooLong { what: self.what.clone(), len });
        }
        self.string()
    }

    pub(super) fn value_type(&mut self) -> Result<ValueType> {
        let number = self.u32()?;
        ValueType::from_number(number).ok_or_else(|| GgufFault::ValueType { key: self.what.clone(), number })
    }

    /// A value of that type, all of which was looked at: what it holds can be read without an error.
    pub(super) fn value(&mut self, value_type: ValueType) -> Result<Value<'a>> {
        self.value_within(value_type, 0)
    }

    fn value_within(&mut self, value_type: ValueType, depth: usize) -> Result<Value<'a>> {
        Ok(match value_type {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array()?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(self.array()?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array()?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(self.array()?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
            ValueType::Bool => {
                let [byte] = self.array()?;
                Value::Bool(self.checked_bool(byte)?)
            }
            ValueType::String => Value::String(self.string()?),
            ValueType::Array => Value::Array(self.values(depth + 1)?),
        })
    }

    /// An array: its element type, its length, its elements.
    fn values(&mut self, depth: usize) -> Result<Array<'a>> {
        /// Bytes of an empty string, and of an empty array.
        const STRING: usize = 8;
        const ARRAY: usize = 4 + 8;
        if depth > MAX_NESTING {
            return Err(GgufFault::Nesting { key: self.what.clone() });
        }
        let element = self.value_type()?;
        let least = element.size().unwrap_or(if element == ValueType::String { STRING } else { ARRAY });
        let len = self.count("array elements", least)?;
        let start = self.at;
        match element {
            ValueType::String | ValueType::Array => {
                for _ in 0..len {
                    self.value_within(element, depth)?;
                }
            }
            ValueType::Bool => {
                for &byte in self.take(len)? {
                    self.checked_bool(byte)?;
                }
            }
            _ => {
                self.take(len * least)?;
            }
        }
        Ok(Array { element, len, bytes: &self.bytes[start..self.at] })
    }

    fn checked_bool(&self, byte: u8) -> Result<bool> {
        match byte {
            0 | 1 => Ok(byte == 1),
            _ => Err(GgufFault::Bool { key: self.what.clone(), byte }),
        }
    }
}
