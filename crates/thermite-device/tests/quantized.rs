//! Products with quantised weights, against float64 over the dequantised weights.
#![allow(clippy::unwrap_used)]

mod common;

use common::instruction_sets;
use thermite_device::cpu::{Cpu, CpuBuffer, CpuMatrix, Isa, QuantizedActivations};
use thermite_device::{Device, Dtype, Layout, MatrixView, WeightType};
use thermite_formats::quant::blocks::Half;
use thermite_formats::quant::dequantize;

const TYPES: [WeightType; 10] = [
    WeightType::Q8_0,
    WeightType::Q4_0,
    WeightType::Q4_1,
    WeightType::Q5_0,
    WeightType::Q5_1,
    WeightType::Q2K,
    WeightType::Q3K,
    WeightType::Q4K,
    WeightType::Q5K,
    WeightType::Q6K,
];

/// Numbers that look random.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Around zero.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

fn floats(seed: u64, len: usize) -> Vec<f32> {
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..len).map(|_| noise.float()).collect()
}

/// Where a block has its half-precision numbers.
fn scales_of(dtype: WeightType) -> &'static [usize] {
    match dtype {
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4K | WeightType::Q5K => &[0, 2],
        WeightType::Q2K => &[80, 82],
        WeightType::Q3K => &[108],
        WeightType::Q6K => &[208],
        _ => &[0],
    }
}

/// Blocks of any bits at all, with scales of either sign.
fn blocks(dtype: WeightType, rows: usize, cols: usize) -> Vec<u8> {
    let mut noise = Noise(77 + rows as u64 * 1000 + cols as u64);
    let mut bytes: Vec<u8> =
        (0..dtype.bytes_of(&[rows, cols]).unwrap()).map(|_| (noise.next() >> 30) as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &at in scales_of(dtype) {
            block[at..at + 2].copy_from_slice(&Half::from_f32(noise.float() / 16.0).0);
        }
    }
    bytes
}

fn view(dtype: WeightType, rows: usize, cols: usize, bytes: &[u8]) -> MatrixView<'_> {
    MatrixView { dtype, rows, cols, layout: Layout::RowMajor, bytes }
}

fn worth(dtype: WeightType, rows: usize, cols: usize, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; rows * cols];
    dequantize(dtype, bytes, &mut values).unwrap();
    values
}

fn read(d: &Cpu, buffer: &CpuBuffer, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    d.read_f32(buffer, 0, &mut out).unwrap();
    out
}

fn multiply(d: &Cpu, weight: &CpuMatrix, x: &[f32], n: usize, rows: usize) -> Vec<f32> {
    let mut out = d.alloc(Dtype::F32, n * rows).unwrap();
    d.matmul(&d.upload_f32(x).unwrap(), weight, &mut out, n).unwrap();
    read(d, &out, n * rows)
}

/// Every instruction set, with both ways of activations.
fn devices() -> Vec<(Cpu, bool)> {
    let mut all = Vec::new();
    for isa in instruction_sets() {
        for activations in [QuantizedActivations::Int8, QuantizedActivations::F32] {
            let rounds = activations == QuantizedActivations::Int8 && isa.name() != "portable";
            all.push((Cpu::with(Some(2), isa).unwrap().with_activations(activations), rounds));
        }
    }
    all
}

/// What 32 activations are worth in eight bits.
fn rounded(x: &[f32]) -> Vec<f64> {
    let mut out = Vec::new();
    for x in x.chunks(32) {
        let largest = x.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        let (inverse, scale) = (127.0 / largest, f64::from(largest / 127.0));
        out.extend(x.iter().map(|x| match largest {
            0.0 => 0.0,
            _ => f64::from((x * inverse).round_ties_even()) * scale,
        }));
    }
    out
}

/// `n` rows of `x` with `m` rows of `k` weights: the products, and the sums of the terms' magnitudes.
fn product(x: &[f64], w: &[f32], n: usize, m: usize, k: usize) -> Vec<(f64, f64)> {
    let one = |i: usize| {
        let (x, w) = (&x[i / m * k..][..k], &w[i % m * k..][..k]);
        x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()))
    };
    (0..n * m).map(one).collect()
}

