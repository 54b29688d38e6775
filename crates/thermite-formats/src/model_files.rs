//! A model: a Hugging Face folder, or the same files embedded in the program.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::shards::ShardIndex;
use crate::tensors::Tensors;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// The files of one model, read or mapped; every safetensors header is checked.
#[derive(Debug)]
pub struct ModelFiles {
    /// The folder, or the embedded model's name: what errors and reports call it.
    pub origin: PathBuf,
    /// The text of `config.json`.
    pub config_json: Cow<'static, str>,
    /// The text of `tokenizer_config.json`, where there is one.
    pub tokenizer_config_json: Option<Cow<'static, str>>,
    /// The text of `generation_config.json`, where there is one.
    pub generation_config_json: Option<Cow<'static, str>>,
    /// The weights.
    pub tensors: Tensors,
    tokenizer_json: Option<Cow<'static, [u8]>>,
}

/// The files of a model that is part of the program.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedModel {
    /// What errors and reports call it.
    pub name: &'static str,
    /// `config.json`.
    pub config_json: &'static str,
    /// `tokenizer.json`.
    pub tokenizer_json: &'static [u8],
    /// `tokenizer_config.json`, where there is one.
    pub tokenizer_config_json: Option<&'static str>,
    /// `generation_config.json`, where there is one.
    pub generation_config_json: Option<&'static str>,
    /// `model.safetensors`.
    pub safetensors: &'static [u8],
}

impl ModelFiles {
    /// Opens a Hugging Face folder, or the folder of a `.safetensors` file (whose weights are then
    /// that file's, or those of the index that lists it as a shard).
    ///
    /// # Errors
    /// A path that is not there or cannot be read, a format that is not supported, a folder without
    /// `config.json` or weights, and whatever is wrong with a safetensors file: see [`Error`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
        if metadata.is_dir() {
            return Self::open_folder(path, &weights_of(path));
        }
        match extension(path).as_str() {
            "safetensors" => {
                let folder = match path.parent() {
                    Some(parent) if parent != Path::new("") => parent,
                    _ => Path::new("."),
                };
                let index = folder.join(WEIGHTS_INDEX);
                let weights = match path.file_name() {
                    Some(name) if is_shard(&index, name.as_encoded_bytes())? => index,
                    _ => path.to_path_buf(),
                };
                Self::open_folder(folder, &weights)
            }
            other => Err(Error::UnsupportedFormat { path: path.to_path_buf(), format: format_of(other) }),
        }
    }

    fn open_folder(folder: &Path, weights: &Path) -> Result<Self> {
        let config = read_text(&folder.join(CONFIG))?;
        let Some(config_json) = config else {
            return Err(missing(folder, CONFIG));
        };
        let tensors = if weights.ends_with(WEIGHTS_INDEX) {
            Tensors::open_sharded(weights)?
        } else {
            Tensors::open(weights).map_err(|error| match error {
                Error::NotFound { .. } => missing(folder, WEIGHTS),
                other => other,
            })?
        };
        Ok(Self {
            origin: folder.to_path_buf(),
            config_json: Cow::Owned(config_json),
            tokenizer_config_json: read_text(&folder.join(TOKENIZER_CONFIG))?.map(Cow::Owned),
            generation_config_json: read_text(&folder.join(GENERATION_CONFIG))?.map(Cow::Owned),
            tokenizer_json: read(&folder.join(TOKENIZER))?.map(Cow::Owned),
            tensors,
        })
    }

    /// Takes the files of a model that is part of the program.
    ///
    /// # Errors
    /// Whatever is wrong with its safetensors file: see [`Error`].
    pub fn embedded(model: EmbeddedModel) -> Result<Self> {
        Ok(Self {
            origin: PathBuf::from(model.name),
            config_json: Cow::Borrowed(model.config_json),
            tokenizer_config_json: model.tokenizer_config_json.map(Cow::Borrowed),
            generation_config_json: model.generation_config_json.map(Cow::Borrowed),
            tokenizer_json: Some(Cow::Borrowed(model.tokenizer_json)),
            tensors: Tensors::embedded(model.name, model.safetensors)?,
        })
    }

    /// A model that the program has made, without a tokenizer.
    ///
    /// # Errors
    /// Whatever is wrong with its safetensors file: see [`Error`].
    pub fn in_memory(name: &str, config_json: String, safetensors: Vec<u8>) -> Result<Self> {
        Ok(Self {
            origin: PathBuf::from(name),
            config_json: Cow::Owned(config_json),
            tokenizer_config_json: None,
            generation_config_json: None,
            tokenizer_json: None,
            tensors: Tensors::in_memory(name, safetensors)?,
        })
    }

    /// The bytes of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder has none.
    pub fn tokenizer_json(&self) -> Result<&[u8]> {
        self.tokenizer_json.as_deref().ok_or_else(|| missing(&self.origin, TOKENIZER))
    }

    /// `config.json`, read into a type.
    ///
    /// # Errors
    /// [`Error::Json`], with the line and column.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.config_json)
            .map_err(|source| Error::json(&self.origin.join(CONFIG), source))
    }
}

/// The weights that a folder means: one file if it is there, else the index, else the file to miss.
fn weights_of(folder: &Path) -> PathBuf {
    let (one, index) = (folder.join(WEIGHTS), folder.join(WEIGHTS_INDEX));
    if !one.exists() && index.exists() { index } else { one }
}

fn is_shard(index: &Path, name: &[u8]) -> Result<bool> {
    let Some(json) = read(index)? else {
        return Ok(false);
    };
    let index = ShardIndex::parse(index, &json)?;
    Ok(index.shards().iter().any(|shard| shard.as_bytes() == name))
}

fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}

fn format_of(extension: &str) -> &'static str {
    match extension {
        "gguf" => "GGUF",
        "bin" | "pt" | "pth" | "ckpt" => "a PyTorch pickle",
        "onnx" => "ONNX",
        "h5" | "msgpack" | "npz" => "this weight format",
        _ => "this kind of file",
    }
}

/// The file's bytes, or `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(path, source)),
    }
}

fn read_text(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    String::from_utf8(bytes).map(Some).map_err(|error| Error::NotUtf8 {
        path: path.to_path_buf(),
        offset: error.utf8_error().valid_up_to(),
    })
}

fn missing(folder: &Path, file: &'static str) -> Error {
    Error::MissingFile { folder: folder.to_path_buf(), file }
}
