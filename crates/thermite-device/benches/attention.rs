//! Decode's attention over long contexts: `cargo bench -p thermite-device --bench attention`.
//!
//! One row of queries over as many layers of keys and values as no cache holds, as bytes of them a second, beside plain
//! reading of as many bytes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::env;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use thermite_device::cpu::{Cpu, Isa};
use thermite_device::{
    ActivationShape, Activations, AttentionKind, AttentionShape, Batch, Device, Dtype, KvShape, Outputs, Step,
};

/// Bytes of keys and values that are read in turn.
const WORKING_SET: usize = 128 << 20;

/// Heads of queries, heads of keys and values, channels of one: SmolLM2-135M, GPT-2, Llama 3.
const SHAPES: [(usize, usize, usize); 3] = [(9, 3, 64), (12, 12, 64), (32, 8, 128)];

const BLOCK_SIZE: usize = 16;

fn decode(c: &mut Criterion) {
    let threads = env::var("THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let d = Cpu::with(Some(threads), Isa::detect()).unwrap();
    let mut group = c.benchmark_group("attention");
    group
        .sample_size(10)
        .measurement_time(std::time::Duration::from_millis(500))
        .warm_up_time(std::time::Duration::from_millis(100));
    for (n_head, n_kv_head, head_dim) in SHAPES {
        let shape = AttentionShape::new(n_head, n_kv_head, head_dim, AttentionKind::Auto);
        for (depth, dtype) in [(256, Dtype::F16), (1024, Dtype::F32), (1024, Dtype::F16), (1024, Dtype::Q8_0)]
        {
            let blocks = depth / BLOCK_SIZE + 1;
            let kv = KvShape { n_blocks: blocks, block_size: BLOCK_SIZE, n_kv_head, head_dim, dtype };
            let read = kv.bytes() / blocks * depth / BLOCK_SIZE;
            let table: Vec<i32> = (0..blocks as i32).collect();
            let mut batch = Batch::default();
            batch.push(&vec![0; depth], 0, &table, BLOCK_SIZE, Outputs::None).unwrap();
            let widths = ActivationShape {
                rows: depth,
                outputs: 0,
                n_embd: 1,
                attention: shape,
                n_inner: 0,
                n_vocab: 0,
            };
            let mut acts = Activations::new(&d, widths, false).unwrap();
            let values: Vec<f32> =
                (0..depth * shape.qkv_width()).map(|i| (i * 29 % 97) as f32 / 48.0 - 1.0).collect();
            d.write_f32(&mut acts.qkv, &values).unwrap();
            let mut step = Step::new(&d).unwrap();
            step.load(&d, &batch).unwrap();
            let mut layers: Vec<_> = (0..WORKING_SET / read).map(|_| d.kv_layer(kv).unwrap()).collect();
            for layer in &mut layers {
                d.cache_write(&acts.qkv, &step.slots, layer, depth, n_head).unwrap();
            }
            batch.clear();
            batch.push(&[0], depth, &table, BLOCK_SIZE, Outputs::None).unwrap();
            step.load(&d, &batch).unwrap();
            group.throughput(Throughput::BytesDecimal((read * layers.len()) as u64));
            let name = BenchmarkId::new(format!("{n_head}/{n_kv_head}x{head_dim} {dtype}"), depth);
            group.bench_function(name, |b| {
                b.iter(|| {
                    for layer in &mut layers {
                        d.attention(&mut acts, layer, &step, shape).unwrap();
                    }
                });
            });
        }
    }
    let memory = d.upload_f32(&vec![1.0; WORKING_SET / 4]).unwrap();
    group.throughput(Throughput::BytesDecimal(WORKING_SET as u64));
    group.bench_function("read", |b| b.iter(|| d.read_bandwidth(&memory).unwrap()));
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
