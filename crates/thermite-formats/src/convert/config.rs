//! The fields of a `config.json` that GGUF has keys for.

use serde::Deserialize;

use super::ConvertFault;
use super::architecture::Architecture;
use crate::gguf::HeaderWriter;

type Result<T, E = ConvertFault> = std::result::Result<T, E>;

/// A `config.json` of any architecture.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub(super) model_type: String,
    pub(super) vocab_size: Option<u32>,
    #[serde(alias = "n_embd")]
    hidden_size: Option<u32>,
    #[serde(alias = "n_layer")]
    num_hidden_layers: Option<u32>,
    #[serde(alias = "n_head")]
    num_attention_heads: Option<u32>,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    #[serde(alias = "n_inner")]
    intermediate_size: Option<u32>,
    #[serde(alias = "n_positions")]
    max_position_embeddings: Option<u32>,
    rms_norm_eps: Option<f32>,
    layer_norm_epsilon: Option<f32>,
    rope_theta: Option<f32>,
    rope_local_base_freq: Option<f32>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<RopeParameters>,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    sliding_window_pattern: Option<u32>,
    layer_types: Option<Vec<String>>,
    query_pre_attn_scalar: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    tie_word_embeddings: Option<bool>,
    hidden_activation: Option<String>,
    #[serde(alias = "activation_function")]
    hidden_act: Option<String>,
}

/// How positions turn queries and keys.
#[derive(Debug, Clone, Default, Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

/// The newer form of the same: one for all layers, or one for each kind of layer.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RopeParameters {
    ByLayer { full_attention: Rope, sliding_attention: Rope },
    All(Rope),
}

fn need<T: Copy>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| refuse(field, "missing", "a number"))
}

fn refuse(field: &str, found: impl Into<String>, need: impl Into<String>) -> ConvertFault {
    ConvertFault::Field { field: field.to_owned(), found: found.into(), need: need.into() }
}

impl Config {
    /// Channels of a head.
    pub(super) fn head_dim(&self, architecture: &Architecture) -> Result<usize> {
        let heads = need("num_attention_heads", self.num_attention_heads)?;
        let derived = need("hidden_size", self.hidden_size)?.checked_div(heads);
        let derived =
            derived.ok_or_else(|| refuse("num_attention_heads", heads.to_string(), "at least 1"))?;
        let default = architecture.derives_head_dim().then_some(derived);
        Ok(need("head_dim", self.head_dim.or(default))? as usize)
    }

    /// Whether the head is the embedding.
    pub(super) fn is_tied(&self, architecture: &Architecture) -> bool {
        self.tie_word_embeddings.unwrap_or(architecture.tied)
    }

    /// Writes the sizes and everything else that the architecture's forward pass depends on. Gives the factors by
    /// which single frequencies of RoPE are divided, where there are such.
    pub(super) fn describe(
        &self,
        architecture: &Architecture,
        header: &mut HeaderWriter,
    ) -> Result<Option<Vec<f32>>> {
        let name = architecture.name;
        let key = |rest: &str| format!("{name}.{rest}");
        let n_embd = need("hidden_size", self.hidden_size)?;
        let n_head = need("num_attention_heads", self.num_attention_heads)?;
        let head_dim = self.head_dim(architecture)? as u32;
        header.set("general.architecture", name);
        header.set(key("block_count"), &need("num_hidden_layers", self.num_hidden_layers)?);
        header.set(key("context_length"), &need("max_position_embeddings", self.max_position_embeddings)?);
        header.set(key("embedding_length"), &n_embd);
        header.set(key("feed_forward_length"), &self.intermediate_size.unwrap_or(n_embd.saturating_mul(4)));
        header.set(key("attention.head_count"), &n_head);
        let same = architecture.derives_key_heads().then_some(n_head);
        let n_kv_head = need("num_key_value_heads", self.num_key_value_heads.or(same))?;
        header.set(key("attention.head_count_kv"), &n_kv_head);
        header.set(key("vocab_size"), &need("vocab_size", self.vocab_size)?);
        match (self.rms_norm_eps, self.layer_norm_epsilon) {
            (Some(eps), _) => header.set(key("attention.layer_norm_rms_epsilon"), &eps),
            (None, Some(eps)) => header.set(key("attention.layer_norm_epsilon"), &eps),
            (None, None) => return Err(refuse("rms_norm_eps", "missing", "a number")),
        }
        self.check_activation(architecture)?;
        if architecture.has_rope() {
            header.set(key("attention.key_length"), &head_dim);
            header.set(key("attention.value_length"), &head_dim);
            header.set(key("rope.dimension_count"), &head_dim);
            self.describe_window(architecture, header)?;
            self.describe_scores(head_dim, architecture, header)?;
            return self.describe_rope(head_dim, architecture, header);
        }
        Ok(None)
    }

    fn check_activation(&self, architecture: &Architecture) -> Result<()> {
        let found = self.hidden_activation.as_deref().or(self.hidden_act.as_deref());
        let known = architecture.activations;
        match found {
            // each architecture's default is the one that GGUF means
            None => Ok(()),
            Some(found) if known.contains(&found) => Ok(()),
            // what configs of Gemma say for the tanh form, by an old mistake
            Some("gelu") if self.hidden_activation.is_none() && architecture.is_gemma() => Ok(()),
            Some(found) => Err(refuse("hidden_act", found, format!("one of {}", known.join(", ")))),
        }
    }

