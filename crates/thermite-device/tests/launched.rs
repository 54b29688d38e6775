//! Layers in fused kernels against the same layers in primitive ones, on the emulated device.
#![cfg(feature = "emulated")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::noise;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{
    Activation, ActivationShape, Activations, AttentionKind, AttentionShape, AttentionWeights, Batch, Device,
    Dtype, Expand, Gate, HeadNorms, KvShape, Layout, Linear, MatrixView, MlpWeights, Norm, Outputs, Rope,
    Step, WeightType,
};
use thermite_formats::quant::quantize;
use thermite_kernels::emulator::Build;

const N_EMBD: usize = 256;
const N_INNER: usize = 512;
const BLOCK_SIZE: usize = 16;

/// A layer of one of the families.
#[derive(Clone, Copy)]
struct Family {
    /// LayerNorm, biases and GELU, else RMSNorm and a gate.
    gpt2: bool,
    gate: Gate,
    head_norms: bool,
    post_norms: bool,
    weights: WeightType,
    cache: Dtype,
    head_dim: usize,
    window: usize,
    cap: f32,
}

const LLAMA: Family = Family {
    gpt2: false,
    gate: Gate::SwiGlu,
    head_norms: false,
    post_norms: false,
    weights: WeightType::F16,
    cache: Dtype::F32,
    head_dim: 64,
    window: 0,
    cap: 0.0,
};

/// Numbers that look random, in a bell of this width.
fn bell(seed: u64, len: usize, width: f32) -> Vec<f32> {
    noise(seed, 3 * len).as_chunks().0.iter().map(|[a, b, c]| (a + b + c) * width).collect()
}

struct Maker<'d> {
    d: &'d Emulated,
    family: Family,
    seed: u64,
}

type Buffer = <Emulated as Device>::Buffer;

impl Maker<'_> {
    fn vector(&mut self, len: usize, middle: f32) -> Buffer {
        self.seed += 1;
        let values: Vec<f32> = bell(self.seed, len, 0.1).iter().map(|x| x + middle).collect();
        self.d.upload_f32(&values).unwrap()
    }

    fn linear(&mut self, rows: usize, cols: usize) -> Linear<Emulated> {
        self.seed += 1;
        let values = bell(self.seed, rows * cols, 0.06);
        let dtype = self.family.weights;
        let mut bytes = vec![0; dtype.bytes_of(&[rows, cols]).unwrap()];
        quantize(dtype, &values, &mut bytes).unwrap();
        let view = MatrixView { dtype, rows, cols, layout: Layout::RowMajor, bytes: &bytes };
        let weight = self.d.matrix(&[view]).unwrap();
        let bias = self.family.gpt2.then(|| (self.vector(rows, 0.0), rows));
        Linear { weight, bias }
    }

    fn norm(&mut self) -> Norm<Emulated> {
        let gamma = self.vector(N_EMBD, 1.0);
        match self.family.gpt2 {
            true => Norm::Layer { gamma, beta: self.vector(N_EMBD, 0.0), eps: 1e-5 },
            false => Norm::Rms { gamma, eps: 1e-6 },
        }
    }

    fn attention(&mut self, shape: AttentionShape) -> AttentionWeights<Emulated> {
        let (Family { gpt2, head_norms, post_norms, .. }, hs) = (self.family, shape.head_dim);
        let angles = (0..100).flat_map(|t| (0..hs / 2).map(move |i| t as f32 / (1 + i) as f32));
        let freqs: Vec<f32> = angles.flat_map(|angle| [angle.cos(), angle.sin()]).collect();
        AttentionWeights {
            norm: self.norm(),
            qkv: self.linear(shape.qkv_width(), N_EMBD),
            head_norms: head_norms.then(|| HeadNorms {
                q: self.vector(hs, 1.0),
                k: self.vector(hs, 1.0),
                eps: 1e-6,
            }),
            rope: (!gpt2)
                .then(|| Arc::new(Rope { freqs: self.d.upload_f32(&freqs).unwrap(), n_positions: 100 })),
            proj: self.linear(N_EMBD, shape.n_head * hs),
            post_norm: post_norms.then(|| self.norm()),
        }
    }

    fn mlp(&mut self) -> MlpWeights<Emulated> {
        let Family { gpt2, gate, post_norms, .. } = self.family;
        MlpWeights {
            norm: self.norm(),
            expand: match gpt2 {
                true => Expand::Plain { up: self.linear(N_INNER, N_EMBD), activation: Activation::Gelu },
                false => Expand::Gated {
                    gate: self.linear(N_INNER, N_EMBD),
                    up: self.linear(N_INNER, N_EMBD),
                    kind: gate,
                },
            },
            down: self.linear(N_EMBD, N_INNER),
            post_norm: post_norms.then(|| self.norm()),
        }
    }
}

