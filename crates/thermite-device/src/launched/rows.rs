//! Layers of many rows: products by the vendor, or by our own kernels where those are small.

use super::attention::Paged;
use super::boxes::{add_normed, are_alike, bias, gate_name, place_heads, places_and_adds};
use super::{Launched, Launcher, Product, whole};
use crate::{
    Activations, AttentionShape, AttentionWeights, Device, Expand, KvLayer, Linear, MlpWeights, Norm, Result,
    Step, boxes,
};

/// [`Device::layer`]: head norms, rotation and cache write in one kernel, and products that add to the residual stream.
pub(super) fn layer<L: Launcher>(
    d: &Launched<L>,
    attention: &AttentionWeights<Launched<L>>,
    mlp: &MlpWeights<Launched<L>>,
    acts: &mut Activations<Launched<L>>,
    cache: &mut KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    let is_served = Paged { d, acts, cache, step, shape }.is_served();
    if !is_served || !places_and_adds(attention, mlp, shape) {
        return boxes::layer(d, attention, mlp, acts, cache, step, shape);
    }
    let (n, c) = (step.rows(), acts.shape.n_embd);
    boxes::norm(d, &attention.norm, &acts.residual, &mut acts.normed, n, c)?;
    d.linear(&acts.normed, &attention.qkv, &mut acts.qkv, n)?;
    place_heads(d, attention, acts, cache, step, shape)?;
    Paged { d, acts, cache, step, shape }.attend_rows()?;
    add_branch(d, &acts.attn, &attention.proj, attention.post_norm.as_ref(), acts, n)?;
    boxes::norm(d, &mlp.norm, &acts.residual, &mut acts.normed, n, c)?;
    expand(d, mlp, acts, n)?;
    add_branch(d, &acts.act, &mlp.down, mlp.post_norm.as_ref(), acts, n)
}

/// [`Device::linear`], the bias in the product's kernel where there is such a one.
pub(super) fn linear<L: Launcher>(
    d: &Launched<L>,
    x: &L::Buffer,
    linear: &Linear<Launched<L>>,
    out: &mut L::Buffer,
    n: usize,
) -> Result<()> {
    if !d.is_fast() {
        return boxes::linear(d, x, linear, out, n);
    }
    product(d, &Product { x, weight: &linear.weight, bias: bias(linear), accumulates: false, out, n })
}

/// The product in the kernel that is best for as many rows.
pub(super) fn product<L: Launcher>(d: &Launched<L>, product: &Product<'_, L::Buffer>) -> Result<()> {
    many_rows(d, product).unwrap_or_else(|| row_by_row(d, product))
}

/// `residual += x W^T + bias`, or the norm of that.
fn add_branch<L: Launcher>(
    d: &Launched<L>,
    x: &L::Buffer,
    linear: &Linear<Launched<L>>,
    post_norm: Option<&Norm<Launched<L>>>,
    acts: &Activations<Launched<L>>,
    n: usize,
) -> Result<()> {
    let to =
        |out, accumulates| Product { x, weight: &linear.weight, bias: bias(linear), accumulates, out, n };
    let (sum, branch) = (to(&acts.residual, true), to(&acts.branch, false));
    if let Some(post_norm) = post_norm {
        product(d, &branch)?;
        return add_normed(d, post_norm, acts, n);
    }
    if let Some(done) = many_rows(d, &sum) {
        return done;
    }
    // a vendor may have the product without the sum
    if let Some(done) = many_rows(d, &branch) {
        done?;
        return d.elementwise(
            "residual_add",
            &[whole(&acts.residual), whole(&acts.branch)],
            n * linear.weight.rows,
        );
    }
    row_by_row(d, &sum)
}

/// The product in a kernel that reads the weights once for many rows, where there is one.
fn many_rows<L: Launcher>(d: &Launched<L>, product: &Product<'_, L::Buffer>) -> Option<Result<()>> {
    let &Product { weight, bias, out, n, .. } = product;
    if d.takes_few(weight, n) {
        return Some(d.matmul_simd(product));
    }
    if let Some(done) = d.vendor_product(product) {
        return Some(done);
    }
    // a vendor may have the product without the bias
    if let Some(bias) = bias
        && let Some(done) = d.vendor_product(&Product { bias: None, ..*product })
    {
        let dims = [("N", n), ("C", weight.rows)];
        return Some(done.and_then(|()| d.run("bias_add", &dims, &[whole(out), whole(bias)], &[])));
    }
    d.takes_matrices(weight, n).then(|| d.matmul_simd(product))
}

/// The product in a kernel that reads the weights for each row.
fn row_by_row<L: Launcher>(d: &Launched<L>, product: &Product<'_, L::Buffer>) -> Result<()> {
    let &Product { x, weight, bias, accumulates, out, n } = product;
    d.matvec(x, weight, bias, accumulates.then_some(out), out, n)
}

/// From the normed rows to what the down projection takes.
fn expand<L: Launcher>(
    d: &Launched<L>,
    weights: &MlpWeights<Launched<L>>,
    acts: &mut Activations<Launched<L>>,
    n: usize,
) -> Result<()> {
    let Expand::Gated { gate, up, kind } = &weights.expand else {
        return boxes::expand(d, weights, acts, n);
    };
    if !are_alike(gate, up) || !d.takes_few(&up.weight, n) {
        return boxes::expand(d, weights, acts, n);
    }
    let name = format!("matmul_few_{}{}", gate_name(*kind), up.weight.storage());
    let dims = [("N", n), ("K", up.weight.cols), ("M", up.weight.rows)];
    let [gate, up] = [gate, up].map(|linear| whole(&linear.weight.buffer));
    d.run(&name, &dims, &[whole(&acts.normed), gate, up, whole(&acts.act)], &[])
}
