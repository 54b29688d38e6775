//! GPT-2: learned positions, pre-norm blocks with LayerNorm and GELU, biases everywhere, the head usually tied.

use serde::Deserialize;
use thermite_device::{
    Activation, Activations, AttentionShape, AttentionWeights, Device, Expand, Layout, MlpWeights, Norm, Step,
};
use thermite_formats::ModelFiles;

use crate::loader::Loader;
use crate::{Architecture, Config, Error, KvCache, Result};

/// What a Hugging Face `config.json` says of a GPT-2.
#[derive(Debug, Clone, Deserialize)]
pub struct Gpt2Config {
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    n_positions: usize,
    vocab_size: usize,
    n_inner: Option<usize>,
    #[serde(default = "default_eps")]
    layer_norm_epsilon: f32,
    #[serde(default = "default_activation")]
    activation_function: String,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(default = "yes")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default)]
    add_cross_attention: bool,
    #[serde(default)]
    eos_token_id: Option<Ids>,
}

/// One id or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

const fn yes() -> bool {
    true
}
const fn default_eps() -> f32 {
    1e-5
}
fn default_activation() -> String {
    "gelu_new".to_owned()
}

impl Gpt2Config {
    /// The config of `files`, its fields checked against each other.
    fn read(files: &ModelFiles) -> Result<Self> {
        let config: Self = files.hugging_face()?.config()?;
        let refuse = |field, value: String, need: &str| {
            Err(Error::Config { path: files.origin.join("config.json"), field, value, need: need.to_owned() })
        };
        for (field, value) in [
            ("n_layer", config.n_layer),
            ("n_embd", config.n_embd),
            ("n_head", config.n_head),
            ("n_positions", config.n_positions),
            ("vocab_size", config.vocab_size),
            ("n_inner", config.n_inner.unwrap_or(1)),
        ] {
            if value == 0 || value > 1 << 24 {
                return refuse(field, value.to_string(), "between 1 and 2^24");
            }
        }
        if !config.n_embd.is_multiple_of(config.n_head) {
            let need = format!("a multiple of n_head ({})", config.n_head);
            return refuse("n_embd", config.n_embd.to_string(), &need);
        }
        if !config.scale_attn_weights {
            return refuse("scale_attn_weights", "false".to_owned(), "true");
        }
        if config.scale_attn_by_inverse_layer_idx {
            return refuse("scale_attn_by_inverse_layer_idx", "true".to_owned(), "false");
        }
        if config.add_cross_attention {
            return refuse("add_cross_attention", "true".to_owned(), "false");
        }
        let eps = config.layer_norm_epsilon;
        if !(eps > 0.0 && eps.is_finite()) {
            return refuse("layer_norm_epsilon", eps.to_string(), "positive");
        }
        if config.activation().is_none() {
            let need = "one of gelu_new, gelu_pytorch_tanh, silu, swish, relu, sigmoid";
            return refuse("activation_function", config.activation_function, need);
        }
        Ok(config)
    }

    fn activation(&self) -> Option<Activation> {
        match self.activation_function.as_str() {
            "gelu_new" | "gelu_pytorch_tanh" => Some(Activation::Gelu),
            "silu" | "swish" => Some(Activation::Silu),
            "relu" => Some(Activation::Relu),
            "sigmoid" => Some(Activation::Sigmoid),
            _ => None,
        }
    }

    fn common(&self) -> Config {
        Config {
            architecture: Architecture::Gpt2,
            n_layer: self.n_layer,
            n_embd: self.n_embd,
            n_head: self.n_head,
            n_kv_head: self.n_head,
            head_dim: self.n_embd / self.n_head,
            n_inner: self.n_inner.unwrap_or(4 * self.n_embd),
            n_vocab: self.vocab_size,
            n_ctx: self.n_positions,
            tied: self.tie_word_embeddings,
            eos_token_ids: match &self.eos_token_id {
                None => Vec::new(),
                Some(Ids::One(id)) => vec![*id],
                Some(Ids::Many(ids)) => ids.clone(),
            },
        }
    }
}

#[derive(Debug)]
struct Layer<D: Device> {
    attention: AttentionWeights<D>,
    mlp: MlpWeights<D>,
}

/// A GPT-2 on a device.
#[derive(Debug)]
pub struct Gpt2<D: Device> {
    wte: D::Matrix,
    wpe: D::Matrix,
    layers: Vec<Layer<D>>,
    ln_f: Norm<D>,
    /// The head where it is not `wte`.
    lm_head: Option<D::Matrix>,
}

impl<D: Device> Gpt2<D> {
    /// Loads config and weights.
    pub(crate) fn load(files: &ModelFiles, device: &D) -> Result<(Config, Self)> {
        let gpt2 = Gpt2Config::read(files)?;
        let config = gpt2.common();
        let tensors = &files.tensors;
        // the bare model and the one with a head name their tensors differently
        let prefix = if tensors.contains("transformer.wte.weight") { "transformer." } else { "" };
        let load = Loader { device, tensors, prefix };
        let (c, inner, vocab) = (config.n_embd, config.n_inner, config.n_vocab);
        let eps = gpt2.layer_norm_epsilon;
        let activation = gpt2.activation().unwrap_or(Activation::Gelu);
        let layer = |i: usize| -> Result<Layer<D>> {
            let h = |name: &str| format!("h.{i}.{name}");
            Ok(Layer {
                attention: AttentionWeights {
                    norm: load.layer_norm(&h("ln_1"), c, eps)?,
                    qkv: load.conv1d(&h("attn.c_attn"), 3 * c, c)?,
                    head_norms: None,
                    rope: None,
                    proj: load.conv1d(&h("attn.c_proj"), c, c)?,
                    post_norm: None,
                },
                mlp: MlpWeights {
                    norm: load.layer_norm(&h("ln_2"), c, eps)?,
                    expand: Expand::Plain { up: load.conv1d(&h("mlp.c_fc"), inner, c)?, activation },
                    down: load.conv1d(&h("mlp.c_proj"), c, inner)?,
                    post_norm: None,
                },
            })
        };
        let model = Self {
            wte: load.matrix("wte.weight", vocab, c, Layout::RowMajor)?,
            wpe: load.matrix("wpe.weight", config.n_ctx, c, Layout::RowMajor)?,
            layers: (0..config.n_layer).map(layer).collect::<Result<_>>()?,
            ln_f: load.layer_norm("ln_f", c, eps)?,
            lm_head: match config.tied {
                true => None,
                false => {
                    let head = Loader { prefix: "", ..load };
                    Some(head.matrix("lm_head.weight", vocab, c, Layout::RowMajor)?)
                }
            },
        };
        Ok((config, model))
    }

    /// Logits of the step's output rows, into `acts.logits`.
    pub(crate) fn forward(
        &self,
        d: &D,
        step: &Step<D>,
        cache: &mut KvCache<D>,
        acts: &mut Activations<D>,
        heads: AttentionShape,
    ) -> Result<()> {
        let n = step.rows();
        d.embedding_forward(&self.wte, &step.tokens, &mut acts.residual, n)?;
        d.positional_embedding_add(&self.wpe, &step.positions, &mut acts.residual, n)?;
        for (layer, kv) in self.layers.iter().zip(&mut cache.layers) {
            d.layer(&layer.attention, &layer.mlp, acts, kv, step, heads)?;
        }
        d.lm_head(&self.ln_f, self.lm_head.as_ref().unwrap_or(&self.wte), acts, step)?;
        Ok(())
    }
}
