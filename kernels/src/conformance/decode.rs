//! The fused projections of a decoding step.

use super::activation::{gelu_of, silu_of};
use super::attention::{freqs, rotate};
use super::case::{Case, CaseOf, Tolerance, stored};
use super::data::{Data, Generator};
use super::linear::product;
use super::paging::cache_at;
use super::rows::indices;
use crate::syntax::Kernel;

const EPS: f32 = 1e-5;

/// (N, C, M)
const SHAPES: &[(usize, usize, usize)] =
    &[(1, 1, 1), (1, 5, 33), (2, 33, 7), (1, 768, 17), (3, 64, 64), (0, 64, 8), (1, 1032, 5)];

/// A norm's input and parameters; layer norm where the kernel's name says so.
pub(super) struct Normed {
    x: Data,
    gamma: Data,
    beta: Option<Data>,
    /// norm(x) [N, C]
    pub(super) y: Vec<f64>,
}

pub(super) fn normed(kernel: &Kernel, n: usize, c: usize, layer: bool) -> Normed {
    let mut generator = Generator::new(90);
    let x = stored(kernel, "x", &generator.bell(n * c, 2.0));
    let gamma = stored(kernel, "gamma", &generator.bell(c, 1.0));
    let beta = layer.then(|| stored(kernel, "beta", &generator.bell(c, 0.5)));
    let mut y = Vec::new();
    for row in x.values().chunks(c) {
        let mean = if layer { row.iter().sum::<f64>() / c as f64 } else { 0.0 };
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64;
        let rstd = 1.0 / (variance + f64::from(EPS)).sqrt();
        let shift = |i: usize| beta.as_ref().map_or(0.0, |b| b.value(i));
        y.extend(row.iter().enumerate().map(|(i, v)| (v - mean) * rstd * gamma.value(i) + shift(i)));
    }
    Normed { x, gamma, beta, y }
}

impl Normed {
    pub(super) fn bind<'k>(self, case: CaseOf<'k>) -> CaseOf<'k> {
        let case = case.read("x", self.x).read("gamma", self.gamma).float("eps", EPS);
        match self.beta {
            Some(beta) => case.read("beta", beta),
            None => case.nil("beta"),
        }
    }
}

fn weights(kernel: &Kernel, name: &str, seed: u64, count: usize) -> Data {
    stored(kernel, name, &Generator::new(seed).bell(count, 0.1))
}

pub(super) fn swiglu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    gated(kernel, silu_of, visit);
}

pub(super) fn geglu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    gated(kernel, gelu_of, visit);
}

fn gated(kernel: &Kernel, activation: fn(f64) -> f64, visit: &mut dyn FnMut(Case)) {
    for &(n, c, m) in SHAPES {
        let normed = normed(kernel, n, c, false);
        let gate = weights(kernel, "W_gate", 91, m * c);
        let up = weights(kernel, "W_up", 92, m * c);
        let gates = product(&normed.y, &gate.values(), [n, c, m]);
        let ups = product(&normed.y, &up.values(), [n, c, m]);
        let wanted: Vec<_> = gates.iter().zip(&ups).map(|(g, u)| activation(*g) * u).collect();
        let tolerance = Tolerance::of_scale(5e-6, &wanted);
        let case = normed.bind(CaseOf::new(kernel, &[("N", n), ("C", c), ("M", m)]));
        case.read("W_gate", gate).read("W_up", up).write("out", wanted, tolerance).visit(visit);
    }
}

pub(super) fn up_gelu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    project(kernel, true, gelu_of, visit);
}

pub(super) fn head(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    project(kernel, kernel.name.contains("_layer"), |x| x, visit);
}

