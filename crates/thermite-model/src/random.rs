//! Models with random weights, in the shapes of well-known ones: for measuring speed, which does not depend on what
//! the weights say.

use serde_json::Value;
use thermite_formats::{DType, Filler, ModelFiles, Tensors, quant};

use crate::Result;

/// A well-known shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// Its `config.json`.
    pub config: &'static str,
}

/// The shapes there are.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "gpt2-124m",
        config: r#"{"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024,
            "vocab_size": 50257}"#,
    },
    Shape {
        name: "gpt2-355m",
        config: r#"{"model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16, "n_positions": 1024,
            "vocab_size": 50257}"#,
    },
    Shape {
        name: "smollm2-135m",
        config: r#"{"model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
            "max_position_embeddings": 8192, "rope_theta": 100000, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": true}"#,
    },
    Shape {
        name: "llama-3.2-1b",
        config: r#"{"model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
            "max_position_embeddings": 131072, "rope_theta": 500000, "rms_norm_eps": 1e-5,
            "rope_scaling": {"rope_type": "llama3", "factor": 32, "low_freq_factor": 1, "high_freq_factor": 4,
                "original_max_position_embeddings": 8192},
            "tie_word_embeddings": true}"#,
    },
    Shape {
        name: "llama-3-8b",
        config: r#"{"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
            "max_position_embeddings": 8192, "rope_theta": 500000, "rms_norm_eps": 1e-5}"#,
    },
    Shape {
        name: "gemma3-270m",
        config: r#"{"model_type": "gemma3_text", "num_hidden_layers": 18, "hidden_size": 640,
            "intermediate_size": 2048, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
            "vocab_size": 262144, "max_position_embeddings": 32768, "sliding_window": 512,
            "rope_theta": 1000000, "query_pre_attn_scalar": 256}"#,
    },
];

/// Bytes of random weights at most; a larger model has the same ones more than once.
const MOST: usize = 2 << 30;

/// Numbers that are drawn and stored; the weights repeat them. A multiple of every block.
const DRAWN: usize = 1 << 18;

impl Shape {
    /// The shape of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        SHAPES.iter().copied().find(|shape| shape.name == name)
    }

    /// A model of this shape with matrices of type `dtype` around zero, the same ones each time, and vectors of ones.
    ///
    /// # Errors
    /// A type that matrices of this shape cannot have.
    pub fn model(self, dtype: DType) -> Result<ModelFiles> {
        let config: Value = serde_json::from_str(self.config).unwrap_or_default();
        let (vectors, matrices) = tensors(&config).into_iter().partition(|(_, shape)| shape.len() == 1);
        let ones = 1f32.to_le_bytes().to_vec();
        let tensors = Tensors::filled(
            self.name,
            MOST,
            &[
                Filler { dtype, pattern: pattern(dtype), tensors: matrices },
                Filler { dtype: DType::F32, pattern: ones, tensors: vectors },
            ],
        )?;
        Ok(ModelFiles::with_config(self.name, self.config.to_owned(), tensors))
    }
}

/// Random numbers between -1/32 and 1/32, as `dtype` stores them.
fn pattern(dtype: DType) -> Vec<u8> {
    let mut state = 1u64;
    let draw = |_| {
        // a linear congruence with Knuth's MMIX constants
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) / 32.0
    };
    let values: Vec<f32> = (0..DRAWN).map(draw).collect();
    let mut bytes = vec![0; dtype.bytes_of(&[DRAWN]).unwrap_or(0)];
    // a type that cannot be written leaves zeros, and is refused when it is loaded
    let _ = quant::quantize(dtype, &values, &mut bytes);
    bytes
}

