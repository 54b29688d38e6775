//! Models written as GGUF: names, order, metadata, tokenizer, types; and what is refused.

#![allow(clippy::unwrap_used)] // a test may

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::gguf::small;
use common::written;
use proptest::prelude::*;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;
use thermite_formats::convert::{Plan, Types};
use thermite_formats::gguf::HeaderWriter;
use thermite_formats::{DType, EmbeddedModel, Gguf, ModelFiles, Result};

/// A Hugging Face folder, to be spoiled.
struct Folder {
    dir: TempDir,
    config: Value,
    tokenizer: Value,
    tensors: Vec<(String, Vec<usize>)>,
}

/// Distinct numbers that f32 holds exactly, and whose sums with 1 it holds too.
fn values(name: &str, len: usize) -> Vec<f32> {
    let start = name.len() as f32;
    (0..len).map(|i| start + i as f32 / 64.0).collect()
}

impl Folder {
    /// A model of two layers of 64 channels with 4 heads of 16, 2 of them for keys and values.
    fn new(model_type: &str, norms: &[&str]) -> Self {
        let config = json!({
            "model_type": model_type, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128, "vocab_size": 8,
            "rms_norm_eps": 1e-6, "rope_theta": 50000.0, "hidden_act": "silu", "eos_token_id": [1, 4],
        });
        let tokenizer = json!({
            "model": {
                "type": "BPE",
                "vocab": {"a": 2, "b": 3, "ab": 5, "Ġ": 6},
                "merges": ["a b"],
            },
            "added_tokens": [
                {"id": 0, "content": "<s>", "special": true},
                {"id": 1, "content": "</s>", "special": true},
                {"id": 4, "content": "<end>", "special": false},
            ],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            ]},
            "post_processor": {"type": "TemplateProcessing", "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            ]},
        });
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), vec![8, 64]),
            ("model.norm.weight".to_owned(), vec![64]),
        ];
        for layer in 0..2 {
            let mut add = |name: &str, shape: &[usize]| {
                tensors.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
            };
            for norm in norms {
                let len = if norm.starts_with("self_attn") { 16 } else { 64 };
                add(norm, &[len]);
            }
            add("self_attn.q_proj", &[64, 64]);
            add("self_attn.k_proj", &[32, 64]);
            add("self_attn.v_proj", &[32, 64]);
            add("self_attn.o_proj", &[64, 64]);
            add("mlp.gate_proj", &[96, 64]);
            add("mlp.up_proj", &[96, 64]);
            add("mlp.down_proj", &[64, 96]);
        }
        Self { dir: TempDir::new().unwrap(), config, tokenizer, tensors }
    }

    fn llama() -> Self {
        Self::new("llama", &["input_layernorm", "post_attention_layernorm"])
    }

    fn gemma3() -> Self {
        let norms = [
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
            "self_attn.q_norm",
            "self_attn.k_norm",
        ];
        let mut folder = Self::new("gemma3_text", &norms);
        folder.config["hidden_act"] = Value::Null;
        folder.config["head_dim"] = json!(16);
        folder.config["hidden_activation"] = json!("gelu_pytorch_tanh");
        folder
    }

    fn open(&self) -> ModelFiles {
        let path = self.dir.path();
        fs::write(path.join("config.json"), self.config.to_string()).unwrap();
        fs::write(path.join("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        let tokenizer_config =
            json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ x }}"});
        fs::write(path.join("tokenizer_config.json"), tokenizer_config.to_string()).unwrap();
        let specs: Vec<common::Spec<'_>> = self
            .tensors
            .iter()
            .map(|(name, shape)| {
                let data =
                    values(name, shape.iter().product()).iter().flat_map(|x| x.to_le_bytes()).collect();
                (name.as_str(), Dtype::F32, shape.clone(), data)
            })
            .collect();
        fs::write(path.join("model.safetensors"), written(&specs)).unwrap();
        ModelFiles::open(path).unwrap()
    }

    fn convert(&self, dtype: DType) -> Gguf {
        let out = self.dir.path().join("out.gguf");
        Plan::new(&self.open(), Types::of(dtype)).unwrap().write(&out, 2, |_| {}).unwrap();
        Gguf::open(&out).unwrap()
    }

    fn refusal(&self) -> String {
        let error = Plan::new(&self.open(), Types::of(DType::F32)).unwrap_err().to_string();
        error.replace(self.dir.path().to_str().unwrap(), "MODEL")
    }
}

