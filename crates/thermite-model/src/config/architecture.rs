//! Which architecture a model's files say they are.

use std::fmt;

use serde_json::Value;
use thermite_formats::{ModelFiles, Source};

use super::fields::{Fields, Name};
use crate::{Error, Result};

/// The architectures there are forward passes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Learned positions, LayerNorm, tanh GELU, biases.
    Gpt2,
    /// RMSNorm, rotary positions, grouped queries, SwiGLU.
    Llama,
    /// LLaMA with a window of attention.
    Mistral,
    /// LLaMA with biases of queries, keys and values.
    Qwen2,
    /// LLaMA with norms of query and key heads.
    Qwen3,
    /// Norms before and after each block, GeGLU, capped scores and logits, windows in every other layer.
    Gemma2,
    /// Gemma 2 with norms of query and key heads in place of caps, windows in five of six layers.
    Gemma3,
}

/// What `config.json` calls an architecture (`model_type`), and GGUF (`general.architecture`).
const NAMES: &[(Architecture, Name)] = &[
    (Architecture::Gpt2, Name("gpt2", "gpt2")),
    (Architecture::Llama, Name("llama", "llama")),
    (Architecture::Mistral, Name("mistral", "")), // GGUF calls it llama
    (Architecture::Qwen2, Name("qwen2", "qwen2")),
    (Architecture::Qwen3, Name("qwen3", "qwen3")),
    (Architecture::Gemma2, Name("gemma2", "gemma2")),
    (Architecture::Gemma3, Name("gemma3_text", "gemma3")),
];

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt2 => "gpt2",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
        })
    }
}

/// The architecture of a model and its fields.
///
/// # Errors
/// An architecture that is not known, and what is not a whole language model.
pub(crate) fn architecture(files: &ModelFiles) -> Result<(Architecture, Fields)> {
    let mut fields = Fields::of(files)?;
    let found = match &files.source {
        Source::HuggingFace(_) => {
            let found: String = fields.get(MODEL_TYPE, "a name")?;
            match found.as_str() {
                // the text part of a model that sees as well; what surrounds it is not read
                "gemma3" => match fields.inside(TEXT_CONFIG)? {
                    Some(text) => {
                        fields = text;
                        fields.only(MODEL_TYPE, &Value::from("gemma3_text"))?;
                        "gemma3_text".to_owned()
                    }
                    None => found,
                },
                _ => found,
            }
        }
        Source::Gguf(metadata) => {
            let kind: Option<&str> = metadata.find("general.type")?;
            if let Some(kind) = kind.filter(|&kind| kind != "model") {
                let path = metadata.path().to_path_buf();
                return Err(Error::Config {
                    path,
                    field: "general.type".to_owned(),
                    value: format!("{kind:?}"),
                    need: "\"model\"".to_owned(),
                });
            }
            metadata.architecture()?.to_owned()
        }
    };
    let known = NAMES.iter().filter(|(_, name)| !name.of(fields.format()).is_empty());
    match known.clone().find(|(_, name)| name.of(fields.format()) == found) {
        Some((architecture, _)) => Ok((*architecture, fields)),
        None => Err(Error::Architecture {
            path: fields.path().to_path_buf(),
            field: MODEL_TYPE.of(fields.format()),
            found,
            supported: known.map(|(_, name)| name.of(fields.format())).collect::<Vec<_>>().join(", "),
        }),
    }
}

const MODEL_TYPE: Name = Name("model_type", "general.architecture");
const TEXT_CONFIG: Name = Name("text_config", "");
