//! What a `config.json` or GGUF metadata says of a GPT-2.

use serde_json::Value;
use thermite_device::Activation;
use thermite_formats::ModelFiles;

use crate::Result;
use crate::config::{Architecture, Config, Fields, Name, n_vocab, tied};

const N_LAYER: Name = Name("n_layer", "block_count");
const N_EMBD: Name = Name("n_embd", "embedding_length");
const N_HEAD: Name = Name("n_head", "attention.head_count");
const N_CTX: Name = Name("n_positions", "context_length");
const N_INNER: Name = Name("n_inner", "feed_forward_length");
const EPS: Name = Name("layer_norm_epsilon", "attention.layer_norm_epsilon");
const ACTIVATION: Name = Name("activation_function", "");

/// A GPT-2.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gpt2Config {
    pub(crate) sizes: Config,
    /// Added to the variance in norms.
    pub(crate) eps: f32,
    pub(crate) activation: Activation,
}

impl Gpt2Config {
    pub(crate) fn read(fields: &Fields, files: &ModelFiles) -> Result<Self> {
        for (name, value) in [
            ("scale_attn_weights", true),
            ("scale_attn_by_inverse_layer_idx", false),
            ("add_cross_attention", false),
        ] {
            fields.only(Name(name, ""), &Value::from(value))?;
        }
        let (n_embd, n_head) = (fields.size(N_EMBD)?, fields.size(N_HEAD)?);
        fields.only(Name("", "attention.head_count_kv"), &Value::from(n_head))?;
        if !n_embd.is_multiple_of(n_head) {
            let need = format!("a multiple of {} ({n_head})", N_HEAD.of(fields.format()));
            return Err(fields.refuse(N_EMBD, &Value::from(n_embd), &need));
        }
        let config = Self {
            sizes: Config {
                architecture: Architecture::Gpt2,
                n_layer: fields.size(N_LAYER)?,
                n_embd,
                n_head,
                n_kv_head: n_head,
                head_dim: n_embd / n_head,
                n_inner: fields.size_or(N_INNER, Some(4 * n_embd))?,
                n_vocab: n_vocab(fields, files, None)?,
                n_ctx: fields.size(N_CTX)?,
                tied: tied(fields, files, true)?,
            },
            eps: fields.find_positive(EPS)?.unwrap_or(1e-5) as f32,
            activation: activation(fields)?,
        };
        fields.finish(HARMLESS)?;
        Ok(config)
    }
}

fn activation(fields: &Fields) -> Result<Activation> {
    const NEED: &str = "one of gelu_new, gelu_pytorch_tanh, silu, swish, relu, sigmoid";
    let found = fields.find::<String>(ACTIVATION, NEED)?;
    Ok(match found.as_deref() {
        None | Some("gelu_new" | "gelu_pytorch_tanh") => Activation::Gelu,
        Some("silu" | "swish") => Activation::Silu,
        Some("relu") => Activation::Relu,
        Some("sigmoid") => Activation::Sigmoid,
        Some(other) => return Err(fields.refuse(ACTIVATION, &Value::from(other), NEED)),
    })
}

/// Fields that change no logit.
const HARMLESS: &[&str] = &[
    // config.json: what training, other programs and text need
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attn_pdrop",
    "bos_token_id",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "label2id",
    "n_ctx", // an older name of n_positions, beside it
    "output_past",
    "pad_token_id",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];
