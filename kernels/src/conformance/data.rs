//! Contents of buffers, and where inputs come from.

use half::{bf16, f16};

use crate::contract::Scalar;

/// The elements of one buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// `half`.
    F16(Vec<f16>),
    /// `bfloat`.
    Bf16(Vec<bf16>),
    /// 32-bit signed integers.
    I32(Vec<i32>),
    /// 32-bit unsigned integers.
    U32(Vec<u32>),
    /// Bytes.
    U8(Vec<u8>),
}

/// Runs `$body` with `$values` bound to the vector, whatever its type.
macro_rules! for_any {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            Data::F32($values) => $body,
            Data::F16($values) => $body,
            Data::Bf16($values) => $body,
            Data::I32($values) => $body,
            Data::U32($values) => $body,
            Data::U8($values) => $body,
        }
    };
}

impl Data {
    /// `values` rounded to `scalar`; to the 16-bit floats by way of float, as the kernels do.
    pub fn store(scalar: Scalar, values: &[f64]) -> Self {
        let values = values.iter();
        match scalar {
            Scalar::F32 => Self::F32(values.map(|v| *v as f32).collect()),
            Scalar::F16 => Self::F16(values.map(|v| f16::from_f32(*v as f32)).collect()),
            Scalar::Bf16 => Self::Bf16(values.map(|v| bf16::from_f32(*v as f32)).collect()),
            Scalar::I32 => Self::I32(values.map(|v| *v as i32).collect()),
            Scalar::U32 => Self::U32(values.map(|v| *v as u32).collect()),
            Scalar::U8 => Self::U8(values.map(|v| *v as u8).collect()),
        }
    }

    /// What a buffer holds before it is written: values that no kernel computes.
    pub fn unwritten(scalar: Scalar, length: usize) -> Self {
        Self::store(scalar, &vec![-77.25; length])
    }

    /// Element type.
    pub fn scalar(&self) -> Scalar {
        match self {
            Self::F32(_) => Scalar::F32,
            Self::F16(_) => Scalar::F16,
            Self::Bf16(_) => Scalar::Bf16,
            Self::I32(_) => Scalar::I32,
            Self::U32(_) => Scalar::U32,
            Self::U8(_) => Scalar::U8,
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        for_any!(self, values => values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i` as float64, exactly.
    pub fn value(&self, i: usize) -> f64 {
        match self {
            Self::F32(values) => values[i].into(),
            Self::F16(values) => values[i].to_f64(),
            Self::Bf16(values) => values[i].to_f64(),
            Self::I32(values) => values[i].into(),
            Self::U32(values) => values[i].into(),
            Self::U8(values) => values[i].into(),
        }
    }

    /// All elements as float64.
    pub fn values(&self) -> Vec<f64> {
        (0..self.len()).map(|i| self.value(i)).collect()
    }

    /// The same with `count` more unwritten elements.
    pub(super) fn extended(self, count: usize) -> Self {
        let scalar = self.scalar();
        let mut all = self;
        match (&mut all, Self::unwritten(scalar, count)) {
            (Self::F32(a), Self::F32(b)) => a.extend(b),
            (Self::F16(a), Self::F16(b)) => a.extend(b),
            (Self::Bf16(a), Self::Bf16(b)) => a.extend(b),
            (Self::I32(a), Self::I32(b)) => a.extend(b),
            (Self::U32(a), Self::U32(b)) => a.extend(b),
            (Self::U8(a), Self::U8(b)) => a.extend(b),
            _ => {} // both have one scalar
        }
        all
    }
}

/// A stream of reproducible numbers (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
pub(super) struct Generator(u64);

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// An index below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.unit() * limit as f64) as usize
    }

    /// `count` numbers in a bell of standard deviation about `scale`.
    pub(super) fn bell(&mut self, count: usize, scale: f64) -> Vec<f64> {
        let one = |g: &mut Self| (0..4).map(|_| g.unit() - 0.5).sum::<f64>() * 1.732;
        (0..count).map(|_| one(self) * scale).collect()
    }

    /// `0..count` in random order.
    pub(super) fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}
