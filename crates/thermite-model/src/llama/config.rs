//! What tells the models of the LLaMA family apart, read from `config.json` or GGUF metadata.

use thermite_formats::ModelFiles;

use crate::Result;
use crate::config::{
    Architecture, Config, Defaults, Fields, Format, HARMLESS, Name, RopeConfig, WINDOW, activation, eps,
    sizes, sliding_layers,
};

const ACTIVATION: Name = Name("hidden_act", "");
const ATTENTION_BIAS: Name = Name("attention_bias", "");
const MLP_BIAS: Name = Name("mlp_bias", "");
const USE_WINDOW: Name = Name("use_sliding_window", "");
const FIRST_WINDOW: Name = Name("max_window_layers", "");

/// A model of the LLaMA family.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LlamaConfig {
    pub(crate) sizes: Config,
    /// Added to the mean square in norms.
    pub(crate) eps: f32,
    pub(crate) rope: RopeConfig,
    pub(crate) biases: Biases,
    /// Whether each query and key head has a norm.
    pub(crate) head_norms: bool,
    /// How many tokens each layer sees; all at 0.
    pub(crate) windows: Vec<usize>,
}

/// Which projections have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Biases {
    /// Queries, keys and values.
    pub(crate) qkv: bool,
    /// Output of attention.
    pub(crate) proj: bool,
    /// All three of the MLP.
    pub(crate) mlp: bool,
}

impl LlamaConfig {
    pub(crate) fn read(architecture: Architecture, fields: &Fields, files: &ModelFiles) -> Result<Self> {
        let sizes = sizes(fields, files, architecture, defaults(architecture))?;
        activation(fields, ACTIVATION, &["silu", "swish"])?;
        let config = Self {
            eps: eps(fields)?,
            rope: RopeConfig::read(fields, 10_000.0)?,
            biases: match fields.format() {
                Format::HuggingFace => hugging_face_biases(architecture, fields)?,
                Format::Gguf => gguf_biases(files),
            },
            head_norms: architecture == Architecture::Qwen3,
            windows: windows(architecture, fields, sizes.n_layer)?,
            sizes,
        };
        fields.finish(HARMLESS)?;
        Ok(config)
    }
}

/// What each architecture takes for granted where `config.json` is silent.
const fn defaults(architecture: Architecture) -> Defaults {
    match architecture {
        Architecture::Mistral => Defaults { n_kv_head: Some(8), ..Defaults::NONE },
        Architecture::Qwen2 => Defaults { n_kv_head: Some(32), ..Defaults::NONE },
        Architecture::Qwen3 => Defaults { n_kv_head: Some(32), head_dim: Some(128), ..Defaults::NONE },
        _ => Defaults::NONE,
    }
}

fn hugging_face_biases(architecture: Architecture, fields: &Fields) -> Result<Biases> {
    Ok(match architecture {
        Architecture::Qwen2 => Biases { qkv: true, proj: false, mlp: false },
        Architecture::Mistral => Biases { qkv: false, proj: false, mlp: false },
        _ => {
            let attention = fields.flag(ATTENTION_BIAS, false)?;
            Biases { qkv: attention, proj: attention, mlp: fields.flag(MLP_BIAS, false)? }
        }
    })
}

/// GGUF has no field for biases: they are there, or not.
fn gguf_biases(files: &ModelFiles) -> Biases {
    let has = |name: &str| files.tensors.contains(&format!("blk.0.{name}.bias"));
    Biases { qkv: has("attn_q"), proj: has("attn_output"), mlp: has("ffn_up") }
}

/// How many tokens each layer sees.
fn windows(architecture: Architecture, fields: &Fields, n_layer: usize) -> Result<Vec<usize>> {
    let window = match (fields.format(), architecture) {
        (Format::HuggingFace, Architecture::Llama) => None,
        (Format::HuggingFace, Architecture::Mistral) if !fields.contains(WINDOW) => Some(4096),
        _ => fields.find_size(WINDOW)?,
    };
    // Qwen turns its window on by a flag, and from a certain layer on
    let (on, first) = match (fields.format(), architecture) {
        (Format::HuggingFace, Architecture::Qwen2 | Architecture::Qwen3) => {
            let first = fields.find::<u32>(FIRST_WINDOW, "a number of layers")?.unwrap_or(28);
            (fields.flag(USE_WINDOW, false)?, first as usize)
        }
        _ => (true, 0),
    };
    let window = window.filter(|_| on);
    let slides = sliding_layers(fields, n_layer, |layer| layer >= first)?;
    Ok(slides.into_iter().map(|slides| window.filter(|_| slides).unwrap_or(0)).collect())
}