fn f32s(gguf: &Gguf, name: &str) -> Vec<f32> {
    gguf.tensors.get(name).unwrap().to_f32().unwrap()
}

/// Every key and value in a line each, for a snapshot.
fn described(gguf: &Gguf) -> String {
    let pairs = gguf.metadata.iter().filter(|(key, _)| *key != "general.name");
    let tensors = gguf.tensors.iter().map(|t| format!("{} {} {:?}\n", t.name, t.dtype, t.shape));
    pairs.map(|(key, value)| format!("{key} = {value}\n")).chain(tensors).collect()
}

#[test]
fn a_llama() {
    let mut folder = Folder::llama();
    folder.config["sliding_window"] = json!(32);
    folder.config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    folder.tensors.push(("lm_head.weight".to_owned(), vec![8, 64]));
    folder.tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), vec![8]));
    folder.tensors.push(("model.layers.1.self_attn.q_proj.bias".to_owned(), vec![64]));
    let gguf = folder.convert(DType::F32);
    insta::assert_snapshot!(described(&gguf));

    // rows 2j and 2j + 1 of a head are rows j and j + 8 of Hugging Face's
    for (name, rows) in [("q", 64), ("k", 32)] {
        let source = values(&format!("model.layers.0.self_attn.{name}_proj.weight"), rows * 64);
        let row = |i: usize| &source[i * 64..(i + 1) * 64];
        for (i, have) in f32s(&gguf, &format!("blk.0.attn_{name}.weight")).chunks(64).enumerate() {
            let (head, i) = (i / 16, i % 16);
            assert_eq!(have, row(head * 16 + i / 2 + if i % 2 == 1 { 8 } else { 0 }), "{name} {head} {i}");
        }
    }
    let bias = values("model.layers.1.self_attn.q_proj.bias", 64);
    assert_eq!(f32s(&gguf, "blk.1.attn_q.bias")[16..20], [bias[16], bias[24], bias[17], bias[25]]);
    assert_eq!(f32s(&gguf, "blk.1.attn_v.weight"), values("model.layers.1.self_attn.v_proj.weight", 32 * 64));

    // from (2π)⁻¹ of a turn a token on: all in the context, some, none
    let factors = f32s(&gguf, "rope_freqs.weight");
    assert_eq!((factors[0], factors[7]), (1.0, 8.0));
    assert!(factors.is_sorted() && factors.iter().any(|&f| f > 1.0 && f < 8.0), "{factors:?}");

    let metadata = &gguf.metadata;
    let tokens: Vec<&str> = metadata.get("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens, ["<s>", "</s>", "a", "b", "<end>", "ab", "Ġ", "[PAD7]"]);
    assert_eq!(metadata.get::<Vec<i32>>("tokenizer.ggml.token_type").unwrap(), [3, 3, 1, 1, 4, 1, 1, 5]);
    assert_eq!(metadata.get::<Vec<&str>>("tokenizer.ggml.merges").unwrap(), ["a b"]);
}

#[test]
fn a_gemma_3() {
    let mut folder = Folder::gemma3();
    let config = &mut folder.config;
    config["sliding_window"] = json!(16);
    config["layer_types"] = json!(["sliding_attention", "full_attention"]);
    config["rope_local_base_freq"] = json!(10000.0);
    config["query_pre_attn_scalar"] = json!(64);
    config["final_logit_softcapping"] = json!(30.0);
    folder.tokenizer["model"] = json!({"type": "BPE", "byte_fallback": true, "unk_token": "<s>",
        "vocab": {"a": 2, "b": 3, "ab": 5, "<0x41>": 6}, "merges": [["a", "b"]]});
    folder.tokenizer["pre_tokenizer"] = json!({"type": "Split", "pattern": {"String": " "}});
    folder.tokenizer["normalizer"] = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let gguf = folder.convert(DType::F16);
    insta::assert_snapshot!(described(&gguf));
    for (name, source, len) in [
        ("output_norm.weight", "model.norm.weight", 64),
        ("blk.1.post_attention_norm.weight", "model.layers.1.post_attention_layernorm.weight", 64),
        ("blk.1.attn_q_norm.weight", "model.layers.1.self_attn.q_norm.weight", 16),
    ] {
        let want: Vec<f32> = values(source, len).iter().map(|x| x + 1.0).collect();
        assert_eq!(f32s(&gguf, name), want, "{name}");
    }
    assert_eq!(gguf.metadata.get::<Vec<i32>>("tokenizer.ggml.token_type").unwrap(), [2, 3, 1, 1, 4, 1, 6, 5]);
    assert_eq!(gguf.metadata.get::<Vec<f32>>("tokenizer.ggml.scores").unwrap()[5..], [0.0, 0.0, -1000.0]);
}

