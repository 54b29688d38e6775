//! Weights in quantised blocks. The oracles read one weight at a time, by the format's description.

use half::f16;

use super::activation::{gelu_of, silu_of};
use super::case::{Case, CaseOf, Tolerance, stored};
use super::data::{Data, Generator};
use super::decode::normed;
use super::linear::product;
use super::rows::indices;
use crate::contract::block_of;
use crate::syntax::Kernel;

/// (N, blocks a row, M)
const SHAPES: &[(usize, usize, usize)] =
    &[(1, 1, 1), (1, 3, 5), (2, 2, 33), (3, 1, 16), (0, 2, 4), (2, 2, 0), (1, 18, 17)];

/// Rows of blocks, and what they are worth.
struct Weights {
    bytes: Data,
    values: Vec<f64>,
}

/// `rows` rows of `blocks` blocks: bytes in any order, scales of either sign, some zero.
fn weights(kernel: &Kernel, seed: u64, rows: usize, blocks: usize) -> Weights {
    let format = kernel.name.rsplit_once("_q").map_or("", |(_, format)| format);
    let (width, size) = block_of(&kernel.name);
    let mut generator = Generator::new(seed);
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..rows * blocks {
        let mut block: Vec<u8> = (0..size).map(|_| generator.below(256) as u8).collect();
        let (scales, scale) = match format {
            "8_0" => (vec![0], 0.01),
            "4_1" => (vec![0, 2], 0.1),
            "4_k" => (vec![0, 2], 0.002),
            "6_k" => (vec![208], 0.0002),
            _ => (vec![0], 0.1),
        };
        for at in scales {
            let zero = generator.below(20) == 0;
            let value = if zero { 0.0 } else { generator.bell(1, scale)[0] };
            block[at..at + 2].copy_from_slice(&f16::from_f64(value).to_le_bytes());
        }
        values.extend((0..width as usize).map(|i| weight(format, &block, i)));
        bytes.extend(block);
    }
    Weights { bytes: Data::U8(bytes), values }
}

/// Weight `i` of a block.
fn weight(format: &str, block: &[u8], i: usize) -> f64 {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f64();
    let nibble = |byte: u8, high: bool| f64::from(if high { byte >> 4 } else { byte & 15 });
    match format {
        "8_0" => half(0) * f64::from(block[2 + i] as i8),
        "4_0" => half(0) * (nibble(block[2 + i % 16], i >= 16) - 8.0),
        "4_1" => half(0) * nibble(block[4 + i % 16], i >= 16) + half(2),
        "4_k" => {
            let (group, packed) = (i / 32, &block[4..16]);
            let (scale, minimum) = match group {
                0..4 => (packed[group] & 63, packed[group + 4] & 63),
                _ => (
                    packed[group + 4] & 15 | (packed[group - 4] >> 6) << 4,
                    packed[group + 4] >> 4 | (packed[group] >> 6) << 4,
                ),
            };
            let q = nibble(block[16 + i / 64 * 32 + i % 32], i % 64 >= 32);
            half(0) * f64::from(scale) * q - half(2) * f64::from(minimum)
        }
        _ => {
            let (part, j) = (i / 128, i % 128);
            let low = nibble(block[part * 64 + j % 64], j >= 64);
            let high = block[128 + part * 32 + j % 32] >> (j / 32 * 2) & 3;
            let scale = f64::from(block[192 + i / 16] as i8);
            half(208) * scale * (low + 16.0 * f64::from(high) - 32.0)
        }
    }
}

/// Channels of a row of `blocks` blocks.
fn channels(kernel: &Kernel, blocks: usize) -> usize {
    blocks * block_of(&kernel.name).0 as usize
}

/// A float32 sum of products with widened weights.
fn of_sums(wanted: &[f64]) -> Tolerance {
    Tolerance::of_scale(5e-6, wanted)
}

/// The same behind an activation, which may vanish where the sum does not.
fn of_activated(wanted: &[f64]) -> Tolerance {
    let Tolerance { absolute, relative } = Tolerance::of_scale(2e-5, wanted);
    Tolerance { absolute: absolute + 1e-6, relative }
}

/// Rows of a table: how many, and which.
fn picks(n: usize) -> (usize, Vec<usize>) {
    let mut generator = Generator::new(111);
    let pick = |i| if i == 0 { 6 } else { generator.below(7) };
    (7, (0..n).map(pick).collect())
}

pub(super) fn embedding(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, blocks, _) in SHAPES {
        let (c, (vocab, picks)) = (channels(kernel, blocks), picks(n));
        let table = weights(kernel, 110, vocab, blocks);
        let wanted = picks.iter().flat_map(|i| table.values[i * c..][..c].to_vec()).collect();
        CaseOf::new(kernel, &[("N", n), ("C", c), ("vocab", vocab)])
            .surplus(1)
            .read("weight", table.bytes)
            .read("tokens", indices(&picks))
            .write("out", wanted, WIDENED)
            .visit(visit);
    }
}

