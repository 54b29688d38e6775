//! What stands beside a model's weights: a Hugging Face folder's JSON files, or a GGUF file's metadata.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::gguf::Metadata;

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// Where a model's config and tokenizer come from.
#[derive(Debug)]
pub enum Source {
    /// A Hugging Face folder, or its files as part of the program.
    HuggingFace(HuggingFace),
    /// The metadata of a GGUF file.
    Gguf(Metadata),
}

/// The text files of a Hugging Face folder.
#[derive(Debug)]
pub struct HuggingFace {
    /// The folder, or the embedded model's name: what errors and reports call it.
    pub folder: PathBuf,
    /// The text of `config.json`.
    pub config_json: Cow<'static, str>,
    /// The text of `tokenizer_config.json`, where there is one.
    pub tokenizer_config_json: Option<Cow<'static, str>>,
    /// The text of `generation_config.json`, where there is one.
    pub generation_config_json: Option<Cow<'static, str>>,
    /// The text of `chat_template.jinja`, where there is one.
    pub chat_template: Option<Cow<'static, str>>,
    /// The bytes of `tokenizer.json`, where there is one.
    pub tokenizer_json: Option<Cow<'static, [u8]>>,
}

impl HuggingFace {
    /// The bytes of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder has none.
    pub fn tokenizer_json(&self) -> Result<&[u8]> {
        self.tokenizer_json
            .as_deref()
            .ok_or_else(|| Error::MissingFile { folder: self.folder.clone(), file: TOKENIZER })
    }

    /// `config.json`, read into a type.
    ///
    /// # Errors
    /// [`Error::Json`], with the line and column.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.config_json)
            .map_err(|source| Error::json(&self.folder.join(CONFIG), source))
    }
}
