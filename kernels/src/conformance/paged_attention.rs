//! Attention over the paged cache: decoding, its split form, and ragged prefill.

use super::case::{Case, CaseOf, Tolerance, scalar_of, stored};
use super::data::{Data, Generator};
use super::paging::cache_at;
use crate::contract::{Scalar, head_size};
use crate::syntax::Kernel;

/// A ragged batch over a cache, and what is seen of it.
#[derive(Clone)]
struct Batch {
    nh: usize,
    n_kv_head: usize,
    hs: usize,
    block_size: usize,
    /// (tokens in the cache, rows of Q: the last of them)
    sequences: Vec<(usize, usize)>,
    window: usize,
    cap: f64,
    k_cache: Data,
    v_cache: Data,
    /// [n_seqs, max_blocks]
    block_table: Vec<usize>,
    max_blocks: usize,
    n_blocks: usize,
    /// [rows, q_stride]
    q: Data,
    q_stride: usize,
}

/// (heads, KV heads, block size, window, cap)
const SETTINGS: &[(usize, usize, usize, usize, f64)] =
    &[(2, 1, 16, 0, 0.0), (2, 2, 3, 0, 0.0), (4, 2, 8, 7, 0.0), (2, 1, 16, 0, 4.0), (1, 1, 1, 20, 2.0)];

const UNFIXED: &[usize] = &[2, 33, 64, 80, 128];

/// The head sizes that a kernel takes: its own, or some of every kind.
fn head_sizes(kernel: &Kernel) -> Vec<usize> {
    head_size(&kernel.name).map_or(UNFIXED.to_vec(), |hs| vec![hs as usize])
}

impl Batch {
    fn new(
        kernel: &Kernel,
        hs: usize,
        setting: (usize, usize, usize, usize, f64),
        sequences: &[(usize, usize)],
    ) -> Self {
        let (nh, n_kv_head, block_size, window, cap) = setting;
        let longest = sequences.iter().map(|s| s.0).max().unwrap_or(0);
        let max_blocks = longest.div_ceil(block_size).max(1);
        let n_blocks = max_blocks * sequences.len().max(1) + 2;
        let mut generator = Generator::new(100);
        // Blocks in no order, none shared.
        let block_table = generator.permutation(n_blocks)[..max_blocks * sequences.len()].to_vec();
        let length = n_blocks * n_kv_head * block_size * hs;
        let q_stride = (nh * hs).next_multiple_of(4) + 8;
        let rows: usize = sequences.iter().map(|s| s.1).sum();
        Self {
            nh,
            n_kv_head,
            hs,
            block_size,
            sequences: sequences.to_vec(),
            window,
            cap,
            k_cache: stored(kernel, "k_cache", &generator.bell(length, 1.0)),
            v_cache: stored(kernel, "v_cache", &generator.bell(length, 1.0)),
            block_table,
            max_blocks,
            n_blocks,
            q: stored(kernel, "Q", &generator.bell(rows * q_stride, 2.0)),
            q_stride,
        }
    }

    fn scale(&self) -> f64 {
        f64::from((1.0 / (self.hs as f64).sqrt()) as f32)
    }

    /// Where token `j` of a sequence lies in the cache, for query head `h`.
    fn at(&self, sequence: usize, h: usize, j: usize) -> usize {
        let block = self.block_table[sequence * self.max_blocks + j / self.block_size];
        let slot = block * self.block_size + j % self.block_size;
        cache_at(slot, h / (self.nh / self.n_kv_head), self.n_kv_head, self.block_size, self.hs)
    }

    /// Score of the query in `row`, at `position` of its sequence, against token `j`; none where it is not seen.
    fn score(&self, sequence: usize, row: usize, position: usize, h: usize, j: usize) -> Option<f64> {
        if j > position || self.window > 0 && j + self.window <= position {
            return None;
        }
        let (q, k) = (row * self.q_stride + h * self.hs, self.at(sequence, h, j));
        let dot: f64 = (0..self.hs).map(|d| self.q.value(q + d) * self.k_cache.value(k + d)).sum();
        let score = dot * self.scale();
        Some(if self.cap == 0.0 { score } else { self.cap * (score / self.cap).tanh() })
    }

    /// Maximum, sum of weights and weighted values [hs] over the tokens of `range`.
    fn part(
        &self,
        sequence: usize,
        row: usize,
        position: usize,
        h: usize,
        range: std::ops::Range<usize>,
    ) -> Part {
        let scored: Vec<_> =
            range.filter_map(|j| Some((j, self.score(sequence, row, position, h, j)?))).collect();
        let largest = scored.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
        let mut part = Part { largest, weights: 0.0, values: vec![0.0; self.hs] };
        for (j, score) in scored {
            let weight = (score - largest).exp();
            let v = self.at(sequence, h, j);
            part.weights += weight;
            (0..self.hs).for_each(|d| part.values[d] += weight * self.v_cache.value(v + d));
        }
        part
    }