/// A product and a sum, each rounded; they may cancel.
const WIDENED: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };

pub(super) fn positional_embedding(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, blocks, _) in SHAPES {
        let (c, (n_positions, picks)) = (channels(kernel, blocks), picks(n));
        let table = weights(kernel, 112, n_positions, blocks);
        let x = stored(kernel, "x", &Generator::new(113).bell(n * c, 1.0));
        let added = picks.iter().flat_map(|i| table.values[i * c..][..c].to_vec());
        let wanted = x.values().iter().zip(added).map(|(x, w)| x + w).collect();
        CaseOf::new(kernel, &[("N", n), ("C", c), ("n_positions", n_positions)])
            .surplus(1)
            .read("weight", table.bytes)
            .read("positions", indices(&picks))
            .update("x", x, wanted, WIDENED)
            .visit(visit);
    }
}

pub(super) fn dequantize(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(_, blocks, m) in SHAPES {
        let table = weights(kernel, 114, m, blocks);
        CaseOf::new(kernel, &[("M", m), ("K", channels(kernel, blocks))])
            .surplus(1)
            .read("W", table.bytes)
            .write("out", table.values, WIDENED)
            .visit(visit);
    }
}

pub(super) fn matvec(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, blocks, m) in SHAPES {
        for (with_bias, with_residual) in [(false, false), (true, false), (true, true)] {
            let k = channels(kernel, blocks);
            let w = weights(kernel, 115, m, blocks);
            let mut generator = Generator::new(116);
            let x = stored(kernel, "x", &generator.bell(n * k, 1.0));
            let bias = stored(kernel, "bias", &generator.bell(m, 1.0));
            let residual = stored(kernel, "residual", &generator.bell(n * m, 1.0));
            let mut wanted = product(&x.values(), &w.values, [n, k, m]);
            for (i, y) in wanted.iter_mut().enumerate() {
                *y += if with_bias { bias.value(i % m) } else { 0.0 };
                *y += if with_residual { residual.value(i) } else { 0.0 };
            }
            let tolerance = of_sums(&wanted);
            let case = CaseOf::new(kernel, &[("N", n), ("K", k), ("M", m)]).surplus(0);
            let case = if with_bias { case.read("bias", bias) } else { case.nil("bias") };
            let case = if with_residual { case.read("residual", residual) } else { case.nil("residual") };
            case.read("x", x).read("W", w.bytes).write("out", wanted, tolerance).visit(visit);
        }
    }
}

pub(super) fn head(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    project(kernel, kernel.name.contains("_layer"), |x| x, visit);
}

pub(super) fn up_gelu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    project(kernel, true, gelu_of, visit);
}

fn project(kernel: &Kernel, layer: bool, activation: fn(f64) -> f64, visit: &mut dyn FnMut(Case)) {
    for &(n, blocks, m) in SHAPES {
        for with_bias in [false, true] {
            let c = channels(kernel, blocks);
            let normed = normed(kernel, n, c, layer);
            let w = weights(kernel, 117, m, blocks);
            let bias = stored(kernel, "bias", &Generator::new(118).bell(m, 1.0));
            let biased = |i: usize| if with_bias { bias.value(i % m) } else { 0.0 };
            let sums = product(&normed.y, &w.values, [n, c, m]);
            let wanted: Vec<_> = sums.iter().enumerate().map(|(i, s)| activation(s + biased(i))).collect();
            let tolerance = of_activated(&wanted);
            let case = normed.bind(CaseOf::new(kernel, &[("N", n), ("C", c), ("M", m)])).surplus(0);
            let case = if with_bias { case.read("bias", bias) } else { case.nil("bias") };
            case.read("W", w.bytes).write("out", wanted, tolerance).visit(visit);
        }
    }
}

pub(super) fn swiglu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    gated(kernel, silu_of, visit);
}

pub(super) fn geglu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    gated(kernel, gelu_of, visit);
}

fn gated(kernel: &Kernel, activation: fn(f64) -> f64, visit: &mut dyn FnMut(Case)) {
    for &(n, blocks, m) in SHAPES {
        let c = channels(kernel, blocks);
        let normed = normed(kernel, n, c, false);
        let (gate, up) = (weights(kernel, 119, m, blocks), weights(kernel, 120, m, blocks));
        let gates = product(&normed.y, &gate.values, [n, c, m]);
        let ups = product(&normed.y, &up.values, [n, c, m]);
        let wanted: Vec<_> = gates.iter().zip(&ups).map(|(g, u)| activation(*g) * u).collect();
        let tolerance = of_activated(&wanted);
        let case = normed.bind(CaseOf::new(kernel, &[("N", n), ("C", c), ("M", m)])).surplus(0);
        case.read("W_gate", gate.bytes).read("W_up", up.bytes).write("out", wanted, tolerance).visit(visit);
    }
}
