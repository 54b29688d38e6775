//! GPT-2: learned positions, pre-norm blocks with LayerNorm and GELU, biases everywhere, the head usually tied.

mod config;

use thermite_device::{Activations, AttentionWeights, Device, Expand, MlpWeights, Norm, Step};
use thermite_formats::TensorView;

pub(crate) use config::Gpt2Config;

use crate::config::Name;
use crate::layer::Layer;
use crate::loader::{Folder, Loader};
use crate::{KvCache, Options, Result};

const EMBEDDING: Name = Name("wte", "token_embd");
const POSITIONS: Name = Name("wpe", "position_embd");
const NORM: Name = Name("ln_f", "output_norm");
const HEAD: Name = Name("lm_head", "output");

const ATTENTION_NORM: Name = Name("ln_1", "attn_norm");
const QKV: Name = Name("attn.c_attn", "attn_qkv");
const PROJ: Name = Name("attn.c_proj", "attn_output");
const MLP_NORM: Name = Name("ln_2", "ffn_norm");
const UP: Name = Name("mlp.c_fc", "ffn_up");
const DOWN: Name = Name("mlp.c_proj", "ffn_down");

pub(crate) const FOLDER: Folder = Folder { roots: &["transformer.", ""], layers: "h.", embedding: EMBEDDING };

/// Whether a tensor holds no weights: old files have masks of attention beside them.
pub(crate) fn is_mask(tensor: &TensorView<'_>) -> bool {
    tensor.name.ends_with(".attn.bias") || tensor.name.ends_with(".attn.masked_bias")
}

/// A GPT-2 on a device.
#[derive(Debug)]
pub(crate) struct Gpt2<D: Device> {
    wte: D::Matrix,
    wpe: D::Matrix,
    layers: Vec<Layer<D>>,
    pub(crate) ln_f: Norm<D>,
    /// The head where it is not `wte`.
    lm_head: Option<D::Matrix>,
}

impl<D: Device> Gpt2<D> {
    /// Takes the weights that `config` asks for.
    pub(crate) fn load(config: &Gpt2Config, load: &Loader<'_, D>, options: &Options) -> Result<Self> {
        let Gpt2Config { sizes, eps, .. } = config;
        let (n_vocab, c) = (sizes.n_vocab, sizes.n_embd);
        let model = load.model();
        Ok(Self {
            wte: model.matrix(EMBEDDING, n_vocab, c)?,
            wpe: model.matrix(POSITIONS, sizes.n_ctx, c)?,
            layers: (0..sizes.n_layer).map(|i| layer(config, load, i, options)).collect::<Result<_>>()?,
            ln_f: model.layer_norm(NORM, c, *eps)?,
            lm_head: match sizes.tied {
                true => None,
                false => Some(load.beside().matrix(HEAD, n_vocab, c)?),
            },
        })
    }

    /// Logits of the step's output rows, into `acts.logits`.
    pub(crate) fn forward(
        &self,
        d: &D,
        step: &Step<D>,
        cache: &mut KvCache<D>,
        acts: &mut Activations<D>,
    ) -> Result<()> {
        let n = step.rows();
        d.embedding_forward(&self.wte, &step.tokens, &mut acts.residual, n)?;
        d.positional_embedding_add(&self.wpe, &step.positions, &mut acts.residual, n)?;
        for (layer, kv) in self.layers.iter().zip(&mut cache.layers) {
            d.layer(&layer.attention, &layer.mlp, acts, kv, step, layer.heads)?;
        }
        d.lm_head(&self.ln_f, self.lm_head.as_ref().unwrap_or(&self.wte), acts, step)?;
        Ok(())
    }
}

/// Layer `i`.
fn layer<D: Device>(
    config: &Gpt2Config,
    load: &Loader<'_, D>,
    i: usize,
    options: &Options,
) -> Result<Layer<D>> {
    let Gpt2Config { sizes, eps, activation } = config;
    let (c, inner) = (sizes.n_embd, sizes.n_inner);
    let w = load.layer(i);
    Ok(Layer {
        attention: AttentionWeights {
            norm: w.layer_norm(ATTENTION_NORM, c, *eps)?,
            qkv: w.conv1d(QKV, 3 * c, c)?,
            head_norms: None,
            rope: None,
            proj: w.conv1d(PROJ, c, c)?,
            post_norm: None,
        },
        mlp: MlpWeights {
            norm: w.layer_norm(MLP_NORM, c, *eps)?,
            expand: Expand::Plain { up: w.conv1d(UP, inner, c)?, activation: *activation },
            down: w.conv1d(DOWN, c, inner)?,
            post_norm: None,
        },
        heads: sizes.attention(options.attention),
    })
}
