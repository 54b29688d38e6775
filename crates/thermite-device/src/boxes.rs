//! The boxes of the data-flow diagram, written in primitive kernels: the default bodies of [`Device`]'s boxes,
//! and what every override is tested against.

use std::sync::Arc;

use crate::{Device, Dtype, HeadColumns, HeadRows, KvLayer, Result, Step};

/// Weights of a linear layer, with its bias where it has one.
#[derive(Debug)]
pub struct Linear<D: Device> {
    /// `[outputs, inputs]`.
    pub weight: D::Matrix,
    /// `[outputs]`, and how many that is.
    pub bias: Option<(D::Buffer, usize)>,
}

/// A norm over the channels, with its weights.
#[derive(Debug)]
pub enum Norm<D: Device> {
    /// LayerNorm: scale and shift, `[c]` each.
    Layer {
        /// Scale.
        gamma: D::Buffer,
        /// Shift.
        beta: D::Buffer,
        /// Added to the variance.
        eps: f32,
    },
    /// RMSNorm: scale, `[c]`.
    Rms {
        /// Scale.
        gamma: D::Buffer,
        /// Added to the mean square.
        eps: f32,
    },
}

/// An elementwise activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU by its tanh approximation.
    Gelu,
    /// SiLU.
    Silu,
    /// ReLU.
    Relu,
    /// Sigmoid.
    Sigmoid,
}

/// The first half of an MLP: from `n_embd` to the hidden width, with the activation.
#[derive(Debug)]
pub enum Expand<D: Device> {
    /// `activation(up(x))`: GPT-2.
    Plain {
        /// Up projection.
        up: Linear<D>,
        /// Activation.
        activation: Activation,
    },
    /// `f(gate(x)) * up(x)`: LLaMA and Gemma.
    Gated {
        /// Gate projection.
        gate: Linear<D>,
        /// Up projection.
        up: Linear<D>,
        /// The function of the gate.
        kind: Gate,
    },
}

/// What a gated MLP does to its gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// SiLU: LLaMA.
    SwiGlu,
    /// GELU by its tanh approximation: Gemma.
    GeGlu,
}

/// The angles by which queries and keys are rotated. Layers that rotate alike share one.
#[derive(Debug)]
pub struct Rope<D: Device> {
    /// Cosine and sine interleaved, `[n_positions, head_dim]`.
    pub freqs: D::Buffer,
    /// Positions in the table.
    pub n_positions: usize,
}

/// RMSNorms of each query head and each key head: Qwen 3, Gemma 3.
#[derive(Debug)]
pub struct HeadNorms<D: Device> {
    /// Scale of the queries, `[head_dim]`.
    pub q: D::Buffer,
    /// Scale of the keys, `[head_dim]`.
    pub k: D::Buffer,
    /// Added to the mean square.
    pub eps: f32,
}

/// Weights of the attention block.
#[derive(Debug)]
pub struct AttentionWeights<D: Device> {
    /// Norm before the projection.
    pub norm: Norm<D>,
    /// Query, key and value projection, stacked in that order.
    pub qkv: Linear<D>,
    /// Norms of the heads, before the rotation.
    pub head_norms: Option<HeadNorms<D>>,
    /// Rotation of queries and keys by position.
    pub rope: Option<Arc<Rope<D>>>,
    /// Output projection.
    pub proj: Linear<D>,
    /// Norm of what the block adds to the residual: Gemma.
    pub post_norm: Option<Norm<D>>,
}

/// Weights of the MLP block.
#[derive(Debug)]
pub struct MlpWeights<D: Device> {
    /// Norm before the projection.
    pub norm: Norm<D>,
    /// Up, and its activation.
    pub expand: Expand<D>,
    /// Down.
    pub down: Linear<D>,
    /// Norm of what the block adds to the residual: Gemma.
    pub post_norm: Option<Norm<D>>,
}

/// Which attention kernel serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionKind {
    /// Scores, softmax and mix as three kernels, with a matrix of scores.
    Naive,
    /// One pass over the keys with a running softmax.
    Flash,
    /// Naive up to [`AttentionKind::NAIVE_MAX`] tokens of context, flash above.
    #[default]
    Auto,
}

