//! Configs that would be computed wrongly, and are refused by name.
#![allow(clippy::unwrap_used)]

mod common;

use common::tiny::{Tiny, tiny_models};
use serde_json::{Value, json};
use thermite_device::trace::Trace;
use thermite_formats::ModelFiles;
use thermite_model::{Model, Options};

fn load(files: &ModelFiles) -> Result<(), String> {
    let options = Options { context: Some(64), ..Options::default() };
    Model::load(files, Trace::new(), options).map(|_| ()).map_err(|error| error.to_string())
}

fn named<'a>(models: &'a [Tiny], name: &str) -> &'a Tiny {
    models.iter().find(|tiny| tiny.name == name).unwrap()
}

#[test]
fn configs() {
    let models = tiny_models();
    let scaling = |value: Value| ("llama", "rope_scaling", value);
    let mut messages = String::new();
    for (name, field, value) in [
        ("llama", "model_type", json!("mamba")),
        ("llama", "model_type", json!(7)),
        ("llama", "model_type", Value::Null),
        ("llama", "num_hidden_layers", json!(0)),
        ("llama", "num_hidden_layers", json!(3)),
        ("llama", "num_hidden_layers", json!(2.5)),
        ("llama", "hidden_size", json!(u64::MAX)),
        ("llama", "hidden_size", json!(62)),
        ("llama", "hidden_size", Value::Null),
        ("llama", "num_attention_heads", json!(6)),
        ("llama", "num_key_value_heads", json!(3)),
        ("llama", "head_dim", json!(15)),
        ("llama", "head_dim", json!(32)),
        ("llama", "rms_norm_eps", json!(0)),
        ("llama", "rms_norm_eps", json!("small")),
        ("llama", "rope_theta", json!(1e300)),
        ("llama", "hidden_act", json!("gelu")),
        ("llama", "attention_bias", json!(true)),
        ("llama", "attention_bias", json!("yes")),
        ("llama", "tie_word_embeddings", json!(1)),
        ("llama", "partial_rotary_factor", json!(0.5)),
        ("llama", "rope_interleaved", json!(true)),
        ("llama", "sliding_window", json!(4)),
        (
            "llama",
            "quantization_config",
            json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true}),
        ),
        ("llama", "residual_multiplier", json!(0.22)),
        scaling(json!({"rope_type": "yarn", "factor": 4.0})),
        scaling(json!({"type": "dynamic", "factor": 4.0})),
        scaling(json!({"rope_type": "linear"})),
        scaling(json!({"rope_type": "linear", "factor": 2.0, "attention_factor": 1.2})),
        scaling(
            json!({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0,
            "original_max_position_embeddings": 32}),
        ),
        scaling(json!("linear")),
        ("llama with biases", "rope_parameters", json!({"rope_type": "longrope", "rope_theta": 1e4})),
        ("llama with biases", "attention_bias", json!(false)),
        ("qwen2", "layer_types", json!(["full_attention"])),
        ("qwen2", "layer_types", json!(["full_attention", "chunked_attention"])),
        ("qwen2", "use_mrope", json!(true)),
        ("gemma2", "hidden_activation", json!("gelu")),
        ("gemma2", "final_logit_softcapping", json!(-30)),
        ("gemma3", "sliding_window_pattern", json!(0)),
        ("gemma3", "use_bidirectional_attention", json!(true)),
        ("gemma3", "rope_scaling", json!({"rope_type": "yarn"})),
        ("gemma3", "text_config", json!({"hidden_size": 64})),
    ] {
        let tiny = named(&models, name);
        let mut config = tiny.config.clone();
        config[field] = value.clone();
        let message = load(&tiny.folder_with(&config)).expect_err(&format!("{name}: {field} = {value}"));
        messages += &format!("{field} = {value}\n    {message}\n");
    }
    insta::assert_snapshot!(messages);
}

#[test]
fn no_config_panics() {
    // every field of every model as every kind of value
    for tiny in tiny_models() {
        for field in tiny.config.as_object().unwrap().keys() {
            for value in [
                Value::Null,
                json!(true),
                json!(0),
                json!(1),
                json!(-1),
                json!(3),
                json!(1 << 24),
                json!(1e18),
                json!(0.1),
                json!(""),
                json!("linear"),
                json!([]),
                json!([0, 1]),
                json!({}),
                json!({"rope_type": "linear"}),
            ] {
                let mut config = tiny.config.clone();
                config[field] = value;
                // either way, but not a panic
                let _ = load(&tiny.folder_with(&config));
            }
        }
    }
}

#[test]
fn a_text_part_is_read_and_what_sees_is_left_out() {
    let models = tiny_models();
    let tiny = named(&models, "gemma3");
    let config = json!({
        "model_type": "gemma3", "text_config": tiny.config, "vision_config": {"patch_size": 14}, "mm_tokens_per_image": 256,
    });
    load(&tiny.folder_with(&config)).unwrap();
}
