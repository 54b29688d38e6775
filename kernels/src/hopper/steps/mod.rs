//! Decoding steps in one launch (`hopper/steps.cu`): which recorded launches it takes the place of, and with what.
//!
//! [`plan`] reads the launches of some steps of one sequence and lays out what the kernel wants in their place. What it does
//! not know it leaves alone: those launches stay as they are.

mod layout;
mod read;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use crate::contract::Dims;
use crate::sources::{HOPPER_HEADERS, HOPPER_SOURCES};
use crate::wrap::{CudaProgram, cuda_entry};

pub use layout::{Addresses, Cache, Plan, Product, Program};
pub use read::plan;

/// The file of [`Variant::program`].
pub const FILE: &str = "steps.cu";
/// The logarithm of the warps of a threadgroup (`WARP_BITS` of program.h).
const WARP_BITS: u32 = 4;
const WARPS: u32 = 1 << WARP_BITS;
/// Threads a threadgroup.
pub const THREADS: u32 = 32 * WARPS;

/// The `__global__` function; its parameters are a [`Program`] and how many steps, a `uint`.
pub fn entry() -> String {
    cuda_entry("steps")
}

/// A launch that was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The kernel.
    pub kernel: String,
    /// Its dimensions.
    pub dims: Dims,
    /// Its bindings, in the order of their indices.
    pub values: Vec<Value>,
}

/// What is bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A buffer's address.
    Buffer(u64),
    /// An integer constant.
    Int(i32),
    /// A float constant.
    Float(f32),
    /// No buffer.
    Nil,
}

/// Sixteen bits of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// IEEE half precision.
    F16,
    /// The upper half of a float32.
    Bf16,
}

impl Scalar {
    fn of_suffix(suffix: &str) -> Option<Self> {
        match suffix {
            "f16" => Some(Self::F16),
            "bf16" => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Of a kernel's name: `name` is `prefix`, `_f16` or `_bf16`, and `rest`.
    fn in_name<'n>(name: &'n str, prefix: &str) -> Option<(Self, &'n str)> {
        let after = name.strip_prefix(prefix)?.strip_prefix('_')?;
        let (scalar, rest) = after.split_once('_').unwrap_or((after, ""));
        Some((Self::of_suffix(scalar)?, rest))
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    const fn c_name(self) -> &'static str {
        match self {
            Self::F16 => "half",
            Self::Bf16 => "bfloat",
        }
    }
}

/// The norm of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Norm {
    /// Root mean square.
    Rms,
    /// Mean and variance.
    Layer,
}

/// What its feed-forward blocks do between their products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `silu(gate) * up`.
    SwiGlu,
    /// `gelu(gate) * up`.
    GeGlu,
    /// `gelu(up)`.
    Gelu,
}

/// What the source is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Type of the weights.
    pub weights: Scalar,
    /// Type of keys and values.
    pub cache: Scalar,
    /// Channels a head.
    pub head_size: u32,
    /// Query heads a KV head.
    pub sharing: u32,
    /// Tokens a block of the cache.
    pub block_size: u32,
    /// The norm.
    pub norm: Norm,
    /// The activation.
    pub activation: Activation,
    /// Whether scores are capped.
    pub capped: bool,
    /// How much of vectors and rows a thread has.
    pub shares: Shares,
}

/// How much of a model's vectors and rows a thread has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shares {
    /// Groups of four elements of a normed vector.
    pub quads: u32,
    /// Groups of four elements of what the activation gives; none where each warp has a piece of its own.
    pub inner_quads: u32,
    /// Groups of eight elements of a piece of a row.
    pub eights: u32,
}

impl Variant {
    /// Variants that between them compile every line of the source, for checks.
    pub fn samples() -> [Self; 3] {
        let gpt2 = Self {
            weights: Scalar::F16,
            cache: Scalar::F16,
            head_size: 64,
            sharing: 1,
            block_size: 16,
            norm: Norm::Layer,
            activation: Activation::Gelu,
            capped: false,
            shares: Shares { quads: 1, inner_quads: 2, eights: 3 },
        };
        let (norm, weights) = (Norm::Rms, Scalar::Bf16);
        let llama = Self { weights, norm, activation: Activation::SwiGlu, sharing: 3, ..gpt2 };
        let gemma = Self {
            activation: Activation::GeGlu,
            cache: Scalar::Bf16,
            head_size: 128,
            capped: true,
            shares: Shares { quads: 2, inner_quads: 0, eights: 4 },
            ..llama
        };
        [gpt2, llama, gemma]
    }

    /// What stands before the source.
    pub fn defines(self) -> String {
        let norm = match self.norm {
            Norm::Rms => "RMS",
            Norm::Layer => "LAYER",
        };
        let activation = match self.activation {
            Activation::SwiGlu => "SWIGLU",
            Activation::GeGlu => "GEGLU",
            Activation::Gelu => "GELU",
        };
        let (weights, cache) = (self.weights.c_name(), self.cache.c_name());
        let mut text = String::new();
        for (name, value) in
            [("WEIGHTS", weights), ("CACHE", cache), ("NORM", norm), ("ACTIVATION", activation)]
        {
            let _ = writeln!(text, "#define {name} {value}");
        }
        for (name, value) in [
            ("HEAD_SIZE", self.head_size),
            ("SHARING", self.sharing),
            ("BLOCK_SIZE", self.block_size),
            ("CAPPED", self.capped.into()),
            ("QUADS", self.shares.quads),
            ("INNER_QUADS", self.shares.inner_quads),
            ("EIGHTS", self.shares.eights),
        ] {
            let _ = writeln!(text, "#define {name} {value}u");
        }
        text
    }

    /// The source for this variant, as NVRTC takes it.
    pub fn program(self) -> CudaProgram {
        CudaProgram { source: self.source(), headers: HOPPER_HEADERS.to_vec(), kernels: Vec::new() }
    }

    /// The source for this variant.
    pub fn source(self) -> String {
        let text = HOPPER_SOURCES.iter().find(|(name, _)| *name == FILE).map_or("", |(_, text)| text);
        format!("{}#line 1 \"{FILE}\"\n{text}", self.defines())
    }
}
