//! GGUF files that are right: metadata, tensors, and where they are found.

#![allow(clippy::unwrap_used)] // a test may

mod common;

use std::fs;

use common::gguf::{BOOL, Builder, F32, STRING, U32, small, string};
use tempfile::TempDir;
use thermite_formats::gguf::{Array, Value, ValueType};
use thermite_formats::{DType, Error, ModelFiles, Source};

#[test]
fn metadata_is_read_by_type() {
    for version in [2, 3] {
        let gguf = Builder { version, ..small() }.open().unwrap();
        let metadata = &gguf.metadata;
        assert_eq!((metadata.version(), metadata.len()), (version, 7));
        assert_eq!(metadata.architecture().unwrap(), "llama");
        assert_eq!(metadata.get::<usize>("llama.block_count").unwrap(), 2);
        assert_eq!(metadata.get::<i32>("llama.block_count").unwrap(), 2);
        assert_eq!(metadata.get::<f32>("llama.rope.freq_base").unwrap(), 1e4);
        assert_eq!(metadata.get::<u64>("big").unwrap(), u64::MAX);
        assert!(metadata.get::<bool>("tokenizer.ggml.add_bos_token").unwrap());
        assert_eq!(metadata.get::<Vec<&str>>("tokenizer.ggml.tokens").unwrap(), ["a", "é", ""]);
        assert_eq!(metadata.get::<Vec<Vec<u8>>>("nested").unwrap(), [vec![1, 2], vec![]]);
        let nested: Array<'_> = metadata.get("nested").unwrap();
        assert_eq!((nested.element, nested.len), (ValueType::Array, 2));
        assert_eq!(metadata.find::<f32>("llama.rope.scaling.factor").unwrap(), None);
        assert_eq!(metadata.value("llama.block_count"), Some(Value::U32(2)));
        let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
        assert!(keys.is_sorted() && keys.len() == 7, "{keys:?}");
    }
}

#[test]
fn values_that_do_not_fit_are_named() {
    let gguf = small().open().unwrap();
    let metadata = &gguf.metadata;
    insta::assert_snapshot!(metadata.get::<usize>("llama.block_cuont").unwrap_err());
    insta::assert_snapshot!(metadata.get::<f32>("llama.block_count").unwrap_err());
    insta::assert_snapshot!(metadata.get::<u32>("big").unwrap_err());
    insta::assert_snapshot!(metadata.get::<bool>("general.architecture").unwrap_err());
    insta::assert_snapshot!(metadata.find::<Vec<f32>>("tokenizer.ggml.tokens").unwrap_err());
}

#[test]
fn tensors_are_row_major_views_of_the_file() {
    let gguf = small().open().unwrap();
    let names: Vec<&str> = gguf.tensors.names().collect();
    assert_eq!(names, ["halves", "norm", "weight"]);
    let weight = gguf.tensors.get("weight").unwrap();
    assert_eq!((weight.dtype, weight.shape), (DType::Q8_0, &[2, 32][..]));
    assert_eq!(weight.data, &small().data[32..100]);
    assert_eq!(*weight.shared(), *weight.data);
    let halves = gguf.tensors.get("halves").unwrap();
    assert_eq!((halves.dtype, halves.shape), (DType::F16, &[3, 2][..]));
    assert_eq!(gguf.tensors.get("norm").unwrap().shape, [3]);
}

#[test]
fn an_alignment_of_its_own() {
    for alignment in [1_u32, 64, 4096] {
        let mut builder = Builder { alignment: alignment as usize, ..Builder::default() }
            .pair("general.alignment", U32, alignment.to_le_bytes())
            .tensor("a", &[1], 0, 0)
            .data(4);
        builder.data = 1.5_f32.to_le_bytes().to_vec();
        let gguf = builder.open().unwrap();
        assert_eq!(gguf.tensors.get("a").unwrap().to_f32().unwrap(), [1.5]);
    }
}

#[test]
fn tensors_without_elements_and_files_without_tensors() {
    let gguf = Builder::default().tensor("none", &[32, 0], 8, 0).tensor("none either", &[0], 0, 0);
    let gguf = gguf.tensor("some", &[1], 0, 0).data(4).open().unwrap();
    assert_eq!(gguf.tensors.get("none").unwrap().shape, [0, 32]);
    let gguf = Builder::default().pair("a", BOOL, [0]).open().unwrap();
    assert!(gguf.tensors.is_empty() && !gguf.metadata.is_empty());
}

#[test]
fn a_file_and_the_folder_of_only_one_are_the_same_model() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("m.GGUF");
    fs::write(&file, small().build()).unwrap();
    for path in [folder.path(), &file] {
        let model = ModelFiles::open(path).unwrap();
        assert_eq!(model.origin, file);
        let Source::Gguf(metadata) = &model.source else { panic!("{:?}", model.source) };
        assert_eq!(metadata.architecture().unwrap(), "llama");
        assert_eq!(model.tensors.len(), 3);
        let shared = model.tensors.get("weight").unwrap().shared();
        drop(model);
        assert_eq!(*shared, small().data[32..100]);
    }
    let error = ModelFiles::open(&file).unwrap().hugging_face().unwrap_err();
    assert!(matches!(error, Error::NotHuggingFace { .. }), "{error}");

    fs::write(folder.path().join("n.gguf"), small().build()).unwrap();
    let error = ModelFiles::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::SeveralModels { count: 2, .. }), "{error}");

    // a Hugging Face folder stays one, whatever else lies in it
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let error = ModelFiles::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::MissingFile { file: "model.safetensors", .. }), "{error}");
}

#[test]
fn a_part_of_a_split_model_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("m-00001-of-00002.gguf");
    let part = small().pair("split.count", 2, 2_u16.to_le_bytes()).pair("x", STRING, string("y"));
    fs::write(&file, part.pair("f", F32, [0; 4]).build()).unwrap();
    let error = ModelFiles::open(&file).unwrap_err().to_string();
    assert!(error.contains("a part of a split GGUF file is not supported"), "{error}");
}