fn project(kernel: &Kernel, layer: bool, activation: fn(f64) -> f64, visit: &mut dyn FnMut(Case)) {
    for &(n, c, m) in SHAPES {
        for with_bias in [false, true] {
            let normed = normed(kernel, n, c, layer);
            let w = weights(kernel, "W", 93, m * c);
            let bias = stored(kernel, "bias", &Generator::new(94).bell(m, 1.0));
            let biased = |i: usize| if with_bias { bias.value(i % m) } else { 0.0 };
            let sums = product(&normed.y, &w.values(), [n, c, m]);
            let wanted: Vec<_> = sums.iter().enumerate().map(|(i, s)| activation(s + biased(i))).collect();
            let tolerance = Tolerance::of_scale(5e-6, &wanted);
            let case = normed.bind(CaseOf::new(kernel, &[("N", n), ("C", c), ("M", m)]));
            let case = if with_bias { case.read("bias", bias) } else { case.nil("bias") };
            case.read("W", w).write("out", wanted, tolerance).visit(visit);
        }
    }
}

/// residual += W x + bias, with x and what else is bound from `vector`.
fn added<'k>(
    kernel: &'k Kernel,
    dims: &[(&'static str, usize)],
    [n, k, m]: [usize; 3],
    x: &[f64],
    with_bias: bool,
) -> CaseOf<'k> {
    let w = weights(kernel, "W", 90, m * k);
    let mut generator = Generator::new(91);
    let residual = stored(kernel, "residual", &generator.bell(n * m, 1.0));
    let bias = stored(kernel, "bias", &generator.bell(m, 1.0));
    let sums = product(x, &w.values(), [n, k, m]);
    let biased = |i: usize| if with_bias { bias.value(i % m) } else { 0.0 };
    let wanted: Vec<_> = (0..n * m).map(|i| residual.value(i) + sums[i] + biased(i)).collect();
    let tolerance = Tolerance::of_scale(5e-6, &wanted);
    let case = CaseOf::new(kernel, dims).read("W", w).update("residual", residual, wanted, tolerance);
    if with_bias { case.read("bias", bias) } else { case.nil("bias") }
}

pub(super) fn down(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for (n, k, m) in
        [(1, 1, 1), (2, 33, 7), (1, 768, 17), (3, 4136, 6), (1, 5000, 3), (0, 64, 8), (2, 1032, 5)]
    {
        for with_bias in [false, true] {
            let x = stored(kernel, "x", &Generator::new(89).bell(n * k, 1.0));
            let dims = [("N", n), ("K", k), ("M", m)];
            added(kernel, &dims, [n, k, m], &x.values(), with_bias).read("x", x).visit(visit);
        }
    }
}

/// Pieces with and without tokens, and a head without any: its output is zero.
pub(super) fn output(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for (n, nh, hs, parts, m) in
        [(1, 1, 8, 1, 1), (2, 3, 64, 5, 9), (1, 12, 64, 9, 6), (1, 40, 128, 2, 5), (0, 2, 32, 3, 4)]
    {
        for with_bias in [false, true] {
            let mut generator = Generator::new(88);
            let (mut partial, mut stats, mut x) = (Vec::new(), Vec::new(), Vec::new());
            for head in 0..n * nh {
                let mut top = f64::NEG_INFINITY;
                let mut pieces = Vec::new();
                for part in 0..parts {
                    let values = generator.bell(hs, 1.0);
                    let empty = (head + part) % 3 == 2 || head % 5 == 4;
                    let (largest, sum) = match empty {
                        true => (f64::NEG_INFINITY, 0.0),
                        false => (f64::from((part as f32 - 1.5) * 0.75), 1.0 + part as f64),
                    };
                    stats.extend([largest, sum]);
                    partial.extend(if empty { vec![f64::NAN; hs] } else { values.clone() });
                    top = top.max(largest);
                    if !empty {
                        pieces.push((largest, sum, values));
                    }
                }
                let share = |largest: f64| (largest - top).exp2();
                let total: f64 = pieces.iter().map(|(largest, sum, _)| sum * share(*largest)).sum();
                x.extend((0..hs).map(|d| {
                    let y: f64 =
                        pieces.iter().map(|(largest, _, v)| f64::from(v[d] as f32) * share(*largest)).sum();
                    if total == 0.0 { 0.0 } else { y / total }
                }));
            }
            let dims = [("N", n), ("nh", nh), ("hs", hs), ("parts", parts), ("M", m)];
            added(kernel, &dims, [n, nh * hs, m], &x, with_bias)
                .read("partial", stored(kernel, "partial", &partial))
                .read("part_stats", stored(kernel, "part_stats", &stats))
                .visit(visit);
        }
    }
}