impl AttentionKind {
    /// The longest context for which `Auto` takes the naive kernels (the reference's table).
    pub const NAIVE_MAX: usize = 512;

    /// Whether a context of `t` tokens takes the flash kernel.
    #[must_use]
    pub const fn is_flash(self, t: usize) -> bool {
        match self {
            Self::Naive => false,
            Self::Flash => true,
            Self::Auto => t > Self::NAIVE_MAX,
        }
    }
}

/// The heads of an attention layer, and what it does to scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads; `n_head` is a multiple.
    pub n_kv_head: usize,
    /// Channels a head.
    pub head_dim: usize,
    /// Which kernel.
    pub kind: AttentionKind,
    /// What the product of query and key is multiplied by.
    pub scale: f32,
    /// How many tokens a query sees, its own among them; all at 0.
    pub window: usize,
    /// Scores become `cap * tanh(score / cap)`; not at 0.
    pub cap: f32,
}

impl AttentionShape {
    /// Causal attention scaled by `1 / sqrt(head_dim)`, with neither window nor cap.
    #[must_use]
    pub fn new(n_head: usize, n_kv_head: usize, head_dim: usize, kind: AttentionKind) -> Self {
        let scale = (head_dim as f32).sqrt().recip();
        Self { n_head, n_kv_head, head_dim, kind, scale, window: 0, cap: 0.0 }
    }

    /// What queries are multiplied by before kernels that scale by `1 / sqrt(head_dim)`; none where that is 1.
    #[must_use]
    pub fn query_scale(&self) -> Option<f32> {
        let plain = Self::new(self.n_head, self.n_kv_head, self.head_dim, self.kind).scale;
        (self.scale != plain).then(|| self.scale / plain)
    }

    /// Width of a fused row of queries, keys and values.
    #[must_use]
    pub const fn qkv_width(&self) -> usize {
        (self.n_head + 2 * self.n_kv_head) * self.head_dim
    }
}

/// The widths that decide how large the activations are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationShape {
    /// Rows of the largest batch.
    pub rows: usize,
    /// Rows of the largest batch that want logits.
    pub outputs: usize,
    /// Channels of the residual stream.
    pub n_embd: usize,
    /// Heads.
    pub attention: AttentionShape,
    /// Channels inside the MLP.
    pub n_inner: usize,
    /// Vocabulary.
    pub n_vocab: usize,
}

/// Rows at most that the fused kernels of a decoding step take together: each reads the weights for itself.
pub const DECODE_ROWS: usize = 8;
/// Pieces at most into which a decoding step's attention splits the cache (`MOST_PIECES` of decode_layer.metal).
pub const DECODE_PIECES: usize = 16;

/// What flows between the kernels of one forward pass.
#[derive(Debug)]
pub struct Activations<D: Device> {
    /// The widths.
    pub shape: ActivationShape,
    /// The residual stream `[n, n_embd]`.
    pub residual: D::Buffer,
    /// A normed copy `[n, n_embd]`.
    pub normed: D::Buffer,
    /// Queries, keys and values `[n, qkv_width]`.
    pub qkv: D::Buffer,
    /// Attention's output, heads side by side `[n, n_head * head_dim]`.
    pub attn: D::Buffer,
    /// A block's output on its way to the residual `[n, n_embd]`.
    pub branch: D::Buffer,
    /// Before the activation `[n, n_inner]`.
    pub up: D::Buffer,
    /// The gate of a gated MLP `[n, n_inner]`; empty otherwise.
    pub gate: D::Buffer,
    /// After the activation `[n, n_inner]`.
    pub act: D::Buffer,
    /// The residual rows that want logits `[m, n_embd]`.
    pub rows: D::Buffer,
    /// Logits `[m, n_vocab]`.
    pub logits: D::Buffer,
    /// Attention of a decoding step in pieces, `[n, n_head, DECODE_PIECES, head_dim]` for up to [`Device::split_rows`] rows
    /// that want logits.
    pub partial: D::Buffer,
    /// Of each piece the largest score and the sum of weights.
    pub part_stats: D::Buffer,
    /// What attention by heads needs; grown on first use.
    heads: Option<Heads<D>>,
}