fn stories() -> ModelFiles {
    ModelFiles::embedded(EmbeddedModel {
        name: "stories-3m",
        config_json: thermite_stories_3m::CONFIG_JSON,
        tokenizer_json: thermite_stories_3m::TOKENIZER_JSON,
        tokenizer_config_json: None,
        generation_config_json: Some(thermite_stories_3m::GENERATION_CONFIG_JSON),
        safetensors: thermite_stories_3m::MODEL_SAFETENSORS,
    })
    .unwrap()
}

fn convert(files: &ModelFiles, types: Types, out: &Path, threads: usize) -> Gguf {
    let plan = Plan::new(files, types).unwrap();
    let mut told = 0;
    plan.write(out, threads, |bytes| told += bytes).unwrap();
    assert_eq!(told, plan.bytes());
    Gguf::open(out).unwrap()
}

#[test]
fn a_gpt_2_whose_matrices_lie_the_other_way() {
    let (dir, files) = (TempDir::new().unwrap(), stories());
    let gguf = convert(&files, Types::of(DType::F16), &dir.path().join("s.gguf"), 2);
    insta::assert_snapshot!(
        described(&gguf)
            .lines()
            .filter(|l| !l.contains("blk.") || l.contains("blk.5"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    let source = files.tensors.get("transformer.h.3.mlp.c_fc.weight").unwrap();
    let (rows, cols) = (source.shape[1], source.shape[0]);
    let (source, have) = (source.to_f32().unwrap(), gguf.tensors.get("blk.3.ffn_up.weight").unwrap());
    assert_eq!((have.dtype, have.shape), (DType::F16, &[rows, cols][..]));
    for (i, x) in have.to_f32().unwrap().into_iter().enumerate() {
        assert_eq!(x, source[i % cols * rows + i / cols]);
    }
    assert_eq!(gguf.tensors.get("position_embd.weight").unwrap().dtype, DType::F32);
}

#[test]
fn bytes_do_not_depend_on_threads_and_types_can_be_chosen() {
    let (dir, files) = (TempDir::new().unwrap(), stories());
    let types = Types { matrices: DType::Q4_0, embedding: Some(DType::Q5_1), head: None };
    let paths: Vec<PathBuf> = [1, 3].iter().map(|n| dir.path().join(format!("{n}.gguf"))).collect();
    let gguf = convert(&files, types, &paths[0], 1);
    convert(&files, types, &paths[1], 3);
    assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap());
    assert_eq!(gguf.tensors.get("token_embd.weight").unwrap().dtype, DType::Q5_1);
    assert_eq!(gguf.tensors.get("blk.0.ffn_up.weight").unwrap().dtype, DType::Q4_0);
    assert_eq!(gguf.tensors.get("blk.0.ffn_up.bias").unwrap().dtype, DType::F32);
    assert_eq!(gguf.metadata.get::<u32>("general.file_type").unwrap(), 2);
}

#[test]
fn rows_that_are_not_whole_blocks_get_smaller_ones() {
    let (dir, files) = (TempDir::new().unwrap(), stories());
    let plan = Plan::new(&files, Types::of(DType::Q4K)).unwrap();
    // 192 channels; 768 in the middle of an MLP
    let gguf = convert(&files, Types::of(DType::Q4K), &dir.path().join("s.gguf"), 2);
    let dtype = |name: &str| gguf.tensors.get(name).unwrap().dtype;
    assert_eq!(dtype("blk.0.ffn_down.weight"), DType::Q4K);
    assert_eq!(dtype("blk.0.ffn_up.weight"), DType::Q5_0);
    assert_eq!(dtype("token_embd.weight"), DType::Q8_0, "the head: Q6_K, or what is near it");
    assert_eq!(plan.fallbacks().len(), 6 * 3 + 1);
}

#[test]
fn gguf_from_gguf_keeps_what_it_says() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.gguf");
    fs::write(&path, small().build()).unwrap();
    let files = ModelFiles::open(&path).unwrap();
    let again = convert(&files, Types::of(DType::Q8_0), &dir.path().join("b.gguf"), 1);
    let before = small().open().unwrap();
    for (key, value) in before.metadata.iter() {
        assert_eq!(again.metadata.value(key), Some(value), "{key}");
    }
    assert_eq!(again.tensors.get("weight").unwrap().data, before.tensors.get("weight").unwrap().data);
    assert_eq!(again.tensors.get("halves").unwrap().dtype, DType::F16, "rows of two");

    // never over itself, whatever it is called
    let error = Plan::new(&files, Types::of(DType::F16))
        .unwrap()
        .write(&dir.path().join("../").join(dir.path().file_name().unwrap()).join("a.gguf"), 1, |_| {})
        .unwrap_err();
    assert!(error.to_string().ends_with("is the input, and would be overwritten"), "{error}");
}

#[test]
fn a_number_that_the_type_cannot_hold_leaves_no_file() {
    let dir = TempDir::new().unwrap();
    let mut builder = small();
    builder.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    builder.tensors.clear();
    let builder = builder.tensor("bad", &[3, 1], 0, 0);
    fs::write(dir.path().join("a.gguf"), builder.build()).unwrap();
    let files = ModelFiles::open(dir.path()).unwrap();
    let out = dir.path().join("b.gguf");
    let error = Plan::new(&files, Types::of(DType::BF16)).unwrap().write(&out, 1, |_| {}).unwrap_err();
    assert!(error.to_string().ends_with("tensor bad: value 0 is NaN, which BF16 cannot hold"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "neither the file nor a part of it");
    let error = Plan::new(&files, Types::of(DType::BF16)).unwrap().write(Path::new("/no/b.gguf"), 1, |_| {});
    assert!(error.unwrap_err().to_string().contains("/no/b.gguf.partial: cannot be written"));
}

/// A finished file takes its name by renaming, which would put it in the place of `/dev/null`.
#[cfg(unix)]
#[test]
fn only_a_regular_file_is_replaced() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.gguf"), small().build()).unwrap();
    let files = ModelFiles::open(dir.path().join("a.gguf")).unwrap();
    let out = dir.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&out).unwrap();
    let error = Plan::new(&files, Types::of(DType::F16)).unwrap().write(&out, 1, |_| {}).unwrap_err();
    assert!(
        error.to_string().ends_with("socket: cannot be written: it is there and is not a regular file"),
        "{error}"
    );
    assert!(!fs::metadata(&out).unwrap().is_file(), "the socket is still there");
}

