//! What all architectures have in common.

use std::fmt;

use thermite_device::{AttentionKind, AttentionShape, Dtype, KvShape};

/// The architectures there are forward passes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Learned positions, LayerNorm, tanh GELU, biases.
    Gpt2,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt2 => "gpt2",
        })
    }
}

/// The sizes of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Family.
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
    /// Ids that end a text.
    pub eos_token_ids: Vec<u32>,
}

impl Config {
    /// The attention layer's heads.
    #[must_use]
    pub fn attention(&self, kind: AttentionKind) -> AttentionShape {
        AttentionShape::new(self.n_head, self.n_kv_head, self.head_dim, kind)
    }

    /// One layer's cache of `n_blocks` blocks.
    #[must_use]
    pub const fn kv_shape(&self, n_blocks: usize, block_size: usize, dtype: Dtype) -> KvShape {
        KvShape { n_blocks, block_size, n_kv_head: self.n_kv_head, head_dim: self.head_dim, dtype }
    }
}
