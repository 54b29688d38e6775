//! What tells the models of the Gemma family apart, read from `config.json` or GGUF metadata.

use serde_json::Value;
use thermite_formats::ModelFiles;

use crate::Result;
use crate::config::{
    Architecture, Config, Defaults, Fields, Format, HARMLESS, Name, RopeConfig, Scaling, WINDOW, activation,
    eps, sizes, sliding_layers,
};

const ACTIVATION: Name = Name("hidden_activation", "");
const SCORE_SCALE: Name = Name("query_pre_attn_scalar", "");
const SCORE_CAP: Name = Name("attn_logit_softcapping", "attn_logit_softcapping");
const LOGIT_CAP: Name = Name("final_logit_softcapping", "final_logit_softcapping");
const PATTERN: Name = Name("sliding_window_pattern", "attention.sliding_window_pattern");
const LOCAL_THETA: Name = Name("rope_local_base_freq", "rope.freq_base_swa");
const PARAMETERS: Name = Name("rope_parameters", "");

/// A model of the Gemma family.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GemmaConfig {
    pub(crate) sizes: Config,
    /// Added to the mean square in norms.
    pub(crate) eps: f32,
    /// Added to what the files hold as a norm's scale: GGUF has added it already.
    pub(crate) scale_offset: f32,
    /// What the product of query and key is multiplied by.
    pub(crate) score_scale: f32,
    /// The cap of scores; none at 0.
    pub(crate) score_cap: f32,
    /// The cap of logits; none at 0.
    pub(crate) logit_cap: f32,
    /// Whether each query and key head has a norm.
    pub(crate) head_norms: bool,
    /// Which layers see no more than `window` tokens.
    pub(crate) slides: Vec<bool>,
    pub(crate) window: usize,
    /// Rotation in the layers that see everything, and in those that see a window.
    pub(crate) rope: RopeConfig,
    pub(crate) local_rope: RopeConfig,
}

impl GemmaConfig {
    pub(crate) fn read(architecture: Architecture, fields: &Fields, files: &ModelFiles) -> Result<Self> {
        let sizes = sizes(fields, files, architecture, defaults(architecture))?;
        activation(fields, ACTIVATION, &["gelu_pytorch_tanh"])?;
        let (rope, local_rope) = ropes(architecture, fields)?;
        let gemma2 = architecture == Architecture::Gemma2;
        // a cap that is null is none; one that is not named is Gemma 2's own
        let cap = |name, gemma2_has| -> Result<f32> {
            match fields.find_positive(name)? {
                Some(cap) => Ok(cap as f32),
                None if gemma2 && !fields.contains(name) => Ok(gemma2_has),
                None => Ok(0.0),
            }
        };
        let config = Self {
            eps: eps(fields)?,
            scale_offset: match fields.format() {
                Format::HuggingFace => 1.0,
                Format::Gguf => 0.0,
            },
            score_scale: score_scale(fields, &sizes)?,
            score_cap: cap(SCORE_CAP, 50.0)?,
            logit_cap: cap(LOGIT_CAP, 30.0)?,
            head_norms: !gemma2,
            slides: slides(architecture, fields, sizes.n_layer)?,
            window: fields.size_or(WINDOW, Some(4096))?,
            rope,
            local_rope,
            sizes,
        };
        fields.finish(&[HARMLESS, &["hidden_act"]].concat())?;
        Ok(config)
    }
}

/// What each architecture takes for granted where `config.json` is silent.
const fn defaults(architecture: Architecture) -> Defaults {
    let both = Defaults { n_kv_head: Some(4), head_dim: Some(256), tied: true, ..Defaults::NONE };
    match architecture {
        Architecture::Gemma3 => {
            Defaults { n_head: Some(8), n_vocab: Some(262_208), n_ctx: Some(131_072), ..both }
        }
        _ => both,
    }
}

/// `1 / sqrt(query_pre_attn_scalar)`. GGUF has it where its writer said so; else it follows from the size of a head
/// but in the largest model of each generation, which is known by its layers.
fn score_scale(fields: &Fields, sizes: &Config) -> Result<f32> {
    if let Some(scale) = fields.find_positive(Name("", "attention.scale"))? {
        return Ok(scale as f32);
    }
    let largest = matches!(
        (sizes.architecture, sizes.n_layer),
        (Architecture::Gemma2, 46) | (Architecture::Gemma3, 62)
    );
    let scalar = match fields.format() {
        Format::HuggingFace => fields.find_positive(SCORE_SCALE)?.unwrap_or(256.0),
        Format::Gguf if largest => sizes.n_embd as f64 / sizes.n_head as f64,
        Format::Gguf => sizes.head_dim as f64,
    };
    Ok(scalar.sqrt().recip() as f32)
}

/// Which layers see a window: all but every second one of Gemma 2, all but every sixth one of Gemma 3.
fn slides(architecture: Architecture, fields: &Fields, n_layer: usize) -> Result<Vec<bool>> {
    const NEED: &str = "a number of layers, or for each layer whether it slides";
    let usual = if architecture == Architecture::Gemma2 { 2 } else { 6 };
    let period = match fields.find::<Value>(PATTERN, NEED)? {
        None => usual,
        Some(Value::Array(layers)) => {
            let flags = layers.iter().map(Value::as_bool).collect::<Option<Vec<_>>>();
            return match flags.filter(|flags| flags.len() == n_layer) {
                Some(flags) => Ok(flags),
                None => Err(fields.refuse(PATTERN, &Value::Array(layers), NEED)),
            };
        }
        Some(_) => fields.size(PATTERN)?,
    };
    sliding_layers(fields, n_layer, |layer| !(layer + 1).is_multiple_of(period))
}

/// Rotation in the layers that see everything, and in those that see a window: alike in Gemma 2.
fn ropes(architecture: Architecture, fields: &Fields) -> Result<(RopeConfig, RopeConfig)> {
    const GLOBAL: f64 = 1e6;
    const LOCAL: f64 = 1e4;
    if architecture == Architecture::Gemma2 {
        let rope = RopeConfig::read(fields, LOCAL)?;
        return Ok((rope.clone(), rope));
    }
    if let Some(kinds) = fields.inside(PARAMETERS)? {
        let of = |name, base| match kinds.inside(Name(name, ""))? {
            Some(parameters) => RopeConfig::parameters(&parameters, base),
            None => Ok(RopeConfig::new(base, Scaling::None)),
        };
        let both = (of("full_attention", GLOBAL)?, of("sliding_attention", LOCAL)?);
        kinds.finish(&[])?;
        return Ok(both);
    }
    let local = fields.find_positive(LOCAL_THETA)?.unwrap_or(LOCAL);
    Ok((RopeConfig::read(fields, GLOBAL)?, RopeConfig::new(local, Scaling::None)))
}
