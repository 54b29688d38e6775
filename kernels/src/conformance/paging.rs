//! Ragged batches and the paged KV cache.

use super::attention::{freqs, rotate};
use super::case::{Case, CaseOf, Tolerance, stored};
use super::data::{Data, Generator};
use super::rows::indices;
use crate::syntax::Kernel;

/// (heads, head size): of a fused row, whose first columns are something else.
const HEADS: &[(usize, usize)] = &[(1, 2), (3, 64), (2, 80), (4, 33), (2, 128)];
const MARGIN: usize = 3;

pub(super) fn split_heads(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(nh, hs) in HEADS {
        for (n, first_row, rows, t) in [(1, 0, 1, 1), (9, 2, 5, 5), (9, 4, 5, 12), (4, 0, 0, 3), (3, 3, 0, 0)]
        {
            let w = MARGIN + nh * hs + 1;
            let x = stored(kernel, "x", &Generator::new(40).bell(n * w, 1.0));
            let mut wanted = vec![0.0; nh * t * hs];
            for h in 0..nh {
                for i in 0..rows {
                    let from = (first_row + i) * w + MARGIN + h * hs;
                    let to = (h * t + t - rows + i) * hs;
                    (0..hs).for_each(|d| wanted[to + d] = x.value(from + d));
                }
            }
            let dims = [
                ("N", n),
                ("W", w),
                ("nh", nh),
                ("T", t),
                ("hs", hs),
                ("first_row", first_row),
                ("rows", rows),
                ("column", MARGIN),
            ];
            let case = CaseOf::new(kernel, &dims).surplus(1).read("x", x);
            case.write("out", wanted, Tolerance::EXACT).visit(visit);
        }
    }
}

pub(super) fn merge_heads(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(nh, hs) in HEADS {
        for (n, first_row, rows, t) in [(1, 0, 1, 1), (9, 2, 5, 5), (9, 4, 5, 12), (4, 0, 0, 3)] {
            let x = stored(kernel, "x", &Generator::new(41).bell(nh * t * hs, 1.0));
            let out = Data::unwritten(super::case::scalar_of(kernel, "out"), n * nh * hs);
            let mut wanted = out.values();
            for h in 0..nh {
                for i in 0..rows {
                    let from = (h * t + t - rows + i) * hs;
                    let to = ((first_row + i) * nh + h) * hs;
                    (0..hs).for_each(|d| wanted[to + d] = x.value(from + d));
                }
            }
            let dims = [("N", n), ("nh", nh), ("T", t), ("hs", hs), ("first_row", first_row), ("rows", rows)];
            let case = CaseOf::new(kernel, &dims).surplus(1).read("x", x);
            case.update("out", out, wanted, Tolerance::EXACT).visit(visit);
        }
    }
}

pub(super) fn rope_rows(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n_head, hs) in HEADS.iter().filter(|(_, hs)| hs % 2 == 0) {
        for n in [0, 1, 6] {
            let (w, n_positions) = (MARGIN + n_head * hs + 2, 50);
            let mut generator = Generator::new(42);
            let x = stored(kernel, "x", &generator.bell(n * w, 1.0));
            let positions: Vec<_> = (0..n).map(|i| if i == 0 { 49 } else { generator.below(50) }).collect();
            let freqs = freqs(kernel, n_positions, hs);
            let (table, mut wanted) = (freqs.values(), x.values());
            for (row, &position) in wanted.chunks_mut(w).zip(&positions) {
                for head in row[MARGIN..][..n_head * hs].chunks_mut(hs) {
                    let angles = table.get(position * hs..(position + 1) * hs);
                    rotate(head, angles.unwrap_or(&[]));
                }
            }
            let dims = [
                ("N", n),
                ("W", w),
                ("n_head", n_head),
                ("hs", hs),
                ("column", MARGIN),
                ("n_positions", n_positions),
            ];
            CaseOf::new(kernel, &dims)
                .surplus(1)
                .read("freqs", freqs)
                .read("positions", indices(&positions))
                .update("x", x, wanted, Tolerance { absolute: 1e-6, relative: 1e-6 })
                .visit(visit);
        }
    }
}

/// Where (block, head, offset, channel) lies in a cache [n_blocks, n_kv_head, block_size, hs].
pub(super) fn cache_at(slot: usize, head: usize, n_kv_head: usize, block_size: usize, hs: usize) -> usize {
    ((slot / block_size * n_kv_head + head) * block_size + slot % block_size) * hs
}