/// The residual stream after a layer, for two sequences that go on by `rows` tokens; and the kernels launched.
fn layer(d: &Emulated, family: Family, rows: [usize; 2]) -> (Vec<f32>, BTreeSet<String>) {
    let plain = AttentionShape::new(4, 2, family.head_dim, AttentionKind::Auto);
    let shape = AttentionShape { window: family.window, cap: family.cap, ..plain };
    let mut maker = Maker { d, family, seed: 0 };
    let (attention, mlp) = (maker.attention(shape), maker.mlp());
    let kv = KvShape {
        n_blocks: 8,
        block_size: BLOCK_SIZE,
        n_kv_head: 2,
        head_dim: family.head_dim,
        dtype: family.cache,
    };
    let mut cache = d.kv_layer(kv).unwrap();
    let (depths, tables) = ([20, 5], [[5, 2, 7], [0, 6, 3]]);
    let widths = ActivationShape {
        rows: 80,
        outputs: 2,
        n_embd: N_EMBD,
        attention: shape,
        n_inner: N_INNER,
        n_vocab: 0,
    };
    let mut acts = Activations::new(d, widths, true).unwrap();
    let mut step = Step::new(d).unwrap();

    let mut before = Batch::default();
    for (depth, table) in depths.iter().zip(&tables) {
        before.push(&vec![0; *depth], 0, table, BLOCK_SIZE, Outputs::None).unwrap();
    }
    step.load(d, &before).unwrap();
    d.write_f32(&mut acts.qkv, &bell(900, before.rows() * shape.qkv_width(), 0.5)).unwrap();
    d.cache_write(&acts.qkv, &step.slots, &mut cache, before.rows(), shape.n_head).unwrap();

    let mut now = Batch::default();
    for (i, rows) in rows.into_iter().enumerate() {
        now.push(&vec![0; rows], depths[i], &tables[i], BLOCK_SIZE, Outputs::None).unwrap();
    }
    step.load(d, &now).unwrap();
    d.write_f32(&mut acts.residual, &bell(901, now.rows() * N_EMBD, 0.5)).unwrap();
    d.launcher().take_launched();
    d.layer(&attention, &mlp, &mut acts, &mut cache, &step, shape).unwrap();
    let mut residual = vec![0.0; now.rows() * N_EMBD];
    d.read_f32(&acts.residual, 0, &mut residual).unwrap();
    (residual, d.launcher().take_launched().into_iter().collect())
}

/// Compares the fused layer with the plain one; returns the fused kernels.
fn check(family: Family, rows: [usize; 2], tolerance: f32) -> BTreeSet<String> {
    let open = |variants| Emulated::open(Build::Fast, variants).unwrap();
    let (plain, _) = layer(&open(Variants::Plain), family, rows);
    let (fused, launched) = layer(&open(Variants::Fast), family, rows);
    let largest = plain.iter().fold(0.0, |a: f32, x| a.max(x.abs()));
    let worst = plain.iter().zip(&fused).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance * largest, "{}: off by {worst} of {largest}: {launched:?}", family.weights);
    launched
}

