//! Products against float64, and every override of a box against its default body in primitive kernels.
#![allow(clippy::unwrap_used)]

mod common;

use common::{instruction_sets, noise};
use half::{bf16, f16};
use proptest::prelude::*;
use thermite_device::cpu::{Cpu, CpuBuffer, Isa};
use thermite_device::{
    ActivationShape, Activations, AttentionKind, AttentionShape, Batch, Device, Dtype, KvShape, Layout,
    Linear, MatrixView, Outputs, Step, boxes,
};

fn devices() -> impl Iterator<Item = Cpu> {
    instruction_sets()
        .into_iter()
        .flat_map(|isa| [1, 2].map(|threads| Cpu::with(Some(threads), isa).unwrap()))
}

fn read(d: &Cpu, buffer: &CpuBuffer, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    d.read_f32(buffer, 0, &mut out).unwrap();
    out
}

/// `values` as bytes of `dtype`, and what they are worth after rounding.
fn stored(values: &[f32], dtype: Dtype) -> (Vec<u8>, Vec<f64>) {
    let halves = |bits: Vec<u16>| bits.into_iter().flat_map(u16::to_le_bytes).collect();
    let (bytes, worth): (Vec<u8>, Vec<f32>) = match dtype {
        Dtype::F16 => (
            halves(values.iter().map(|&x| f16::from_f32(x).to_bits()).collect()),
            values.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
        ),
        Dtype::BF16 => (
            halves(values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect()),
            values.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
        ),
        _ => (values.iter().flat_map(|x| x.to_le_bytes()).collect(), values.to_vec()),
    };
    (bytes, worth.into_iter().map(f64::from).collect())
}

/// `x W^T + bias` in float64, and the sum of the terms' magnitudes, by which the error is judged.
fn product(x: &[f32], w: &[f64], bias: &[f32], n: usize, m: usize, k: usize) -> Vec<(f64, f64)> {
    let one = |i: usize| {
        let (row, o) = (i / m, i % m);
        let terms = (0..k).map(|j| f64::from(x[row * k + j]) * w[o * k + j]);
        let (sum, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
        (sum + f64::from(bias[o]), size + f64::from(bias[o]).abs())
    };
    (0..n * m).map(one).collect()
}

fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
}

fn check_linear(n: usize, m: usize, k: usize, dtype: Dtype, layout: Layout, scale: f32) {
    let x: Vec<f32> = noise(1, n * k).into_iter().map(|x| x * scale).collect();
    let (w, bias) = (noise(2, m * k), noise(3, m));
    let (_, worth) = stored(&w, dtype);
    let laid = if layout == Layout::ColumnMajor { transposed(&w, m, k) } else { w };
    let (bytes, _) = stored(&laid, dtype);
    let want = product(&x, &worth, &bias, n, m, k);
    for d in devices() {
        let view = MatrixView { dtype: dtype.into(), rows: m, cols: k, layout, bytes: &bytes };
        let weight = d.matrix(&[view]).unwrap();
        let linear = Linear { weight, bias: Some((d.upload_f32(&bias).unwrap(), m)) };
        let x = d.upload_f32(&x).unwrap();
        let mut out = d.alloc(Dtype::F32, n * m).unwrap();
        d.linear(&x, &linear, &mut out, n).unwrap();
        let got = read(&d, &out, n * m);
        for (i, (got, (want, size))) in got.iter().zip(&want).enumerate() {
            let error = (f64::from(*got) - want).abs();
            let allowed = 1e-30 + size * 6e-8 * (4.0 + (k as f64).sqrt());
            assert!(error <= allowed, "{} [{n}, {m}, {k}] {dtype}: [{i}] {got} for {want}", d.describe());
        }
        let mut plain = d.alloc(Dtype::F32, n * m).unwrap();
        boxes::linear(&d, &x, &linear, &mut plain, n).unwrap();
        assert_eq!(got, read(&d, &plain, n * m), "the fused bias is the bias");
    }
}

#[test]
fn products_of_all_shapes() {
    for &(n, m, k) in &[
        (0, 5, 7),
        (1, 1, 1),
        (1, 5, 31),
        (1, 33, 33),
        (1, 768, 768),
        (1, 1025, 64),
        (2, 31, 5),
        (3, 64, 192),
        (4, 17, 33),
        (5, 48, 100),
        (6, 16, 511),
        (7, 33, 512),
        (8, 80, 513),
        (31, 15, 64),
        (33, 129, 1025),
        (64, 5, 1),
        (3, 50257, 32),
        (13, 50, 3072),
    ] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for layout in [Layout::RowMajor, Layout::ColumnMajor] {
                check_linear(n, m, k, dtype, layout, 1.0);
            }
        }
    }
}

#[test]
fn products_of_huge_and_tiny_numbers() {
    for scale in [1e30, 1e-30] {
        check_linear(3, 33, 65, Dtype::F32, Layout::RowMajor, scale);
        check_linear(9, 33, 65, Dtype::F16, Layout::RowMajor, scale);
    }
}

#[test]
fn a_row_is_the_same_in_any_company() {
    let (m, k) = (100, 700);
    let x = noise(6, 70 * k);
    for dtype in [Dtype::F16, Dtype::BF16] {
        let (bytes, _) = stored(&noise(5, m * k), dtype);
        for d in devices() {
            let (dtype, layout) = (dtype.into(), Layout::RowMajor);
            let weight = d.matrix(&[MatrixView { dtype, rows: m, cols: k, layout, bytes: &bytes }]).unwrap();
            let run = |n: usize| {
                let mut out = d.alloc(Dtype::F32, n * m).unwrap();
                d.matmul(&d.upload_f32(&x[..n * k]).unwrap(), &weight, &mut out, n).unwrap();
                read(&d, &out, n * m)
            };
            let all = run(70);
            for n in 1..70 {
                assert_eq!(run(n), all[..n * m], "{n} rows, {dtype}, {}", d.describe());
            }
        }
    }
}

