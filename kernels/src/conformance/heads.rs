//! Norms of single heads, and their way into the cache.

use super::attention::{freqs, rotate};
use super::case::{Case, CaseOf, Tolerance, stored};
use super::data::{Data, Generator};
use super::paging::cache_at;
use super::rows::indices;
use crate::syntax::Kernel;

/// (N, n_head, hs)
const SHAPES: &[(usize, usize, usize)] =
    &[(1, 1, 1), (3, 5, 2), (2, 4, 33), (2, 3, 64), (1, 9, 80), (2, 2, 256), (0, 3, 64), (2, 0, 64)];
/// Columns before the heads; one more follows them.
const MARGIN: usize = 3;
const EPS: f32 = 1e-6;

/// `head * gamma / sqrt(mean(head^2) + eps)`.
pub(super) fn rmsnorm_of(head: &mut [f64], gamma: &[f64], eps: f64) {
    let mean = head.iter().map(|v| v * v).sum::<f64>() / head.len() as f64;
    let scale = 1.0 / (mean + eps).sqrt();
    head.iter_mut().zip(gamma).for_each(|(v, gamma)| *v = *v * scale * gamma);
}

pub(super) fn rmsnorm(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, n_head, hs) in SHAPES {
        for (about, scale) in
            [("", 1.0), ("huge", 1e15), ("tiny", 1e-15), ("with an infinity and a NaN", 2.0)]
        {
            let w = MARGIN + n_head * hs + 1;
            let mut generator = Generator::new(30);
            let mut x = generator.bell(n * w, scale);
            if about.starts_with("with") && x.len() > w {
                // each spoils its own head alone
                x[MARGIN] = f64::INFINITY;
                x[w + MARGIN + (n_head.max(1) - 1) * hs] = f64::NAN;
            }
            let x = stored(kernel, "x", &x);
            let gamma = stored(kernel, "gamma", &generator.bell(hs, 1.0));
            let mut wanted = x.values();
            for row in wanted.chunks_mut(w) {
                for head in row[MARGIN..][..n_head * hs].chunks_mut(hs) {
                    rmsnorm_of(head, &gamma.values(), EPS.into());
                }
            }
            let dims = [("N", n), ("W", w), ("column", MARGIN), ("n_head", n_head), ("hs", hs)];
            CaseOf::new(kernel, &dims)
                .about(about)
                .surplus(0)
                .read("gamma", gamma)
                .float("eps", EPS)
                .update("x", x, wanted, Tolerance::relative(3e-6))
                .visit(visit);
        }
    }
}

/// (N, query heads, KV heads, hs)
const PLACED: &[(usize, usize, usize, usize)] =
    &[(1, 1, 1, 2), (3, 4, 2, 64), (2, 3, 3, 80), (1, 3, 1, 256), (0, 2, 1, 64)];

pub(super) fn place(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, nh, n_kv_head, hs) in PLACED {
        for (with_norm, with_rope) in [(false, false), (true, false), (false, true), (true, true)] {
            let (w, block_size, n_blocks, n_positions) = ((nh + 2 * n_kv_head) * hs, 4, 3, 20);
            let mut generator = Generator::new(31);
            let qkv = stored(kernel, "qkv", &generator.bell(n * w, 1.0));
            let gammas = ["gamma_q", "gamma_k"].map(|name| stored(kernel, name, &generator.bell(hs, 1.0)));
            let table = freqs(kernel, n_positions, hs);
            let positions: Vec<_> = (0..n).map(|_| generator.below(n_positions)).collect();
            // Distinct slots; the second row is padding and is skipped.
            let order = generator.permutation(n_blocks * block_size);
            let slots: Vec<i32> = (0..n).map(|i| if i == 1 { -1 } else { order[i] as i32 }).collect();
            let cache = |name, seed| {
                let length = n_blocks * n_kv_head * block_size * hs;
                stored(kernel, name, &Generator::new(seed).bell(length, 1.0))
            };
            let (k_cache, v_cache) = (cache("k_cache", 32), cache("v_cache", 33));

            let (mut wanted, mut keys, mut values) = (qkv.values(), k_cache.values(), v_cache.values());
            for (row, (&position, &slot)) in wanted.chunks_mut(w).zip(positions.iter().zip(&slots)) {
                for (h, head) in row.chunks_mut(hs).enumerate() {
                    let mut placed = head.to_vec();
                    if h < nh + n_kv_head {
                        if with_norm {
                            rmsnorm_of(&mut placed, &gammas[usize::from(h >= nh)].values(), EPS.into());
                        }
                        if with_rope {
                            rotate(&mut placed, &table.values()[position * hs..][..hs]);
                        }
                    }
                    let Some(kv) = h.checked_sub(nh) else {
                        head.copy_from_slice(&placed);
                        continue;
                    };
                    let Ok(slot) = usize::try_from(slot) else { continue };
                    let cache = if kv < n_kv_head { &mut keys } else { &mut values };
                    let to = cache_at(slot, kv % n_kv_head, n_kv_head, block_size, hs);
                    cache[to..to + hs].copy_from_slice(&placed);
                }
            }

            let dims = [
                ("N", n),
                ("nh", nh),
                ("n_kv_head", n_kv_head),
                ("hs", hs),
                ("block_size", block_size),
                ("n_blocks", n_blocks),
                ("n_positions", n_positions),
            ];
            let tolerance = Tolerance { absolute: 3e-6, relative: 3e-6 };
            let mut case = CaseOf::new(kernel, &dims).surplus(0).float("eps", EPS);
            for (name, gamma) in ["gamma_q", "gamma_k"].into_iter().zip(gammas) {
                case = if with_norm { case.read(name, gamma) } else { case.nil(name) };
            }
            case = if with_rope { case.read("freqs", table) } else { case.nil("freqs") };
            case.read("positions", indices(&positions))
                .read("slots", Data::I32(slots))
                .update("qkv", qkv, wanted, tolerance)
                .update("k_cache", k_cache, keys, tolerance)
                .update("v_cache", v_cache, values, tolerance)
                .visit(visit);
        }
    }
}
