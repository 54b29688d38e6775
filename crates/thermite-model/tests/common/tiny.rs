//! Small models of each family with random weights, as a Hugging Face folder, as GGUF, and as the oracle has them.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use serde_json::{Value, json};
use thermite_formats::{Gguf, ModelFiles};

use super::gguf::{Pair, gguf};
use super::oracle::{Gate, LayerOf, Oracle, frequencies};

pub(crate) const N_VOCAB: usize = 96;
const N_EMBD: usize = 64;
const N_INNER: usize = 96;
pub(crate) const N_CTX: usize = 256;

/// A tensor: its name in a Hugging Face folder, its shape, its values.
type Tensor = (String, Vec<usize>, Vec<f32>);

/// A small model.
pub(crate) struct Tiny {
    pub(crate) name: &'static str,
    /// `config.json`.
    pub(crate) config: Value,
    /// GGUF metadata; its first pair is the architecture. Empty where GGUF cannot say what the config says.
    pairs: Vec<(String, Pair)>,
    tensors: Vec<Tensor>,
    /// What GGUF holds besides.
    divisors: Option<Vec<f32>>,
    shape: Shape,
    layers: Vec<LayerOf>,
}

/// What tells the families apart.
#[derive(Clone, Copy)]
struct Shape {
    n_head: usize,
    n_kv_head: usize,
    head_dim: usize,
    qkv_bias: bool,
    proj_bias: bool,
    mlp_bias: bool,
    head_norms: bool,
    tied: bool,
    gemma: bool,
    eps: f64,
    scale: f64,
    score_cap: f64,
    logit_cap: f64,
}

const SHAPE: Shape = Shape {
    n_head: 4,
    n_kv_head: 2,
    head_dim: 16,
    qkv_bias: false,
    proj_bias: false,
    mlp_bias: false,
    head_norms: false,
    tied: false,
    gemma: false,
    eps: 1e-5,
    scale: 0.25,
    score_cap: 0.0,
    logit_cap: 0.0,
};

impl Tiny {
    /// A model of `shape`; `config` and `pairs` say what the sizes do not.
    fn new(
        name: &'static str,
        architecture: Option<&'static str>,
        shape: Shape,
        layers: Vec<LayerOf>,
        config: Value,
        pairs: &[(&str, Pair)],
    ) -> Self {
        let mut full = json!({
            "hidden_size": N_EMBD, "intermediate_size": N_INNER, "vocab_size": N_VOCAB,
            "max_position_embeddings": N_CTX, "num_hidden_layers": layers.len(),
            "num_attention_heads": shape.n_head, "num_key_value_heads": shape.n_kv_head,
            "rms_norm_eps": shape.eps, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": [2, 3],
        });
        let Value::Object(own) = config else { panic!("{name}: no object") };
        full.as_object_mut().unwrap().extend(own);
        let number = |n: usize| Pair::U32(n as u32);
        let sizes = [
            ("block_count", number(layers.len())),
            ("context_length", number(N_CTX)),
            ("embedding_length", number(N_EMBD)),
            ("feed_forward_length", number(N_INNER)),
            ("attention.head_count", number(shape.n_head)),
            ("attention.head_count_kv", number(shape.n_kv_head)),
            ("attention.key_length", number(shape.head_dim)),
            ("attention.value_length", number(shape.head_dim)),
            ("rope.dimension_count", number(shape.head_dim)),
            ("attention.layer_norm_rms_epsilon", Pair::F32(shape.eps as f32)),
        ];
        let pairs = architecture.map_or_else(Vec::new, |architecture| {
            let own = sizes
                .iter()
                .chain(pairs)
                .map(|(key, value)| (format!("{architecture}.{key}"), value.clone()));
            let first = ("general.architecture".to_owned(), Pair::Text(architecture));
            std::iter::once(first).chain(own).collect()
        });
        let tensors = weights(shape, layers.len());
        Self { name, config: full, pairs, tensors, divisors: None, shape, layers }
    }

    /// The Hugging Face folder.
    pub(crate) fn folder(&self) -> ModelFiles {
        self.folder_with(&self.config)
    }

