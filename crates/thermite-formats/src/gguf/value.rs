//! The values of a GGUF file's metadata.

use std::fmt;

use super::reader::Reader;

macro_rules! value_types {
    ($($variant:ident $name:literal $number:literal $size:expr,)*) => {
        /// The type of a metadata value.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ValueType {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl ValueType {
            /// The type of that number in a file.
            pub(super) const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// Its number in a file.
            pub const fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* }
            }

            /// Bytes of every value, where they are all alike.
            pub(super) const fn size(self) -> Option<usize> {
                match self { $(Self::$variant => $size,)* }
            }

            /// What the format calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

value_types! {
    U8 "u8" 0 Some(1),
    I8 "i8" 1 Some(1),
    U16 "u16" 2 Some(2),
    I16 "i16" 3 Some(2),
    U32 "u32" 4 Some(4),
    I32 "i32" 5 Some(4),
    F32 "f32" 6 Some(4),
    Bool "bool" 7 Some(1),
    String "string" 8 None,
    Array "array" 9 None,
    U64 "u64" 10 Some(8),
    I64 "i64" 11 Some(8),
    F64 "f64" 12 Some(8),
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value, borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A u8.
    U8(u8),
    /// An i8.
    I8(i8),
    /// A u16.
    U16(u16),
    /// An i16.
    I16(i16),
    /// A u32.
    U32(u32),
    /// An i32.
    I32(i32),
    /// An f32.
    F32(f32),
    /// A bool.
    Bool(bool),
    /// A text.
    String(&'a str),
    /// Values of one type.
    Array(Array<'a>),
    /// A u64.
    U64(u64),
    /// An i64.
    I64(i64),
    /// An f64.
    F64(f64),
}

/// Values of one type, borrowed from the file, which was checked to hold them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    /// The type of each.
    pub element: ValueType,
    /// How many there are.
    pub len: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The values in their order.
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let mut reader = Reader::new(self.bytes);
        // what cannot be read ends it; nothing does, since the file was checked
        (0..self.len).map_while(move |_| reader.value(self.element).ok())
    }
}

impl Value<'_> {
    /// Its type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The whole number that it is, whatever its width.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(n) => n.into(),
            Self::I8(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U64(n) => n.into(),
            Self::I64(n) => n.into(),
            _ => return None,
        })
    }
}

/// Type and value in a few words: `u32 5`, `string "llama"`, `array of 3 f32`.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Characters of a text that are shown.
        const SHOWN: usize = 40;
        let name = self.value_type().name();
        match self {
            Self::String(text) => {
                let short: String = text.chars().take(SHOWN).collect();
                let dots = if short.len() < text.len() { "…" } else { "" };
                write!(f, "{name} {short:?}{dots}")
            }
            Self::Array(array) => write!(f, "{name} of {} {}", array.len, array.element),
            Self::F32(x) => write!(f, "{name} {x}"),
            Self::F64(x) => write!(f, "{name} {x}"),
            Self::Bool(x) => write!(f, "{name} {x}"),
            whole => write!(f, "{name} {}", whole.integer().unwrap_or_default()),
        }
    }
}

/// A Rust type that metadata can be read as.
pub trait FromValue<'a>: Sized {
    /// What an error says was expected.
    fn expected() -> String;

    /// The value, if it is of a fitting type and in range.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! from_integers {
    ($($type:ty)*) => {$(
        /// Any integer type whose value fits.
        impl FromValue<'_> for $type {
            fn expected() -> String {
                format!("an integer from {} to {}", Self::MIN, Self::MAX)
            }

            fn from_value(value: Value<'_>) -> Option<Self> {
                Self::try_from(value.integer()?).ok()
            }
        }
    )*};
}

from_integers! { u8 u16 u32 u64 usize i32 i64 }

/// `f32`, or `f64` rounded.
impl FromValue<'_> for f32 {
    fn expected() -> String {
        "a float".to_owned()
    }

    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as Self),
            _ => None,
        }
    }
}

impl FromValue<'_> for bool {
    fn expected() -> String {
        "a bool".to_owned()
    }

    fn from_value(value: Value<'_>) -> Option<Self> {
        if let Value::Bool(x) = value { Some(x) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a str {
    fn expected() -> String {
        "a string".to_owned()
    }

    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::String(x) = value { Some(x) } else { None }
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    fn expected() -> String {
        "an array".to_owned()
    }

    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Array(x) = value { Some(x) } else { None }
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Vec<T> {
    fn expected() -> String {
        format!("an array, each element {}", T::expected())
    }

    fn from_value(value: Value<'a>) -> Option<Self> {
        Array::from_value(value)?.iter().map(T::from_value).collect()
    }
}
