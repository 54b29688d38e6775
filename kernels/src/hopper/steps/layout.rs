//! What `hopper/program.h` declares, byte for byte, and how a model is laid out in it.

use bytemuck::{Pod, Zeroable};

use super::{Norm, Shares, THREADS, Variant, WARP_BITS, WARPS};

/// Most elements of a piece of a row: 2 KiB.
const MOST_OF_PIECE: u32 = 1024;
/// Fewest, where rows are cut so that all warps have work.
const FEWEST_OF_PIECE: u32 = 256;
/// Elements of a row from which on each warp has a piece of its own.
const FEWEST_OF_OWN_PIECES: u32 = 512 * WARPS;
/// Slots of a warp's ring, at most: more bytes under way only delay the vectors.
const MOST_SLOTS: u32 = 6;
/// Fewest: a warp reads two while it asks for two more.
const FEWEST_SLOTS: u32 = 4;
/// Parts of a head's keys, at most.
const MOST_PARTS: u32 = 8;
/// The logarithm of a part's tokens, while there are no more parts than that: what a threadgroup attends to at once.
const PART_BITS: u32 = 7;
/// Most elements of a normed vector, and of what the activation gives.
const MOST_EMBD: u32 = 8192;
const MOST_INNER: u32 = MOST_OF_PIECE * WARPS;
/// Bytes that are left for what the compiler puts into shared memory.
const SPARE: u32 = 256;
/// Bytes of `Notes` of ring.h.
const NOTES: u32 = 8 * WARPS + 12 * WARPS + 16;

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
    pub(super) piece_bits: u32,
    pub(super) each: f32,
    pub(super) eps: f32,
    pub(super) sums_at: u32,
    pub(super) unused: u32,
}

impl Product {
    /// Of `groups` groups of `rows` rows of `cols` elements each, before the threadgroups are known: these are `share`.
    pub(super) fn of(weight: [u64; 2], bias: u64, cols: u32, rows: u32, groups: u32) -> Self {
        Self { weight, bias, cols, rows, share: groups, each: 1.0 / cols as f32, ..Self::zeroed() }
    }

    pub(super) const fn normed(self, gamma: u64, beta: u64, eps: f32) -> Self {
        Self { gamma, beta, eps, ..self }
    }

    /// Shared out, and its rows cut into pieces.
    fn among(self, threadgroups: u32) -> Self {
        let shared = Self { share: self.share / threadgroups, rest: self.share % threadgroups, ..self };
        let (cols, lines) = (self.cols, shared.lines());
        let bits = if cols >= FEWEST_OF_OWN_PIECES {
            WARP_BITS
        } else {
            let is_enough = |bits: u32| {
                let is_short = cols.div_ceil(1 << bits) <= MOST_OF_PIECE;
                let halves = lines << (bits + 1) <= WARPS && cols.div_ceil(2 << bits) >= FEWEST_OF_PIECE;
                is_short && !halves
            };
            (0..WARP_BITS).find(|&bits| is_enough(bits)).unwrap_or(WARP_BITS)
        };
        Self { piece_bits: bits, piece: cols.div_ceil(1 << bits).next_multiple_of(8), ..shared }
    }

    pub(super) const fn pieces(&self) -> u32 {
        1 << self.piece_bits
    }

    /// Most groups that a threadgroup has.
    const fn groups(&self) -> u32 {
        self.share + if self.rest > 0 { 1 } else { 0 }
    }

    /// Most rows that a threadgroup has.
    const fn lines(&self) -> u32 {
        self.groups() * self.rows
    }

    /// Sums that these give.
    const fn units(&self) -> u32 {
        self.lines() * self.pieces()
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
    pub(super) part_bits: u32,
    pub(super) ring_slots: u32,
    pub(super) slot_bytes: u32,
    pub(super) sums: u32,
    pub(super) head_sums: u32,
    pub(super) ring_at: u32,
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
        // each has rows of every product that adds to the residual stream, and attends for a head at most
        let threadgroups = multiprocessors.min(program.n_embd);
        if threadgroups == 0 || program.n_head > threadgroups {
            return None;
        }
        let mut products: Vec<_> = products.iter().map(|p| p.among(threadgroups)).collect();
        let (&mut head, layers) = products.split_last_mut()?;
        let down = *layers.get(3)?;
        let is_alike = layers.iter().skip(3).step_by(4).all(|p| p.cols == down.cols);
        let fits = |p: &Product| p.cols <= MOST_INNER && p.groups() <= THREADS;
        if !is_alike || program.n_embd > MOST_EMBD || !layers.iter().all(fits) {
            return None;
        }

        let most = |f: fn(&Product) -> u32, of: &[Product]| of.iter().map(f).max().unwrap_or(0);
        let (is_sent, hs) = (down.pieces() == WARPS, variant.head_size);
        let inner = if is_sent { 0 } else { down.cols };
        let piece = most(|p| p.piece, layers).max(head.piece);
        let shares = Shares {
            quads: program.n_embd.div_ceil(4 * THREADS),
            inner_quads: inner.div_ceil(4 * THREADS),
            eights: piece.div_ceil(8 * 32),
        };
        let mut sums = most(Product::units, layers).next_multiple_of(4);
        if is_sent {
            // nobody waits for the other warps before this product, and they may still read the sums of the one before
            layers.iter_mut().skip(3).step_by(4).for_each(|p| p.sums_at = sums);
            sums += down.units().next_multiple_of(4);
        }
        // behind all sums: the head's vector is put in place while some warps still read the last layer's
        let head_sums = head.units().next_multiple_of(4).max(sums);
        let vector = [program.n_embd, program.n_head * hs, inner, WARPS * (hs + 2)].into_iter().max()?;
        let floats = (sums + vector).max(head_sums + head.cols);
        let parts = (threadgroups / program.n_head).min(MOST_PARTS);
        let mail = (program.n_head + 2 * program.n_kv_head) * hs
            + program.n_head * parts * hs
            + (program.n_head * parts * 2).next_multiple_of(4)
            + 2 * program.n_embd
            + down.cols;

        let gamma = program.n_embd * if variant.norm == Norm::Layer { 2 } else { 1 };
        let ring_at = size_of::<Product>() as u32 * products.len() as u32
            + size_of::<Cache>() as u32 * caches.len() as u32
            + NOTES
            + 4 * (gamma + floats);
        let ring_at = ring_at.next_multiple_of(128);
        let slot_bytes = 2 * piece;
        let room = shared_memory.checked_sub(ring_at + SPARE)?;
        let ring_slots = (room / WARPS / (slot_bytes + 8)).min(MOST_SLOTS);
        let program = Program {
            groups: threadgroups,
            parts,
            part_bits: PART_BITS,
            ring_slots,
            slot_bytes,
            sums,
            head_sums,
            ring_at,
            ..program
        };
        (ring_slots >= FEWEST_SLOTS).then(|| Self {
            variant: Variant { shares, ..variant },
            steps,
            products,
            caches,
            program,
            mail,
            threadgroups,
            shared_memory: ring_at + WARPS * ring_slots * (slot_bytes + 8),
        })
    }
}