/// Head-major copies for the primitive attention kernels.
#[derive(Debug)]
struct Heads<D: Device> {
    capacity: (usize, usize),
    q: D::Buffer,
    k: D::Buffer,
    v: D::Buffer,
    out: D::Buffer,
    att: D::Buffer,
}

impl<D: Device> Activations<D> {
    /// Buffers for batches up to `shape`; `gated` where the MLP has a gate.
    pub fn new(device: &D, shape: ActivationShape, gated: bool) -> Result<Self> {
        let alloc = |rows: usize, width: usize| device.alloc(Dtype::F32, rows * width);
        let ActivationShape { rows, outputs, n_embd, attention, n_inner, n_vocab } = shape;
        let split = outputs.min(device.split_rows());
        Ok(Self {
            shape,
            residual: alloc(rows, n_embd)?,
            normed: alloc(rows, n_embd)?,
            qkv: alloc(rows, attention.qkv_width())?,
            attn: alloc(rows, attention.n_head * attention.head_dim)?,
            branch: alloc(rows, n_embd)?,
            up: alloc(rows, n_inner)?,
            gate: alloc(if gated { rows } else { 0 }, n_inner)?,
            act: alloc(rows, n_inner)?,
            rows: alloc(outputs, n_embd)?,
            logits: alloc(outputs, n_vocab)?,
            partial: alloc(split, attention.n_head * DECODE_PIECES * attention.head_dim)?,
            part_stats: alloc(split, attention.n_head * DECODE_PIECES * 2)?,
            heads: None,
        })
    }
}

impl<D: Device> Heads<D> {
    /// Buffers for `t` tokens, with a score matrix of `scores` values.
    fn new(device: &D, tensor: usize, scores: usize) -> Result<Self> {
        let alloc = |len| device.alloc(Dtype::F32, len);
        Ok(Self {
            capacity: (tensor, scores),
            q: alloc(tensor)?,
            k: alloc(tensor)?,
            v: alloc(tensor)?,
            out: alloc(tensor)?,
            att: alloc(scores)?,
        })
    }
}

/// `out = norm(x)`, `n` rows of `c`.
///
/// # Errors
/// The device's.
pub fn norm<D: Device>(
    d: &D,
    norm: &Norm<D>,
    x: &D::Buffer,
    out: &mut D::Buffer,
    n: usize,
    c: usize,
) -> Result<()> {
    match norm {
        Norm::Layer { gamma, beta, eps } => d.layernorm_forward(x, gamma, beta, out, None, None, n, c, *eps),
        Norm::Rms { gamma, eps } => d.rmsnorm_forward(x, gamma, out, n, c, *eps),
    }
}

/// `residual += x; out = norm(residual)`.
fn residual_norm<D: Device>(
    d: &D,
    norm: &Norm<D>,
    residual: &mut D::Buffer,
    x: &D::Buffer,
    out: &mut D::Buffer,
    n: usize,
    c: usize,
) -> Result<()> {
    match norm {
        Norm::Layer { gamma, beta, eps } => d.residual_layernorm(residual, x, gamma, beta, out, n, c, *eps),
        Norm::Rms { gamma, eps } => d.residual_rmsnorm(residual, x, gamma, out, n, c, *eps),
    }
}

/// [`Device::linear`] in primitive kernels.
pub fn linear<D: Device>(
    d: &D,
    x: &D::Buffer,
    linear: &Linear<D>,
    out: &mut D::Buffer,
    n: usize,
) -> Result<()> {
    d.matmul(x, &linear.weight, out, n)?;
    match &linear.bias {
        Some((bias, c)) => d.bias_add(out, bias, n, *c),
        None => Ok(()),
    }
}