fn names(kernels: &[&str]) -> BTreeSet<String> {
    kernels.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn half_weights_decode_fused_over_a_float_cache() {
    let launched = check(LLAMA, [1, 1], 1e-5);
    let wanted = [
        "decode_head_rms_f16",
        "place_heads",
        "attention_decode",
        "matvec_f16",
        "decode_swiglu_f16",
        "decode_down_f16",
    ];
    assert_eq!(launched, names(&wanted));
}

#[test]
fn head_norms_decode_fused() {
    let qwen3 = Family { head_norms: true, weights: WeightType::BF16, cache: Dtype::F16, ..LLAMA };
    let launched = check(qwen3, [1, 1], 2e-3);
    let wanted = [
        "decode_head_rms_bf16",
        "place_heads_f16",
        "decode_attend_f16_hs64",
        "decode_output_bf16",
        "decode_swiglu_bf16",
        "decode_down_bf16",
    ];
    assert_eq!(launched, names(&wanted));
}

#[test]
fn post_norms_decode_fused() {
    let gemma3 = Family { head_norms: true, post_norms: true, gate: Gate::GeGlu, window: 7, ..LLAMA };
    let launched = check(gemma3, [1, 1], 1e-5);
    assert!(launched.contains("rmsnorm_add") && launched.contains("decode_geglu_f16"), "{launched:?}");
    let gemma2 = Family { head_norms: false, cap: 5.0, cache: Dtype::F16, ..gemma3 };
    let launched = check(gemma2, [1, 1], 2e-3);
    assert!(launched.contains("decode_qkv_rms_f16_f16"), "{launched:?}");
}

#[test]
fn quantised_weights_decode_fused() {
    for (weights, suffix) in [
        (WeightType::Q8_0, "q8_0"),
        (WeightType::Q4_0, "q4_0"),
        (WeightType::Q4_1, "q4_1"),
        (WeightType::Q4K, "q4_k"),
        (WeightType::Q6K, "q6_k"),
    ] {
        let launched = check(Family { weights, ..LLAMA }, [1, 1], 1e-5);
        let wanted = ["decode_head_rms", "matvec", "decode_swiglu"].map(|name| format!("{name}_{suffix}"));
        assert!(wanted.iter().all(|name| launched.contains(name)), "{launched:?}");
    }
    let gpt2 = Family { gpt2: true, weights: WeightType::Q8_0, ..LLAMA };
    let launched = check(gpt2, [1, 1], 1e-5);
    assert!(launched.contains("decode_up_gelu_q8_0"), "{launched:?}");
}

#[test]
fn quantised_weights_attend_in_pieces() {
    let family = Family { weights: WeightType::Q4_1, cache: Dtype::F16, ..LLAMA };
    for head_dim in [32, 64, 128, 256] {
        let launched = check(Family { head_dim, ..family }, [1, 1], 2e-3);
        let attend = format!("decode_attend_f16_hs{head_dim}");
        assert!(launched.contains(&attend) && launched.contains("attention_decode_combine"), "{launched:?}");
    }
    assert!(check(Family { head_dim: 48, ..family }, [1, 1], 2e-3).contains("attention_decode_f16"));
}

#[test]
fn blocks_that_no_kernel_reads_are_widened() {
    for weights in [WeightType::Q5_0, WeightType::Q5K, WeightType::Q2K] {
        assert!(check(Family { weights, ..LLAMA }, [1, 1], 1e-5).contains("matvec_f16"));
    }
}

#[test]
fn prefill_attends_over_the_pages() {
    let family = Family { window: 9, cap: 3.0, cache: Dtype::F16, weights: WeightType::Q4_0, ..LLAMA };
    let launched = check(family, [7, 13], 2e-3);
    assert!(launched.contains("flash_attention_paged_f16_hs64"), "{launched:?}");
    let launched = check(Family { head_dim: 48, ..family }, [1, 6], 2e-3);
    assert!(!launched.iter().any(|name| name.contains("paged")), "{launched:?}");
}

#[test]
fn many_rows_take_few_launches() {
    let family = Family { cache: Dtype::F16, weights: WeightType::BF16, ..LLAMA };
    let launched = check(family, [7, 13], 1e-2);
    let wanted = [
        "rmsnorm_forward_v4",
        "matmul_few_bf16",
        "place_heads_f16",
        "flash_attention_paged_f16_hs64",
        "matmul_few_swiglu_bf16",
    ];
    assert_eq!(launched, names(&wanted));
    let gpt2 = Family { gpt2: true, ..family };
    assert!(check(gpt2, [7, 13], 1e-2).contains("gelu_forward_v4"));
    let gemma3 = Family { head_norms: true, post_norms: true, gate: Gate::GeGlu, window: 7, ..family };
    let launched = check(gemma3, [7, 13], 1e-2);
    assert!(launched.contains("matmul_few_geglu_bf16") && launched.contains("rmsnorm_add"), "{launched:?}");
}

/// Where the kernels for few rows give way to those for many.
#[test]
fn a_row_has_the_same_bits_among_many() {
    let d = Emulated::open(Build::Fast, Variants::Invariant).unwrap();
    let llama = Family { cache: Dtype::F16, ..LLAMA };
    let gemma2 = Family { post_norms: true, gate: Gate::GeGlu, cap: 5.0, weights: WeightType::BF16, ..llama };
    for family in [llama, gemma2, Family { gpt2: true, ..llama }] {
        let (few, launched) = layer(&d, family, [1, 1]);
        assert!(launched.iter().any(|name| name.starts_with("matmul_few_")), "{launched:?}");
        let (many, launched) = layer(&d, family, [28, 43]);
        assert!(launched.iter().any(|name| name.starts_with("matmul_simd_")), "{launched:?}");
        let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&few[..N_EMBD]), bits(&many[..N_EMBD]));
    }
}

#[test]
fn a_cache_of_eight_bits_is_the_processors() {
    let d = Emulated::open(Build::Fast, Variants::Fast).unwrap();
    let kv = KvShape { n_blocks: 1, block_size: 16, n_kv_head: 1, head_dim: 32, dtype: Dtype::Q8_0 };
    let error = d.kv_layer(kv).unwrap_err().to_string();
    assert!(error.starts_with("--kv-type q8_0: "), "{error}");
    assert!(error.contains("f32 or f16"), "{error}");
}
