//! The blocks of GGUF's quantised types, byte for byte.
//!
//! Every block has alignment 1, so that mapped bytes can be viewed as blocks wherever they lie. `w` is a weight, `q`
//! the small integer that stands for it. Layouts: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> and
//! the format's reference implementation, `ggml-common.h`.

use bytemuck::{Pod, Zeroable};
use half::f16;

use crate::dtype::DType;

/// A little-endian binary16 at any address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Half(pub [u8; 2]);

impl Half {
    /// As f32, exactly.
    #[inline]
    pub fn to_f32(self) -> f32 {
        f16::from_le_bytes(self.0).to_f32()
    }

    /// The nearest binary16.
    #[inline]
    pub fn from_f32(value: f32) -> Self {
        Self(f16::from_f32(value).to_le_bytes())
    }
}

macro_rules! blocks {
    ($($(#[$doc:meta])* $block:ident = $dtype:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
            #[repr(C)]
            pub struct $block {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            const _: () = assert!(size_of::<$block>() == DType::$dtype.block_bytes());
            const _: () = assert!(align_of::<$block>() == 1);
        )*
    };
}

blocks! {
    /// 32 weights: `w = d (q − 8)`, q of 4 bits.
    BlockQ4_0 = Q4_0 {
        /// Scale.
        d: Half,
        /// Weight `j` in the low half of byte `j`, weight `j + 16` in the high half.
        qs: [u8; 16],
    }
    /// 32 weights: `w = d q + m`, q of 4 bits.
    BlockQ4_1 = Q4_1 {
        /// Scale.
        d: Half,
        /// Minimum.
        m: Half,
        /// As in [`BlockQ4_0`].
        qs: [u8; 16],
    }
    /// 32 weights: `w = d (q − 16)`, q of 5 bits.
    BlockQ5_0 = Q5_0 {
        /// Scale.
        d: Half,
        /// Bit `j` of the little-endian word is the fifth bit of weight `j`.
        qh: [u8; 4],
        /// The low four bits, as in [`BlockQ4_0`].
        qs: [u8; 16],
    }
    /// 32 weights: `w = d q + m`, q of 5 bits.
    BlockQ5_1 = Q5_1 {
        /// Scale.
        d: Half,
        /// Minimum.
        m: Half,
        /// As in [`BlockQ5_0`].
        qh: [u8; 4],
        /// As in [`BlockQ5_0`].
        qs: [u8; 16],
    }
    /// 32 weights: `w = d q`, q of 8 bits, signed.
    BlockQ8_0 = Q8_0 {
        /// Scale.
        d: Half,
        /// The weights in their order.
        qs: [i8; 32],
    }
    /// 256 weights in 16 groups of 16: `w = (d s) q − (dmin m)`, q of 2 bits, s and m of 4 bits a group.
    BlockQ2K = Q2K {
        /// A byte a group: s in the low half, m in the high half.
        scales: [u8; 16],
        /// Bits `2 r` and `2 r + 1` of byte `32 h + l` are weight `128 h + 32 r + l`.
        qs: [u8; 64],
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
    }
    /// 256 weights in 16 groups of 16: `w = (d (s − 32)) q`, q of 3 bits, −4 to 3, s of 6 bits a group.
    BlockQ3K = Q3K {
        /// Bit `i` of byte `l` is the third bit of weight `32 i + l`; where it is clear, 4 is subtracted.
        hmask: [u8; 32],
        /// The low two bits, as in [`BlockQ2K`].
        qs: [u8; 64],
        /// Sixteen scales of 6 bits: see [`BlockQ3K::scales`](Self::scales()).
        scales: [u8; 12],
        /// Scale of the scales.
        d: Half,
    }
    /// 256 weights in 8 groups of 32: `w = (d s) q − (dmin m)`, q of 4 bits, s and m of 6 bits a group.
    BlockQ4K = Q4K {
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
        /// Eight scales and eight minima of 6 bits: see [`scales_and_minima`].
        scales: [u8; 12],
        /// Weight `64 c + l` in the low half of byte `32 c + l`, weight `64 c + 32 + l` in the high half.
        qs: [u8; 128],
    }
    /// 256 weights in 8 groups of 32: `w = (d s) q − (dmin m)`, q of 5 bits, s and m of 6 bits a group.
    BlockQ5K = Q5K {
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
        /// As in [`BlockQ4K`].
        scales: [u8; 12],
        /// Bit `g` of byte `l` is the fifth bit of weight `32 g + l`.
        qh: [u8; 32],
        /// The low four bits, as in [`BlockQ4K`].
        qs: [u8; 128],
    }
    /// 256 weights in 16 groups of 16: `w = (d s) (q − 32)`, q of 6 bits, s of 8 bits, signed, a group.
    BlockQ6K = Q6K {
        /// Low four bits: of weights `128 h + l` and `128 h + 64 + l` in the halves of byte `64 h + l`, l < 64.
        ql: [u8; 128],
        /// High two bits: bits `2 r` and `2 r + 1` of byte `32 h + l` are those of weight `128 h + 32 r + l`.
        qh: [u8; 64],
        /// One a group.
        scales: [i8; 16],
        /// Scale of the scales.
        d: Half,
    }
}

impl BlockQ3K {
    /// The scales of the sixteen groups, 0 to 63 (32 stands for zero).
    ///
    /// The low four bits of scale `i` are in byte `i mod 8`, in its low half for `i < 8`; the high two in byte
    /// `8 + i mod 4`, at bit `2 (i div 4)`.
    #[inline]
    pub fn scales(&self) -> [u8; 16] {
        std::array::from_fn(|i| {
            let low = self.scales[i % 8] >> (4 * (i / 8)) & 15;
            let high = self.scales[8 + i % 4] >> (2 * (i / 4)) & 3;
            low | high << 4
        })
    }
}

/// The scales and the minima of the eight groups of a [`BlockQ4K`] or [`BlockQ5K`], 0 to 63.
///
/// Scale and minimum `j < 4` are the low six bits of bytes `j` and `j + 4`. Those of `j ≥ 4` have their low four
/// bits in the two halves of byte `j + 4`, and their high two in the high bits of bytes `j − 4` and `j`.
#[inline]
pub fn scales_and_minima(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let scale = |j: usize| match j {
        0..4 => packed[j] & 63,
        _ => packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
    };
    let minimum = |j: usize| match j {
        0..4 => packed[j + 4] & 63,
        _ => packed[j + 4] >> 4 | packed[j] >> 6 << 4,
    };
    (std::array::from_fn(scale), std::array::from_fn(minimum))
}
