//! Small models in quantised blocks on the emulated Metal kernels, against the CPU's exact arithmetic on the same blocks.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{Runner, cpu};
use thermite_device::cpu::{Isa, QuantizedActivations};
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{Device, Dtype, Outputs};
use thermite_formats::DType;
use thermite_kernels::emulator::Build;
use thermite_model::Options;
use thermite_model::random::Shape;

/// The block types that the kernels read, and what the kernels' names call them.
const READ: [(DType, &str); 5] = [
    (DType::Q8_0, "q8_0"),
    (DType::Q4_0, "q4_0"),
    (DType::Q4_1, "q4_1"),
    (DType::Q4K, "q4_k"),
    (DType::Q6K, "q6_k"),
];

/// Rows of whole blocks of 256, with a head of its own and with the embedding as head.
const SHAPES: [Shape; 2] = [
    Shape {
        name: "llama",
        config: r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 256,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 64,
            "tie_word_embeddings": false}"#,
    },
    Shape {
        name: "gemma3",
        config: r#"{"model_type": "gemma3_text", "num_hidden_layers": 2, "hidden_size": 256,
            "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64,
            "vocab_size": 256, "max_position_embeddings": 64, "sliding_window": 4,
            "sliding_window_pattern": 2, "query_pre_attn_scalar": 64}"#,
    },
];

const PROMPT: [u32; 6] = [1, 77, 200, 5, 255, 42];

/// Tokens written after the prompt.
const STEPS: usize = 5;

/// The tokens that are likeliest one after another, and all logits on the way.
fn greedy<D: Device>(runner: &mut Runner<D>) -> (Vec<u32>, Vec<f32>) {
    let mut logits = runner.prompt(&PROMPT);
    let (mut tokens, mut all) = (Vec::new(), logits.clone());
    for _ in 0..STEPS {
        tokens.push(common::argmax(&logits));
        logits = runner.run(&[(0, &tokens[tokens.len() - 1..], runner.len, Outputs::Last)]).remove(0);
        all.extend(&logits);
    }
    (tokens, all)
}

/// Kernels that read the blocks.
fn kernels(shape: Shape, variants: Variants) -> &'static [&'static str] {
    match (variants, shape.name) {
        (Variants::Fast, "gemma3") => &["embedding_forward", "matvec", "decode_head_rms", "decode_geglu"],
        (Variants::Fast, _) => &["embedding_forward", "matvec", "decode_head_rms", "decode_swiglu"],
        _ => &["embedding_forward", "matvec"],
    }
}

#[test]
fn greedy_tokens_are_those_of_the_cpu() {
    for shape in SHAPES {
        for (dtype, suffix) in READ {
            let files = shape.model(dtype).unwrap();
            let exact = cpu(2, Isa::detect()).with_activations(QuantizedActivations::F32);
            let (tokens, logits) = greedy(&mut Runner::of(&files, exact, Options::default(), 1, Dtype::F32));
            for variants in [Variants::Plain, Variants::Fast] {
                let device = Emulated::open(Build::Fast, variants).unwrap();
                let mut runner = Runner::of(&files, device, Options::default(), 1, Dtype::F32);
                let (have, all) = greedy(&mut runner);
                let worst = all.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let most = logits.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                println!("{}, {dtype}, {variants:?}: off by {:e} of {most}", shape.name, worst / most);
                assert_eq!(have, tokens, "{}, {dtype}, {variants:?}", shape.name);
                assert!(
                    worst < 1e-5 * most,
                    "{}, {dtype}, {variants:?}: off by {worst} of {most}",
                    shape.name
                );
                let launched: BTreeSet<String> =
                    runner.model.device().launcher().take_launched().into_iter().collect();
                for kernel in kernels(shape, variants) {
                    let kernel = format!("{kernel}_{suffix}");
                    assert!(launched.contains(&kernel), "{kernel} was not launched: {launched:?}");
                }
            }
        }
    }
}
