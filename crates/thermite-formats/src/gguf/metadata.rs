//! The key-value pairs of a GGUF file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::GgufFault;
use super::reader::Reader;
use super::value::{FromValue, Value, ValueType};
use crate::bytes::FileBytes;
use crate::error::{Error, Result};
use crate::near::near;

/// The key-value pairs of a GGUF file, read where they are mapped.
#[derive(Debug, Clone)]
pub struct Metadata {
    pub(super) path: PathBuf,
    pub(super) version: u32,
    pub(super) bytes: Arc<FileBytes>,
    /// Sorted by key.
    pub(super) entries: Vec<Entry>,
}

/// Where a pair lies in the file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Range<usize>,
    pub(super) value_type: ValueType,
    pub(super) value: Range<usize>,
}

impl Metadata {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// `general.architecture`: what the keys of the model's sizes begin with.
    ///
    /// # Errors
    /// If it is not there, or no string.
    pub fn architecture(&self) -> Result<&str> {
        self.get("general.architecture")
    }

    /// The value of `key` as a `T`.
    ///
    /// ```no_run
    /// # fn main() -> thermite_formats::Result<()> {
    /// # let metadata = thermite_formats::Gguf::open("model.gguf".as_ref())?.metadata;
    /// let n_layer: usize = metadata.get("llama.block_count")?;
    /// let tokens: Vec<&str> = metadata.get("tokenizer.ggml.tokens")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If it is not there (with the keys that look like it), of another type, or out of the range of `T`.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.find(key)?.ok_or_else(|| {
            let near = near(key, self.iter().map(|(key, _)| key));
            self.fault(GgufFault::Missing { key: key.to_owned(), near })
        })
    }

    /// The value of `key` as a `T`, or `None` if there is no such key.
    ///
    /// # Errors
    /// If it is of another type, or out of the range of `T`.
    pub fn find<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        T::from_value(value).map(Some).ok_or_else(|| {
            let (found, expected) = (value.to_string(), T::expected());
            self.fault(GgufFault::WrongValue { key: key.to_owned(), found, expected })
        })
    }

    /// The value of `key`, whatever its type.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        let found = self.entries.binary_search_by(|entry| self.key(entry).cmp(key));
        found.ok().and_then(|i| self.value_of(&self.entries[i]))
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.entries.iter().filter_map(|entry| Some((self.key(entry), self.value_of(entry)?)))
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn key(&self, entry: &Entry) -> &str {
        str::from_utf8(&self.bytes[entry.key.clone()]).unwrap_or_default() // checked at opening
    }

    fn value_of(&self, entry: &Entry) -> Option<Value<'_>> {
        Reader::new(&self.bytes[entry.value.clone()]).value(entry.value_type).ok() // checked at opening
    }

    pub(super) fn fault(&self, fault: GgufFault) -> Error {
        Error::Gguf { path: self.path.clone(), fault }
    }
}
