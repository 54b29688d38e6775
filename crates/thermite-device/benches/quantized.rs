//! Products with quantised weights: `cargo bench -p thermite-device --bench quantized`.
//!
//! Decode: one row of activations times a working set of matrices that no cache holds, as bytes of weights a second,
//! beside plain reading of as many bytes. Prefill: many rows, in multiply-adds a second.
#![allow(clippy::unwrap_used, missing_docs)]

use std::env;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use thermite_device::cpu::{Cpu, CpuMatrix, Isa};
use thermite_device::{Device, Dtype, Layout, MatrixView, WeightType};
use thermite_formats::quant::blocks::Half;

const TYPES: [WeightType; 12] = [
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
    WeightType::F16,
    WeightType::BF16,
];

/// Bytes of weights that decode reads in turn.
const WORKING_SET: usize = 128 << 20;

/// Blocks with whatever bits, and scales that are numbers.
fn weights(dtype: WeightType, rows: usize, cols: usize) -> Vec<u8> {
    let len = dtype.bytes_of(&[rows, cols]).unwrap();
    let one = Half::from_f32(1.0 / 64.0).0;
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 251) as u8 & 0x37).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        let at: &[usize] = match dtype {
            WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4K | WeightType::Q5K => &[0, 2],
            WeightType::Q2K => &[80, 82],
            WeightType::Q3K => &[108],
            WeightType::Q6K => &[208],
            _ => &[0],
        };
        for &at in at {
            block[at..at + 2].copy_from_slice(&one);
        }
    }
    bytes
}

fn matrix(d: &Cpu, dtype: WeightType, rows: usize, cols: usize) -> CpuMatrix {
    let bytes = weights(dtype, rows, cols);
    d.matrix(&[MatrixView { dtype, rows, cols, layout: Layout::RowMajor, bytes: &bytes }]).unwrap()
}

fn device() -> Cpu {
    let threads = env::var("THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    Cpu::with(Some(threads), Isa::detect()).unwrap()
}

fn inputs(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 29 % 97) as f32 / 48.0 - 1.0).collect()
}

fn decode(c: &mut Criterion) {
    let d = device();
    let mut group = c.benchmark_group("decode");
    group
        .sample_size(10)
        .measurement_time(std::time::Duration::from_millis(300))
        .warm_up_time(std::time::Duration::from_millis(100));
    let (rows, cols) = (1536, 1024);
    for dtype in TYPES {
        let bytes = dtype.bytes_of(&[rows, cols]).unwrap();
        let matrices: Vec<_> = (0..WORKING_SET / bytes).map(|_| matrix(&d, dtype, rows, cols)).collect();
        let x = d.upload_f32(&inputs(cols)).unwrap();
        let mut out = d.alloc(Dtype::F32, rows).unwrap();
        group.throughput(Throughput::BytesDecimal((bytes * matrices.len()) as u64));
        group.bench_function(dtype.name(), |b| {
            b.iter(|| matrices.iter().for_each(|m| d.matmul(&x, m, &mut out, 1).unwrap()));
        });
    }
    let memory = d.upload_f32(&vec![1.0; WORKING_SET / 4]).unwrap();
    group.throughput(Throughput::BytesDecimal(WORKING_SET as u64));
    group.bench_function("read", |b| b.iter(|| d.read_bandwidth(&memory).unwrap()));
    group.finish();
}

fn prefill(c: &mut Criterion) {
    let d = device();
    let mut group = c.benchmark_group("prefill");
    group
        .sample_size(10)
        .measurement_time(std::time::Duration::from_millis(300))
        .warm_up_time(std::time::Duration::from_millis(100));
    let (rows, cols) = (1536, 768);
    for n in [16, 128] {
        for dtype in TYPES {
            let m = matrix(&d, dtype, rows, cols);
            let x = d.upload_f32(&inputs(n * cols)).unwrap();
            let mut out = d.alloc(Dtype::F32, n * rows).unwrap();
            group.throughput(Throughput::Elements((n * rows * cols) as u64));
            group.bench_function(BenchmarkId::new(dtype.name(), n), |b| {
                b.iter(|| d.matmul(&x, &m, &mut out, n).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decode, prefill);
criterion_main!(benches);
