//! Which type each tensor is written as.

use crate::dtype::DType;

/// What a file is to be quantised to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types {
    /// Of matrices in layers.
    pub matrices: DType,
    /// Of the token embedding; unless given, that of the head where it is the head too, else that of matrices.
    pub embedding: Option<DType>,
    /// Of the output head; 6 bits at least unless given.
    pub head: Option<DType>,
}

impl Types {
    /// Everything of one type, but for what every file keeps finer.
    pub const fn of(matrices: DType) -> Self {
        Self { matrices, embedding: None, head: None }
    }

    /// The type of the GGUF tensor `name`. Vectors (norms, biases) and tables of positions stay F32: they are small,
    /// and everything depends on them. The head decides between the tokens: 6 bits at least.
    pub(super) fn choose(&self, name: &str, shape: &[usize], tied: bool) -> DType {
        let head = self.head.unwrap_or(finer(self.matrices));
        match name {
            _ if shape.len() < 2 => DType::F32,
            "position_embd.weight" => DType::F32,
            "output.weight" => head,
            "token_embd.weight" => self.embedding.unwrap_or(if tied { head } else { self.matrices }),
            _ => self.matrices,
        }
    }
}

/// The type that a head has among matrices of this one.
const fn finer(matrices: DType) -> DType {
    match matrices {
        DType::F32 | DType::F16 | DType::BF16 | DType::Q8_0 => matrices,
        _ => DType::Q6K,
    }
}

/// `wanted`, or the nearest type of smaller blocks where a row of `cols` elements is not whole blocks of it.
pub(super) fn fitting(wanted: DType, cols: usize) -> DType {
    if cols.is_multiple_of(wanted.block_len()) {
        return wanted;
    }
    let smaller = match wanted {
        DType::Q2K | DType::Q3K => DType::Q4_0,
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        _ => DType::F16,
    };
    fitting(smaller, cols)
}

/// `general.file_type`, as the format numbers it.
pub(super) const fn file_type(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q2K => 10,
        DType::Q3K => 11,
        DType::Q4K => 14,
        DType::Q5K => 16,
        DType::Q6K => 18,
        DType::BF16 => 32,
        _ => 0,
    }
}
