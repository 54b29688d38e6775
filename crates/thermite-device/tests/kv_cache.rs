//! Attention over a cache of eight bits against float64, over what the cache holds and over what was put into it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{instruction_sets, noise};
use half::bf16;
use thermite_device::cpu::{Cpu, Isa};
use thermite_device::{
    ActivationShape, Activations, AttentionKind, AttentionShape, Batch, Device, Dtype, Error, KvShape,
    Outputs, Step,
};

const BLOCK_SIZE: usize = 16;

/// What an output may be off by over the numbers in the cache, in parts of the largest value: queries and weights have
/// 16 bits.
const ROUNDED: f64 = 1e-4;

/// What all outputs may be off by over the numbers that were put in, in parts of their length.
const QUANTIZED: f64 = 0.02;

/// Magnitudes of queries, keys and values.
type Sizes = [f32; 3];

/// Rows of queries, keys and values side by side.
fn rows(seed: u64, n: usize, shape: AttentionShape, sizes: Sizes) -> Vec<f32> {
    let [q, kv] = [shape.n_head, shape.n_kv_head].map(|heads| heads * shape.head_dim);
    let row = |i: usize| {
        let seed = seed * 1000 + 3 * i as u64;
        let parts = [(q, sizes[0]), (kv, sizes[1]), (kv, sizes[2])];
        parts
            .into_iter()
            .zip(seed..)
            .flat_map(|((len, size), seed)| noise(seed, len).into_iter().map(move |x| size * x))
    };
    (0..n).flat_map(row).collect()
}

/// `x` as the cache holds it: an integer a number, a scale 32 of them.
fn rounded(x: &[f32]) -> Vec<f64> {
    let block = |x: &[f32]| {
        let largest = x.iter().fold(0.0f32, |top, x| top.max(x.abs()));
        let scale = f64::from(bf16::from_f32(largest / 127.0).to_f32());
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        x.iter().map(|x| (f64::from(*x) * inverse).round().clamp(-127.0, 127.0) * scale).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(block).collect()
}

/// The attention of `n` rows that follow `depth` others, in float64, from `all` rows; `hold` is what becomes of keys and
/// values.
fn oracle(
    all: &[f32],
    depth: usize,
    n: usize,
    shape: AttentionShape,
    hold: impl Fn(&[f32]) -> Vec<f64>,
) -> Vec<f64> {
    let AttentionShape { n_head, n_kv_head, head_dim: hs, scale, window, cap, .. } = shape;
    let row = |i: usize| &all[i * shape.qkv_width()..][..shape.qkv_width()];
    let mut out = Vec::new();
    for position in depth..depth + n {
        for head in 0..n_head {
            let q = &row(position)[head * hs..][..hs];
            let kv = head / (n_head / n_kv_head);
            let first = if window == 0 { 0 } else { (position + 1).saturating_sub(window) };
            let part = |i: usize, column: usize| hold(&row(i)[(column + kv) * hs..][..hs]);
            let mut scores: Vec<f64> = (first..=position)
                .map(|i| {
                    let dot = part(i, n_head).iter().zip(q).map(|(k, q)| k * f64::from(*q)).sum::<f64>();
                    let score = dot * f64::from(scale);
                    if cap == 0.0 { score } else { f64::from(cap) * (score / f64::from(cap)).tanh() }
                })
                .collect();
            let top = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            scores.iter_mut().for_each(|x| *x = (*x - top).exp());
            let sum: f64 = scores.iter().sum();
            let mut mixed = vec![0.0; hs];
            for (weight, i) in scores.iter().zip(first..) {
                let value = part(i, n_head + n_kv_head);
                mixed.iter_mut().zip(value).for_each(|(m, v)| *m += weight / sum * v);
            }
            out.extend(mixed);
        }
    }
    out
}

/// The same by the device: `depth` rows are written, then `n` attend.
fn attend(d: &Cpu, all: &[f32], depth: usize, n: usize, shape: AttentionShape) -> Vec<f32> {
    let blocks = (depth + n).div_ceil(BLOCK_SIZE);
    let kv = KvShape {
        n_blocks: blocks,
        block_size: BLOCK_SIZE,
        n_kv_head: shape.n_kv_head,
        head_dim: shape.head_dim,
        dtype: Dtype::Q8_0,
    };
    let table: Vec<i32> = (0..blocks as i32).rev().collect();
    let rows = depth.max(n);
    let widths = ActivationShape { rows, outputs: 0, n_embd: 1, attention: shape, n_inner: 0, n_vocab: 0 };
    let mut acts = Activations::new(d, widths, false).unwrap();
    let (mut cache, mut step) = (d.kv_layer(kv).unwrap(), Step::new(d).unwrap());
    let (before, now) = all.split_at(depth * shape.qkv_width());
    for (start, values) in [(0, before), (depth, now)] {
        let count = values.len() / shape.qkv_width();
        let mut batch = Batch::default();
        batch.push(&vec![0; count], start, &table, BLOCK_SIZE, Outputs::None).unwrap();
        step.load(d, &batch).unwrap();
        d.write_f32(&mut acts.qkv, values).unwrap();
        if start == depth {
            d.attention(&mut acts, &mut cache, &step, shape).unwrap();
        } else {
            d.cache_write(&acts.qkv, &step.slots, &mut cache, count, shape.n_head).unwrap();
        }
    }
    let mut out = vec![0.0; n * shape.n_head * shape.head_dim];
    d.read_f32(&acts.attn, 0, &mut out).unwrap();
    out
}

/// Both errors of every instruction set, one thread and two.
fn check(depth: usize, n: usize, shape: AttentionShape, sizes: Sizes) {
    let all = rows(1, depth + n, shape, sizes);
    let held = oracle(&all, depth, n, shape, rounded);
    let exact = oracle(&all, depth, n, shape, |x| x.iter().copied().map(f64::from).collect());
    let largest = f64::from(sizes[2]);
    for (isa, threads) in instruction_sets().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
        let d = Cpu::with(Some(threads), isa).unwrap();
        let got: Vec<f64> = attend(&d, &all, depth, n, shape).into_iter().map(f64::from).collect();
        let name = format!("{depth} + {n}, {shape:?}, {sizes:?}, {}", d.describe());
        for (i, (a, b)) in got.iter().zip(&held).enumerate() {
            assert!((a - b).abs() <= ROUNDED * largest, "{name}: [{i}] {a} for {b}");
        }
        let length = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let off = length(&mut got.iter().zip(&exact).map(|(a, b)| a - b));
        let error = off / length(&mut exact.iter().copied());
        assert!(error <= QUANTIZED, "{name}: {error:.4} of the whole");
    }
}