fn check(dtype: WeightType, n: usize, rows: usize, cols: usize, scale: f32) {
    let bytes = blocks(dtype, rows, cols);
    let weights = worth(dtype, rows, cols, &bytes);
    let x: Vec<f32> = floats(3, n * cols).iter().map(|x| x * scale).collect();
    let exact: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let exact = product(&exact, &weights, n, rows, cols);
    let in_bytes = product(&rounded(&x), &weights, n, rows, cols);
    for (d, rounds) in devices() {
        let weight = d.matrix(&[view(dtype, rows, cols, &bytes)]).unwrap();
        let got = multiply(&d, &weight, &x, n, rows);
        let what = format!("{} {dtype} [{n}, {rows}, {cols}]", d.describe());
        for (i, got) in got.iter().enumerate() {
            // minima cancel against scales: the error is that of the terms before they are joined
            let slack = 8.0 * if dtype == WeightType::Q8_0 { 1.0 } else { 4.0 };
            let (want, size) = if rounds { in_bytes[i] } else { exact[i] };
            let error = (f64::from(*got) - want).abs();
            let allowed = 1e-38 + size * 6e-8 * (slack + (cols as f64).sqrt());
            assert!(error <= allowed, "{what}: [{i}] {got} for {want}, {error:e} > {allowed:e}");
            if rounds {
                // half a step of every activation, all in the worst direction
                let (row, o) = (i / rows, i % rows);
                let steps = x[row * cols..][..cols].chunks(32).zip(weights[o * cols..].chunks(32));
                let bound: f64 = steps
                    .map(|(x, w)| {
                        let step = f64::from(x.iter().fold(0.0f32, |a, x| a.max(x.abs()))) / 127.0;
                        w.iter().map(|w| f64::from(w.abs())).sum::<f64>() * step / 2.0
                    })
                    .sum();
                let error = (f64::from(*got) - exact[i].0).abs();
                assert!(error <= 1.001 * bound + allowed, "{what}: [{i}] rounding {error:e} > {bound:e}");
            }
        }
    }
}

#[test]
fn products_of_all_types_and_shapes() {
    for dtype in TYPES {
        let block = dtype.block_len();
        for (n, rows, blocks) in
            [(1, 1, 1), (1, 33, 2), (2, 16, 1), (3, 17, 3), (5, 31, 2), (16, 48, 1), (33, 5, 2)]
        {
            check(dtype, n, rows, blocks * block, 1.0);
        }
        check(dtype, 1, 200, 768, 1.0);
        check(dtype, 97, 20, 256, 1.0);
    }
}

#[test]
fn huge_and_tiny_activations() {
    for dtype in TYPES {
        check(dtype, 2, 17, 256, 1e30);
        check(dtype, 2, 17, 256, 1e-25);
    }
}

#[test]
fn a_row_is_the_same_in_any_company_on_any_threads() {
    for dtype in TYPES {
        let (rows, cols) = (52, 512);
        let bytes = blocks(dtype, rows, cols);
        let x = floats(5, 100 * cols);
        for isa in instruction_sets() {
            for activations in [QuantizedActivations::Int8, QuantizedActivations::F32] {
                let mut first: Option<Vec<f32>> = None;
                for threads in [1, 2, 3] {
                    let d = Cpu::with(Some(threads), isa).unwrap().with_activations(activations);
                    let weight = d.matrix(&[view(dtype, rows, cols, &bytes)]).unwrap();
                    let all = multiply(&d, &weight, &x, 100, rows);
                    assert_eq!(*first.get_or_insert_with(|| all.clone()), all, "{}", d.describe());
                    for n in [1, 2, 3, 4, 5, 7, 8, 16, 33] {
                        let got = multiply(&d, &weight, &x[..n * cols], n, rows);
                        assert_eq!(got, all[..n * rows], "{} {dtype}: {n} rows", d.describe());
                    }
                }
            }
        }
    }
}

