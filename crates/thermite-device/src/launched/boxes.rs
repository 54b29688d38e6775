//! The boxes in fused kernels: five launches a layer for a step that decodes.

use super::matrix::suffix;
use super::{Argument, Launched, LaunchedMatrix, Launcher, Variants, optional, whole};
use crate::{
    Activation, Activations, AttentionShape, AttentionWeights, Device, Dtype, Expand, Gate, KvLayer, KvShape,
    Linear, MlpWeights, Norm, Result, Step, boxes,
};

/// The norms that fused kernels begin with: name, scale, shift, epsilon.
fn parts<D: Device>(norm: &Norm<D>) -> (&'static str, &D::Buffer, Option<&D::Buffer>, f32) {
    match norm {
        Norm::Layer { gamma, beta, eps } => ("layer", gamma, Some(beta), *eps),
        Norm::Rms { gamma, eps } => ("rms", gamma, None, *eps),
    }
}

fn bias<D: Device>(linear: &Linear<D>) -> Option<&D::Buffer> {
    linear.bias.as_ref().map(|(bias, _)| bias)
}

/// What the fused kernels' names say of a weight's type.
const fn storage<B>(weight: &LaunchedMatrix<B>) -> &'static str {
    match weight.dtype {
        Dtype::F32 | Dtype::I32 | Dtype::U32 => "_f32",
        Dtype::F16 => "_f16",
        Dtype::BF16 => "_bf16",
    }
}

/// [`Device::linear`], the bias in the product's kernel where that is ours.
pub(super) fn linear<L: Launcher>(
    d: &Launched<L>,
    x: &L::Buffer,
    linear: &Linear<Launched<L>>,
    out: &mut L::Buffer,
    n: usize,
) -> Result<()> {
    let vendor = d.vendor_matmul(x, &linear.weight, out, n);
    match (vendor, d.variants) {
        (None, Variants::Fast) => d.matvec(x, &linear.weight, bias(linear), None, out, n),
        (None, Variants::Plain) => boxes::linear(d, x, linear, out, n),
        (Some(done), _) => match &linear.bias {
            Some((bias, c)) => done.and_then(|()| d.bias_add(out, bias, n, *c)),
            None => done,
        },
    }
}

/// [`Device::layer`]: fused where every sequence has one row and there are kernels for these types.
pub(super) fn layer<L: Launcher>(
    d: &Launched<L>,
    attention: &AttentionWeights<Launched<L>>,
    mlp: &MlpWeights<Launched<L>>,
    acts: &mut Activations<Launched<L>>,
    cache: &mut KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let decodes = step.batch.spans.iter().all(|span| span.rows == 1);
    let fused = match (&mlp.norm, &mlp.expand) {
        (Norm::Layer { .. }, Expand::Plain { activation: Activation::Gelu, .. }) => true,
        (Norm::Rms { .. }, Expand::Gated { gate, up, .. }) => gate.bias.is_none() && up.bias.is_none(),
        _ => false,
    };
    let pair = (attention.qkv.weight.dtype, cache.shape.dtype);
    let normed = attention.head_norms.is_some() || attention.post_norm.is_some() || mlp.post_norm.is_some();
    let typed = matches!(
        pair,
        (Dtype::F32, Dtype::F32 | Dtype::F16)
            | (Dtype::F16, Dtype::F16)
            | (Dtype::BF16, Dtype::F16 | Dtype::BF16)
    );
    if d.variants == Variants::Plain
        || !decodes
        || !fused
        || normed
        || !typed
        || !shape.head_dim.is_multiple_of(2)
    {
        return boxes::layer(d, attention, mlp, acts, cache, step, shape);
    }
    let n = step.rows();
    project_qkv(d, attention, acts, cache, step, shape)?;
    attend(d, acts, cache, step, shape)?;
    let (proj, down) = (&attention.proj, &mlp.down);
    d.matvec(&acts.attn, &proj.weight, bias(proj), Some(&acts.residual), &acts.residual, n)?;
    expand(d, mlp, acts, n)?;
    d.matvec(&acts.act, &down.weight, bias(down), Some(&acts.residual), &acts.residual, n)
}

