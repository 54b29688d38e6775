//! What `hopper/program.h` declares, byte for byte, and how a model is laid out in it.

use bytemuck::{Pod, Zeroable};

use super::{Variant, WARPS};

/// Most elements of a piece of a row: 2 KiB.
const MOST_OF_PIECE: u32 = 1024;
/// Slots of a warp's ring, at most: more bytes are not under way at a time.
const MOST_SLOTS: u32 = 32;
/// Fewest that still fetch ahead.
const FEWEST_SLOTS: u32 = 2;
/// Parts of a head's keys, at most.
const MOST_PARTS: u32 = 16;
/// Tokens of a part, at least, while there are fewer parts than that.
const PART_TOKENS: u32 = 64;
/// Bytes that are left for what the compiler puts into shared memory.
const SPARE: u32 = 256;

/// Rows of weights and their share of the threadgroups; `Product` of program.h.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Product {
    pub(super) weight: [u64; 2],
    pub(super) bias: u64,
    pub(super) gamma: u64,
    pub(super) beta: u64,
    pub(super) cols: u32,
    pub(super) rows: u32,
    pub(super) share: u32,
    pub(super) rest: u32,
    pub(super) piece: u32,
    pub(super) pieces: u32,
    pub(super) whole: u32,
    pub(super) left: u32,
    pub(super) eps: f32,
    pub(super) unused: u32,
}

impl Product {
    /// Of `groups` groups of `rows` rows of `cols` elements each, before the threadgroups are known: these are `share`.
    pub(super) fn of(weight: [u64; 2], bias: u64, cols: u32, rows: u32, groups: u32) -> Self {
        let pieces = cols.div_ceil(MOST_OF_PIECE).max(1);
        let piece = cols.div_ceil(pieces).next_multiple_of(8);
        Self {
            weight,
            bias,
            cols,
            rows,
            share: groups,
            piece,
            pieces,
            whole: WARPS / pieces,
            left: WARPS % pieces,
            ..Self::zeroed()
        }
    }

    pub(super) const fn normed(self, gamma: u64, beta: u64, eps: f32) -> Self {
        Self { gamma, beta, eps, ..self }
    }

    const fn among(self, threadgroups: u32) -> Self {
        Self { share: self.share / threadgroups, rest: self.share % threadgroups, ..self }
    }

    /// Most groups that a threadgroup has.
    const fn groups(&self) -> u32 {
        self.share + if self.rest > 0 { 1 } else { 0 }
    }

    const fn units(&self) -> u32 {
        self.groups() * self.rows * self.pieces
    }
}

/// A layer's keys and values; `Cache` of program.h.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Cache {
    pub(super) k: u64,
    pub(super) v: u64,
    pub(super) scale: f32,
    pub(super) cap: f32,
    pub(super) window: i32,
    pub(super) unused: u32,
}

/// The kernel's first parameter; `Program` of program.h.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Program {
    pub(super) products: u64,
    pub(super) caches: u64,
    pub(super) embedding: u64,
    pub(super) positional: u64,
    pub(super) freqs: u64,
    pub(super) tokens: u64,
    pub(super) positions: u64,
    pub(super) slots: u64,
    pub(super) lengths: u64,
    pub(super) block_table: u64,
    pub(super) logits: u64,
    pub(super) chosen: u64,
    pub(super) history: u64,
    pub(super) mail: u64,
    pub(super) ballots: u64,
    pub(super) rounds: u64,

    pub(super) groups: u32,
    pub(super) n_layer: u32,
    pub(super) n_embd: u32,
    pub(super) n_head: u32,
    pub(super) n_kv_head: u32,
    pub(super) max_blocks: u32,
    pub(super) kept: u32,
    pub(super) parts: u32,
    pub(super) part_tokens: u32,
    pub(super) ring_slots: u32,
    pub(super) slot_bytes: u32,
    pub(super) sums: u32,
    pub(super) head_sums: u32,
    pub(super) unused: u32,
}