pub(super) fn qkv(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    let layer = kernel.name.contains("_layer");
    for (n, c, nh, n_kv_head, hs) in
        [(1, 5, 1, 1, 2), (3, 64, 4, 2, 64), (2, 33, 3, 3, 32), (0, 8, 1, 1, 32), (1, 40, 2, 1, 80)]
    {
        for (with_bias, with_rope) in [(true, false), (false, true), (true, true)] {
            let normed = normed(kernel, n, c, layer);
            let (block_size, n_blocks, n_positions) = (4, 3, 20);
            let m = (nh + 2 * n_kv_head) * hs;
            let (w, bias) = (weights(kernel, "W", 95, m * c), weights(kernel, "bias", 96, m));
            let mut generator = Generator::new(97);
            let positions: Vec<_> = (0..n).map(|_| generator.below(n_positions)).collect();
            // Distinct slots; the second row is padding and is skipped.
            let order = generator.permutation(n_blocks * block_size);
            let slots: Vec<i32> = (0..n).map(|i| if i == 1 { -1 } else { order[i] as i32 }).collect();
            let table = freqs(kernel, n_positions, hs);

            let mut y = product(&normed.y, &w.values(), [n, c, m]);
            for (row, &position) in y.chunks_mut(m).zip(&positions) {
                if with_bias {
                    row.iter_mut().enumerate().for_each(|(i, v)| *v += bias.value(i));
                }
                let turned = if with_rope { (nh + n_kv_head) * hs } else { 0 };
                for head in row[..turned].chunks_mut(hs) {
                    rotate(head, &table.values()[position * hs..][..hs]);
                }
            }
            let q_out: Vec<_> = y.chunks(m).flat_map(|row| &row[..nh * hs]).copied().collect();
            let cache = |name, seed| {
                let length = n_blocks * n_kv_head * block_size * hs;
                stored(kernel, name, &Generator::new(seed).bell(length, 1.0))
            };
            let written = |cache: &Data, first_head: usize| {
                let mut values = cache.values();
                for (row, &slot) in y.chunks(m).zip(&slots) {
                    let Ok(slot) = usize::try_from(slot) else { continue };
                    for h in 0..n_kv_head {
                        let to = cache_at(slot, h, n_kv_head, block_size, hs);
                        values[to..to + hs].copy_from_slice(&row[(first_head + h) * hs..][..hs]);
                    }
                }
                values
            };
            let (k_cache, v_cache) = (cache("k_cache", 98), cache("v_cache", 99));
            let (k_wanted, v_wanted) = (written(&k_cache, nh), written(&v_cache, nh + n_kv_head));
            let tolerance = Tolerance::of_scale(5e-6, &y);
            let dims = [
                ("N", n),
                ("C", c),
                ("nh", nh),
                ("n_kv_head", n_kv_head),
                ("hs", hs),
                ("block_size", block_size),
                ("n_blocks", n_blocks),
                ("n_positions", n_positions),
            ];
            let case = normed.bind(CaseOf::new(kernel, &dims));
            let case = if with_bias { case.read("bias", bias) } else { case.nil("bias") };
            let case = if with_rope { case.read("freqs", table) } else { case.nil("freqs") };
            case.read("W", w)
                .read("positions", indices(&positions))
                .read("slots", Data::I32(slots))
                .write("q_out", q_out, tolerance)
                .update("k_cache", k_cache, k_wanted, tolerance)
                .update("v_cache", v_cache, v_wanted, tolerance)
                .visit(visit);
        }
    }
}