    /// The same weights under another `config.json`.
    pub(crate) fn folder_with(&self, config: &Value) -> ModelFiles {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, shape, values) in &self.tensors {
            let start = data.len();
            data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            let offsets = [start, data.len()];
            header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
        }
        let header = Value::Object(header).to_string();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        ModelFiles::in_memory(self.name, config.to_string(), file).unwrap()
    }

    /// The GGUF file, if there can be one.
    pub(crate) fn gguf(&self) -> Option<ModelFiles> {
        let (_, Pair::Text(architecture)) = self.pairs.first()? else { return None };
        let mut tensors: Vec<Tensor> =
            self.tensors.iter().map(|tensor| self.converted(architecture, tensor)).collect();
        if let Some(divisors) = &self.divisors {
            tensors.push(("rope_freqs.weight".to_owned(), vec![divisors.len()], divisors.clone()));
        }
        let file = gguf(&self.pairs, &tensors);
        Some(ModelFiles::of_gguf(Gguf::in_memory(self.name, file).unwrap()).unwrap())
    }

    /// A tensor as the conversion to GGUF leaves it.
    fn converted(&self, architecture: &str, (name, shape, values): &Tensor) -> Tensor {
        let mut values = values.clone();
        if architecture.starts_with("gemma") && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|x| *x += 1.0);
        }
        let heads = match name {
            _ if architecture != "llama" => None,
            q if q.contains(".q_proj.") => Some(self.shape.n_head),
            k if k.contains(".k_proj.") => Some(self.shape.n_kv_head),
            _ => None,
        };
        if let Some(heads) = heads {
            // [heads, 2, half, columns] becomes [heads, half, 2, columns]
            let (half, columns) = (shape[0] / heads / 2, shape.get(1).copied().unwrap_or(1));
            let row = |head: usize, which: usize, i: usize| {
                &values[((head * 2 + which) * half + i) * columns..][..columns]
            };
            let rows =
                (0..heads).flat_map(|head| (0..half).flat_map(move |i| [row(head, 0, i), row(head, 1, i)]));
            values = rows.flatten().copied().collect();
        }
        (gguf_name(name, self.shape.gemma), shape.clone(), values)
    }

    pub(crate) fn oracle(&self) -> Oracle<'_> {
        let Shape { n_head, n_kv_head, head_dim, eps, scale, score_cap, logit_cap, gemma, .. } = self.shape;
        let by_name: BTreeMap<&str, &Vec<f32>> =
            self.tensors.iter().map(|(n, _, v)| (n.as_str(), v)).collect();
        Oracle {
            n_embd: N_EMBD,
            n_head,
            n_kv_head,
            head_dim,
            eps,
            scale,
            score_cap,
            logit_cap,
            embedding_scale: if gemma { (N_EMBD as f64).sqrt() } else { 1.0 },
            scale_offset: if gemma { 1.0 } else { 0.0 },
            gate: if gemma { Gate::Gelu } else { Gate::Silu },
            post_norms: gemma,
            layers: self.layers.clone(),
            weight: Box::new(move |name| by_name.get(name).map(|values| (*values).clone())),
        }
    }
}

/// A name of a Hugging Face folder in GGUF.
pub(crate) fn gguf_name(name: &str, gemma: bool) -> String {
    let norms: &[(&str, &str)] = if gemma {
        &[
            ("post_attention_layernorm", "post_attention_norm"),
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
        ]
    } else {
        &[("post_attention_layernorm", "ffn_norm")]
    };
    let mut name = name.replace("model.layers.", "blk.");
    for (from, to) in norms.iter().chain(&[
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]) {
        name = name.replace(from, to);
    }
    name
}