/// [`Device::attention`] in primitive kernels: sequence by sequence, over contiguous copies of its cache.
///
/// The reference's kernels are square, so a sequence that goes on has its earlier queries filled with zeros, and
/// their results dropped: plain, and what the fast paths are held against.
pub fn attention<D: Device>(
    d: &D,
    acts: &mut Activations<D>,
    cache: &mut KvLayer<D>,
    step: &Step<D>,
    shape: AttentionShape,
) -> Result<()> {
    let (nh, hs) = (shape.n_head, shape.head_dim);
    d.cache_write(&acts.qkv, &step.slots, cache, step.rows(), nh)?;

    let contexts = || step.batch.spans.iter().map(|span| span.context());
    let longest = contexts().max().unwrap_or(0);
    let naive = contexts().filter(|&t| !shape.kind.is_flash(t)).max().unwrap_or(0);
    let need = (nh * longest * hs, nh * naive * naive);
    let have = acts.heads.as_ref().map_or((0, 0), |h| h.capacity);
    if need.0 > have.0 || need.1 > have.1 {
        acts.heads = Some(Heads::new(d, need.0.max(have.0), need.1.max(have.1))?);
    }
    let Some(heads) = &mut acts.heads else {
        return Ok(());
    };

    for (i, span) in step.batch.spans.iter().enumerate() {
        let (t, bh) = (span.context(), nh);
        let rows = HeadRows { n_head: nh, first_row: span.first_row, rows: span.rows, t, hs };
        d.split_heads(&acts.qkv, &mut heads.q, rows, shape.qkv_width(), 0)?;
        if let Some(scale) = shape.query_scale() {
            d.scale_inplace(&mut heads.q, nh * t * hs, scale)?;
        }
        d.cache_gather(cache, &step.block_tables, i * step.max_blocks, &mut heads.k, &mut heads.v, t, nh)?;
        let (window, cap) = (shape.window, shape.cap);
        let masked = window != 0 || cap != 0.0;
        if shape.kind.is_flash(t) && masked {
            let (q, k, v) = (&heads.q, &heads.k, &heads.v);
            d.flash_attention_masked(q, k, v, &mut heads.out, bh, t, hs, window, cap)?;
        } else if shape.kind.is_flash(t) {
            d.flash_attention_forward(&heads.q, &heads.k, &heads.v, &mut heads.out, bh, t, hs)?;
        } else {
            d.attention_scores(&heads.q, &heads.k, &mut heads.att, bh, t, hs)?;
            if masked {
                d.attention_mask(&mut heads.att, bh, t, window, cap)?;
            }
            d.softmax_inplace(&mut heads.att, bh * t, t)?;
            d.attention_mix(&heads.att, &heads.v, &mut heads.out, bh, t, hs)?;
        }
        d.merge_heads(&heads.out, &mut acts.attn, rows)?;
    }
    Ok(())
}

/// [`Device::attention_block`] in primitive kernels.
pub fn attention_block<D: Device>(
    d: &D,
    weights: &AttentionWeights<D>,
    acts: &mut Activations<D>,
    cache: &mut KvLayer<D>,
    step: &Step<D>,
    shape: AttentionShape,
) -> Result<()> {
    let (n, c) = (step.rows(), acts.shape.n_embd);
    norm(d, &weights.norm, &acts.residual, &mut acts.normed, n, c)?;
    d.linear(&acts.normed, &weights.qkv, &mut acts.qkv, n)?;
    place_heads(d, weights, &mut acts.qkv, step, shape)?;
    d.attention(acts, cache, step, shape)?;
    d.linear(&acts.attn, &weights.proj, &mut acts.branch, n)?;
    norm_branch(d, weights.post_norm.as_ref(), acts, n)
}

/// Head norms and rotation of the queries and keys of a step's rows.
pub fn place_heads<D: Device>(
    d: &D,
    weights: &AttentionWeights<D>,
    qkv: &mut D::Buffer,
    step: &Step<D>,
    shape: AttentionShape,
) -> Result<()> {
    let AttentionShape { n_head, n_kv_head, head_dim: hs, .. } = shape;
    let (n, width) = (step.rows(), shape.qkv_width());
    let queries = HeadColumns { width, column: 0, n_head, hs };
    let keys = HeadColumns { width, column: n_head * hs, n_head: n_kv_head, hs };
    if let Some(HeadNorms { q, k, eps }) = &weights.head_norms {
        d.rmsnorm_heads(qkv, q, queries, n, *eps)?;
        d.rmsnorm_heads(qkv, k, keys, n, *eps)?;
    }
    if let Some(rope) = &weights.rope {
        // queries and keys lie side by side
        let both = HeadColumns { n_head: n_head + n_kv_head, ..queries };
        d.rope_rows(qkv, &rope.freqs, &step.positions, both, n)?;
    }
    Ok(())
}