/// Names and shapes of all tensors of a model.
fn tensors(config: &Value) -> Vec<(String, Vec<usize>)> {
    let size = |field: &str| config[field].as_u64().unwrap_or(0) as usize;
    if config["model_type"] == "gpt2" {
        return gpt2(size("n_layer"), size("n_embd"), size("n_positions"), size("vocab_size"));
    }
    let gemma = config["model_type"] == "gemma3_text";
    let tied = gemma || config["tie_word_embeddings"] == true;
    let (c, inner, vocab) = (size("hidden_size"), size("intermediate_size"), size("vocab_size"));
    let n_head = size("num_attention_heads");
    let hs = if config["head_dim"].is_null() { c / n_head } else { size("head_dim") };
    let (q, kv) = (n_head * hs, size("num_key_value_heads") * hs);

    let mut of_layer = vec![
        ("self_attn.q_proj", vec![q, c]),
        ("self_attn.k_proj", vec![kv, c]),
        ("self_attn.v_proj", vec![kv, c]),
        ("self_attn.o_proj", vec![c, q]),
        ("mlp.gate_proj", vec![inner, c]),
        ("mlp.up_proj", vec![inner, c]),
        ("mlp.down_proj", vec![c, inner]),
        ("input_layernorm", vec![c]),
        ("post_attention_layernorm", vec![c]),
    ];
    if gemma {
        of_layer.extend([
            ("self_attn.q_norm", vec![hs]),
            ("self_attn.k_norm", vec![hs]),
            ("pre_feedforward_layernorm", vec![c]),
            ("post_feedforward_layernorm", vec![c]),
        ]);
    }
    let mut all = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, c]),
        ("model.norm.weight".to_owned(), vec![c]),
    ];
    if !tied {
        all.push(("lm_head.weight".to_owned(), vec![vocab, c]));
    }
    for i in 0..size("num_hidden_layers") {
        let named =
            |(name, shape): &(&str, Vec<usize>)| (format!("model.layers.{i}.{name}.weight"), shape.clone());
        all.extend(of_layer.iter().map(named));
    }
    all
}

fn gpt2(n_layer: usize, c: usize, n_positions: usize, vocab: usize) -> Vec<(String, Vec<usize>)> {
    let mut all: Vec<(String, Vec<usize>)> =
        vec![("wte.weight".into(), vec![vocab, c]), ("wpe.weight".into(), vec![n_positions, c])];
    let mut with_bias = |name: String, weight: &[usize], bias: usize| {
        all.push((format!("{name}.weight"), weight.to_vec()));
        all.push((format!("{name}.bias"), vec![bias]));
    };
    for i in 0..n_layer {
        with_bias(format!("h.{i}.ln_1"), &[c], c);
        with_bias(format!("h.{i}.attn.c_attn"), &[c, 3 * c], 3 * c);
        with_bias(format!("h.{i}.attn.c_proj"), &[c, c], c);
        with_bias(format!("h.{i}.ln_2"), &[c], c);
        with_bias(format!("h.{i}.mlp.c_fc"), &[c, 4 * c], 4 * c);
        with_bias(format!("h.{i}.mlp.c_proj"), &[4 * c, c], c);
    }
    with_bias("ln_f".into(), &[c], c);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, Options};
    use thermite_device::trace::Trace;

    #[test]
    fn every_shape_is_a_model() {
        for shape in SHAPES {
            let options = Options { context: Some(8), ..Options::default() };
            // the trace looks at no weight, so that the memory of the large ones is never touched
            let files = ModelFiles::with_config(
                shape.name,
                shape.config.to_owned(),
                Tensors::filled(shape.name, MOST, &fillers(shape)).unwrap(),
            );
            let model = Model::load(&files, Trace::new(), options).unwrap();
            assert!(model.config().n_layer > 1, "{}", shape.name);
        }
    }

    fn fillers(shape: &Shape) -> Vec<Filler> {
        let tensors = tensors(&serde_json::from_str(shape.config).unwrap());
        let (vectors, matrices) = tensors.into_iter().partition(|(_, shape)| shape.len() == 1);
        let zeros = |dtype, tensors| Filler { dtype, pattern: Vec::new(), tensors };
        vec![zeros(DType::F16, matrices), zeros(DType::F32, vectors)]
    }
}
