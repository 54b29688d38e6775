//! Products of many rows against the `gemm` crate: `cargo bench -p thermite-device --bench matmul`.
//!
//! `thermite` multiplies f32 rows by f16 weights as the forward pass does; `gemm` multiplies f32 by f32, which spares
//! it the widening. Both on one thread: the ratio is that of the inner loops.
#![allow(clippy::unwrap_used, missing_docs, unsafe_code)] // `gemm` takes pointers

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use thermite_device::cpu::{Cpu, Isa};
use thermite_device::{Device, Dtype, Layout, MatrixView, WeightType};

/// (rows, inputs, outputs): the layers of stories-3m and of GPT-2 124M over 480 tokens.
const SHAPES: [(usize, usize, usize); 6] =
    [(480, 192, 576), (480, 192, 768), (480, 768, 192), (480, 768, 2304), (480, 768, 3072), (480, 3072, 768)];

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect()
}

fn products(c: &mut Criterion) {
    let d = Cpu::with(Some(1), Isa::detect()).unwrap();
    for (n, k, m) in SHAPES {
        let mut group = c.benchmark_group("matmul");
        group.sample_size(20).throughput(Throughput::Elements((2 * n * k * m) as u64));
        let (x, w) = (values(n * k), values(m * k));
        let shape = format!("{n}x{k}x{m}");

        let halves: Vec<u8> = w.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect();
        let view =
            MatrixView { dtype: WeightType::F16, rows: m, cols: k, layout: Layout::RowMajor, bytes: &halves };
        let (weight, input) = (d.matrix(&[view]).unwrap(), d.upload_f32(&x).unwrap());
        let mut out = d.alloc(Dtype::F32, n * m).unwrap();
        group.bench_function(BenchmarkId::new("thermite", &shape), |b| {
            b.iter(|| d.matmul(&input, &weight, &mut out, n).unwrap());
        });

        let mut out = vec![0.0f32; n * m];
        group.bench_function(BenchmarkId::new("gemm", &shape), |b| {
            b.iter(|| {
                // SAFETY: the pointers are to n x m, n x k and m x k floats, with these strides.
                unsafe {
                    gemm::gemm(
                        n,
                        m,
                        k,
                        out.as_mut_ptr(),
                        1,
                        m as isize,
                        false,
                        x.as_ptr(),
                        1,
                        k as isize,
                        w.as_ptr(),
                        k as isize,
                        1,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