/// Random weights of all tensors that a model of `shape` has.
fn weights(shape: Shape, n_layer: usize) -> Vec<Tensor> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    // uniform in -1 .. 1
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize], center: f32, spread: f32| {
        let values = (0..shape.iter().product()).map(|_| center + spread * uniform()).collect();
        tensors.push((name, shape.to_vec(), values));
    };
    let (q, kv) = (shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim);
    let gamma = if shape.gemma { 0.0 } else { 1.0 };
    add("model.embed_tokens.weight".into(), &[N_VOCAB, N_EMBD], 0.0, if shape.gemma { 0.3 } else { 1.5 });
    for i in 0..n_layer {
        let at = |name: &str| format!("model.layers.{i}.{name}");
        for (name, rows, cols, bias, spread) in [
            ("self_attn.q_proj", q, N_EMBD, shape.qkv_bias, 0.4),
            ("self_attn.k_proj", kv, N_EMBD, shape.qkv_bias, 0.4),
            ("self_attn.v_proj", kv, N_EMBD, shape.qkv_bias, 0.2),
            ("self_attn.o_proj", N_EMBD, q, shape.proj_bias, 0.2),
            ("mlp.gate_proj", N_INNER, N_EMBD, shape.mlp_bias, 0.2),
            ("mlp.up_proj", N_INNER, N_EMBD, shape.mlp_bias, 0.2),
            ("mlp.down_proj", N_EMBD, N_INNER, shape.mlp_bias, 0.2),
        ] {
            add(at(&format!("{name}.weight")), &[rows, cols], 0.0, spread);
            if bias {
                add(at(&format!("{name}.bias")), &[rows], 0.0, 0.5);
            }
        }
        let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
        if shape.gemma {
            norms.extend(["pre_feedforward_layernorm", "post_feedforward_layernorm"]);
        }
        for name in norms {
            add(at(&format!("{name}.weight")), &[N_EMBD], gamma, 0.3);
        }
        if shape.head_norms {
            for name in ["self_attn.q_norm", "self_attn.k_norm"] {
                add(at(&format!("{name}.weight")), &[shape.head_dim], gamma, 0.3);
            }
        }
    }
    add("model.norm.weight".into(), &[N_EMBD], gamma, 0.3);
    if !shape.tied {
        add("lm_head.weight".into(), &[N_VOCAB, N_EMBD], 0.0, 0.3);
    }
    tensors
}

/// A layer that sees `window` tokens.
fn layer(window: usize, frequencies: &[f64]) -> LayerOf {
    LayerOf { window, frequencies: frequencies.to_vec() }
}

/// LLaMA 3's scaling by the three cases of its definition: factor 4, from 1 to 3 turns, of 32 tokens.
fn llama3_frequencies(head_dim: usize) -> Vec<f64> {
    let scale = |f: f64| {
        let wavelength = TAU / f;
        if wavelength < 32.0 / 3.0 {
            f
        } else if wavelength > 32.0 {
            f / 4.0
        } else {
            let smooth = (32.0 / wavelength - 1.0) / (3.0 - 1.0);
            (1.0 - smooth) * f / 4.0 + smooth * f
        }
    };
    frequencies(500.0, head_dim).into_iter().map(scale).collect()
}