#[test]
fn parts_of_several_types_are_one_matrix() {
    let cols = 512;
    let parts = [
        (WeightType::Q4K, 24),
        (WeightType::Q6K, 7),
        (WeightType::F32, 3),
        (WeightType::Q8_0, 40),
        (WeightType::Q8_0, 5),
        (WeightType::Q5_0, 33),
    ];
    let bytes: Vec<Vec<u8>> = parts
        .iter()
        .map(|&(dtype, rows)| match dtype {
            WeightType::F32 => floats(1, rows * cols).iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => blocks(dtype, rows, cols),
        })
        .collect();
    let views: Vec<_> = parts.iter().zip(&bytes).map(|(&(d, rows), b)| view(d, rows, cols, b)).collect();
    let total: usize = parts.iter().map(|(_, rows)| rows).sum();
    let bias = floats(2, total);
    for (d, _) in devices() {
        for n in [1, 2, 11] {
            let x = floats(9, n * cols);
            let linear = thermite_device::Linear {
                weight: d.matrix(&views).unwrap(),
                bias: Some((d.upload_f32(&bias).unwrap(), total)),
            };
            let mut out = d.alloc(Dtype::F32, n * total).unwrap();
            d.linear(&d.upload_f32(&x).unwrap(), &linear, &mut out, n).unwrap();
            let got = read(&d, &out, n * total);
            let mut first = 0;
            for (view, &(_, rows)) in views.iter().zip(&parts) {
                let alone = multiply(&d, &d.matrix(&[*view]).unwrap(), &x, n, rows);
                for (i, want) in alone.iter().enumerate() {
                    let at = first + i % rows;
                    assert_eq!(got[i / rows * total + at], want + bias[at], "{} [{n}] {i}", d.describe());
                }
                first += rows;
            }
        }
    }
}

#[test]
fn rows_are_read_back_exactly() {
    for dtype in TYPES {
        let (rows, cols) = (37, 512);
        let bytes = blocks(dtype, rows, cols);
        let want = worth(dtype, rows, cols, &bytes);
        let d = Cpu::with(Some(2), Isa::detect()).unwrap();
        let table = d.matrix(&[view(dtype, rows, cols, &bytes)]).unwrap();
        let tokens: Vec<i32> = (0..rows as i32).rev().collect();
        let mut ids = d.alloc(Dtype::I32, rows).unwrap();
        d.write_i32(&mut ids, &tokens).unwrap();
        let mut out = d.alloc(Dtype::F32, rows * cols).unwrap();
        d.embedding_forward(&table, &ids, &mut out, rows).unwrap();
        for (got, &token) in read(&d, &out, rows * cols).chunks(cols).zip(&tokens) {
            assert_eq!(got, &want[token as usize * cols..][..cols], "{dtype} row {token}");
        }
    }
}

#[test]
fn activations_that_are_no_numbers_stay_in_their_row() {
    let (rows, cols) = (20, 256);
    for dtype in TYPES {
        let bytes = blocks(dtype, rows, cols);
        for (d, _) in devices() {
            let weight = d.matrix(&[view(dtype, rows, cols, &bytes)]).unwrap();
            let clean = floats(4, 6 * cols);
            let want = multiply(&d, &weight, &clean, 6, rows);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = clean.clone();
                x[2 * cols + 40] = bad;
                let got = multiply(&d, &weight, &x, 6, rows);
                for (row, (got, want)) in got.chunks(rows).zip(want.chunks(rows)).enumerate() {
                    if row == 2 {
                        assert!(got.iter().all(|x| !x.is_finite()), "{} {dtype} {bad}", d.describe());
                    } else {
                        assert_eq!(got, want, "{} {dtype} {bad}: row {row}", d.describe());
                    }
                }
            }
            for nothing in [0.0, -0.0, 1e-42, -1e-39] {
                let got = multiply(&d, &weight, &vec![nothing; cols], 1, rows);
                assert!(got.iter().all(|x| x.abs() < 1e-30), "{} {dtype} {nothing}", d.describe());
            }
        }
    }
}

#[test]
fn blocks_of_zeros_are_zero() {
    for dtype in TYPES {
        let bytes = vec![0; dtype.bytes_of(&[18, 256]).unwrap()];
        for (d, _) in devices() {
            let weight = d.matrix(&[view(dtype, 18, 256, &bytes)]).unwrap();
            let got = multiply(&d, &weight, &floats(6, 3 * 256), 3, 18);
            assert!(got.iter().all(|&x| x == 0.0), "{} {dtype}", d.describe());
        }
    }
}
