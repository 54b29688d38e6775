//! The element types of safetensors and GGUF files.

use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $block_len:literal $block_bytes:literal $ggml:expr,)*) => {
        /// The type of a tensor's elements.
        ///
        /// Elements lie in blocks: of one element for plain types, of 32 or 256 for GGUF's quantised types, whose
        /// blocks [`crate::quant`] lays out. A row of a quantised tensor is a whole number of blocks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $($(#[$doc])* $variant,)*
        }

        impl DType {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name: in the header of a safetensors file, or as GGUF tools write it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Elements of a block: 1 for plain types, or as few as fill whole bytes.
            pub const fn block_len(self) -> usize {
                match self { $(Self::$variant => $block_len,)* }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self { $(Self::$variant => $block_bytes,)* }
            }

            /// Its number in a GGUF file, if the format has it.
            pub const fn ggml_type(self) -> Option<u32> {
                match self { $(Self::$variant => $ggml,)* }
            }
        }
    };
}

dtypes! {
    /// IEEE 754 binary32.
    F32 "F32" 1 4 Some(0),
    /// IEEE 754 binary16.
    F16 "F16" 1 2 Some(1),
    /// The upper half of a binary32.
    BF16 "BF16" 1 2 Some(30),
    /// IEEE 754 binary64.
    F64 "F64" 1 8 Some(28),
    /// Signed, 8 bits.
    I8 "I8" 1 1 Some(24),
    /// Signed, 16 bits.
    I16 "I16" 1 2 Some(25),
    /// Signed, 32 bits.
    I32 "I32" 1 4 Some(26),
    /// Signed, 64 bits.
    I64 "I64" 1 8 Some(27),
    /// Unsigned, 8 bits.
    U8 "U8" 1 1 None,
    /// Unsigned, 16 bits.
    U16 "U16" 1 2 None,
    /// Unsigned, 32 bits.
    U32 "U32" 1 4 None,
    /// Unsigned, 64 bits.
    U64 "U64" 1 8 None,
    /// A byte that is 0 or 1.
    Bool "BOOL" 1 1 None,
    /// Complex, two binary32.
    C64 "C64" 1 8 None,
    /// 8-bit float: 4 bits of exponent, 3 of mantissa.
    F8E4M3 "F8_E4M3" 1 1 None,
    /// 8-bit float: 5 bits of exponent, 2 of mantissa.
    F8E5M2 "F8_E5M2" 1 1 None,
    /// 8-bit float E4M3 without infinities and negative zero.
    F8E4M3Fnuz "F8_E4M3FNUZ" 1 1 None,
    /// 8-bit float E5M2 without infinities and negative zero.
    F8E5M2Fnuz "F8_E5M2FNUZ" 1 1 None,
    /// A power of two: the scale of a microscaling block.
    F8E8M0 "F8_E8M0" 1 1 None,
    /// 6-bit float: 2 bits of exponent, 3 of mantissa.
    F6E2M3 "F6_E2M3" 4 3 None,
    /// 6-bit float: 3 bits of exponent, 2 of mantissa.
    F6E3M2 "F6_E3M2" 4 3 None,
    /// 4-bit float: 2 bits of exponent, 1 of mantissa.
    F4 "F4" 2 1 None,
    /// 4 bits and a scale: 4.5 bits an element.
    Q4_0 "Q4_0" 32 18 Some(2),
    /// 4 bits, a scale and a minimum: 5 bits an element.
    Q4_1 "Q4_1" 32 20 Some(3),
    /// 5 bits and a scale: 5.5 bits an element.
    Q5_0 "Q5_0" 32 22 Some(6),
    /// 5 bits, a scale and a minimum: 6 bits an element.
    Q5_1 "Q5_1" 32 24 Some(7),
    /// 8 bits and a scale: 8.5 bits an element.
    Q8_0 "Q8_0" 32 34 Some(8),
    /// 2 bits, with scales and minima of 16 groups: 2.625 bits an element.
    Q2K "Q2_K" 256 84 Some(10),
    /// 3 bits, with scales of 16 groups: 3.4375 bits an element.
    Q3K "Q3_K" 256 110 Some(11),
    /// 4 bits, with scales and minima of 8 groups: 4.5 bits an element.
    Q4K "Q4_K" 256 144 Some(12),
    /// 5 bits, with scales and minima of 8 groups: 5.5 bits an element.
    Q5K "Q5_K" 256 176 Some(13),
    /// 6 bits, with scales of 16 groups: 6.5625 bits an element.
    Q6K "Q6_K" 256 210 Some(14),
}

impl DType {
    /// The type of that name in the header of a safetensors file, if that format knows it.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name && !dtype.is_quantized())
    }

    /// The type of that number in a GGUF file, if it is one that is read.
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.ggml_type() == Some(number))
    }

    /// Whether it is one of GGUF's block types, from `Q4_0` to `Q6_K`.
    pub const fn is_quantized(self) -> bool {
        self.block_len() >= 32
    }

    /// Bytes that a row-major tensor of this `shape` takes; `None` if the number overflows, if it is not whole, or
    /// if a row of a quantised tensor is not whole blocks. `bytes_of(&[n])` is what `n` elements take.
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        if self.is_quantized() && !row.is_multiple_of(self.block_len()) {
            return None;
        }
        let elements = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?;
        if !elements.is_multiple_of(self.block_len()) {
            return None;
        }
        (elements / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
