//! What all architectures have in common.

mod architecture;
mod decoder;
mod fields;
mod rope;

use thermite_device::{AttentionKind, AttentionShape, Dtype, KvShape};

pub use architecture::Architecture;
pub(crate) use architecture::architecture;
pub(crate) use decoder::{Defaults, HARMLESS, WINDOW, activation, eps, n_vocab, sizes, sliding_layers, tied};
pub(crate) use fields::{Fields, Format, Name};
pub(crate) use rope::{RopeConfig, Scaling};

/// The sizes of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Architecture.
    pub architecture: Architecture,
    /// Transformer layers.
    pub n_layer: usize,
    /// Channels of the residual stream.
    pub n_embd: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_kv_head: usize,
    /// Channels a head.
    pub head_dim: usize,
    /// Channels inside the MLP.
    pub n_inner: usize,
    /// Vocabulary.
    pub n_vocab: usize,
    /// Tokens of the longest context.
    pub n_ctx: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
}

impl Config {
    /// The heads of a layer, with plain causal attention.
    #[must_use]
    pub fn attention(&self, kind: AttentionKind) -> AttentionShape {
        AttentionShape::new(self.n_head, self.n_kv_head, self.head_dim, kind)
    }

    /// Whether its MLP has a gate.
    #[must_use]
    pub const fn is_gated(&self) -> bool {
        !matches!(self.architecture, Architecture::Gpt2)
    }

    /// Tables of rotary angles at most, `[context, head_dim]` each.
    #[must_use]
    pub const fn rope_tables(&self) -> usize {
        match self.architecture {
            Architecture::Gpt2 => 0,
            Architecture::Gemma3 => 2,
            _ => 1,
        }
    }

    /// Whether a token needs but a row of the tensor: that of positions, and the embedding if it is not the head too.
    #[must_use]
    pub fn is_looked_up(&self, tensor: &str) -> bool {
        let ends = |names: &[&str]| names.iter().any(|name| tensor.ends_with(name));
        ends(&["wpe.weight", "position_embd.weight"])
            || !self.tied && ends(&["wte.weight", "embed_tokens.weight", "token_embd.weight"])
    }

    /// Whether a tensor is a head that is not used, since the embedding is.
    #[must_use]
    pub fn is_second_head(&self, tensor: &str) -> bool {
        self.tied && tensor.ends_with("lm_head.weight")
    }

    /// One layer's cache of `n_blocks` blocks.
    #[must_use]
    pub const fn kv_shape(&self, n_blocks: usize, block_size: usize, dtype: Dtype) -> KvShape {
        KvShape { n_blocks, block_size, n_kv_head: self.n_kv_head, head_dim: self.head_dim, dtype }
    }
}