/// A sequence: tokens in the cache before, rows of this step.
type Part = (usize, usize);

/// Runs attention over `parts`, filling the cache first, by the override and by the default body.
fn attention(
    d: &Cpu,
    parts: &[Part],
    shape: AttentionShape,
    dtype: Dtype,
    block_size: usize,
) -> [Vec<f32>; 2] {
    let blocks: Vec<usize> = parts.iter().map(|(a, b)| (a + b).div_ceil(block_size)).collect();
    let kv = KvShape {
        n_blocks: blocks.iter().sum::<usize>() + 2,
        block_size,
        n_kv_head: shape.n_kv_head,
        head_dim: shape.head_dim,
        dtype,
    };
    // blocks dealt out from the end, so that no table is in order
    let mut free = (0..kv.n_blocks as i32).rev().skip(1);
    let tables: Vec<Vec<i32>> = blocks.iter().map(|&n| free.by_ref().take(n).collect()).collect();
    let batch = |rows: &dyn Fn(Part) -> (usize, usize)| {
        let mut batch = Batch::default();
        for (part, table) in parts.iter().zip(&tables) {
            let (start, count) = rows(*part);
            batch.push(&vec![0; count], start, table, block_size, Outputs::None).unwrap();
        }
        batch
    };
    let (before, now) = (batch(&|(depth, _)| (0, depth)), batch(&|(depth, rows)| (depth, rows)));
    let rows = before.rows().max(now.rows());
    let widths = ActivationShape { rows, outputs: 0, n_embd: 1, attention: shape, n_inner: 0, n_vocab: 0 };
    [false, true].map(|default| {
        let mut acts = Activations::new(d, widths, false).unwrap();
        let mut cache = d.kv_layer(kv).unwrap();
        let mut step = Step::new(d).unwrap();
        step.load(d, &before).unwrap();
        d.write_f32(&mut acts.qkv, &noise(7, before.rows() * shape.qkv_width())).unwrap();
        d.cache_write(&acts.qkv, &step.slots, &mut cache, before.rows(), shape.n_head).unwrap();
        step.load(d, &now).unwrap();
        let qkv: Vec<f32> = noise(8, now.rows() * shape.qkv_width()).iter().map(|x| 3.0 * x).collect();
        d.write_f32(&mut acts.qkv, &qkv).unwrap();
        if default {
            boxes::attention(d, &mut acts, &mut cache, &step, shape).unwrap();
        } else {
            d.attention(&mut acts, &mut cache, &step, shape).unwrap();
        }
        read(d, &acts.attn, now.rows() * shape.n_head * shape.head_dim)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn attention_over_pages_is_attention(
        parts in proptest::collection::vec((0usize..70, 0usize..40), 1..4),
        groups in 1usize..4,
        n_kv_head in 1usize..3,
        head_dim in prop::sample::select(vec![1usize, 5, 16, 31, 32, 64, 80]),
        kind in prop::sample::select(vec![AttentionKind::Naive, AttentionKind::Flash]),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Q8_0]),
        block_size in prop::sample::select(vec![16usize, 48]),
        window in prop::sample::select(vec![0usize, 1, 7, 33, 1000]),
        cap in prop::sample::select(vec![0.0f32, 0.0, 2.0, 50.0]),
        scale in prop::option::of(0.02f32..0.5),
    ) {
        let plain = AttentionShape::new(groups * n_kv_head, n_kv_head, head_dim, kind);
        let shape = AttentionShape { window, cap, scale: scale.unwrap_or(plain.scale), ..plain };
        let dtype = if head_dim.is_multiple_of(dtype.values()) { dtype } else { Dtype::F16 };
        // queries and weights of 16 bits meet keys and values of eight
        let precise = if dtype == Dtype::Q8_0 { 1e-3 } else { 2e-6 };
        // what a score is off by grows with it
        let allowed = if scale.is_none() { precise } else { 5.0 * precise * (shape.scale / plain.scale).max(1.0) };
        for d in devices() {
            let [fast, plain] = attention(&d, &parts, shape, dtype, block_size);
            for (i, (a, b)) in fast.iter().zip(&plain).enumerate() {
                prop_assert!((a - b).abs() <= allowed, "{}: [{i}] {a} for {b}", d.describe());
            }
        }
    }
}

#[test]
fn long_contexts_change_kernels_at_the_threshold() {
    let shape = AttentionShape::new(2, 1, 64, AttentionKind::Auto);
    let d = Cpu::with(Some(2), Isa::detect()).unwrap();
    let [fast, plain] = attention(&d, &[(500, 30), (1000, 1), (3, 2)], shape, Dtype::F32, 16);
    assert!(fast.iter().zip(&plain).all(|(a, b)| (a - b).abs() <= 2e-6));
    // the same rows, one kernel throughout
    let naive = AttentionShape { kind: AttentionKind::Naive, ..shape };
    let [naive, _] = attention(&d, &[(500, 30), (1000, 1), (3, 2)], naive, Dtype::F32, 16);
    assert!(fast.iter().zip(&naive).all(|(a, b)| (a - b).abs() <= 2e-6));
}
