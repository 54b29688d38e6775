//! The kernels whose results for a row do not depend on the rows beside it, where one kernel takes over from another.
#![cfg(feature = "emulated")]
#![allow(clippy::unwrap_used)]

mod common;

use common::noise;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{
    ActivationShape, Activations, AttentionKind, AttentionShape, Batch, Device, Dtype, KvShape, Layout,
    MatrixView, Outputs, Step, WeightType,
};
use thermite_formats::quant::quantize;
use thermite_kernels::emulator::Build;

fn open() -> Emulated {
    Emulated::open(Build::Fast, Variants::Invariant).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Products of `cols` inputs, of the first `n` of 70 rows; and the kernels that computed them.
fn product(d: &Emulated, dtype: WeightType, cols: usize, n: usize) -> (Vec<u32>, Vec<String>) {
    const ROWS: usize = 37;
    let mut bytes = vec![0; dtype.bytes_of(&[ROWS, cols]).unwrap()];
    quantize(dtype, &noise(1, ROWS * cols), &mut bytes).unwrap();
    let view = MatrixView { dtype, rows: ROWS, cols, layout: Layout::RowMajor, bytes: &bytes };
    let weight = d.matrix(&[view]).unwrap();
    let x = d.upload_f32(&noise(2, 70 * cols)).unwrap();
    let mut out = d.alloc(Dtype::F32, 70 * ROWS).unwrap();
    d.launcher().take_launched();
    d.matmul(&x, &weight, &mut out, n).unwrap();
    let mut product = vec![0.0; n * ROWS];
    d.read_f32(&out, 0, &mut product).unwrap();
    (bits(&product), d.launcher().take_launched())
}

#[test]
fn products_of_few_and_many_rows() {
    let d = open();
    for dtype in [WeightType::F16, WeightType::BF16] {
        for cols in [8, 40, 130, 576, 1000, 1100] {
            let (all, launched) = product(&d, dtype, cols, 70);
            assert_eq!(launched, [format!("matmul_simd_{dtype}").to_lowercase()]);
            for n in [1, 3, 17] {
                let (few, launched) = product(&d, dtype, cols, n);
                assert_eq!(launched, [format!("matmul_few_{dtype}").to_lowercase()]);
                assert_eq!(few, all[..few.len()], "{n} rows of {cols} in {dtype}");
            }
        }
    }
}

const BLOCK_SIZE: usize = 16;
const BLOCKS: usize = 70;
const N_HEAD: usize = 4;
const N_KV_HEAD: usize = 2;

/// Attention of the tokens `start .. start + rows` behind others, as one step; and the kernels launched.
fn attention(
    d: &Emulated,
    (head_dim, window): (usize, usize),
    start: usize,
    rows: usize,
) -> (Vec<u32>, Vec<String>) {
    let plain = AttentionShape::new(N_HEAD, N_KV_HEAD, head_dim, AttentionKind::Auto);
    let shape = AttentionShape { window, ..plain };
    let (n_embd, n_inner, n_vocab) = (8, 8, 8);
    let widths =
        ActivationShape { rows: BLOCKS * BLOCK_SIZE, outputs: 1, n_embd, attention: shape, n_inner, n_vocab };
    let mut acts = Activations::new(d, widths, false).unwrap();
    let kv = KvShape {
        n_blocks: BLOCKS,
        block_size: BLOCK_SIZE,
        n_kv_head: N_KV_HEAD,
        head_dim,
        dtype: Dtype::F16,
    };
    let mut cache = d.kv_layer(kv).unwrap();
    let blocks: Vec<i32> = (0..BLOCKS as i32).rev().collect();
    let mut step = Step::new(d).unwrap();
    let qkv = noise(3, BLOCKS * BLOCK_SIZE * shape.qkv_width());
    let load = |step: &mut Step<Emulated>, acts: &mut Activations<Emulated>, start: usize, rows: usize| {
        let mut batch = Batch::default();
        batch.push(&vec![0; rows], start, &blocks, BLOCK_SIZE, Outputs::None).unwrap();
        step.load(d, &batch).unwrap();
        d.write_f32(&mut acts.qkv, &qkv[start * shape.qkv_width()..][..rows * shape.qkv_width()]).unwrap();
    };
    load(&mut step, &mut acts, 0, start);
    d.cache_write(&acts.qkv, &step.slots, &mut cache, start, N_HEAD).unwrap();
    load(&mut step, &mut acts, start, rows);
    d.launcher().take_launched();
    d.attention(&mut acts, &mut cache, &step, shape).unwrap();
    let mut out = vec![0.0; rows * N_HEAD * head_dim];
    d.read_f32(&acts.attn, 0, &mut out).unwrap();
    (bits(&out), d.launcher().take_launched())
}

/// Across the length from which pieces are longer, and where tiles, pieces and a window begin.
#[test]
fn attention_of_one_and_many_rows() {
    let d = open();
    for shape in [(32, 0), (128, 0), (32, 150)] {
        let (start, rows) = (955, 80);
        let (all, launched) = attention(&d, shape, start, rows);
        assert_eq!(launched.last().unwrap(), &format!("flash_attention_pieces_f16_hs{}", shape.0));
        let width = N_HEAD * shape.0;
        for row in [0, 4, 5, 68, 69, 70, 79] {
            let (one, launched) = attention(&d, shape, start + row, 1);
            assert_eq!(launched.last().unwrap(), "attention_decode_combine");
            assert_eq!(one, all[row * width..][..width], "row {row} of {shape:?}");
        }
    }
}