const fn heads(n_head: usize, n_kv_head: usize, head_dim: usize) -> AttentionShape {
    let scale = 1.0 / head_dim as f32;
    AttentionShape { n_head, n_kv_head, head_dim, kind: AttentionKind::Auto, scale, window: 0, cap: 0.0 }
}

#[test]
fn lengths_and_heads() {
    for (depth, n) in [(0, 1), (0, 5), (15, 1), (16, 1), (127, 1), (128, 3), (300, 1), (129, 40)] {
        for shape in [heads(1, 1, 32), heads(3, 1, 64), heads(4, 2, 32), heads(8, 1, 96)] {
            check(depth, n, shape, [4.0, 2.0, 1.0]);
        }
    }
}

#[test]
fn windows_and_caps() {
    for (window, cap) in [(1, 0.0), (20, 0.0), (150, 0.0), (0, 2.0), (33, 0.5)] {
        for (depth, n) in [(300, 1), (120, 30)] {
            check(depth, n, AttentionShape { window, cap, ..heads(4, 2, 32) }, [4.0, 2.0, 1.0]);
        }
    }
}

#[test]
fn huge_and_tiny_numbers() {
    for sizes in
        [[1e-15, 1e15, 1e30], [1e15, 1e-15, 1e-30], [1.0, 1.0, 1e6], [0.0, 1.0, 1.0], [1.0, 1e-42, 1.0]]
    {
        for n in [1, 7] {
            check(150, n, heads(4, 2, 64), sizes);
        }
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let shape = heads(2, 1, 32);
    let width = shape.qkv_width();
    for (column, bad) in [(0, f32::NAN), (64, f32::INFINITY), (96, f32::NAN), (96, f32::NEG_INFINITY)] {
        let mut all = rows(2, 20, shape, [1.0; 3]);
        // the last row's query, or a key or a value of a row before it
        all[if column == 0 { 19 } else { 7 } * width + column] = bad;
        for isa in instruction_sets() {
            let out = attend(&Cpu::with(Some(1), isa).unwrap(), &all, 19, 1, shape);
            assert!(out[..32].iter().any(|x| !x.is_finite()), "{bad} in column {column}: {out:?}");
        }
    }
}

#[test]
fn heads_are_of_whole_blocks() {
    let d = Cpu::with(Some(1), Isa::detect()).unwrap();
    let kv = KvShape { n_blocks: 1, block_size: 16, n_kv_head: 1, head_dim: 80, dtype: Dtype::Q8_0 };
    let error = d.kv_layer(kv).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }));
    let text = "kv_layer: head size is 80, must be a multiple of 32 for keys and values of type q8_0";
    assert_eq!(error.to_string(), text);
    assert_eq!(KvShape { head_dim: 64, ..kv }.bytes(), 2 * 16 * 2 * 34);
}
