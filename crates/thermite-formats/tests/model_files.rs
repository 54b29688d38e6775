//! Folders, shards, embedded parts.

#![allow(clippy::unwrap_used)] // a test may

mod common;

use std::fs;
use std::path::Path;

use common::{handmade, small_file, written};
use proptest::prelude::*;
use safetensors::tensor::Dtype;
use tempfile::TempDir;
use thermite_formats::{EmbeddedModel, Error, ModelFiles, ShardIndex, Tensors};

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn shard(name: &str) -> Vec<u8> {
    written(&[(name, Dtype::F32, vec![1], vec![0; 4])])
}

fn index(map: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<String> = map.iter().map(|(t, s)| format!("{t:?}:{s:?}")).collect();
    format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{{}}}}}"#, entries.join(",")).into_bytes()
}

const INDEX: &str = "model.safetensors.index.json";

fn sharded(index_map: &[(&str, &str)]) -> TempDir {
    folder(&[
        ("config.json", b"{}"),
        (INDEX, &index(index_map)),
        ("1.safetensors", &shard("a")),
        ("2.safetensors", &shard("b")),
    ])
}

#[test]
fn a_folder_and_its_weights_file_are_the_same_model() {
    let folder = folder(&[
        ("config.json", br#"{"n_layer": 6}"#),
        ("tokenizer.json", b"{}"),
        ("generation_config.json", br#"{"eos_token_id": 0}"#),
        ("model.safetensors", &small_file()),
    ]);
    for path in [folder.path().to_path_buf(), folder.path().join("model.safetensors")] {
        let model = ModelFiles::open(&path).unwrap();
        assert_eq!(model.tensors.names().collect::<Vec<_>>(), ["bias", "empty", "scalar", "weight"]);
        assert_eq!(model.tensors.get("weight").unwrap().shape, [2, 3]);
        assert!(model.tensors.contains("bias") && !model.tensors.contains("nobody"));
        let folder = model.hugging_face().unwrap();
        assert_eq!(folder.tokenizer_json().unwrap(), b"{}");
        assert!(folder.tokenizer_config_json.is_none());
        assert_eq!(folder.generation_config_json.as_deref(), Some(r#"{"eos_token_id": 0}"#));
        let config: serde_json::Value = folder.config().unwrap();
        assert_eq!(config["n_layer"], 6);
    }
}

#[test]
fn a_missing_tensor_is_named_with_those_like_it() {
    let tensors = Tensors::embedded("m", small_file().leak()).unwrap();
    let error = tensors.get("wieght").unwrap_err();
    assert_eq!(error.to_string(), "m: no tensor wieght (near: weight)");
}

#[test]
fn paths_that_are_no_model() {
    let missing = ModelFiles::open("/no/such/place").unwrap_err();
    assert_eq!(missing.to_string(), "/no/such/place: no such file or folder");

    let empty = folder(&[]);
    let error = ModelFiles::open(empty.path()).unwrap_err();
    assert!(matches!(error, Error::MissingFile { file: "config.json", .. }), "{error}");

    let no_weights = folder(&[("config.json", b"{}")]);
    let error = ModelFiles::open(no_weights.path()).unwrap_err();
    assert!(matches!(error, Error::MissingFile { file: "model.safetensors", .. }), "{error}");

    let no_tokenizer = folder(&[("config.json", b"{}"), ("model.safetensors", &small_file())]);
    let model = ModelFiles::open(no_tokenizer.path()).unwrap();
    let error = model.hugging_face().unwrap().tokenizer_json().unwrap_err();
    assert!(matches!(error, Error::MissingFile { file: "tokenizer.json", .. }), "{error}");

    let latin1 = folder(&[("config.json", b"{\"a\":\"\xe9\"}")]);
    let error = ModelFiles::open(latin1.path()).unwrap_err();
    assert!(matches!(error, Error::NotUtf8 { offset: 6, .. }), "{error}");

    for (file, format) in [("m.onnx", "ONNX"), ("m.ONNX", "ONNX"), ("m.bin", "PyTorch")] {
        let other = folder(&[(file, b"GGUF")]);
        let error = ModelFiles::open(other.path().join(file)).unwrap_err();
        assert!(matches!(error, Error::UnsupportedFormat { .. }), "{error}");
        assert!(error.to_string().contains(format), "{error}");
    }
}

#[test]
fn bad_json_is_reported_with_its_place() {
    let folder = folder(&[("config.json", b"{\n \"a\": }"), ("model.safetensors", &small_file())]);
    let model = ModelFiles::open(folder.path()).unwrap();
    let error = model.hugging_face().unwrap().config::<serde_json::Value>().unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("line 2 column 7"), "{error}");
}

#[test]
fn empty_and_truncated_weights() {
    for len in [0, 7, 100] {
        let folder = folder(&[("config.json", b"{}"), ("model.safetensors", &small_file()[..len])]);
        let error = ModelFiles::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Truncated { have, .. } if have == len as u64), "{error}");
        assert!(error.to_string().contains("model.safetensors: truncated"), "{error}");
    }
}

#[test]
fn shards_make_one_model() {
    let folder = sharded(&[("a", "1.safetensors"), ("b", "2.safetensors")]);
    for path in [folder.path().to_path_buf(), folder.path().join("2.safetensors")] {
        let model = ModelFiles::open(path).unwrap();
        assert_eq!(model.tensors.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(model.tensors.files().count(), 2);
        assert!(model.tensors.get("b").unwrap().file.ends_with("2.safetensors"));
    }
    // A file that the index does not list stands for itself.
    fs::write(folder.path().join("3.safetensors"), shard("c")).unwrap();
    let model = ModelFiles::open(folder.path().join("3.safetensors")).unwrap();
    assert_eq!(model.tensors.names().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn shards_that_do_not_fit_their_index() {
    let open = |map: &[(&str, &str)]| ModelFiles::open(sharded(map).path()).unwrap_err();
    let error = open(&[("a", "1.safetensors"), ("c", "9.safetensors")]);
    assert!(matches!(&error, Error::ShardMissing { shard, .. } if shard == "9.safetensors"), "{error}");
    let error = open(&[("a", "2.safetensors"), ("b", "2.safetensors")]);
    assert!(matches!(&error, Error::NotInShard { name, .. } if name == "a"), "{error}");
    for outside in ["../1.safetensors", "/etc/passwd", "", ".", "a/b", "a\\b", "a/"] {
        let error = open(&[("a", outside)]);
        assert!(matches!(&error, Error::ShardName { shard, .. } if shard == outside), "{error}");
    }
}

#[test]
fn one_tensor_in_two_shards() {
    let folder = folder(&[
        ("config.json", b"{}"),
        (INDEX, &index(&[("a", "1.safetensors"), ("b", "2.safetensors")])),
        ("1.safetensors", &shard("a")),
        (
            "2.safetensors",
            &written(&[("a", Dtype::F32, vec![1], vec![0; 4]), ("b", Dtype::F32, vec![1], vec![0; 4])]),
        ),
    ]);
    let error = ModelFiles::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tensor a is there twice: also in"), "{error}");
    assert!(error.contains("1.safetensors") && error.contains("2.safetensors"), "{error}");
}

#[test]
fn a_bad_shard_is_named() {
    let folder = sharded(&[("a", "1.safetensors"), ("b", "2.safetensors")]);
    fs::write(folder.path().join("2.safetensors"), handmade("{}", 3)).unwrap();
    let error = ModelFiles::open(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::TrailingBytes { path, .. } if path.ends_with("2.safetensors")));
}

#[test]
fn the_embedded_model_is_whole() {
    let model = ModelFiles::embedded(EmbeddedModel {
        name: "stories-3m",
        config_json: thermite_stories_3m::CONFIG_JSON,
        tokenizer_json: thermite_stories_3m::TOKENIZER_JSON,
        tokenizer_config_json: None,
        generation_config_json: Some(thermite_stories_3m::GENERATION_CONFIG_JSON),
        safetensors: thermite_stories_3m::MODEL_SAFETENSORS,
    })
    .unwrap();
    let config: serde_json::Value = model.hugging_face().unwrap().config().unwrap();
    assert_eq!(config["n_embd"], 192);
    let parameters: usize = model.tensors.iter().map(|t| t.len()).sum();
    assert!((3_500_000..3_600_000).contains(&parameters), "{parameters}");
    for tensor in model.tensors.iter() {
        assert!(tensor.to_f32().unwrap().iter().all(|x| x.is_finite()), "{}", tensor.name);
        let words = tensor.words::<u16>().unwrap();
        assert!(matches!(words, std::borrow::Cow::Borrowed(_)), "{} is aligned", tensor.name);
    }
}

proptest! {
    #[test]
    fn random_indexes_never_panic(json in r#"[\{\}\[\]":,a-z0-9\\/. ]{0,80}"#) {
        let _ = ShardIndex::parse(Path::new("i"), json.as_bytes());
        let map = format!(r#"{{"weight_map":{{"a":{json:?}}}}}"#);
        if let Ok(index) = ShardIndex::parse(Path::new("i"), map.as_bytes()) {
            for shard in index.shards() {
                let place = Path::new("/models/x").join(shard);
                prop_assert_eq!(place.parent(), Some(Path::new("/models/x")));
            }
        }
    }
}