#[test]
fn what_gguf_has_no_place_for_is_refused() {
    let refusal = |spoil: &dyn Fn(&mut Folder)| {
        let mut folder = Folder::llama();
        spoil(&mut folder);
        folder.refusal()
    };
    let config = |field: &str, value: Value| refusal(&|folder| folder.config[field] = value.clone());
    let tokenizer = |field: &str, value: Value| refusal(&|folder| folder.tokenizer[field] = value.clone());
    let mut report = [
        config("model_type", json!("mamba")),
        config("hidden_act", json!("gelu")),
        config("num_hidden_layers", Value::Null),
        config("num_attention_heads", json!(0)),
        config("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        config("rope_scaling", json!({"rope_type": "linear"})),
        tokenizer("model", json!({"type": "Unigram", "vocab": [["a", 0.0]]})),
        tokenizer("model", json!({"type": "BPE", "vocab": {"a": 4294967295_u32}})),
        tokenizer("model", json!({"type": "BPE", "vocab": {"a": -1}})),
        config("vocab_size", json!(4_000_000_000_u32)),
        tokenizer("pre_tokenizer", json!({"type": "Whitespace"})),
        tokenizer("pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": true})),
        tokenizer("normalizer", json!({"type": "Lowercase"})),
        refusal(&|folder| folder.tensors.push(("model.layers.0.mlp.experts.0.weight".to_owned(), vec![2]))),
        refusal(&|folder| folder.tensors.push(("model.layers.0.self_attn.k_proj.bias".to_owned(), vec![24]))),
    ]
    .join("\n");
    let mut gemma = Folder::gemma3();
    gemma.config["query_pre_attn_scalar"] = json!(16);
    gemma.config["sliding_window"] = json!(16);
    gemma.config["layer_types"] = json!(["full_attention", "sliding_attention"]);
    report.push('\n');
    report.push_str(&gemma.refusal());
    insta::assert_snapshot!(report);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        text in ".{0,20}", numbers in prop::collection::vec(any::<i32>(), 0..9), float in any::<f32>(),
        words in prop::collection::vec("[a-zé]{0,5}", 0..5), flag in any::<bool>(), big in any::<u64>(),
        shapes in prop::collection::vec((prop::collection::vec(0_usize..4, 0..4), 0_usize..4), 0..6),
    ) {
        let types = [DType::F32, DType::F16, DType::I8, DType::I64];
        let mut header = HeaderWriter::default();
        header.set("text", "replaced");
        header.set("numbers", &numbers[..]);
        header.set("text", &text);
        header.set("words", &words[..]);
        header.set("float", &float);
        header.set("flag", &flag);
        header.set("big", &big);
        for (i, (shape, dtype)) in shapes.iter().enumerate() {
            let tensor = thermite_formats::gguf::TensorInfo { name: format!("{i}"), dtype: types[*dtype], shape: shape.clone() };
            header.tensor(tensor);
        }
        let mut file = header.to_bytes(Path::new("w"))?;
        for (i, tensor) in header.tensors().iter().enumerate() {
            let bytes = tensor.dtype.bytes_of(&tensor.shape).unwrap();
            file.extend(vec![i as u8; bytes]);
            file.resize(file.len().next_multiple_of(32), 0xff);
        }
        let gguf = Gguf::in_memory("w", file)?;
        prop_assert_eq!(gguf.metadata.get::<&str>("text")?, &text);
        prop_assert_eq!(gguf.metadata.get::<Vec<i32>>("numbers")?, numbers);
        prop_assert_eq!(gguf.metadata.get::<Vec<&str>>("words")?, words);
        prop_assert_eq!(gguf.metadata.get::<f32>("float")?.to_bits(), float.to_bits());
        prop_assert_eq!(gguf.metadata.get::<bool>("flag")?, flag);
        prop_assert_eq!(gguf.metadata.get::<u64>("big")?, big);
        for (i, tensor) in header.tensors().iter().enumerate() {
            let read = gguf.tensors.get(&tensor.name)?;
            prop_assert_eq!((read.dtype, read.shape), (tensor.dtype, &tensor.shape[..]));
            prop_assert!(read.data.iter().all(|&byte| byte == i as u8));
        }
    }
}

#[test]
fn a_header_of_two_tensors_of_one_name_is_refused() -> Result<()> {
    let mut header = HeaderWriter::default();
    let tensor = |shape: &[usize]| thermite_formats::gguf::TensorInfo {
        name: "a".to_owned(),
        dtype: DType::Q4K,
        shape: shape.to_vec(),
    };
    header.tensor(tensor(&[256]));
    header.to_bytes(Path::new("w"))?;
    header.tensor(tensor(&[256]));
    assert_eq!(header.to_bytes(Path::new("w")).unwrap_err().to_string(), "w: tensor a is there twice");
    let mut header = HeaderWriter::default();
    header.tensor(tensor(&[100]));
    assert_eq!(
        header.to_bytes(Path::new("w")).unwrap_err().to_string(),
        "w: tensor a: Q4_K [100] is no valid size: its rows are whole blocks of 256"
    );
    Ok(())
}