pub(super) fn cache_write(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n_kv_head, hs) in HEADS {
        for (n, block_size) in [(0, 16), (1, 1), (7, 16), (7, 3)] {
            let (n_blocks, width) = (6, n_kv_head * hs);
            let (k_column, v_column) = (MARGIN, MARGIN + width + 1);
            let w = v_column + width;
            let mut generator = Generator::new(43);
            let qkv = stored(kernel, "qkv", &generator.bell(n * w, 1.0));
            let order = generator.permutation(n_blocks * block_size);
            // Distinct slots; the second row is padding and is skipped.
            let slot = |i: usize| if i == 1 { -1 } else { order[i % order.len()] as i32 };
            let slots: Vec<i32> =
                (0..n.min(order.len())).map(slot).chain((order.len()..n).map(|_| -1)).collect();
            let cache_length = n_blocks * width * block_size;
            let cache = |name, seed| stored(kernel, name, &Generator::new(seed).bell(cache_length, 1.0));
            let (k_cache, v_cache) = (cache("k_cache", 44), cache("v_cache", 45));
            let written = |cache: &Data, column: usize| {
                let mut values = cache.values();
                for (row, &slot) in slots.iter().enumerate() {
                    let Ok(slot) = usize::try_from(slot) else { continue };
                    for h in 0..n_kv_head {
                        let to = cache_at(slot, h, n_kv_head, block_size, hs);
                        let from = row * w + column + h * hs;
                        (0..hs).for_each(|d| values[to + d] = qkv.value(from + d));
                    }
                }
                values
            };
            let (k_wanted, v_wanted) = (written(&k_cache, k_column), written(&v_cache, v_column));
            let dims = [
                ("N", n),
                ("W", w),
                ("k_column", k_column),
                ("v_column", v_column),
                ("n_kv_head", n_kv_head),
                ("hs", hs),
                ("block_size", block_size),
                ("n_blocks", n_blocks),
            ];
            CaseOf::new(kernel, &dims)
                .surplus(1)
                .update("k_cache", k_cache, k_wanted, Tolerance::ROUNDED)
                .update("v_cache", v_cache, v_wanted, Tolerance::ROUNDED)
                .read("qkv", qkv)
                .read("slots", Data::I32(slots))
                .visit(visit);
        }
    }
}

pub(super) fn cache_gather(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n_kv_head, hs) in HEADS {
        for (t, group, block_size) in [(1usize, 1, 16), (16, 2, 16), (17, 3, 16), (7, 2, 3), (0, 1, 16)] {
            let (n_blocks, nh) = (5, n_kv_head * group);
            let cache_length = n_blocks * n_kv_head * block_size * hs;
            let cache = |name, seed| stored(kernel, name, &Generator::new(seed).bell(cache_length, 1.0));
            let (k_cache, v_cache) = (cache("k_cache", 46), cache("v_cache", 47));
            let mut blocks = Generator::new(48).permutation(n_blocks);
            blocks.truncate(t.div_ceil(block_size));
            let gathered = |cache: &Data| {
                let mut out = Vec::with_capacity(nh * t * hs);
                for h in 0..nh {
                    for token in 0..t {
                        let slot = blocks[token / block_size] * block_size + token % block_size;
                        let from = cache_at(slot, h / group, n_kv_head, block_size, hs);
                        out.extend((0..hs).map(|d| cache.value(from + d)));
                    }
                }
                out
            };
            let (k, v) = (gathered(&k_cache), gathered(&v_cache));
            let dims = [
                ("T", t),
                ("hs", hs),
                ("nh", nh),
                ("n_kv_head", n_kv_head),
                ("block_size", block_size),
                ("n_blocks", n_blocks),
            ];
            CaseOf::new(kernel, &dims)
                .surplus(1)
                .read("k_cache", k_cache)
                .read("v_cache", v_cache)
                .read("block_table", indices(&blocks))
                .write("K", k, Tolerance::EXACT)
                .write("V", v, Tolerance::EXACT)
                .visit(visit);
        }
    }
}

pub(super) fn advance_rows(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for (n, block_size, max_blocks, kept) in [(0, 16, 2, 8), (1, 16, 4, 64), (3, 4, 3, 5), (70, 1, 9, 16)] {
        let mut generator = Generator::new(74);
        let room = block_size * max_blocks;
        // One is no token.
        let chosen: Vec<i32> =
            (0..n).map(|i| if i == 1 { -1 } else { generator.below(50_000) as i32 }).collect();
        // The last row's table is full: its next token has no slot.
        let positions: Vec<usize> =
            (0..n).map(|i| if i + 1 == n { room - 1 } else { generator.below(room) }).collect();
        let table: Vec<usize> = (0..n * max_blocks).map(|_| generator.below(100)).collect();
        let history: Vec<usize> = (0..n * kept).map(|_| generator.below(7)).collect();
        let next = |i: usize| positions[i] + 1;
        let slot = |i: usize| match next(i) / block_size {
            block if block < max_blocks => {
                (table[i * max_blocks + block] * block_size + next(i) % block_size) as f64
            }
            _ => -1.0,
        };
        let mut kept_tokens: Vec<f64> = history.iter().map(|&token| token as f64).collect();
        (0..n).for_each(|i| kept_tokens[i * kept + next(i) % kept] = chosen[i].into());
        let each = |value: &dyn Fn(usize) -> f64| (0..n).map(value).collect::<Vec<_>>();
        CaseOf::new(
            kernel,
            &[("N", n), ("block_size", block_size), ("max_blocks", max_blocks), ("kept", kept)],
        )
        .read("chosen", Data::I32(chosen.clone()))
        .read("block_table", indices(&table))
        .write("tokens", each(&|i| chosen[i].max(0).into()), Tolerance::EXACT)
        .update("positions", indices(&positions), each(&|i| next(i) as f64), Tolerance::EXACT)
        .write("slots", each(&slot), Tolerance::EXACT)
        .write("lengths", each(&|i| (next(i) + 1) as f64), Tolerance::EXACT)
        .update("history", indices(&history), kept_tokens, Tolerance::EXACT)
        .visit(visit);
    }
}
