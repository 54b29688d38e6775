//! Two real models against another engine's logits and greedy tokens, both with weights made f32 beforehand. The
//! models are fetched by `models/fetch.sh`; then `cargo test -p thermite-model --release --test real -- --ignored`.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Runner, argmax};
use serde::Deserialize;
use thermite_device::cpu::Cpu;
use thermite_device::{Dtype, Outputs};
use thermite_formats::ModelFiles;
use thermite_model::{Options, Weights};

/// One of so many logits is kept.
const STRIDE: usize = 16;

/// By how much a logit may differ, and how much the largest must stand out for its token to be the same.
const TOLERANCE: f32 = 2e-3;
const MARGIN: f32 = 0.01;

#[derive(Deserialize)]
struct Prompt {
    name: String,
    ids: Vec<u32>,
    greedy: Vec<u32>,
    logits: Vec<f32>,
    margins: Vec<f32>,
}

fn check(model: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ModelFiles::open(root.join(format!("../../models/downloaded/{model}.gguf"))).unwrap();
    let options = Options { weights: Weights::F32, context: Some(128), ..Options::default() };
    let mut runner = Runner::of(&files, Cpu::new(None).unwrap(), options, 1, Dtype::F32);
    let folder = root.join("tests/real");
    let prompts: Vec<Prompt> =
        serde_json::from_slice(&std::fs::read(folder.join(format!("{model}.json"))).unwrap()).unwrap();
    for prompt in prompts {
        let want = std::fs::read(folder.join(format!("{model}.{}.f32", prompt.name))).unwrap();
        let want: Vec<f32> = want.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mut logits = runner.prompt(&prompt.ids);
        let have = logits.iter().step_by(STRIDE);
        assert_eq!(have.len(), want.len());
        let worst = have.zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{model}, {}: logits are off by at most {worst:e}", prompt.name);
        assert!(worst < TOLERANCE, "{worst}");

        let steps = prompt.greedy.iter().zip(&prompt.logits).zip(&prompt.margins);
        for (len, ((&id, &logit), &margin)) in (prompt.ids.len()..).zip(steps) {
            let off = (logits[id as usize] - logit).abs();
            assert!(off < TOLERANCE, "after {len} tokens: {off}");
            assert!(margin <= MARGIN || argmax(&logits) == id, "after {len} tokens, by {margin}");
            logits = runner.run(&[(0, &[id], len, Outputs::Last)]).remove(0);
        }
    }
}

#[test]
#[ignore = "needs models/fetch.sh"]
fn smollm2_writes_the_reference() {
    check("SmolLM2-135M-Instruct.Q4_1");
}

#[test]
#[ignore = "needs models/fetch.sh"]
fn gemma_writes_the_reference() {
    check("gemma-3-270m-q4_k_m");
}