/// `branch = post_norm(branch)`, where there is one.
fn norm_branch<D: Device>(
    d: &D,
    post_norm: Option<&Norm<D>>,
    acts: &mut Activations<D>,
    n: usize,
) -> Result<()> {
    let Some(post_norm) = post_norm else { return Ok(()) };
    norm(d, post_norm, &acts.branch, &mut acts.normed, n, acts.shape.n_embd)?;
    std::mem::swap(&mut acts.branch, &mut acts.normed);
    Ok(())
}

/// [`Device::layer`]: its two blocks.
pub fn layer<D: Device>(
    d: &D,
    attention: &AttentionWeights<D>,
    mlp: &MlpWeights<D>,
    acts: &mut Activations<D>,
    cache: &mut KvLayer<D>,
    step: &Step<D>,
    shape: AttentionShape,
) -> Result<()> {
    d.attention_block(attention, acts, cache, step, shape)?;
    d.mlp_block(mlp, acts, step)
}

/// [`Device::mlp_block`] in primitive kernels.
pub fn mlp_block<D: Device>(
    d: &D,
    weights: &MlpWeights<D>,
    acts: &mut Activations<D>,
    step: &Step<D>,
) -> Result<()> {
    let (n, c) = (step.rows(), acts.shape.n_embd);
    residual_norm(d, &weights.norm, &mut acts.residual, &acts.branch, &mut acts.normed, n, c)?;
    expand(d, weights, acts, n)?;
    d.linear(&acts.act, &weights.down, &mut acts.branch, n)?;
    norm_branch(d, weights.post_norm.as_ref(), acts, n)?;
    d.residual_add(&mut acts.residual, &acts.branch, n * c)
}

/// From the normed rows to what the down projection takes: up, and gate, and the activation.
pub fn expand<D: Device>(d: &D, weights: &MlpWeights<D>, acts: &mut Activations<D>, n: usize) -> Result<()> {
    let inner = acts.shape.n_inner;
    match &weights.expand {
        Expand::Plain { up, activation } => {
            d.linear(&acts.normed, up, &mut acts.up, n)?;
            let (x, out) = (&acts.up, &mut acts.act);
            match activation {
                Activation::Gelu => d.gelu_forward(x, out, n * inner),
                Activation::Silu => d.silu_forward(x, out, n * inner),
                Activation::Relu => d.relu_forward(x, out, n * inner),
                Activation::Sigmoid => d.sigmoid_forward(x, out, n * inner),
            }
        }
        Expand::Gated { gate, up, kind } => {
            d.linear_pair(&acts.normed, [gate, up], [&mut acts.gate, &mut acts.up], n)?;
            let (gate, up, out) = (&acts.gate, &acts.up, &mut acts.act);
            match kind {
                Gate::SwiGlu => d.swiglu_forward(gate, up, out, n * inner),
                Gate::GeGlu => d.geglu_forward(gate, up, out, n * inner),
            }
        }
    }
}

/// [`Device::lm_head`] in primitive kernels.
pub fn lm_head<D: Device>(
    d: &D,
    final_norm: &Norm<D>,
    head: &D::Matrix,
    acts: &mut Activations<D>,
    step: &Step<D>,
) -> Result<()> {
    let (m, c) = (step.batch.outputs.len(), acts.shape.n_embd);
    d.gather_rows(&acts.residual, &step.outputs, &mut acts.rows, m, c)?;
    norm(d, final_norm, &acts.rows, &mut acts.normed, m, c)?;
    d.matmul(&acts.normed, head, &mut acts.logits, m)
}
