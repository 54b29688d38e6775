//! A model: a Hugging Face folder, the same files embedded in the program, or a GGUF file.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::shards::ShardIndex;
use crate::source::{CONFIG, HuggingFace, Source, TOKENIZER};
use crate::tensors::Tensors;

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// The files of one model, read or mapped; everything that describes a tensor is checked.
#[derive(Debug)]
pub struct ModelFiles {
    /// The folder or file, or the embedded model's name: what errors and reports call it.
    pub origin: PathBuf,
    /// Config and tokenizer.
    pub source: Source,
    /// The weights.
    pub tensors: Tensors,
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
    /// Opens a GGUF file, a Hugging Face folder, the folder of a `.safetensors` file (whose weights are then that
    /// file's, or those of the index that lists it as a shard), or the folder of one GGUF file and no `config.json`.
    ///
    /// # Errors
    /// A path that is not there or cannot be read, a format that is not supported, a folder without
    /// `config.json` or weights, and whatever is wrong with the weights' file: see [`Error`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
        if metadata.is_dir() {
            return match gguf_of(path)? {
                Some(gguf) => Self::open_gguf(&gguf),
                None => Self::open_folder(path, &weights_of(path)),
            };
        }
        match extension(path).as_str() {
            "gguf" => Self::open_gguf(path),
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

    /// Opens a GGUF file, whatever its name.
    ///
    /// # Errors
    /// Whatever is wrong with it: see [`Error`]; and one that is a part of a model in several files.
    pub fn open_gguf(path: &Path) -> Result<Self> {
        Self::of_gguf(Gguf::open(path)?)
    }

    /// Takes a GGUF file that was opened, or made by the program.
    ///
    /// # Errors
    /// One that is a part of a model in several files.
    pub fn of_gguf(Gguf { metadata, tensors }: Gguf) -> Result<Self> {
        let origin = metadata.path().to_path_buf();
        if metadata.find::<u32>("split.count")?.is_some_and(|parts| parts > 1) {
            return Err(Error::UnsupportedFormat { path: origin, format: "a part of a split GGUF file" });
        }
        Ok(Self { origin, source: Source::Gguf(metadata), tensors })
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
        let source = Source::HuggingFace(HuggingFace {
            folder: folder.to_path_buf(),
            config_json: Cow::Owned(config_json),
            tokenizer_config_json: read_text(&folder.join(TOKENIZER_CONFIG))?.map(Cow::Owned),
            generation_config_json: read_text(&folder.join(GENERATION_CONFIG))?.map(Cow::Owned),
            chat_template: read_text(&folder.join(CHAT_TEMPLATE))?.map(Cow::Owned),
            tokenizer_json: read(&folder.join(TOKENIZER))?.map(Cow::Owned),
        });
        Ok(Self { origin: folder.to_path_buf(), source, tensors })
    }

    /// Takes the files of a model that is part of the program.
    ///
    /// # Errors
    /// Whatever is wrong with its safetensors file: see [`Error`].
    pub fn embedded(model: EmbeddedModel) -> Result<Self> {
        let source = Source::HuggingFace(HuggingFace {
            folder: PathBuf::from(model.name),
            config_json: Cow::Borrowed(model.config_json),
            tokenizer_config_json: model.tokenizer_config_json.map(Cow::Borrowed),
            generation_config_json: model.generation_config_json.map(Cow::Borrowed),
            chat_template: None,
            tokenizer_json: Some(Cow::Borrowed(model.tokenizer_json)),
        });
        let tensors = Tensors::embedded(model.name, model.safetensors)?;
        Ok(Self { origin: PathBuf::from(model.name), source, tensors })
    }

    /// A model that the program has made, without a tokenizer.
    ///
    /// # Errors
    /// Whatever is wrong with its safetensors file: see [`Error`].
    pub fn in_memory(name: &str, config_json: String, safetensors: Vec<u8>) -> Result<Self> {
        Ok(Self::with_config(name, config_json, Tensors::in_memory(name, safetensors)?))
    }

    /// The same, of tensors.
    pub fn with_config(name: &str, config_json: String, tensors: Tensors) -> Self {
        let source = Source::HuggingFace(HuggingFace {
            folder: PathBuf::from(name),
            config_json: Cow::Owned(config_json),
            tokenizer_config_json: None,
            generation_config_json: None,
            chat_template: None,
            tokenizer_json: None,
        });
        Self { origin: PathBuf::from(name), source, tensors }
    }

    /// The text files of a Hugging Face folder.
    ///
    /// # Errors
    /// [`Error::NotHuggingFace`] if this is a GGUF file.
    pub fn hugging_face(&self) -> Result<&HuggingFace> {
        match &self.source {
            Source::HuggingFace(folder) => Ok(folder),
            Source::Gguf(metadata) => Err(Error::NotHuggingFace { path: metadata.path().to_path_buf() }),
        }
    }
}

/// The GGUF file that a folder means: its only one, unless it is a Hugging Face folder.
fn gguf_of(folder: &Path) -> Result<Option<PathBuf>> {
    if folder.join(CONFIG).exists() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))? {
        let path = entry.map_err(|source| Error::io(folder, source))?.path();
        if extension(&path) == "gguf" {
            found.push(path);
        }
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        count => Err(Error::SeveralModels { folder: folder.to_path_buf(), count }),
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
