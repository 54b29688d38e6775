//! The fields that the LLaMA and Gemma families share.

use serde_json::Value;
use thermite_formats::ModelFiles;

use super::fields::{Fields, Format, Name};
use super::{Architecture, Config};
use crate::Result;

const N_LAYER: Name = Name("num_hidden_layers", "block_count");
const N_EMBD: Name = Name("hidden_size", "embedding_length");
const N_HEAD: Name = Name("num_attention_heads", "attention.head_count");
const N_KV_HEAD: Name = Name("num_key_value_heads", "attention.head_count_kv");
const HEAD_DIM: Name = Name("head_dim", "attention.key_length");
const VALUE_DIM: Name = Name("", "attention.value_length");
const ROPE_DIM: Name = Name("", "rope.dimension_count");
const N_INNER: Name = Name("intermediate_size", "feed_forward_length");
const N_VOCAB: Name = Name("vocab_size", "vocab_size");
const N_CTX: Name = Name("max_position_embeddings", "context_length");
const TIED: Name = Name("tie_word_embeddings", "");
const EPS: Name = Name("rms_norm_eps", "attention.layer_norm_rms_epsilon");
/// How many tokens a layer with a window sees, its own among them.
pub(crate) const WINDOW: Name = Name("sliding_window", "attention.sliding_window");
const LAYER_TYPES: Name = Name("layer_types", "");

/// What a family says of fields that a `config.json` leaves out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    /// Query heads, vocabulary and context; to be given where there is none.
    pub(crate) n_head: Option<usize>,
    pub(crate) n_vocab: Option<usize>,
    pub(crate) n_ctx: Option<usize>,
    /// Key and value heads; as many as queries have where there is none.
    pub(crate) n_kv_head: Option<usize>,
    /// Channels a head; `n_embd / n_head` where there is none.
    pub(crate) head_dim: Option<usize>,
    /// Whether the head is the embedding.
    pub(crate) tied: bool,
}

impl Defaults {
    /// Every size is said.
    pub(crate) const NONE: Self =
        Self { n_head: None, n_vocab: None, n_ctx: None, n_kv_head: None, head_dim: None, tied: false };
}

