//! The boxes in fused kernels: five launches a layer for a step that decodes, six with head norms or blocks, two more with
//! post-norms.

use super::matrix::suffix;
use super::{Argument, Launched, LaunchedMatrix, Launcher, Product, Variants, optional, whole};
use crate::boxes::{DECODE_PIECES, DECODE_ROWS};
use crate::{
    Activation, Activations, AttentionKind, AttentionShape, AttentionWeights, Device, Dtype, Error, Expand,
    Gate, KvLayer, KvShape, Linear, MlpWeights, Norm, Result, Step, boxes,
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

/// [`Device::linear`], the bias in the product's kernel where that is ours.
pub(super) fn linear<L: Launcher>(
    d: &Launched<L>,
    x: &L::Buffer,
    linear: &Linear<Launched<L>>,
    out: &mut L::Buffer,
    n: usize,
) -> Result<()> {
    let product = Product { x, weight: &linear.weight, bias: bias(linear), accumulates: false, out, n };
    if let Some(done) = d.vendor_product(&product) {
        return done;
    }
    // a vendor may have the product without the bias
    if let Some((bias, c)) = &linear.bias
        && let Some(done) = d.vendor_product(&Product { bias: None, ..product })
    {
        return done.and_then(|()| d.bias_add(out, bias, n, *c));
    }
    match d.variants {
        Variants::Plain => boxes::linear(d, x, linear, out, n),
        _ if d.takes_matrices(&linear.weight, n) => d.matmul_simd(x, &linear.weight, bias(linear), out, n),
        _ => d.matvec(x, &linear.weight, bias(linear), None, out, n),
    }
}

/// [`Device::layer`]: fused where every sequence has one row and there are kernels for these norms and activations.
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
        return boxes::layer(d, attention, mlp, acts, cache, step, shape);
    }
    let n = step.rows();
    let q_stride = project_qkv(d, attention, acts, cache, step, shape)?;
    let (proj, down) = (&attention.proj, &mlp.down);
    if attention.post_norm.is_none() && !proj.weight.is_quantized() && splits(acts, cache, step, shape) {
        attend_in_pieces(d, acts, cache, step, shape, q_stride)?;
        add_output(d, proj, acts, n, step, cache, shape)?;
    } else {
        attend(d, acts, cache, step, shape, q_stride)?;
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
        (Norm::Rms { .. }, Expand::Gated { gate, up, .. }) => {
            gate.bias.is_none() && up.bias.is_none() && gate.weight.stored == up.weight.stored
        }
        _ => false,
    };
    let adds = |post_norm: &Option<Norm<_>>| !matches!(post_norm, Some(Norm::Layer { .. }));
    expands && adds(&attention.post_norm) && adds(&mlp.post_norm) && shape.head_dim.is_multiple_of(2)
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
fn place_heads<L: Launcher>(
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
    let (_, gamma, _, eps) = parts(post_norm);
    let buffers = [whole(residual), whole(&acts.branch), whole(gamma)];
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

/// Whether there is a kernel that attends in pieces for these heads, and room for the pieces.
fn splits<L: Launcher>(
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> bool {
    matches!(cache.shape.dtype, Dtype::F16 | Dtype::BF16)
        && matches!(shape.head_dim, 32 | 64 | 128 | 256)
        && step.rows() <= split_rows(acts, shape)
}

/// Rows for whose pieces there is room.
fn split_rows<L: Launcher>(acts: &Activations<Launched<L>>, shape: AttentionShape) -> usize {
    L::shape(&acts.part_stats).1 / (shape.n_head * DECODE_PIECES * 2).max(1)
}

/// Pieces that the longest sequence of a step may have, as far as the width of its tables tells.
fn pieces<L: Launcher>(cache: &KvLayer<Launched<L>>, step: &Step<Launched<L>>) -> usize {
    (step.max_blocks * cache.shape.block_size).div_ceil(64).min(DECODE_PIECES)
}

/// One row of queries a sequence over the pieces of its cache.
fn attend_in_pieces<L: Launcher>(
    d: &Launched<L>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
    q_stride: usize,
) -> Result<()> {
    let KvShape { head_dim: hs, dtype, .. } = cache.shape;
    let name = format!("decode_attend{}_hs{hs}", suffix(dtype));
    let dims = [("parts", pieces(cache, step)), ("q_stride", q_stride)];
    let out = [whole(&acts.partial), whole(&acts.part_stats)];
    Paged { acts, cache, step, shape }.run(d, &name, &dims, out)
}

/// The pieces of attention together, through the output projection, added to the residual stream.
fn add_output<L: Launcher>(
    d: &Launched<L>,
    proj: &Linear<Launched<L>>,
    acts: &Activations<Launched<L>>,
    n: usize,
    step: &Step<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let dims = [
        ("N", n),
        ("nh", shape.n_head),
        ("hs", shape.head_dim),
        ("parts", pieces(cache, step)),
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

/// [`Device::attention`]: one kernel over the pages where there is one for this head size and cache, or where nothing but
/// such a kernel gives a row the same bits whatever the chunk.
pub(super) fn attention<L: Launcher>(
    d: &Launched<L>,
    acts: &mut Activations<Launched<L>>,
    cache: &mut KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let KvShape { head_dim: hs, dtype, .. } = cache.shape;
    let built = matches!(dtype, Dtype::F16 | Dtype::BF16) && matches!(hs, 32 | 64 | 80 | 128);
    let decodes = step.decodes() && !d.is_invariant();
    let primitive = shape.kind == AttentionKind::Naive || !(built || decodes);
    if !d.is_fast() || primitive && !d.is_invariant() {
        if d.launcher.is_recording() {
            let reason = "the primitive kernels are launched by the length of the context".to_owned();
            return Err(Error::Launch { kernel: "attention".to_owned(), reason });
        }
        return boxes::attention(d, acts, cache, step, shape);
    }
    d.cache_write(&acts.qkv, &step.slots, cache, step.rows(), shape.n_head)?;
    if decodes {
        return attend(d, acts, cache, step, shape, shape.qkv_width());
    }
    if built && d.is_invariant() {
        return attend_in_order(d, acts, cache, step, shape);
    }
    let dims =
        [("n_seqs", step.batch.spans.len()), ("most_rows", most_rows(step)), ("q_stride", shape.qkv_width())];
    let name = match built {
        true => format!("flash_attention_paged{}_hs{hs}", suffix(dtype)),
        false => format!("attention_paged{}", suffix(dtype)),
    };
    Paged { acts, cache, step, shape }.run(d, &name, &dims, [whole(&step.first_rows), whole(&acts.attn)])
}

/// Rows of the sequence that has most.
fn most_rows<L: Launcher>(step: &Step<Launched<L>>) -> usize {
    step.batch.spans.iter().map(|span| span.rows).max().unwrap_or(0)
}

/// Attention in pieces that are put together in their order, which gives a row the same bits in any batch: each piece by a
/// threadgroup of its own where every sequence has one row, else one after another.
fn attend_in_order<L: Launcher>(
    d: &Launched<L>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let KvShape { head_dim: hs, dtype, n_kv_head, .. } = cache.shape;
    let name = format!("flash_attention_pieces{}_hs{hs}", suffix(dtype));
    let split = step.decodes() && step.rows() <= split_rows(acts, shape);
    let (groups, pieces) = match split {
        true => (n_kv_head, pieces(cache, step)),
        false => (shape.n_head, most_rows(step).div_ceil(64)),
    };
    let dims = [
        ("n_seqs", step.batch.spans.len()),
        ("q_stride", shape.qkv_width()),
        ("groups", groups),
        ("pieces", pieces),
    ];
    let buffers = match split {
        true => [Argument::Nil, whole(&acts.partial), whole(&acts.part_stats)],
        false => [whole(&acts.attn), Argument::Nil, Argument::Nil],
    };
    let [out, partial, part_stats] = buffers;
    let buffers = [whole(&step.first_rows), out, partial, part_stats];
    Paged { acts, cache, step, shape }.run(d, &name, &dims, buffers)?;
    if split { gather(d, acts, cache, step, shape) } else { Ok(()) }
}

/// What the kernels that attend over the pages of the cache have in common.
struct Paged<'a, L: Launcher> {
    acts: &'a Activations<Launched<L>>,
    cache: &'a KvLayer<Launched<L>>,
    step: &'a Step<Launched<L>>,
    shape: AttentionShape,
}

impl<L: Launcher> Paged<'_, L> {
    /// Launches `kernel` with what is its own: dimensions, and the buffers behind those that all have.
    fn run<const BUFFERS: usize>(
        &self,
        d: &Launched<L>,
        kernel: &str,
        dims: &[(&'static str, usize)],
        buffers: [Argument<'_, L::Buffer>; BUFFERS],
    ) -> Result<()> {
        let Self { acts, cache, step, shape } = self;
        let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, .. } = cache.shape;
        let common = [
            ("N", step.rows()),
            ("nh", shape.n_head),
            ("n_kv_head", n_kv_head),
            ("hs", hs),
            ("built_hs", hs),
            ("block_size", block_size),
            ("max_blocks", step.max_blocks),
            ("n_blocks", n_blocks),
            ("window", shape.window),
        ];
        let read = [
            whole(&acts.qkv),
            whole(&cache.k),
            whole(&cache.v),
            whole(&step.block_tables),
            whole(&step.lengths),
        ];
        let buffers: Vec<_> = read.into_iter().chain(buffers).collect();
        d.run(kernel, &[&common, dims].concat(), &buffers, &[shape.scale, shape.cap])
    }
}

/// One row of queries a sequence over its pages, to `acts.attn`.
fn attend<L: Launcher>(
    d: &Launched<L>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
    q_stride: usize,
) -> Result<()> {
    if !splits(acts, cache, step, shape) {
        let name = format!("attention_decode{}", suffix(cache.shape.dtype));
        let paged = Paged { acts, cache, step, shape };
        return paged.run(d, &name, &[("q_stride", q_stride)], [whole(&acts.attn)]);
    }
    attend_in_pieces(d, acts, cache, step, shape, q_stride)?;
    gather(d, acts, cache, step, shape)
}

/// The pieces of attention together, to `acts.attn`.
fn gather<L: Launcher>(
    d: &Launched<L>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let (hs, parts) = (shape.head_dim, pieces(cache, step));
    let dims = [("N", step.rows()), ("nh", shape.n_head), ("hs", hs), ("parts", parts)];
    let buffers = [whole(&acts.partial), whole(&acts.part_stats), whole(&acts.attn)];
    d.run("attention_decode_combine", &dims, &buffers, &[])
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
            let name = format!("decode_{kind}{}", up.weight.storage());
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
