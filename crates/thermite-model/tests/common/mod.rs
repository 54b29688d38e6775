//! The embedded model on a device, a sequence to run through it, and what must come out.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

pub(crate) mod gguf;
pub(crate) mod oracle;
pub(crate) mod tiny;

use serde::Deserialize;
use thermite_device::cpu::{Cpu, Isa};
use thermite_device::emulated::Emulated;
use thermite_device::{Batch, Device, Dtype, Outputs};
use thermite_formats::{EmbeddedModel, ModelFiles};
use thermite_model::{DecodingRow, KvCache, Model, Options, Stepper};

pub(crate) const BLOCK: usize = 16;

pub(crate) fn files() -> ModelFiles {
    ModelFiles::embedded(EmbeddedModel {
        name: "stories-3m",
        config_json: thermite_stories_3m::CONFIG_JSON,
        tokenizer_json: thermite_stories_3m::TOKENIZER_JSON,
        tokenizer_config_json: None,
        generation_config_json: None,
        safetensors: thermite_stories_3m::MODEL_SAFETENSORS,
    })
    .unwrap()
}

pub(crate) fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::with(Some(threads), isa).unwrap()
}

/// A model with a cache for `sequences` whole contexts, blocks dealt out so that no sequence's are in order.
pub(crate) struct Runner<D: Device> {
    pub(crate) model: Model<D>,
    pub(crate) cache: KvCache<D>,
    context: usize,
    sequences: usize,
    /// Tokens of the longest sequence so far.
    pub(crate) len: usize,
}

impl<D: Device> Runner<D> {
    pub(crate) fn new(device: D, options: Options, sequences: usize) -> Self {
        Self::with_cache(device, options, sequences, Dtype::F32)
    }

    pub(crate) fn with_cache(device: D, options: Options, sequences: usize, dtype: Dtype) -> Self {
        Self::of(&files(), device, options, sequences, dtype)
    }

    pub(crate) fn of(
        files: &ModelFiles,
        device: D,
        options: Options,
        sequences: usize,
        dtype: Dtype,
    ) -> Self {
        let model = Model::load(files, device, options).unwrap();
        let context = options.context.unwrap_or(model.config().n_ctx);
        let blocks = context.div_ceil(BLOCK) * sequences;
        let cache = KvCache::new(model.device(), model.config(), blocks, BLOCK, dtype).unwrap();
        Self { model, cache, context, sequences, len: 0 }
    }

    pub(crate) fn blocks(&self, sequence: usize) -> Vec<i32> {
        let all = self.context.div_ceil(BLOCK);
        (0..all).rev().map(|i| (i * self.sequences + sequence) as i32).collect()
    }

    /// Runs `batches` of (sequence, tokens, start, outputs) and gives the logits of the wanted rows.
    pub(crate) fn run(&mut self, spans: &[(usize, &[u32], usize, Outputs)]) -> Vec<Vec<f32>> {
        let mut batch = Batch::default();
        for &(sequence, tokens, start, outputs) in spans {
            batch.push(tokens, start, &self.blocks(sequence), BLOCK, outputs).unwrap();
        }
        self.model.forward(&batch, &mut self.cache).unwrap();
        self.len = spans.iter().map(|(_, tokens, start, _)| start + tokens.len()).max().unwrap_or(0);
        let v = self.model.config().n_vocab;
        (0..batch.outputs.len())
            .map(|row| {
                let mut logits = vec![0.0; v];
                self.model.read_logits(row, &mut logits).unwrap();
                logits
            })
            .collect()
    }

    /// The last position's logits of one prompt.
    pub(crate) fn prompt(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.run(&[(0, tokens, 0, Outputs::Last)]).remove(0)
    }
}

impl Runner<Emulated> {
    /// What steps on the device alone choose after `token` at `position`, and what the last run but one of five launched.
    /// The third run of eight is recorded, the fourth replays it, and what is left goes step by step.
    pub(crate) fn alone(
        &mut self,
        mut stepper: Stepper<Emulated>,
        token: u32,
        position: usize,
    ) -> (Vec<i32>, Vec<String>) {
        let blocks = self.blocks(0);
        let row = DecodingRow { token, position, blocks: &blocks };
        stepper.start(&self.model, &[row], &self.cache).unwrap();
        let counts = [8, 8, 8, 8, 1];
        let mut launched = Vec::new();
        for count in counts {
            launched = self.model.device().launcher().take_launched();
            stepper.run(&mut self.model, &mut self.cache, count).unwrap();
        }
        let mut tokens = vec![0; counts.iter().sum()];
        let device = self.model.device();
        stepper.read(&self.model, &device.mark().unwrap(), 0, 0, &mut tokens).unwrap();
        (tokens, launched)
    }
}

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    pub(crate) greedy: Vec<u32>,
    pub(crate) last_logits: Vec<f32>,
}

pub(crate) fn prompts() -> Vec<Prompt> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/stories-3m/reference.json");
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<Reference>(&text).unwrap().prompts
}

pub(crate) fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}
