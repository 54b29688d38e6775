//! Any text as a `config.json` over the tensors of a small LLaMA and a small Gemma: an error, or a model.
//! `cargo fuzz run config`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thermite_device::trace::Trace;
use thermite_formats::{DType, Filler, ModelFiles, Tensors};
use thermite_model::{Model, Options};

/// Tensors of one layer: 8 channels, 2 heads of 4, 12 channels in the MLP, 16 tokens.
fn tensors() -> Tensors {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![16, 8]),
        ("model.norm.weight".to_owned(), vec![8]),
    ];
    for (name, shape) in [
        ("self_attn.q_proj", vec![8, 8]),
        ("self_attn.k_proj", vec![4, 8]),
        ("self_attn.v_proj", vec![4, 8]),
        ("self_attn.o_proj", vec![8, 8]),
        ("mlp.gate_proj", vec![12, 8]),
        ("mlp.up_proj", vec![12, 8]),
        ("mlp.down_proj", vec![8, 12]),
        ("input_layernorm", vec![8]),
        ("post_attention_layernorm", vec![8]),
        ("pre_feedforward_layernorm", vec![8]),
        ("post_feedforward_layernorm", vec![8]),
        ("self_attn.q_norm", vec![4]),
        ("self_attn.k_norm", vec![4]),
    ] {
        tensors.push((format!("model.layers.0.{name}.weight"), shape));
    }
    let filler = Filler { dtype: DType::F32, pattern: Vec::new(), tensors };
    Tensors::filled("fuzzed", 1 << 16, &[filler]).expect("shapes that are possible")
}

fuzz_target!(|config: &str| {
    let files = ModelFiles::with_config("fuzzed", config.to_owned(), tensors());
    let options = Options { context: Some(8), ..Options::default() };
    if let Ok(model) = Model::load(&files, Trace::new(), options) {
        assert_eq!((model.config().n_layer, model.config().n_embd), (1, 8));
    }
});
