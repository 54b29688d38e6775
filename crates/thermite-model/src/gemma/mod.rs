//! The Gemma family: the embedding scaled by the root of its width, RMSNorm before and after each block, rotary
//! positions, grouped queries, GeGLU, layers that see a window between layers that see everything. Gemma 2 caps scores
//! and logits; Gemma 3 has norms of the heads, and rotates its two kinds of layers differently.

mod config;

use std::sync::Arc;

use thermite_device::{
    Activations, AttentionShape, AttentionWeights, Device, Expand, Gate, HeadNorms, MlpWeights, Norm, Rope,
    Step,
};
use thermite_formats::TensorView;

pub(crate) use config::GemmaConfig;

use crate::config::Name;
use crate::layer::{Layer, rope};
use crate::loader::{Folder, Loader, Rows};
use crate::names::{ATTENTION_NORM, DOWN, EMBEDDING, GATE, HEAD, K, K_NORM, NORM, PROJ, Q, Q_NORM, UP, V};
use crate::{KvCache, Options, Result};

const POST_ATTENTION_NORM: Name = Name("post_attention_layernorm", "post_attention_norm");
const MLP_NORM: Name = Name("pre_feedforward_layernorm", "ffn_norm");
const POST_MLP_NORM: Name = Name("post_feedforward_layernorm", "post_ffw_norm");

/// Where the tensors are; a model that also sees has its text part among others.
pub(crate) const FOLDER: Folder = Folder {
    roots: &["model.", "", "language_model.model.", "model.language_model."],
    layers: "layers.",
    embedding: EMBEDDING,
};

/// Whether a tensor belongs to the part of a model that sees.
pub(crate) fn is_of_images(tensor: &TensorView<'_>) -> bool {
    ["vision_tower.", "multi_modal_projector."].iter().any(|part| {
        let name = tensor.name.strip_prefix("model.").unwrap_or(tensor.name);
        name.starts_with(part)
    })
}

/// A model of the Gemma family on a device.
#[derive(Debug)]
pub(crate) struct Gemma<D: Device> {
    embedding: D::Matrix,
    /// What rows of the embedding are multiplied by.
    embedding_scale: f32,
    layers: Vec<Layer<D>>,
    pub(crate) norm: Norm<D>,
    /// The head where it is not the embedding.
    lm_head: Option<D::Matrix>,
    /// Logits become `cap * tanh(logit / cap)`; not at 0.
    logit_cap: f32,
}

impl<D: Device> Gemma<D> {
    /// Takes the weights that `config` asks for.
    pub(crate) fn load(config: &GemmaConfig, load: &Loader<'_, D>, options: &Options) -> Result<Self> {
        let GemmaConfig { sizes, eps, scale_offset, .. } = config;
        let (n_vocab, n_embd) = (sizes.n_vocab, sizes.n_embd);
        let model = load.model();
        let global = rope(load, &config.rope, sizes, options)?;
        let local = match config.local_rope == config.rope {
            true => Arc::clone(&global),
            false => rope(load, &config.local_rope, sizes, options)?,
        };
        let rope_of = |slides| if slides { &local } else { &global };
        let layers = config.slides.iter().enumerate();
        Ok(Self {
            embedding: model.matrix(EMBEDDING, n_vocab, n_embd)?,
            embedding_scale: (n_embd as f32).sqrt(),
            layers: layers
                .map(|(i, &slides)| layer(config, load, i, rope_of(slides), options))
                .collect::<Result<_>>()?,
            norm: model.rms_norm(NORM, n_embd, *eps, *scale_offset)?,
            lm_head: match sizes.tied {
                true => None,
                false => Some(load.beside().matrix(HEAD, n_vocab, n_embd)?),
            },
            logit_cap: config.logit_cap,
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
        let (n, c, n_vocab) = (step.rows(), acts.shape.n_embd, acts.shape.n_vocab);
        d.embedding_forward(&self.embedding, &step.tokens, &mut acts.residual, n)?;
        d.scale_inplace(&mut acts.residual, n * c, self.embedding_scale)?;
        for (layer, kv) in self.layers.iter().zip(&mut cache.layers) {
            d.layer(&layer.attention, &layer.mlp, acts, kv, step, layer.heads)?;
        }
        d.lm_head(&self.norm, self.lm_head.as_ref().unwrap_or(&self.embedding), acts, step)?;
        if self.logit_cap != 0.0 {
            d.softcap_logits(&mut acts.logits, step.batch.outputs.len(), n_vocab, self.logit_cap)?;
        }
        Ok(())
    }
}

/// Layer `i`.
fn layer<D: Device>(
    config: &GemmaConfig,
    load: &Loader<'_, D>,
    i: usize,
    rope: &Arc<Rope<D>>,
    options: &Options,
) -> Result<Layer<D>> {
    let GemmaConfig { sizes, eps, scale_offset, .. } = config;
    let (c, inner, hs) = (sizes.n_embd, sizes.n_inner, sizes.head_dim);
    let (q, kv) = (sizes.n_head * hs, sizes.n_kv_head * hs);
    let w = load.layer(i);
    let norm = |name| w.rms_norm(name, c, *eps, *scale_offset);
    let head_norms = match config.head_norms {
        true => Some(HeadNorms {
            q: w.gamma(Q_NORM, hs, *scale_offset)?,
            k: w.gamma(K_NORM, hs, *scale_offset)?,
            eps: *eps,
        }),
        false => None,
    };
    Ok(Layer {
        attention: AttentionWeights {
            norm: norm(ATTENTION_NORM)?,
            qkv: w.linear(&[Rows::new(Q, q), Rows::new(K, kv), Rows::new(V, kv)], c, false)?,
            head_norms,
            rope: Some(Arc::clone(rope)),
            proj: w.linear(&[Rows::new(PROJ, c)], q, false)?,
            post_norm: Some(norm(POST_ATTENTION_NORM)?),
        },
        mlp: MlpWeights {
            norm: norm(MLP_NORM)?,
            expand: Expand::Gated {
                gate: w.linear(&[Rows::new(GATE, inner)], c, false)?,
                up: w.linear(&[Rows::new(UP, inner)], c, false)?,
                kind: Gate::GeGlu,
            },
            down: w.linear(&[Rows::new(DOWN, c)], inner, false)?,
            post_norm: Some(norm(POST_MLP_NORM)?),
        },
        heads: AttentionShape {
            scale: config.score_scale,
            window: if config.slides[i] { config.window } else { 0 },
            cap: config.score_cap,
            ..sizes.attention(options.attention)
        },
    })
}
