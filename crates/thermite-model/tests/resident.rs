//! Decoding steps in one launch against the same steps launch by launch, for each form of model that has them: threads run in
//! an order that a seed decides.
#![allow(clippy::unwrap_used)]

mod common;

use common::Runner;
use thermite_device::Dtype;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_formats::DType;
use thermite_kernels::emulator::Build;
use thermite_kernels::hopper::steps;
use thermite_model::random::Shape;
use thermite_model::{Options, Stepper};

/// Tokens of the context; keys lie in one part up to 128.
const CONTEXT: usize = 192;
const START: usize = 120;

struct Case {
    shape: Shape,
    weights: DType,
    cache: Dtype,
    multiprocessors: u32,
}

impl Case {
    /// Tokens, last logits and launches of [`Runner::alone`].
    fn run(&self, device: Emulated) -> (Vec<i32>, Vec<f32>, Vec<String>) {
        let options = Options { context: Some(CONTEXT), max_rows: 8, ..Options::default() };
        let mut runner = Runner::of(&self.shape.model(self.weights).unwrap(), device, options, 1, self.cache);
        let stepper = Stepper::new(&runner.model, 1).unwrap();
        let (tokens, launched) = runner.alone(stepper, 7, START);
        let mut logits = vec![0.0; runner.model.config().n_vocab];
        runner.model.read_logits(0, &mut logits).unwrap();
        (tokens, logits, launched)
    }

    /// In each of the orders of threads.
    fn check(&self, seeds: &[u64]) {
        let (want, want_logits, launched) =
            self.run(Emulated::recording(Build::Fast, Variants::Fast).unwrap());
        assert!(launched.len() > 8 * 5, "{launched:?}");
        let scale = want_logits.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let mut bits = Vec::new();
        for &seed in seeds {
            let device = Emulated::resident(Build::Fast, self.multiprocessors, seed).unwrap();
            let (have, logits, launched) = self.run(device);
            assert_eq!(launched, [steps::entry()]);
            assert_eq!(have, want);
            let off = logits.iter().zip(&want_logits).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(off <= 2e-5 * scale, "off by {off} of {scale}");
            bits.push(logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        }
        assert!(bits.iter().all(|b| b == &bits[0]), "the order of threads changes the result");
    }
}

#[test]
fn layer_norm_and_gelu() {
    Case {
        shape: Shape {
            name: "layer norm, gelu, heads of 64",
            config: r#"{"model_type": "gpt2", "n_layer": 2, "n_embd": 128, "n_head": 2, "n_positions": 192,
                "vocab_size": 257}"#,
        },
        weights: DType::F16,
        cache: Dtype::F16,
        multiprocessors: 5,
    }
    .check(&[3, 4]);
}

#[test]
fn two_query_heads_a_kv_head_and_long_rows() {
    Case {
        shape: Shape {
            name: "two query heads a KV head, heads of 32, long rows",
            config: r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 1096,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 256,
                "max_position_embeddings": 192, "rope_theta": 10000, "rms_norm_eps": 1e-5}"#,
        },
        weights: DType::BF16,
        cache: Dtype::F16,
        multiprocessors: 8,
    }
    .check(&[3]);
}

#[test]
fn three_query_heads_a_kv_head_a_window_and_odd_widths() {
    Case {
        shape: Shape {
            name: "three query heads a KV head, heads of 128, a window, odd widths",
            config: r#"{"model_type": "mistral", "num_hidden_layers": 3, "hidden_size": 72,
                "intermediate_size": 200, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 128,
                "vocab_size": 301, "max_position_embeddings": 192, "sliding_window": 70, "rope_theta": 10000,
                "rms_norm_eps": 1e-6}"#,
        },
        weights: DType::BF16,
        cache: Dtype::BF16,
        multiprocessors: 7,
    }
    .check(&[3]);
}

#[test]
fn a_tied_head_and_widths_of_one_piece() {
    Case {
        shape: Shape {
            name: "a tied head, heads of 64, widths of one piece",
            config: r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 128, "intermediate_size": 96,
                "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 99,
                "max_position_embeddings": 192, "rope_theta": 10000, "rms_norm_eps": 1e-6,
                "tie_word_embeddings": true}"#,
        },
        weights: DType::F16,
        cache: Dtype::F16,
        multiprocessors: 5,
    }
    .check(&[3]);
}

#[test]
fn a_piece_of_the_inner_vector_a_warp() {
    Case {
        shape: Shape {
            name: "a piece of the inner vector a warp",
            config: r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 8200,
                "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 128,
                "max_position_embeddings": 192, "rope_theta": 10000, "rms_norm_eps": 1e-6}"#,
        },
        weights: DType::F16,
        cache: Dtype::F16,
        multiprocessors: 17,
    }
    .check(&[3, 4]);
}