    /// The window of layers that do not see everything before them, and which layers these are.
    fn describe_window(&self, architecture: &Architecture, header: &mut HeaderWriter) -> Result<()> {
        if architecture.is_gemma() {
            need("sliding_window", self.sliding_window)?;
        }
        let Some(window) = self.sliding_window else {
            return Ok(());
        };
        if architecture.name.starts_with("qwen") {
            if self.use_sliding_window == Some(true) {
                return Err(refuse("use_sliding_window", "true", "false"));
            }
            return Ok(());
        }
        header.set(format!("{}.attention.sliding_window", architecture.name), &window);
        if let Some(pattern) = self.window_pattern()? {
            header.set(format!("{}.attention.sliding_window_pattern", architecture.name), &pattern);
        }
        Ok(())
    }

    /// `p`, where every `p`-th layer sees everything and the others have the window.
    fn window_pattern(&self) -> Result<Option<u32>> {
        let Some(layers) = &self.layer_types else {
            return Ok(self.sliding_window_pattern);
        };
        let full = |layer: &String| layer == "full_attention";
        let pattern = layers.iter().position(full).map_or(layers.len() + 1, |first| first + 1);
        let regular =
            layers.iter().enumerate().all(|(i, layer)| full(layer) == (i + 1).is_multiple_of(pattern));
        if !regular {
            return Err(refuse("layer_types", layers.join(", "), "full_attention at every so many layers"));
        }
        Ok(Some(pattern as u32))
    }

    /// Soft caps, and a scale of attention that is not `1 / √head_dim`.
    fn describe_scores(
        &self,
        head_dim: u32,
        architecture: &Architecture,
        header: &mut HeaderWriter,
    ) -> Result<()> {
        if architecture.is_gemma() {
            need("query_pre_attn_scalar", self.query_pre_attn_scalar)?;
        }
        // readers of GGUF have caps of their own for it
        if architecture.name == "gemma2" {
            need("attn_logit_softcapping", self.attn_logit_softcapping)?;
            need("final_logit_softcapping", self.final_logit_softcapping)?;
        }
        let key = |rest: &str| format!("{}.{rest}", architecture.name);
        if let Some(cap) = self.attn_logit_softcapping {
            header.set(key("attn_logit_softcapping"), &cap);
        }
        if let Some(cap) = self.final_logit_softcapping {
            header.set(key("final_logit_softcapping"), &cap);
        }
        if let Some(scalar) = self.query_pre_attn_scalar.filter(|&scalar| scalar != head_dim as f32) {
            header.set(key("attention.scale"), &(f64::from(scalar).sqrt().recip() as f32));
        }
        Ok(())
    }

    fn describe_rope(
        &self,
        head_dim: u32,
        architecture: &Architecture,
        header: &mut HeaderWriter,
    ) -> Result<Option<Vec<f32>>> {
        let key = |rest: &str| format!("{}.{rest}", architecture.name);
        let (rope, local) = match &self.rope_parameters {
            Some(RopeParameters::All(rope)) => (rope.clone(), None),
            Some(RopeParameters::ByLayer { full_attention, sliding_attention }) => {
                (full_attention.clone(), sliding_attention.rope_theta)
            }
            None => (self.rope_scaling.clone().unwrap_or_default(), None),
        };
        let base = rope.rope_theta.or(self.rope_theta).unwrap_or(architecture.rope_theta());
        header.set(key("rope.freq_base"), &base);
        if let Some(local) = local.or(self.rope_local_base_freq) {
            header.set(key("rope.freq_base_swa"), &local);
        }
        match rope.rope_type.as_deref() {
            None | Some("default") => Ok(None),
            Some("linear") => {
                header.set(key("rope.scaling.type"), "linear");
                header.set(key("rope.scaling.factor"), &need("rope_scaling.factor", rope.factor)?);
                Ok(None)
            }
            Some("llama3") => rope.llama3_factors(base, head_dim).map(Some),
            Some(other) => Err(refuse("rope_scaling.rope_type", other, "default, linear or llama3")),
        }
    }
}

impl Rope {
    /// By what each frequency of RoPE is divided in Llama 3.1: 1 for those that turn often within the original
    /// context, `factor` for those that turn seldom, and something between for those between.
    ///
    /// With `λ = 2π base^(2i/d)` tokens a turn and `r = original / λ` turns: `r > high` gives 1, `r < low` gives
    /// `factor`, else `1 / ((1 − s) / factor + s)` with `s = (r − low) / (high − low)`.
    fn llama3_factors(&self, base: f32, head_dim: u32) -> Result<Vec<f32>> {
        let factor = need("rope_scaling.factor", self.factor)?;
        let low = need("rope_scaling.low_freq_factor", self.low_freq_factor)?;
        let high = need("rope_scaling.high_freq_factor", self.high_freq_factor)?;
        let original =
            need("rope_scaling.original_max_position_embeddings", self.original_max_position_embeddings)?;
        let of = |i: u32| {
            let exponent = f64::from(2 * i) / f64::from(head_dim);
            let turns = original / (std::f64::consts::TAU * f64::from(base).powf(exponent)) as f32;
            let s = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            1.0 / ((1.0 - s) / factor + s)
        };
        Ok((0..head_dim / 2).map(of).collect())
    }
}
