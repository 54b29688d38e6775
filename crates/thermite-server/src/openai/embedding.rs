//! `/v1/embeddings`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApiError, Fields, Input, Other, check, read};

/// Texts whose embeddings are wanted.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct EmbeddingRequest {
    /// A model of `/v1/models`; the first one if none is named.
    pub(crate) model: Option<String>,
    /// The texts, as they are or as tokens.
    pub(crate) input: Input,
    /// How the numbers are written.
    #[serde(default)]
    #[schema(default = "float")]
    pub(crate) encoding_format: EncodingFormat,
}

/// How an embedding is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingFormat {
    /// As a list of numbers.
    #[default]
    Float,
    /// As a text: f32, little-endian, in base64.
    Base64,
}

impl EmbeddingRequest {
    const FIELDS: &[&str] = &["model", "input", "encoding_format"];
    const OTHERS: &[Other] = &[Other::Ignored("user"), Other::Unsupported("dimensions")];

    /// Reads a request.
    ///
    /// # Errors
    /// 400 for a field that is unknown, not supported or of another form.
    pub(crate) fn read(fields: &Fields) -> Result<Self, ApiError> {
        check(fields, &[Self::FIELDS], Self::OTHERS)?;
        read(fields)
    }
}

/// The embeddings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingResponse {
    #[schema(value_type = String, example = "list")]
    pub(crate) object: &'static str,
    pub(crate) data: Vec<EmbeddingItem>,
    pub(crate) model: String,
    pub(crate) usage: EmbeddingUsage,
}

/// The embedding of one of the texts: the mean over its tokens of the model's last hidden states, of length 1.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingItem {
    #[schema(value_type = String, example = "embedding")]
    pub(crate) object: &'static str,
    pub(crate) index: usize,
    pub(crate) embedding: Embedding,
}

/// An embedding.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Embedding {
    Float(Vec<f32>),
    Base64(String),
}

impl Embedding {
    pub(crate) fn new(numbers: Vec<f32>, format: EncodingFormat) -> Self {
        match format {
            EncodingFormat::Float => Self::Float(numbers),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
                Self::Base64(BASE64_STANDARD.encode(bytes))
            }
        }
    }
}

/// Numbers of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingUsage {
    pub(crate) prompt_tokens: usize,
    pub(crate) total_tokens: usize,
}
