//! Models with random weights, in the shapes of well-known ones: for measuring speed, which does not depend on what
//! the weights say.

use serde_json::{Map, Value, json};
use thermite_formats::ModelFiles;

use crate::Result;

/// The sizes of a GPT-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpt2Shape {
    /// What it is called.
    pub name: &'static str,
    /// Layers.
    pub n_layer: usize,
    /// Channels.
    pub n_embd: usize,
    /// Heads.
    pub n_head: usize,
    /// Positions.
    pub n_positions: usize,
    /// Vocabulary.
    pub vocab_size: usize,
}

/// GPT-2 with 124 million parameters.
pub const GPT2_124M: Gpt2Shape = Gpt2Shape {
    name: "gpt2-124m",
    n_layer: 12,
    n_embd: 768,
    n_head: 12,
    n_positions: 1024,
    vocab_size: 50257,
};

/// GPT-2 with 355 million parameters.
pub const GPT2_355M: Gpt2Shape =
    Gpt2Shape { name: "gpt2-355m", n_layer: 24, n_embd: 1024, n_head: 16, ..GPT2_124M };

/// A model of that shape with f16 weights around zero, the same ones each time.
///
/// # Errors
/// None that a shape of this module can cause.
pub fn gpt2(shape: Gpt2Shape) -> Result<ModelFiles> {
    let Gpt2Shape { name, n_layer, n_embd: c, n_head, n_positions, vocab_size } = shape;
    let config = json!({
        "model_type": "gpt2", "n_layer": n_layer, "n_embd": c, "n_head": n_head,
        "n_positions": n_positions, "vocab_size": vocab_size,
    });
    let mut tensors: Vec<(String, Vec<usize>)> =
        vec![("wte.weight".into(), vec![vocab_size, c]), ("wpe.weight".into(), vec![n_positions, c])];
    let mut with_bias = |name: String, weight: &[usize], bias: usize| {
        tensors.push((format!("{name}.weight"), weight.to_vec()));
        tensors.push((format!("{name}.bias"), vec![bias]));
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
    Ok(ModelFiles::in_memory(name, config.to_string(), safetensors(&tensors))?)
}

/// A safetensors file of f16 tensors: header length, header, data.
fn safetensors(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut text = Value::Object(header).to_string();
    // the data begins at a multiple of eight
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text.as_bytes());
    file.reserve_exact(end);
    let mut state = 1u64;
    for _ in 0..end / 2 {
        // a linear congruence (Knuth's MMIX constants) gives sign and mantissa; the exponent keeps it below 2^-5
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = (state >> 48) as u16;
        file.extend(((bits & 0x83ff) | 0x2400).to_le_bytes());
    }
    file
}
