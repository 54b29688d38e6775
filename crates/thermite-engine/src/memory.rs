//! How much memory a model will take, known from its files alone.

use serde::Serialize;
use thermite_device::Dtype;
use thermite_formats::{ModelFiles, TensorView};
use thermite_model::Config;

use crate::Result;
use crate::engine::{BLOCK_SIZE, EngineOptions};

/// Bytes that an engine allocates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Tokens of the context that the cache has room for.
    pub context: usize,
    /// Matrices as they are stored, vectors as f32, and tables of rotary angles.
    pub weights: usize,
    /// Keys and values of the context, in all layers: of the type that the options give, or as the CPU has them.
    pub kv_cache: usize,
    /// What flows between kernels, for one chunk of a prompt, and what sampling needs; a GPU has the pieces of attention
    /// besides.
    pub activations: usize,
}

impl MemoryPlan {
    /// What an engine over `files` with these `options` allocates; `config` is the model's.
    ///
    /// # Errors
    /// A context that the model does not have.
    pub fn new(files: &ModelFiles, config: &Config, options: &EngineOptions) -> Result<Self> {
        let context = options.context_of(config)?;
        let blocks = options.blocks(context);
        let kv_dtype = options.kv_dtype.unwrap_or(Dtype::F32);
        let weights = files.tensors.iter().filter(|tensor| is_weight(tensor, config));
        Ok(Self {
            context,
            weights: weights.map(|tensor| weight_bytes(&tensor)).sum::<usize>()
                + config.rope_tables() * context * config.head_dim * Dtype::F32.bytes(),
            kv_cache: config.n_layer * config.kv_shape(blocks, BLOCK_SIZE, kv_dtype).bytes(),
            activations: activation_bytes(config, options),
        })
    }

    /// All of it.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.weights + self.kv_cache + self.activations
    }
}

/// Whether the model reads the tensor: files may hold attention masks besides, and the head of a model that has it
/// tied to the embedding.
#[must_use]
pub fn is_weight(tensor: &TensorView<'_>, config: &Config) -> bool {
    matches!(tensor.shape.len(), 1 | 2) && !config.is_second_head(tensor.name)
}

fn weight_bytes(tensor: &TensorView<'_>) -> usize {
    match tensor.shape.len() {
        1 => tensor.len() * Dtype::F32.bytes(),
        _ => tensor.data.len(),
    }
}

/// The buffers of [`thermite_device::Activations`], as the CPU has them, and of the sampler: four bytes a value.
fn activation_bytes(config: &Config, options: &EngineOptions) -> usize {
    let Config { n_embd, n_inner, n_vocab, .. } = *config;
    let rows = options.rows();
    let hidden = if config.is_gated() { 3 } else { 2 };
    let attention = config.attention(options.attention);
    let row = 3 * n_embd + attention.qkv_width() + attention.n_head * attention.head_dim + hidden * n_inner;
    let output = n_embd + n_vocab;
    let sampler = 3 * n_vocab + 1 + 1 + 2 + 1;
    4 * (rows * row + options.max_outputs * output + sampler)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BUILTIN, Engine, open_model};
    use thermite_device::cpu::Cpu;

    /// Bytes of all buffers in the debug output of an engine: `CpuBuffer(10 x f32)`.
    fn buffer_bytes(debug: &str) -> usize {
        let buffers = debug.split("CpuBuffer(").skip(1).map(|rest| {
            let (len, rest) = rest.split_once(" x ").unwrap();
            let width = if rest.starts_with("f16") { 2 } else { 4 };
            len.parse::<usize>().unwrap() * width
        });
        buffers.sum()
    }

    #[test]
    fn the_plan_is_what_an_engine_allocates() {
        let files = open_model(BUILTIN).unwrap();
        for (context, chunk, kv_dtype) in
            [(None, 512, None), (Some(100), 7, Some(Dtype::F16)), (Some(33), 64, Some(Dtype::F32))]
        {
            let options = EngineOptions { context, chunk, kv_dtype, ..EngineOptions::default() };
            let engine = Engine::load(&files, Cpu::new(Some(1)).unwrap(), &options).unwrap();
            let plan = MemoryPlan::new(&files, engine.config(), &options).unwrap();
            let allocated = buffer_bytes(&format!("{engine:?}"));
            // a batch's indices, grown with the batch, are left out of the plan
            assert!((plan.total()..plan.total() + 64).contains(&allocated), "{plan:?}: {allocated}");
        }
    }
}
