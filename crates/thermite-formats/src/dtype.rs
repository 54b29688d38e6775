//! The element types of the safetensors format.

use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $bits:literal,)*) => {
        /// The type of a tensor's elements, by its name in the safetensors format.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $($(#[$doc])* $variant,)*
        }

        impl DType {
            /// Every type of the format.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in a file's header.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Bits per element.
            pub const fn bits(self) -> usize {
                match self { $(Self::$variant => $bits,)* }
            }
        }
    };
}

dtypes! {
    /// IEEE 754 binary32.
    F32 "F32" 32,
    /// IEEE 754 binary16.
    F16 "F16" 16,
    /// The upper half of a binary32.
    BF16 "BF16" 16,
    /// IEEE 754 binary64.
    F64 "F64" 64,
    /// Signed, 8 bits.
    I8 "I8" 8,
    /// Signed, 16 bits.
    I16 "I16" 16,
    /// Signed, 32 bits.
    I32 "I32" 32,
    /// Signed, 64 bits.
    I64 "I64" 64,
    /// Unsigned, 8 bits.
    U8 "U8" 8,
    /// Unsigned, 16 bits.
    U16 "U16" 16,
    /// Unsigned, 32 bits.
    U32 "U32" 32,
    /// Unsigned, 64 bits.
    U64 "U64" 64,
    /// A byte that is 0 or 1.
    Bool "BOOL" 8,
    /// Complex, two binary32.
    C64 "C64" 64,
    /// 8-bit float: 4 bits of exponent, 3 of mantissa.
    F8E4M3 "F8_E4M3" 8,
    /// 8-bit float: 5 bits of exponent, 2 of mantissa.
    F8E5M2 "F8_E5M2" 8,
    /// 8-bit float E4M3 without infinities and negative zero.
    F8E4M3Fnuz "F8_E4M3FNUZ" 8,
    /// 8-bit float E5M2 without infinities and negative zero.
    F8E5M2Fnuz "F8_E5M2FNUZ" 8,
    /// A power of two: the scale of a microscaling block.
    F8E8M0 "F8_E8M0" 8,
    /// 6-bit float: 2 bits of exponent, 3 of mantissa.
    F6E2M3 "F6_E2M3" 6,
    /// 6-bit float: 3 bits of exponent, 2 of mantissa.
    F6E3M2 "F6_E3M2" 6,
    /// 4-bit float: 2 bits of exponent, 1 of mantissa.
    F4 "F4" 4,
}

impl DType {
    /// The type of that name in a file's header, if the format knows it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name)
    }

    /// Bytes that a tensor of this `shape` takes; `None` if the number overflows, or is not whole.
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let elements = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?;
        let bits = elements.checked_mul(self.bits())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