/// One small model or more of each architecture.
pub(crate) fn tiny_models() -> Vec<Tiny> {
    let plain = frequencies(10_000.0, 16);
    let llama3 = llama3_frequencies(16);
    let divisors =
        frequencies(500.0, 16).into_iter().zip(&llama3).map(|(plain, scaled)| (plain / scaled) as f32);
    let mut llama = Tiny::new(
        "llama",
        Some("llama"),
        SHAPE,
        vec![layer(0, &llama3); 2],
        json!({
            "model_type": "llama", "rope_theta": 500.0, "hidden_act": "silu", "tie_word_embeddings": false,
            "attention_bias": false, "mlp_bias": false, "pretraining_tp": 1,
            "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0,
                "original_max_position_embeddings": 32},
        }),
        &[("rope.freq_base", Pair::F32(500.0)), ("vocab_size", Pair::U32(N_VOCAB as u32))],
    );
    llama.divisors = Some(divisors.collect());

    let wide = Shape {
        head_dim: 32,
        scale: 32f64.sqrt().recip(),
        qkv_bias: true,
        proj_bias: true,
        mlp_bias: true,
        tied: true,
        ..SHAPE
    };
    let linear: Vec<f64> = frequencies(10_000.0, 32).iter().map(|f| f / 2.5).collect();
    let linear = Tiny::new(
        "llama with biases",
        Some("llama"),
        wide,
        vec![layer(0, &linear); 2],
        json!({
            "model_type": "llama", "head_dim": 32, "attention_bias": true, "mlp_bias": true,
            "tie_word_embeddings": true, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.5},
        }),
        &[("rope.scaling.type", Pair::Text("linear")), ("rope.scaling.factor", Pair::F32(2.5))],
    );

    let mistral = Tiny::new(
        "mistral",
        Some("llama"),
        SHAPE,
        vec![layer(5, &plain); 2],
        json!({"model_type": "mistral", "sliding_window": 5}),
        &[("attention.sliding_window", Pair::U32(5))],
    );

    let qwen2 = Tiny::new(
        "qwen2",
        None,
        Shape { qkv_bias: true, ..SHAPE },
        vec![layer(0, &plain), layer(7, &plain)],
        json!({
            "model_type": "qwen2", "sliding_window": 7, "use_sliding_window": true, "max_window_layers": 1,
        }),
        &[],
    );
    let qwen2_plain = Tiny::new(
        "qwen2 without window",
        Some("qwen2"),
        Shape { qkv_bias: true, tied: true, ..SHAPE },
        vec![layer(0, &plain); 2],
        json!({
            "model_type": "qwen2", "sliding_window": 7, "use_sliding_window": false, "max_window_layers": 1,
            "tie_word_embeddings": true,
        }),
        &[],
    );

    let wide = frequencies(1e6, 32);
    let qwen3 = Tiny::new(
        "qwen3",
        Some("qwen3"),
        Shape { head_dim: 32, scale: 32f64.sqrt().recip(), head_norms: true, ..SHAPE },
        vec![layer(0, &wide); 2],
        json!({"model_type": "qwen3", "head_dim": 32, "rope_theta": 1000000, "attention_bias": false}),
        &[("rope.freq_base", Pair::F32(1e6))],
    );

    let gemma = Shape {
        head_dim: 32,
        scale: 32f64.sqrt().recip(),
        tied: true,
        gemma: true,
        eps: 1e-6,
        score_cap: 4.0,
        logit_cap: 6.0,
        ..SHAPE
    };
    let usual = frequencies(10_000.0, 32);
    let gemma2_config = |scalar: f64| {
        json!({
            "model_type": "gemma2", "head_dim": 32, "sliding_window": 6, "query_pre_attn_scalar": scalar,
            "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0,
            "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
        })
    };
    let gemma2_layers = vec![layer(6, &usual), layer(0, &usual)];
    let gemma2 = Tiny::new(
        "gemma2",
        Some("gemma2"),
        gemma,
        gemma2_layers.clone(),
        gemma2_config(32.0),
        &[
            ("attention.sliding_window", Pair::U32(6)),
            ("attn_logit_softcapping", Pair::F32(4.0)),
            ("final_logit_softcapping", Pair::F32(6.0)),
        ],
    );
    let scaled = Shape { scale: 20f64.sqrt().recip(), ..gemma };
    let gemma2_scaled =
        Tiny::new("gemma2 with a scale", None, scaled, gemma2_layers, gemma2_config(20.0), &[]);

    let local = layer(4, &frequencies(100.0, 32));
    let global: Vec<f64> = frequencies(5000.0, 32).iter().map(|f| f / 8.0).collect();
    let gemma3 = Tiny::new(
        "gemma3",
        Some("gemma3"),
        Shape { head_norms: true, score_cap: 0.0, logit_cap: 0.0, ..gemma },
        vec![local.clone(), local.clone(), layer(0, &global), local],
        json!({
            "model_type": "gemma3_text", "head_dim": 32, "sliding_window": 4, "query_pre_attn_scalar": 32,
            "sliding_window_pattern": 3, "rope_theta": 5000.0, "rope_local_base_freq": 100.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "attn_logit_softcapping": null, "final_logit_softcapping": null,
        }),
        &[
            ("attention.sliding_window", Pair::U32(4)),
            ("attention.sliding_window_pattern", Pair::U32(3)),
            ("rope.freq_base", Pair::F32(5000.0)),
            ("rope.freq_base_swa", Pair::F32(100.0)),
            ("rope.scaling.type", Pair::Text("linear")),
            ("rope.scaling.factor", Pair::F32(8.0)),
        ],
    );
    vec![llama, linear, mistral, qwen2, qwen2_plain, qwen3, gemma2, gemma2_scaled, gemma3]
}