/// The sizes, checked against each other.
pub(crate) fn sizes(
    fields: &Fields,
    files: &ModelFiles,
    architecture: Architecture,
    defaults: Defaults,
) -> Result<Config> {
    let gguf = fields.format() == Format::Gguf;
    let defaults = if gguf { Defaults::NONE } else { defaults };
    for (name, value) in ONLY {
        fields.only(*name, &value.json())?;
    }
    let n_embd = fields.size(N_EMBD)?;
    let n_head = fields.size_or(N_HEAD, defaults.n_head)?;
    let n_kv_head = fields.find_size(N_KV_HEAD)?.or(defaults.n_kv_head).unwrap_or(n_head);
    if !n_head.is_multiple_of(n_kv_head) {
        let need = format!("a divisor of {n_head}, the number of query heads");
        return Err(fields.refuse(N_KV_HEAD, &Value::from(n_kv_head), &need));
    }
    let head_dim = match fields.find_size(HEAD_DIM)?.or(defaults.head_dim) {
        Some(head_dim) => head_dim,
        None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
        None => {
            let need =
                format!("a multiple of {n_head}, the number of heads, where no size of a head is given");
            return Err(fields.refuse(N_EMBD, &Value::from(n_embd), &need));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(fields.refuse(HEAD_DIM, &Value::from(head_dim), "even: channels are rotated in pairs"));
    }
    if gguf {
        fields.only(VALUE_DIM, &Value::from(head_dim))?;
        fields.only(ROPE_DIM, &Value::from(head_dim))?;
    }
    Ok(Config {
        architecture,
        n_layer: fields.size(N_LAYER)?,
        n_embd,
        n_head,
        n_kv_head,
        head_dim,
        n_inner: fields.size(N_INNER)?,
        n_vocab: n_vocab(fields, files, defaults.n_vocab)?,
        n_ctx: fields.size_or(N_CTX, defaults.n_ctx)?,
        tied: tied(fields, files, defaults.tied)?,
    })
}

/// The size of the vocabulary. Not all GGUF files say it: the embedding has it.
pub(crate) fn n_vocab(fields: &Fields, files: &ModelFiles, default: Option<usize>) -> Result<usize> {
    let rows = || files.tensors.get("token_embd.weight").ok()?.shape.first().copied();
    let default = if fields.format() == Format::Gguf { rows() } else { default };
    fields.size_or(N_VOCAB, default)
}

/// Whether the head is the embedding. In GGUF it is where there is no other.
pub(crate) fn tied(fields: &Fields, files: &ModelFiles, default: bool) -> Result<bool> {
    match fields.format() {
        Format::HuggingFace => fields.flag(TIED, default),
        Format::Gguf => Ok(!files.tensors.contains("output.weight")),
    }
}

/// What is added to the mean square in norms.
pub(crate) fn eps(fields: &Fields) -> Result<f32> {
    let eps = match fields.format() {
        Format::HuggingFace => fields.find_positive(EPS)?.unwrap_or(1e-6),
        Format::Gguf => fields.get_positive(EPS)?,
    };
    Ok(eps as f32)
}

/// Refuses an activation that is not `need`.
pub(crate) fn activation(fields: &Fields, name: Name, need: &[&str]) -> Result<()> {
    match fields.find::<String>(name, "a name")? {
        Some(found) if !need.contains(&found.as_str()) => {
            Err(fields.refuse(name, &Value::from(found), &need.join(" or ")))
        }
        _ => Ok(()),
    }
}

/// Which layers see only a window: `layer_types` where the config has it, else `slides`.
pub(crate) fn sliding_layers(
    fields: &Fields,
    n_layer: usize,
    slides: impl Fn(usize) -> bool,
) -> Result<Vec<bool>> {
    const NEED: &str = "a list of full_attention and sliding_attention, one for each layer";
    let Some(types) = fields.find::<Vec<String>>(LAYER_TYPES, NEED)? else {
        return Ok((0..n_layer).map(slides).collect());
    };
    let layers = types.iter().map(|kind| match kind.as_str() {
        "full_attention" => Some(false),
        "sliding_attention" => Some(true),
        _ => None,
    });
    match layers.collect::<Option<Vec<bool>>>() {
        Some(layers) if layers.len() == n_layer => Ok(layers),
        _ => Err(fields.refuse(LAYER_TYPES, &Value::from(types), NEED)),
    }
}

/// A value that a field must have.
#[derive(Debug, Clone, Copy)]
enum Only {
    Flag(bool),
    Number(u32),
}

impl Only {
    fn json(self) -> Value {
        match self {
            Self::Flag(flag) => flag.into(),
            Self::Number(number) => number.into(),
        }
    }
}

/// Fields that would change the result, and the one value at which they are supported.
const ONLY: &[(Name, Only)] = &[
    (Name("add_cross_attention", ""), Only::Flag(false)),
    (Name("partial_rotary_factor", ""), Only::Number(1)),
    (Name("rope_interleaved", ""), Only::Flag(false)),
    (Name("use_bidirectional_attention", ""), Only::Flag(false)),
    (Name("use_mrope", ""), Only::Flag(false)),
    (Name("", "attention.causal"), Only::Flag(true)),
    (Name("", "expert_count"), Only::Number(0)),
    (Name("", "expert_used_count"), Only::Number(0)),
];

/// Fields that change no logit.
pub(crate) const HARMLESS: &[&str] = &[
    // config.json: what training, other programs and text need
    "_attn_implementation_autoset",
    "_name_or_path",
    "_sliding_window_pattern", // as layer_types, beside it
    "architectures",
    "attention_dropout",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "return_dict",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    // GGUF
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
];
