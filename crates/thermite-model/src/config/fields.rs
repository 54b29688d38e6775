//! The fields that describe a model, from `config.json` or GGUF metadata: each is asked for, or known to change
//! nothing, or refused.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};
use thermite_formats::{HuggingFace, Metadata, ModelFiles, Source, gguf};

use crate::{Error, Result};

/// Longest array of GGUF metadata that a field of a model may be.
const MAX_ARRAY: usize = 4096;

/// The kind of files a model comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A Hugging Face folder.
    HuggingFace,
    /// A GGUF file.
    Gguf,
}

/// What a field or a tensor is called in a Hugging Face folder, and in GGUF. A name is empty where that format has
/// no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) &'static str, pub(crate) &'static str);

impl Name {
    pub(crate) const fn of(self, format: Format) -> &'static str {
        match format {
            Format::HuggingFace => self.0,
            Format::Gguf => self.1,
        }
    }
}

/// The fields of one model.
#[derive(Debug)]
pub(crate) struct Fields {
    path: PathBuf,
    format: Format,
    /// What stands before every name in an error: `text_config.`, `llama.` or nothing.
    prefix: String,
    values: Map<String, Value>,
    known: RefCell<BTreeSet<String>>,
}

impl Fields {
    /// The fields of a model: all of `config.json`, or the metadata under the architecture's name.
    pub(crate) fn of(files: &ModelFiles) -> Result<Self> {
        match &files.source {
            Source::HuggingFace(folder) => Self::hugging_face(folder),
            Source::Gguf(metadata) => Self::gguf(metadata),
        }
    }

    fn hugging_face(folder: &HuggingFace) -> Result<Self> {
        let path = folder.folder.join("config.json");
        Ok(Self::new(path, Format::HuggingFace, String::new(), folder.config()?))
    }

    fn gguf(metadata: &Metadata) -> Result<Self> {
        let prefix = format!("{}.", metadata.architecture()?);
        let own = metadata.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(&prefix)?;
            Some((name.to_owned(), json(value)))
        });
        let values = own.collect();
        Ok(Self::new(metadata.path().to_path_buf(), Format::Gguf, prefix, values))
    }

    fn new(path: PathBuf, format: Format, prefix: String, values: Map<String, Value>) -> Self {
        Self { path, format, prefix, values, known: RefCell::default() }
    }

    /// The fields inside `name`, which must be an object; `None` if there is no such field.
    pub(crate) fn inside(&self, name: Name) -> Result<Option<Self>> {
        let Some(values) = self.find::<Map<String, Value>>(name, "an object")? else {
            return Ok(None);
        };
        let prefix = format!("{}{}.", self.prefix, name.of(self.format));
        Ok(Some(Self::new(self.path.clone(), self.format, prefix, values)))
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the field is there, be it null.
    pub(crate) fn contains(&self, name: Name) -> bool {
        self.values.contains_key(name.of(self.format))
    }

    /// The value of a field as a `T`; `None` if it is not there, or null.
    pub(crate) fn find<T: FromJson>(&self, name: Name, need: &str) -> Result<Option<T>> {
        let name = name.of(self.format);
        self.known.borrow_mut().insert(name.to_owned());
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::from_json(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.refused(name, value, need)),
            },
        }
    }

    /// The value of a field that must be there.
    pub(crate) fn get<T: FromJson>(&self, name: Name, need: &str) -> Result<T> {
        self.find(name, need)?.ok_or_else(|| Error::MissingField {
            path: self.path.clone(),
            field: format!("{}{}", self.prefix, name.of(self.format)),
        })
    }

    /// A dimension: a whole number from 1 to 2^24.
    pub(crate) fn size(&self, name: Name) -> Result<usize> {
        Ok(self.get::<Size>(name, Size::NEED)?.0)
    }

    /// A dimension that may be left out.
    pub(crate) fn find_size(&self, name: Name) -> Result<Option<usize>> {
        Ok(self.find::<Size>(name, Size::NEED)?.map(|size| size.0))
    }

    /// A dimension that may be left out where there is a default.
    pub(crate) fn size_or(&self, name: Name, default: Option<usize>) -> Result<usize> {
        match (self.find_size(name)?, default) {
            (Some(size), _) | (None, Some(size)) => Ok(size),
            (None, None) => self.size(name),
        }
    }

    /// A positive number that may be left out.
    pub(crate) fn find_positive(&self, name: Name) -> Result<Option<f64>> {
        Ok(self.find::<Positive>(name, Positive::NEED)?.map(|number| number.0))
    }

    /// A positive number.
    pub(crate) fn get_positive(&self, name: Name) -> Result<f64> {
        Ok(self.get::<Positive>(name, Positive::NEED)?.0)
    }

    /// True or false, `default` where it is not said.
    pub(crate) fn flag(&self, name: Name, default: bool) -> Result<bool> {
        Ok(self.find(name, "true or false")?.unwrap_or(default))
    }

    /// A field that would change the result, and is only supported at `value` or left out.
    pub(crate) fn only(&self, name: Name, value: &Value) -> Result<()> {
        match self.find::<Value>(name, "")? {
            Some(have) if !same(&have, value) => Err(self.refuse(name, &have, &value.to_string())),
            _ => Ok(()),
        }
    }

    /// The error of a field whose value is not `need`.
    pub(crate) fn refuse(&self, name: Name, value: &Value, need: &str) -> Error {
        self.refused(name.of(self.format), value, need)
    }

    fn refused(&self, name: &str, value: &Value, need: &str) -> Error {
        Error::Config {
            path: self.path.clone(),
            field: format!("{}{name}", self.prefix),
            value: shown(value),
            need: need.to_owned(),
        }
    }

    /// Refuses what was neither asked for nor is one of `harmless`.
    pub(crate) fn finish(&self, harmless: &[&str]) -> Result<()> {
        let known = self.known.borrow();
        let stranger = self.values.iter().find(|(name, value)| {
            !value.is_null() && !known.contains(*name) && !harmless.contains(&name.as_str())
        });
        match stranger {
            None => Ok(()),
            Some((name, value)) => Err(Error::UnknownField {
                path: self.path.clone(),
                field: format!("{}{name}", self.prefix),
                value: shown(value),
            }),
        }
    }
}