    /// out [rows, nh, hs]
    fn attention(&self) -> Vec<f64> {
        let mut out = Vec::new();
        let mut row = 0;
        for (sequence, &(length, rows)) in self.sequences.iter().enumerate() {
            for i in 0..rows {
                for h in 0..self.nh {
                    // A decoding row of an empty sequence sees nothing.
                    let position = (length + i).checked_sub(rows);
                    let part = position.map(|p| self.part(sequence, row, p, h, 0..length));
                    let divided = |p: Part| {
                        p.values.iter().map(|v| if p.weights == 0.0 { 0.0 } else { v / p.weights }).collect()
                    };
                    out.extend(part.map_or(vec![0.0; self.hs], divided));
                }
                row += 1;
            }
        }
        out
    }

    fn case<'k>(&self, kernel: &'k Kernel) -> CaseOf<'k> {
        let dims = [
            ("N", self.sequences.iter().map(|s| s.1).sum()),
            ("n_seqs", self.sequences.len()),
            ("nh", self.nh),
            ("n_kv_head", self.n_kv_head),
            ("hs", self.hs),
            ("block_size", self.block_size),
            ("max_blocks", self.max_blocks),
            ("n_blocks", self.n_blocks),
            ("q_stride", self.q_stride),
            ("window", self.window),
        ];
        let lengths = self.sequences.iter().map(|s| s.0 as i32).collect();
        CaseOf::new(kernel, &dims)
            .read("Q", self.q.clone())
            .read("k_cache", self.k_cache.clone())
            .read("v_cache", self.v_cache.clone())
            .read("block_table", super::rows::indices(&self.block_table))
            .read("lengths", Data::I32(lengths))
            .float("scale", self.scale() as f32)
            .float("cap", self.cap as f32)
    }
}

struct Part {
    largest: f64,
    weights: f64,
    values: Vec<f64>,
}

/// Lengths of the sequences that decode together; a length of 0 gives zeros.
const LENGTHS: &[&[usize]] = &[&[1], &[5, 31, 0], &[33, 100, 2], &[]];

fn each_decode(kernel: &Kernel, mut visit: impl FnMut(Batch)) {
    for hs in head_sizes(kernel) {
        for &setting in SETTINGS {
            for lengths in LENGTHS {
                let sequences: Vec<_> = lengths.iter().map(|&l| (l, 1)).collect();
                visit(Batch::new(kernel, hs, setting, &sequences));
            }
        }
    }
}

pub(super) fn decode(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_decode(kernel, |batch| {
        let wanted = batch.attention();
        let tolerance = Tolerance::of_scale(1e-5, &wanted);
        batch.case(kernel).write("out", wanted, tolerance).visit(visit);
    });
}

/// As `decode`, with the query heads of a KV head shared out to one threadgroup, and to one each.
pub(super) fn decode_grouped(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_decode(kernel, |batch| {
        let wanted = batch.attention();
        for groups in [batch.nh, batch.n_kv_head] {
            let tolerance = Tolerance::of_scale(1e-5, &wanted);
            let case = batch.case(kernel).dim("groups", groups);
            case.write("out", wanted.clone(), tolerance).visit(visit);
        }
    });
}

const CHUNK: usize = 24;

/// partial [N, nh, parts, hs] and stats [N, nh, parts, 2]: the maximum in units of ln 2, and the weights. What an empty part leaves in `partial` is not looked at.
fn split_of(batch: &Batch, parts: usize) -> (Vec<f64>, Vec<f64>) {
    pieces_of(batch, parts, |_| CHUNK)
}

/// As [`split_of`], a piece of a sequence holding as many tokens as `chunk` says for its length.
fn pieces_of(batch: &Batch, parts: usize, chunk: impl Fn(usize) -> usize) -> (Vec<f64>, Vec<f64>) {
    let (mut partial, mut stats) = (Vec::new(), Vec::new());
    for (sequence, &(length, _)) in batch.sequences.iter().enumerate() {
        for h in 0..batch.nh {
            for p in 0..parts {
                let range = (p * chunk(length)).min(length)..((p + 1) * chunk(length)).min(length);
                let part = batch.part(sequence, sequence, length.saturating_sub(1), h, range);
                let unwritten = Data::unwritten(Scalar::F32, batch.hs).values();
                partial.extend(if part.weights == 0.0 { unwritten } else { part.values });
                stats.extend([part.largest * std::f64::consts::LOG2_E, part.weights]);
            }
        }
    }
    (partial, stats)
}

pub(super) fn split(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_decode(kernel, |batch| {
        let parts = 5;
        let (partial, stats) = split_of(&batch, parts);
        let tolerance = Tolerance::of_scale(1e-5, &partial);
        batch
            .case(kernel)
            .dim("parts", parts)
            .dim("chunk", CHUNK)
            .dim("groups", batch.n_kv_head)
            .write("partial", partial, tolerance)
            .write("part_stats", stats, Tolerance { absolute: 1e-5, relative: 1e-5 })
            .visit(visit);
    });
}

