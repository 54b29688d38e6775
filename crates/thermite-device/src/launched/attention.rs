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
/// Rows at most whose attention is split into pieces.
pub(super) const SPLIT_ROWS: usize = 256;
/// Rows of queries in a tile of the flash kernels.
const TILE_ROWS: usize = 64;

/// Attention over the pages of the cache, its queries in `acts.qkv`, keys and values in the cache.
pub(super) struct Paged<'a, L: Launcher> {
    pub(super) d: &'a Launched<L>,
    pub(super) acts: &'a Activations<Launched<L>>,
    pub(super) cache: &'a KvLayer<Launched<L>>,
    pub(super) step: &'a Step<Launched<L>>,
    pub(super) shape: AttentionShape,
}

/// [`Device::attention`].
pub(super) fn attention<L: Launcher>(
    d: &Launched<L>,
    acts: &mut Activations<Launched<L>>,
    cache: &mut KvLayer<Launched<L>>,
    step: &Step<Launched<L>>,
    shape: AttentionShape,
) -> Result<()> {
    if !(Paged { d, acts, cache, step, shape }).is_served() {
        if d.launcher.is_recording() {
            let reason = "the primitive kernels are launched by the length of the context".to_owned();
            return Err(Error::Launch { kernel: "attention".to_owned(), reason });
        }
        return boxes::attention(d, acts, cache, step, shape);
    }
    d.cache_write(&acts.qkv, &step.slots, cache, step.rows(), shape.n_head)?;
    Paged { d, acts, cache, step, shape }.attend_rows()
}

