//! Attention over the pages of the cache: in pieces where every sequence has one row.

use super::matrix::suffix;
use super::{Argument, Launched, Launcher, whole};
use crate::boxes::DECODE_PIECES;
use crate::{
    Activations, AttentionKind, AttentionShape, Device, Dtype, Error, KvLayer, KvShape, Result, Step, boxes,
};

/// Tokens that a piece of a short cache holds (`PIECE` of pieces.h).
const PIECE: usize = 64;
/// Threadgroups, one for each query head, row and piece, from which there are enough if the query heads of a KV head share
/// one.
const SHARING_FROM: usize = 2048;
/// Rows of queries in a tile of the flash kernels.
const TILE_ROWS: usize = 64;

/// Whether there is a kernel that attends in pieces for these heads, and room for the pieces.
pub(super) fn splits<L: Launcher>(
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
pub(super) fn pieces<L: Launcher>(cache: &KvLayer<Launched<L>>, step: &Step<Launched<L>>) -> usize {
    (step.max_blocks * cache.shape.block_size).div_ceil(PIECE).min(DECODE_PIECES)
}

/// One row of queries a sequence over the pieces of its cache.
pub(super) fn attend_in_pieces<L: Launcher>(
    d: &Launched<L>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
    q_stride: usize,
) -> Result<()> {
    let KvShape { head_dim: hs, dtype, n_kv_head, block_size, .. } = cache.shape;
    let parts = pieces(cache, step);
    let out = [whole(&acts.partial), whole(&acts.part_stats)];
    let paged = Paged { acts, cache, step, shape };
    let dims = [("parts", parts), ("q_stride", q_stride)];
    if !shares_keys(cache, shape, step.rows() * shape.n_head * parts) {
        return paged.run(d, &format!("decode_attend{}_hs{hs}", suffix(dtype)), &dims, out);
    }
    let chunk = (step.max_blocks * block_size).div_ceil(parts.max(1));
    let dims = [&dims[..], &[("chunk", chunk), ("groups", n_kv_head)]].concat();
    paged.run(d, &format!("attention_decode_split{}_hs{hs}", suffix(dtype)), &dims, out)
}

/// Whether the query heads of a KV head read their keys and values together, where each alone would make so many
/// threadgroups.
fn shares_keys<L: Launcher>(
    cache: &KvLayer<Launched<L>>,
    shape: AttentionShape,
    threadgroups: usize,
) -> bool {
    let KvShape { head_dim, dtype, n_kv_head, .. } = cache.shape;
    let built = matches!((dtype, head_dim), (Dtype::F16, 32) | (_, 64 | 128 | 256));
    built && threadgroups >= SHARING_FROM && (2..=16).contains(&(shape.n_head / n_kv_head.max(1)))
}

/// Whether there is a kernel over simdgroup matrices for these heads and this cache.
fn is_built<L: Launcher>(cache: &KvLayer<Launched<L>>) -> bool {
    let KvShape { head_dim, dtype, .. } = cache.shape;
    matches!(dtype, Dtype::F16 | Dtype::BF16) && matches!(head_dim, 32 | 64 | 80 | 128)
}

/// Whether one kernel attends over the pages: where there is one for this head size and cache, or where nothing but such a
/// kernel gives a row the same bits whatever the chunk.
pub(super) fn is_over_pages<L: Launcher>(
    d: &Launched<L>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> bool {
    let serves = shape.kind != AttentionKind::Naive && (is_built(cache) || step.decodes());
    d.is_fast() && (d.is_invariant() || serves)
}

/// [`Device::attention`].
pub(super) fn attention<L: Launcher>(
    d: &Launched<L>,
    acts: &mut Activations<Launched<L>>,
    cache: &mut KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    if !is_over_pages(d, cache, step, shape) {
        if d.launcher.is_recording() {
            let reason = "the primitive kernels are launched by the length of the context".to_owned();
            return Err(Error::Launch { kernel: "attention".to_owned(), reason });
        }
        return boxes::attention(d, acts, cache, step, shape);
    }
    d.cache_write(&acts.qkv, &step.slots, cache, step.rows(), shape.n_head)?;
    over_pages(d, acts, cache, step, shape)
}

/// Attention of the queries in `acts.qkv`, their keys and values in the cache.
pub(super) fn over_pages<L: Launcher>(
    d: &Launched<L>,
    acts: &Activations<Launched<L>>,
    cache: &KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    if step.decodes() && !d.is_invariant() {
        return attend(d, acts, cache, step, shape, shape.qkv_width());
    }
    let KvShape { head_dim: hs, dtype, .. } = cache.shape;
    let name = match (is_built(cache), d.is_invariant()) {
        (true, true) => return attend_in_order(d, acts, cache, step, shape),
        (true, false) => format!("flash_attention_paged{}_hs{hs}", suffix(dtype)),
        (false, _) => format!("attention_paged{}", suffix(dtype)),
    };
    let dims =
        [("n_seqs", step.batch.spans.len()), ("most_rows", most_rows(step)), ("q_stride", shape.qkv_width())];
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
        false => (shape.n_head, most_rows(step).div_ceil(TILE_ROWS)),
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
pub(super) fn attend<L: Launcher>(
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
