//! Attention of a decoding step of many sequences, on the emulated device: fast kernels against primitive ones.
#![cfg(feature = "emulated")]
#![allow(clippy::unwrap_used)]

mod common;

use common::noise;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{
    ActivationShape, Activations, AttentionKind, AttentionShape, Batch, Device, Dtype, KvShape, Outputs, Step,
};
use thermite_kernels::emulator::Build;

const HEAD_DIM: usize = 32;
const BLOCK_SIZE: usize = 16;
/// Of a sequence's table; few of them are used.
const BLOCKS: usize = 64;
const DEPTHS: [usize; 8] = [3, 70, 64, 31, 0, 130, 65, 17];

/// Attention of a new token of each sequence, and the kernels launched.
fn decode(variants: Variants, n_head: usize, n_kv_head: usize) -> (Vec<f32>, Vec<String>) {
    let d = &Emulated::open(Build::Fast, variants).unwrap();
    let shape = AttentionShape::new(n_head, n_kv_head, HEAD_DIM, AttentionKind::Auto);
    let (rows, outputs) = (512, DEPTHS.len());
    let widths = ActivationShape { rows, outputs, n_embd: 8, attention: shape, n_inner: 8, n_vocab: 8 };
    let mut acts = Activations::new(d, widths, false).unwrap();
    let n_blocks = DEPTHS.len() * BLOCKS;
    let (block_size, head_dim, dtype) = (BLOCK_SIZE, HEAD_DIM, Dtype::F16);
    let mut cache = d.kv_layer(KvShape { n_blocks, block_size, n_kv_head, head_dim, dtype }).unwrap();
    let tables: Vec<i32> = (0..n_blocks as i32).rev().collect();
    let mut step = Step::new(d).unwrap();

    let (mut before, mut now) = (Batch::default(), Batch::default());
    for (&depth, table) in DEPTHS.iter().zip(tables.chunks(BLOCKS)) {
        before.push(&vec![0; depth], 0, table, BLOCK_SIZE, Outputs::None).unwrap();
        now.push_with_room(&[0], depth, table, BLOCK_SIZE, Outputs::Last).unwrap();
    }
    for (seed, batch) in [(1, &before), (2, &now)] {
        step.load(d, batch).unwrap();
        d.write_f32(&mut acts.qkv, &noise(seed, batch.rows() * shape.qkv_width())).unwrap();
        if seed == 1 {
            d.cache_write(&acts.qkv, &step.slots, &mut cache, batch.rows(), n_head).unwrap();
        }
    }
    d.launcher().take_launched();
    d.attention(&mut acts, &mut cache, &step, shape).unwrap();
    let mut out = vec![0.0; DEPTHS.len() * n_head * HEAD_DIM];
    d.read_f32(&acts.attn, 0, &mut out).unwrap();
    (out, d.launcher().take_launched())
}

#[test]
fn query_heads_share_keys_where_there_are_many() {
    for (n_head, n_kv_head, kernel) in [
        (16, 4, "attention_decode_split_f16_hs32"),
        (16, 16, "decode_attend_f16_hs32"),
        (4, 2, "decode_attend_f16_hs32"),
    ] {
        let (want, _) = decode(Variants::Plain, n_head, n_kv_head);
        let (have, launched) = decode(Variants::Fast, n_head, n_kv_head);
        assert_eq!(launched[1..], [kernel, "attention_decode_combine"]);
        let worst = want.iter().zip(&have).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{n_head} heads: off by {worst}");
    }
}