/// Whether two values mean the same: 0 is 0.0.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

/// A value in an error: not more of it than a line holds.
fn shown(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A metadata value as JSON.
fn json(value: gguf::Value<'_>) -> Value {
    use gguf::Value as V;
    // JSON has no infinities: as words they fit no number
    let float = |x: f64| Number::from_f64(x).map_or_else(|| Value::String(x.to_string()), Value::Number);
    match value {
        V::Bool(b) => Value::Bool(b),
        V::String(text) => Value::String(text.to_owned()),
        V::F32(x) => float(f64::from(x)),
        V::F64(x) => float(x),
        V::Array(array) if array.len > MAX_ARRAY => Value::String(value.to_string()),
        V::Array(array) => array.iter().map(json).collect(),
        whole => match whole.integer().and_then(Number::from_i128) {
            Some(number) => Value::Number(number),
            None => Value::String(value.to_string()),
        },
    }
}

/// What a field can be read as.
pub(crate) trait FromJson: Sized {
    fn from_json(value: &Value) -> Option<Self>;
}

impl FromJson for Value {
    fn from_json(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

impl FromJson for Map<String, Value> {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_object().cloned()
    }
}

impl FromJson for bool {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl FromJson for String {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl FromJson for u32 {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

/// One value or several.
impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.iter().map(T::from_json).collect(),
            one => Some(vec![T::from_json(one)?]),
        }
    }
}

/// A dimension of a model.
struct Size(usize);

impl Size {
    const NEED: &str = "a whole number from 1 to 2^24";
}

impl FromJson for Size {
    fn from_json(value: &Value) -> Option<Self> {
        let size = usize::try_from(value.as_u64()?).ok()?;
        (1..=1 << 24).contains(&size).then_some(Self(size))
    }
}

/// A positive number that a float32 can hold.
struct Positive(f64);

impl Positive {
    const NEED: &str = "a positive number";
}

impl FromJson for Positive {
    fn from_json(value: &Value) -> Option<Self> {
        let x = value.as_f64()?;
        let narrow = x as f32;
        (narrow > 0.0 && narrow.is_finite()).then_some(Self(x))
    }
}
