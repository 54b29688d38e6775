//! A model written as GGUF is the same model: what `thermite_formats::convert` renames, reorders and describes is
//! read back by the loaders to the same logits.
#![allow(clippy::unwrap_used)]

mod common;

use std::borrow::Cow;

use common::tiny::{N_VOCAB, tiny_models};
use common::{Runner, cpu};
use tempfile::TempDir;
use thermite_device::cpu::{Isa, QuantizedActivations};
use thermite_device::{Dtype, Outputs};
use thermite_formats::convert::{Plan, Types};
use thermite_formats::{DType, ModelFiles, Source};
use thermite_model::Options;

/// A tokenizer for models that have none: conversion wants one.
const TOKENIZER: &str = r#"{
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}
}"#;

fn logits(files: &ModelFiles, tokens: &[u32]) -> Vec<Vec<f32>> {
    let options = Options { max_rows: 128, max_outputs: 64, ..Options::default() };
    // the weights are compared, not what 8-bit activations make of them
    let device = cpu(1, Isa::detect()).with_activations(QuantizedActivations::F32);
    let mut runner = Runner::of(files, device, options, 1, Dtype::F32);
    runner.run(&[(0, tokens, 0, Outputs::All)])
}

fn converted(files: &ModelFiles, dtype: DType, dir: &TempDir) -> thermite_formats::Result<ModelFiles> {
    let path = dir.path().join("converted.gguf");
    Plan::new(files, Types::of(dtype))?.write(&path, 1, |_| {})?;
    ModelFiles::open(path)
}

fn worst(have: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    assert_eq!(have.len(), want.len());
    let pairs = have.iter().flatten().zip(want.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn small_models_of_every_architecture() {
    let tokens: Vec<u32> = (0..41).map(|i| (i * i * 7 + i * 13 + 5) % N_VOCAB as u32).collect();
    let (dir, mut refused) = (TempDir::new().unwrap(), Vec::new());
    for tiny in tiny_models() {
        let mut files = tiny.folder();
        let Source::HuggingFace(folder) = &mut files.source else { panic!("{:?}", files.source) };
        folder.tokenizer_json = Some(Cow::Borrowed(TOKENIZER.as_bytes()));
        let gguf = match converted(&files, DType::F32, &dir) {
            Ok(gguf) => gguf,
            Err(error) => {
                refused.push(format!("{}: {error}", tiny.name));
                continue;
            }
        };
        let worst = worst(&logits(&gguf, &tokens), &logits(&files, &tokens));
        // the divisors of LLaMA 3 are rounded to f32 in GGUF
        let limit = if tiny.name == "llama" { 1e-5 } else { 0.0 };
        assert!(worst <= limit, "{}: off by {worst}", tiny.name);
    }
    // windows in some layers, for which GGUF has no key there
    assert_eq!(refused, ["qwen2: qwen2/config.json: use_sliding_window is true, must be false"]);
}

#[test]
fn the_embedded_model() {
    let (dir, files) = (TempDir::new().unwrap(), common::files());
    let tokens: Vec<u32> = (0..60).map(|i| i * 61 % 4096).collect();
    let want = logits(&files, &tokens);
    // vectors and positions are f16 in the folder, and f32 here: the same numbers
    assert_eq!(logits(&converted(&files, DType::F16, &dir).unwrap(), &tokens), want);
    let coarse = worst(&logits(&converted(&files, DType::Q8_0, &dir).unwrap(), &tokens), &want);
    assert!(coarse > 0.0 && coarse < 0.5, "{coarse}");
}
