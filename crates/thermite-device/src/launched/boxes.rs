//! The boxes in fused kernels, for steps in which a few sequences decode: five launches a layer, six with head norms, seven
//! with blocks or post-norms.

use super::attention::Paged;
use super::matrix::suffix;
use super::{Launched, LaunchedMatrix, Launcher, optional, rows, whole};
use crate::boxes::DECODE_ROWS;
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

pub(super) fn bias<D: Device>(linear: &Linear<D>) -> Option<&D::Buffer> {
    linear.bias.as_ref().map(|(bias, _)| bias)
}

/// [`Device::layer`]: fused where few sequences have one row each and there are kernels for these norms and activations.
pub(super) fn layer<L: Launcher>(
    d: &Launched<L>,
    attention: &AttentionWeights<Launched<L>>,
    mlp: &MlpWeights<Launched<L>>,
    acts: &mut Activations<Launched<L>>,
    cache: &mut KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let fused = is_fused(attention, mlp, shape);
    if !d.is_fast() || d.is_invariant() || !step.decodes() || step.rows() > DECODE_ROWS || !fused {
        return rows::layer(d, attention, mlp, acts, cache, step, shape);
    }
    let n = step.rows();
    let q_stride = project_qkv(d, attention, acts, cache, step, shape)?;
    let (proj, down) = (&attention.proj, &mlp.down);
    let paged = Paged { d, acts, cache, step, shape };
    if attention.post_norm.is_none() && !proj.weight.is_quantized() && paged.splits() {
        paged.attend_in_pieces(q_stride)?;
        add_output(&paged, proj)?;
    } else {
        paged.attend(q_stride)?;
        add_branch(d, &acts.attn, proj, attention.post_norm.as_ref(), acts, step)?;
    }
    expand(d, mlp, acts, n)?;
    if mlp.post_norm.is_some() || down.weight.is_quantized() {
        return add_branch(d, &acts.act, down, mlp.post_norm.as_ref(), acts, step);
    }
    let name = format!("decode_down{}", down.weight.storage());
    let dims = [("N", n), ("K", down.weight.cols), ("M", down.weight.rows)];
    let buffers = [whole(&acts.act), whole(&down.weight.buffer), optional(bias(down)), whole(&acts.residual)];
    d.run(&name, &dims, &buffers, &[])
}

/// Whether the fused kernels compute this layer.
fn is_fused<L: Launcher>(
    attention: &AttentionWeights<Launched<L>>,
    mlp: &MlpWeights<Launched<L>>,
    shape: AttentionShape,
) -> bool {
    let expands = match (&mlp.norm, &mlp.expand) {
        (Norm::Layer { .. }, Expand::Plain { activation: Activation::Gelu, .. }) => true,
        (Norm::Rms { .. }, Expand::Gated { gate, up, .. }) => are_alike(gate, up),
        _ => false,
    };
    expands && places_and_adds(attention, mlp, shape)
}

/// Whether there are kernels that place these heads, and that add with these post-norms.
pub(super) fn places_and_adds<L: Launcher>(
    attention: &AttentionWeights<Launched<L>>,
    mlp: &MlpWeights<Launched<L>>,
    shape: AttentionShape,
) -> bool {
    let adds = |post_norm: &Option<Norm<_>>| !matches!(post_norm, Some(Norm::Layer { .. }));
    adds(&attention.post_norm) && adds(&mlp.post_norm) && shape.head_dim.is_multiple_of(2)
}

/// Whether one kernel multiplies by a gate and what it lets through.
pub(super) fn are_alike<L: Launcher>(gate: &Linear<Launched<L>>, up: &Linear<Launched<L>>) -> bool {
    gate.bias.is_none() && up.bias.is_none() && gate.weight.stored == up.weight.stored
}

/// Norm, QKV projection, what is done to heads, and the cache; the queries go to `acts.qkv`. Returns how many floats lie
/// from one row's queries to the next's.
fn project_qkv<L: Launcher>(
    d: &Launched<L>,
    weights: &AttentionWeights<Launched<L>>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<usize> {
    let in_one = matches!(
        (weights.qkv.weight.dtype, cache.shape.dtype),
        (Dtype::F32, Dtype::F32 | Dtype::F16)
            | (Dtype::F16, Dtype::F16)
            | (Dtype::BF16, Dtype::F16 | Dtype::BF16)
    );
    if in_one && weights.head_norms.is_none() {
        project_into_cache(d, weights, acts, cache, step, shape)?;
        return Ok(shape.n_head * shape.head_dim);
    }
    let (qkv, width) = (&weights.qkv, shape.qkv_width());
    project(
        d,
        &weights.norm,
        (&qkv.weight, bias(qkv)),
        (&acts.residual, acts.shape.n_embd),
        &acts.qkv,
        step.rows(),
    )?;
    place_heads(d, weights, acts, cache, step, shape)?;
    Ok(width)
}

/// Norm and projection in one kernel: `out [n, weight.rows]` of `x [n, c]`.
fn project<L: Launcher>(
    d: &Launched<L>,
    norm: &Norm<Launched<L>>,
    (weight, bias): (&LaunchedMatrix<L::Buffer>, Option<&L::Buffer>),
    (x, c): (&L::Buffer, usize),
    out: &L::Buffer,
    n: usize,
) -> Result<()> {
    let (kind, gamma, beta, eps) = parts(norm);
    let name = format!("decode_head_{kind}{}", weight.storage());
    let buffers = [whole(x), whole(gamma), optional(beta), whole(&weight.buffer), optional(bias), whole(out)];
    d.run(&name, &[("N", n), ("C", c), ("M", weight.rows)], &buffers, &[eps])
}

/// Head norms, rotation and cache write in one kernel.
pub(super) fn place_heads<L: Launcher>(
    d: &Launched<L>,
    weights: &AttentionWeights<Launched<L>>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, dtype } = cache.shape;
    let dims = [
        ("N", step.rows()),
        ("nh", shape.n_head),
        ("n_kv_head", n_kv_head),
        ("hs", hs),
        ("block_size", block_size),
        ("n_blocks", n_blocks),
        ("n_positions", n_positions(weights)),
    ];
    let norms = weights.head_norms.as_ref();
    let buffers = [
        whole(&acts.qkv),
        optional(norms.map(|norms| &norms.q)),
        optional(norms.map(|norms| &norms.k)),
        optional(weights.rope.as_ref().map(|rope| &rope.freqs)),
        whole(&step.positions),
        whole(&step.slots),
        whole(&cache.k),
        whole(&cache.v),
    ];
    let eps = norms.map_or(0.0, |norms| norms.eps);
    d.run(&format!("place_heads{}", suffix(dtype)), &dims, &buffers, &[eps])
}