/// Norm, QKV projection and cache write in one kernel; the queries go to `acts.qkv`, side by side.
fn project_qkv<L: Launcher>(
    d: &Launched<L>,
    weights: &AttentionWeights<Launched<L>>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let (kind, gamma, beta, eps) = parts(&weights.norm);
    let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, dtype } = cache.shape;
    let cached = if dtype == Dtype::F32 { "_f32" } else { suffix(dtype) };
    let name = format!("decode_qkv_{kind}{}{cached}", storage(&weights.qkv.weight));
    let dims = [
        ("N", step.rows()),
        ("C", acts.shape.n_embd),
        ("nh", shape.n_head),
        ("n_kv_head", n_kv_head),
        ("hs", hs),
        ("block_size", block_size),
        ("n_blocks", n_blocks),
        // where nothing is rotated any position will do
        ("n_positions", weights.rope.as_ref().map_or(i32::MAX as usize, |rope| rope.n_positions)),
    ];
    let buffers = [
        whole(&acts.residual),
        whole(gamma),
        optional(beta),
        whole(&weights.qkv.weight.buffer),
        optional(bias(&weights.qkv)),
        optional(weights.rope.as_ref().map(|rope| &rope.freqs)),
        whole(&step.positions),
        whole(&step.slots),
        whole(&acts.qkv),
        whole(&cache.k),
        whole(&cache.v),
    ];
    d.run(&name, &dims, &buffers, &[eps])
}

/// One row of queries a sequence over its pages.
fn attend<L: Launcher>(
    d: &Launched<L>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, dtype } = cache.shape;
    let dims = [
        ("N", step.rows()),
        ("q_stride", shape.n_head * hs),
        ("nh", shape.n_head),
        ("n_kv_head", n_kv_head),
        ("hs", hs),
        ("built_hs", hs),
        ("block_size", block_size),
        ("max_blocks", step.max_blocks),
        ("n_blocks", n_blocks),
        ("window", shape.window),
    ];
    let buffers = [
        whole(&acts.qkv),
        whole(&cache.k),
        whole(&cache.v),
        whole(&step.block_tables),
        whole(&step.lengths),
        whole(&acts.attn),
    ];
    d.run(&format!("attention_decode{}", suffix(dtype)), &dims, &buffers, &[shape.scale, shape.cap])
}

/// Norm, up (and gate) and activation in one kernel.
fn expand<L: Launcher>(
    d: &Launched<L>,
    weights: &MlpWeights<Launched<L>>,
    acts: &Activations<Launched<L>>,
    n: usize,
) -> Result<()> {
    let (_, gamma, beta, eps) = parts(&weights.norm);
    let dims = [("N", n), ("C", acts.shape.n_embd), ("M", acts.shape.n_inner)];
    let (x, out) = (whole(&acts.residual), whole(&acts.act));
    match &weights.expand {
        Expand::Gated { gate, up, kind } => {
            let kind = match kind {
                Gate::SwiGlu => "swiglu",
                Gate::GeGlu => "geglu",
            };
            let name = format!("decode_{kind}{}", storage(&up.weight));
            let buffers = [x, whole(gamma), whole(&gate.weight.buffer), whole(&up.weight.buffer), out];
            d.run(&name, &dims, &buffers, &[eps])
        }
        Expand::Plain { up, .. } => {
            let name = format!("decode_up_gelu{}", storage(&up.weight));
            let buffers =
                [x, whole(gamma), optional(beta), whole(&up.weight.buffer), optional(bias(up)), out];
            d.run(&name, &dims, &buffers, &[eps])
        }
    }
}

/// [`Device::lm_head`]: the final norm in the head's kernel.
pub(super) fn lm_head<L: Launcher>(
    d: &Launched<L>,
    norm: &Norm<Launched<L>>,
    head: &LaunchedMatrix<L::Buffer>,
    acts: &mut Activations<Launched<L>>,
    step: &Step<Launched<L>>,
) -> Result<()> {
    if d.variants == Variants::Plain {
        return boxes::lm_head(d, norm, head, acts, step);
    }
    let (m, c) = (step.batch.outputs.len(), acts.shape.n_embd);
    d.gather_rows(&acts.residual, &step.outputs, &mut acts.rows, m, c)?;
    let (kind, gamma, beta, eps) = parts(norm);
    let name = format!("decode_head_{kind}{}", storage(head));
    let buffers = [
        whole(&acts.rows),
        whole(gamma),
        optional(beta),
        whole(&head.buffer),
        Argument::Nil,
        whole(&acts.logits),
    ];
    d.run(&name, &[("N", m), ("C", c), ("M", head.rows)], &buffers, &[eps])
}