/// Rows that decode over caches in pieces, and in how many: of 64 tokens; beyond 1,024 tokens, of 128.
fn each_in_pieces(kernel: &Kernel, mut visit: impl FnMut(&Batch, usize)) {
    let hs = head_size(&kernel.name).unwrap_or(64) as usize;
    for (setting, lengths) in [
        ((2, 1, 16, 0, 0.0), &[1, 64, 0][..]),
        ((3, 3, 3, 0, 0.0), &[65, 31]),
        ((6, 2, 16, 0, 0.0), &[200]),
        ((4, 1, 16, 70, 4.0), &[150, 70, 129]),
        ((5, 1, 32, 0, 0.0), &[1100]),
        ((2, 2, 16, 0, 0.0), &[]),
    ] {
        let sequences: Vec<_> = lengths.iter().map(|&l| (l, 1)).collect();
        let batch = Batch::new(kernel, hs, setting, &sequences);
        visit(&batch, if lengths == [1100] { 16 } else { 5 });
    }
}

pub(super) fn decode_attend(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_in_pieces(kernel, |batch, parts| {
        let (partial, stats) = pieces_of(batch, parts, |length| 64 * length.div_ceil(1024));
        let tolerance = Tolerance::of_scale(1e-5, &partial);
        batch
            .case(kernel)
            .dim("parts", parts)
            .write("partial", partial, tolerance)
            .write("part_stats", stats, Tolerance { absolute: 1e-5, relative: 1e-5 })
            .visit(visit);
    });
}

pub(super) fn combine(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_decode(kernel, |batch| {
        let parts = 5;
        let (partial, stats) = split_of(&batch, parts);
        let wanted = batch.attention();
        let tolerance = Tolerance::of_scale(1e-5, &wanted);
        CaseOf::new(
            kernel,
            &[("N", batch.sequences.len()), ("nh", batch.nh), ("hs", batch.hs), ("parts", parts)],
        )
        .read("partial", stored(kernel, "partial", &partial))
        .read("part_stats", stored(kernel, "part_stats", &stats))
        .write("out", wanted, tolerance)
        .visit(visit);
    });
}

/// Q and the probabilities are rounded to the cache's type.
fn rounding_of(kernel: &Kernel) -> f64 {
    if scalar_of(kernel, "k_cache") == Scalar::Bf16 { 1.0 / 64.0 } else { 1.0 / 512.0 }
}

pub(super) fn flash(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_ragged(kernel, rounding_of(kernel), |_, case| case.visit(visit));
}

/// In floats, whatever the cache's type.
pub(super) fn ragged(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_ragged(kernel, 1e-5, |_, case| case.visit(visit));
}

/// All pieces of ragged rows, and each piece of rows that decode.
pub(super) fn flash_pieces(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    let rounding = rounding_of(kernel);
    each_ragged(kernel, rounding, |batch, case| {
        let most_rows = batch.sequences.iter().map(|s| s.1).max().unwrap_or(0);
        let case = case.dim("groups", batch.nh).dim("pieces", most_rows.div_ceil(64));
        case.nil("partial").nil("part_stats").visit(visit);
    });
    each_in_pieces(kernel, |batch, pieces| {
        let (partial, stats) = pieces_of(batch, pieces, |length| 64 * length.div_ceil(1024));
        let tolerance = Tolerance::of_scale(rounding, &partial);
        let first_row: Vec<_> = (0..=batch.sequences.len()).collect();
        batch
            .case(kernel)
            .dim("groups", batch.n_kv_head)
            .dim("pieces", pieces)
            .read("first_row", super::rows::indices(&first_row))
            .nil("out")
            .write("partial", partial, tolerance)
            .write("part_stats", stats, Tolerance { absolute: rounding, relative: rounding })
            .visit(visit);
    });
}

fn each_ragged<'k>(kernel: &'k Kernel, rounding: f64, mut visit: impl FnMut(&Batch, CaseOf<'k>)) {
    for hs in head_sizes(kernel) {
        for &setting in SETTINGS {
            for sequences in [&[(1, 1)][..], &[(64, 50)], &[(70, 70), (5, 1)], &[(100, 3), (66, 65)], &[]] {
                let batch = Batch::new(kernel, hs, setting, sequences);
                let wanted = batch.attention();
                let tolerance = Tolerance::of_scale(rounding, &wanted);
                let most_rows = sequences.iter().map(|s| s.1).max().unwrap_or(0);
                let mut first_row = vec![0];
                for &(_, rows) in sequences {
                    first_row.push(first_row.last().copied().unwrap_or(0) + rows);
                }
                let case = batch
                    .case(kernel)
                    .dim("most_rows", most_rows)
                    .read("first_row", super::rows::indices(&first_row))
                    .write("out", wanted, tolerance);
                visit(&batch, case);
            }
        }
    }
}
