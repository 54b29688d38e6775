//! The LLaMA family: RMSNorm before each block, rotary positions, grouped queries, SwiGLU. Mistral adds windows,
//! Qwen 2 biases, Qwen 3 norms of the heads.

mod config;

use std::sync::Arc;

use thermite_device::{
    Activations, AttentionShape, AttentionWeights, Device, Expand, Gate, HeadNorms, MlpWeights, Norm, Rope,
    Step,
};
use thermite_formats::TensorView;

pub(crate) use config::LlamaConfig;

use crate::config::{Architecture, Format, Name};
use crate::layer::{Layer, rope};
use crate::loader::{Folder, Loader, RowOrder, Rows};
use crate::names::{
    ATTENTION_NORM, DOWN, EMBEDDING, GATE, HEAD, K, K_NORM, NORM, PROJ, Q, Q_NORM, ROPE_DIVISORS, UP, V,
};
use crate::{KvCache, Options, Result};

const MLP_NORM: Name = Name("post_attention_layernorm", "ffn_norm");

/// A model of the LLaMA family on a device.
#[derive(Debug)]
pub(crate) struct Llama<D: Device> {
    embedding: D::Matrix,
    layers: Vec<Layer<D>>,
    pub(crate) norm: Norm<D>,
    /// The head where it is not the embedding.
    lm_head: Option<D::Matrix>,
}

pub(crate) const FOLDER: Folder = Folder { roots: &["model.", ""], layers: "layers.", embedding: EMBEDDING };

/// Whether a tensor is the angles of the rotation, which follow from the config.
pub(crate) fn is_angle(tensor: &TensorView<'_>) -> bool {
    tensor.name.ends_with("rotary_emb.inv_freq")
}

impl<D: Device> Llama<D> {
    /// Takes the weights that `config` asks for.
    pub(crate) fn load(config: &LlamaConfig, load: &Loader<'_, D>, options: &Options) -> Result<Self> {
        let LlamaConfig { sizes, eps, .. } = config;
        let (n_vocab, n_embd) = (sizes.n_vocab, sizes.n_embd);
        let (model, beside) = (load.model(), load.beside());
        let mut angles = config.rope.clone();
        if beside.contains(ROPE_DIVISORS, ".weight") {
            angles.divisors = beside.divisors(ROPE_DIVISORS, sizes.head_dim / 2)?;
        }
        let rope = rope(load, &angles, sizes, options)?;
        Ok(Self {
            embedding: model.matrix(EMBEDDING, n_vocab, n_embd)?,
            layers: (0..sizes.n_layer)
                .map(|i| layer(config, load, i, &rope, options))
                .collect::<Result<_>>()?,
            norm: model.rms_norm(NORM, n_embd, *eps, 0.0)?,
            lm_head: match sizes.tied {
                true => None,
                false => Some(beside.matrix(HEAD, n_vocab, n_embd)?),
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
        d.embedding_forward(&self.embedding, &step.tokens, &mut acts.residual, step.rows())?;
        for (layer, kv) in self.layers.iter().zip(&mut cache.layers) {
            d.layer(&layer.attention, &layer.mlp, acts, kv, step, layer.heads)?;
        }
        d.lm_head(&self.norm, self.lm_head.as_ref().unwrap_or(&self.embedding), acts, step)?;
        Ok(())
    }
}

/// Layer `i`.
fn layer<D: Device>(
    config: &LlamaConfig,
    load: &Loader<'_, D>,
    i: usize,
    rope: &Arc<Rope<D>>,
    options: &Options,
) -> Result<Layer<D>> {
    let LlamaConfig { sizes, eps, biases, head_norms, windows, .. } = config;
    let (c, inner, hs) = (sizes.n_embd, sizes.n_inner, sizes.head_dim);
    let w = load.layer(i);
    // GGUF's LLaMA has the two rows that rotate together side by side
    let in_pairs = load.format() == Format::Gguf && sizes.architecture == Architecture::Llama;
    let heads = |name, heads| Rows {
        name,
        rows: heads * hs,
        order: if in_pairs { RowOrder::Pairs { heads } } else { RowOrder::Same },
    };
    let qkv = [heads(Q, sizes.n_head), heads(K, sizes.n_kv_head), Rows::new(V, sizes.n_kv_head * hs)];
    let head_norms = match head_norms {
        true => Some(HeadNorms { q: w.gamma(Q_NORM, hs, 0.0)?, k: w.gamma(K_NORM, hs, 0.0)?, eps: *eps }),
        false => None,
    };
    Ok(Layer {
        attention: AttentionWeights {
            norm: w.rms_norm(ATTENTION_NORM, c, *eps, 0.0)?,
            qkv: w.linear(&qkv, c, biases.qkv)?,
            head_norms,
            rope: Some(Arc::clone(rope)),
            proj: w.linear(&[Rows::new(PROJ, c)], sizes.n_head * hs, biases.proj)?,
            post_norm: None,
        },
        mlp: MlpWeights {
            norm: w.rms_norm(MLP_NORM, c, *eps, 0.0)?,
            expand: Expand::Gated {
                gate: w.linear(&[Rows::new(GATE, inner)], c, biases.mlp)?,
                up: w.linear(&[Rows::new(UP, inner)], c, biases.mlp)?,
                kind: Gate::SwiGlu,
            },
            down: w.linear(&[Rows::new(DOWN, c)], inner, biases.mlp)?,
            post_norm: None,
        },
        heads: AttentionShape { window: windows[i], ..sizes.attention(options.attention) },
    })
}