impl<L: Launcher> Paged<'_, L> {
    /// Whether one kernel attends over the pages: where there is one for this head size and cache, or where nothing but such
    /// a kernel gives a row the same bits whatever the chunk.
    pub(super) fn is_served(&self) -> bool {
        let serves = self.shape.kind != AttentionKind::Naive && (self.is_built() || self.step.decodes());
        self.d.is_fast() && (self.d.is_invariant() || serves)
    }

    /// Whether there is a kernel over simdgroup matrices for these heads and this cache.
    fn is_built(&self) -> bool {
        let KvShape { head_dim, dtype, .. } = self.cache.shape;
        matches!(dtype, Dtype::F16 | Dtype::BF16) && matches!(head_dim, 32 | 64 | 80 | 128)
    }

    /// Whether there is a kernel that attends in pieces for these heads, and room for the pieces.
    pub(super) fn splits(&self) -> bool {
        matches!(self.cache.shape.dtype, Dtype::F16 | Dtype::BF16)
            && matches!(self.shape.head_dim, 32 | 64 | 128 | 256)
            && self.has_room()
    }

    /// Whether there is room for the pieces of all rows.
    fn has_room(&self) -> bool {
        let stats = L::shape(&self.acts.part_stats).1;
        self.step.rows() <= stats / (self.shape.n_head * DECODE_PIECES * 2).max(1)
    }

    /// Pieces that the longest sequence of the step may have, as far as the width of its tables tells.
    pub(super) fn pieces(&self) -> usize {
        self.tokens().div_ceil(PIECE).min(DECODE_PIECES)
    }

    /// Tokens for which the tables have room.
    fn tokens(&self) -> usize {
        self.step.max_blocks * self.cache.shape.block_size
    }

    /// Rows of the sequence that has most.
    fn most_rows(&self) -> usize {
        self.step.batch.spans.iter().map(|span| span.rows).max().unwrap_or(0)
    }

    /// Any rows of a sequence over its pages, to `acts.attn`.
    pub(super) fn attend_rows(&self) -> Result<()> {
        let invariant = self.d.is_invariant();
        if self.step.decodes() && !invariant {
            return self.attend(self.shape.qkv_width());
        }
        let KvShape { head_dim: hs, dtype, .. } = self.cache.shape;
        let name = match (self.is_built(), invariant) {
            (true, true) => return self.attend_in_order(),
            (true, false) => format!("flash_attention_paged{}_hs{hs}", suffix(dtype)),
            (false, _) => format!("attention_paged{}", suffix(dtype)),
        };
        let dims = [
            ("n_seqs", self.step.batch.spans.len()),
            ("most_rows", self.most_rows()),
            ("q_stride", self.shape.qkv_width()),
        ];
        self.run(&name, &dims, [whole(&self.step.first_rows), whole(&self.acts.attn)])
    }

    /// One row of queries a sequence over its pages, to `acts.attn`.
    pub(super) fn attend(&self, q_stride: usize) -> Result<()> {
        if !self.splits() {
            let name = format!("attention_decode{}", suffix(self.cache.shape.dtype));
            return self.run(&name, &[("q_stride", q_stride)], [whole(&self.acts.attn)]);
        }
        self.attend_in_pieces(q_stride)?;
        self.gather()
    }

    /// One row of queries a sequence over the pieces of its cache.
    pub(super) fn attend_in_pieces(&self, q_stride: usize) -> Result<()> {
        let KvShape { head_dim: hs, dtype, n_kv_head, .. } = self.cache.shape;
        let parts = self.pieces();
        let out = [whole(&self.acts.partial), whole(&self.acts.part_stats)];
        let dims = [("parts", parts), ("q_stride", q_stride)];
        if !self.shares_keys() {
            return self.run(&format!("decode_attend{}_hs{hs}", suffix(dtype)), &dims, out);
        }
        let chunk = self.tokens().div_ceil(parts.max(1));
        let dims = [&dims[..], &[("chunk", chunk), ("groups", n_kv_head)]].concat();
        self.run(&format!("attention_decode_split{}_hs{hs}", suffix(dtype)), &dims, out)
    }

    /// Whether the query heads of a KV head read their keys and values together: where there are enough threadgroups so.
    fn shares_keys(&self) -> bool {
        let KvShape { head_dim, dtype, n_kv_head, .. } = self.cache.shape;
        let n_head = self.shape.n_head;
        let built = matches!((dtype, head_dim), (Dtype::F16, 32) | (_, 64 | 128 | 256));
        let threadgroups = self.step.rows() * n_head * self.pieces();
        built && threadgroups >= SHARING_FROM && (2..=16).contains(&(n_head / n_kv_head.max(1)))
    }

    /// Attention in pieces that are put together in their order, which gives a row the same bits in any batch: each piece by
    /// a threadgroup of its own where every sequence has one row, else one after another.
    fn attend_in_order(&self) -> Result<()> {
        let Self { acts, step, shape, .. } = self;
        let KvShape { head_dim: hs, dtype, n_kv_head, .. } = self.cache.shape;
        let name = format!("flash_attention_pieces{}_hs{hs}", suffix(dtype));
        let split = step.decodes() && self.has_room();
        let (groups, pieces) = match split {
            true => (n_kv_head, self.pieces()),
            false => (shape.n_head, self.most_rows().div_ceil(TILE_ROWS)),
        };
        let dims = [
            ("n_seqs", step.batch.spans.len()),
            ("q_stride", shape.qkv_width()),
            ("groups", groups),
            ("pieces", pieces),
        ];
        let [out, partial, part_stats] = match split {
            true => [Argument::Nil, whole(&acts.partial), whole(&acts.part_stats)],
            false => [whole(&acts.attn), Argument::Nil, Argument::Nil],
        };
        self.run(&name, &dims, [whole(&step.first_rows), out, partial, part_stats])?;
        if split { self.gather() } else { Ok(()) }
    }

    /// The pieces of attention together, to `acts.attn`.
    fn gather(&self) -> Result<()> {
        let Self { acts, step, shape, .. } = self;
        let dims =
            [("N", step.rows()), ("nh", shape.n_head), ("hs", shape.head_dim), ("parts", self.pieces())];
        let buffers = [whole(&acts.partial), whole(&acts.part_stats), whole(&acts.attn)];
        self.d.run("attention_decode_combine", &dims, &buffers, &[])
    }

    /// Launches `kernel` with what is its own: dimensions, and the buffers behind those that all have.
    fn run<const BUFFERS: usize>(
        &self,
        kernel: &str,
        dims: &[(&'static str, usize)],
        buffers: [Argument<'_, L::Buffer>; BUFFERS],
    ) -> Result<()> {
        let Self { d, acts, cache, step, shape } = self;
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