/// Positions of the rotation's table; where nothing is rotated any position will do.
fn n_positions<L: Launcher>(weights: &AttentionWeights<Launched<L>>) -> usize {
    weights.rope.as_ref().map_or(i32::MAX as usize, |rope| rope.n_positions)
}

/// `residual += x W^T + bias`, or the norm of that.
fn add_branch<L: Launcher>(
    d: &Launched<L>,
    x: &L::Buffer,
    linear: &Linear<Launched<L>>,
    post_norm: Option<&Norm<Launched<L>>>,
    acts: &Activations<Launched<L>>,
    step: &Step<Launched<L>>,
) -> Result<()> {
    let (n, residual) = (step.rows(), &acts.residual);
    let Some(post_norm) = post_norm else {
        return d.matvec(x, &linear.weight, bias(linear), Some(residual), residual, n);
    };
    d.matvec(x, &linear.weight, bias(linear), None, &acts.branch, n)?;
    add_normed(d, post_norm, acts, n)
}

/// `residual += norm(branch)`, the norm an RMSNorm.
pub(super) fn add_normed<L: Launcher>(
    d: &Launched<L>,
    post_norm: &Norm<Launched<L>>,
    acts: &Activations<Launched<L>>,
    n: usize,
) -> Result<()> {
    let (_, gamma, _, eps) = parts(post_norm);
    let buffers = [whole(&acts.residual), whole(&acts.branch), whole(gamma)];
    d.run("rmsnorm_add", &[("N", n), ("C", acts.shape.n_embd)], &buffers, &[eps])
}

/// Norm, QKV projection, rotation and cache write in one kernel; the queries go to `acts.qkv`, side by side.
fn project_into_cache<L: Launcher>(
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
    let name = format!("decode_qkv_{kind}{}{cached}", weights.qkv.weight.storage());
    let dims = [
        ("N", step.rows()),
        ("C", acts.shape.n_embd),
        ("nh", shape.n_head),
        ("n_kv_head", n_kv_head),
        ("hs", hs),
        ("block_size", block_size),
        ("n_blocks", n_blocks),
        ("n_positions", n_positions(weights)),
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

/// The pieces of attention together, through the output projection, added to the residual stream.
fn add_output<L: Launcher>(paged: &Paged<'_, L>, proj: &Linear<Launched<L>>) -> Result<()> {
    let &Paged { d, acts, step, shape, .. } = paged;
    let dims = [
        ("N", step.rows()),
        ("nh", shape.n_head),
        ("hs", shape.head_dim),
        ("parts", paged.pieces()),
        ("M", proj.weight.rows),
    ];
    let buffers = [
        whole(&acts.partial),
        whole(&acts.part_stats),
        whole(&proj.weight.buffer),
        optional(bias(proj)),
        whole(&acts.residual),
    ];
    d.run(&format!("decode_output{}", proj.weight.storage()), &dims, &buffers, &[])
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
            let name = format!("decode_{}{}", gate_name(*kind), up.weight.storage());
            let buffers = [x, whole(gamma), whole(&gate.weight.buffer), whole(&up.weight.buffer), out];
            d.run(&name, &dims, &buffers, &[eps])
        }
        Expand::Plain { up, .. } => {
            let name = format!("decode_up_gelu{}", up.weight.storage());
            let buffers =
                [x, whole(gamma), optional(beta), whole(&up.weight.buffer), optional(bias(up)), out];
            d.run(&name, &dims, &buffers, &[eps])
        }
    }
}

/// What kernels' names call a gate.
pub(super) const fn gate_name(kind: Gate) -> &'static str {
    match kind {
        Gate::SwiGlu => "swiglu",
        Gate::GeGlu => "geglu",
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
    let (m, c) = (step.batch.outputs.len(), acts.shape.n_embd);
    let matrices = d.is_invariant() && head.is_narrow();
    if !d.is_fast() || matrices || m > DECODE_ROWS && !d.is_invariant() {
        return boxes::lm_head(d, norm, head, acts, step);
    }
    let all = step.batch.outputs.iter().copied().eq(0..step.rows() as i32);
    if !all {
        d.gather_rows(&acts.residual, &step.outputs, &mut acts.rows, m, c)?;
    }
    let x = if all { &acts.residual } else { &acts.rows };
    project(d, norm, (head, None), (x, c), &acts.logits, m)
}