/// What takes the place of some recorded steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the source is compiled for.
    pub variant: Variant,
    /// Steps that were recorded.
    pub steps: u32,
    /// Of all layers, and the head.
    pub products: Vec<Product>,
    /// Of all layers.
    pub caches: Vec<Cache>,
    pub(super) program: Program,
    /// Floats of mail.
    pub mail: u32,
    /// Threadgroups: all must be resident at once.
    pub threadgroups: u32,
    /// Bytes of dynamic shared memory.
    pub shared_memory: u32,
}

/// Where the caller has put what a [`Plan`] needs.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Of [`Plan::products`].
    pub products: u64,
    /// Of [`Plan::caches`].
    pub caches: u64,
    /// Of [`Plan::mail`] floats, zeros at first.
    pub mail: u64,
    /// Of four words a threadgroup, zeros at first.
    pub ballots: u64,
    /// Of two words, zeros at first.
    pub rounds: u64,
}

impl Plan {
    /// The kernel's first parameter.
    pub const fn program(&self, at: Addresses) -> Program {
        let Addresses { products, caches, mail, ballots, rounds } = at;
        Program { products, caches, mail, ballots, rounds, ..self.program }
    }

    /// Shares the products out among at most `multiprocessors` threadgroups of `shared_memory` bytes; none where they do not
    /// fit. `program` has the addresses of the recorded launches, and the model's sizes.
    pub(super) fn new(
        variant: Variant,
        steps: u32,
        products: &[Product],
        caches: Vec<Cache>,
        program: Program,
        multiprocessors: u32,
        shared_memory: u32,
    ) -> Option<Self> {
        // each has rows of every product that adds to the residual stream
        let threadgroups = multiprocessors.min(program.n_embd);
        if threadgroups == 0 {
            return None;
        }
        let products: Vec<_> = products.iter().map(|p| p.among(threadgroups)).collect();
        let (head, layers) = products.split_last()?;
        if layers.iter().any(|p| p.groups() > 32 * WARPS) {
            return None;
        }
        let parts = (threadgroups / program.n_kv_head).clamp(1, MOST_PARTS);
        let n_heads = program.n_head + 2 * program.n_kv_head;
        let inner = layers.iter().skip(3).step_by(4).map(|down| down.cols).max()?;
        let mail = n_heads * variant.head_size
            + program.n_head * parts * (variant.head_size + 2)
            + 2 * program.n_embd
            + inner;

        let most = |f: fn(&Product) -> u32, of: &[Product]| of.iter().map(f).max().unwrap_or(0);
        let sums = most(Product::units, layers).next_multiple_of(4);
        let head_sums = head.units().next_multiple_of(4);
        let vector = most(|p| p.cols, layers).max(WARPS * (variant.head_size + 2));
        let floats = (sums + vector).max(head_sums + head.cols);
        let slot_bytes = 2 * most(|p| p.piece, &products);
        let norms = (3 * WARPS).next_multiple_of(4);
        let fixed = 8 * WARPS
            + size_of::<Product>() as u32 * products.len() as u32
            + size_of::<Cache>() as u32 * caches.len() as u32
            + 4 * (norms + floats);
        let room = shared_memory.checked_sub(fixed + SPARE)?;
        let ring_slots = (room / WARPS / (slot_bytes + 16)).min(MOST_SLOTS);
        let program = Program {
            groups: threadgroups,
            parts,
            part_tokens: PART_TOKENS,
            ring_slots,
            slot_bytes,
            sums,
            head_sums,
            ..program
        };
        (ring_slots >= FEWEST_SLOTS).then(|| Self {
            variant,
            steps,
            products,
            caches,
            program,
            mail,
            threadgroups,
            shared_memory: fixed + WARPS * ring_slots * (slot_bytes + 16),
        })
    }
}
