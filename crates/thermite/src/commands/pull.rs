//! `thermite pull`: a model from the Hugging Face Hub, into the cache that its own tools use.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use thermite_engine::{HubFolder, HubModel, hub_cache, is_inside};

use crate::cli::PullArgs;
use crate::error::Error;
use crate::output::{note, print};

use self::address::{Origin, encoded};
use self::blob::{beside, link, locked, sha256};
use self::progress::Bar;
use self::transfer::{Client, Metadata, TransferError};

mod address;
mod blob;
mod progress;
mod transfer;

/// Files of a model beside its weights.
const TEXTS: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    WEIGHTS_INDEX,
];
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// Why a model cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error("{repo}: there is no such model, or not at revision {revision}, on {endpoint}")]
    NotFound { repo: String, revision: String, endpoint: String },
    #[error(
        "{repo}: access is refused (status {status}): the model is private or behind a licence; accept it at \
         {endpoint}/{repo}, and set HF_TOKEN"
    )]
    Refused { repo: String, status: u16, endpoint: String },
    #[error("{repo} has no file {file}; it has {}", listed(there))]
    NoSuchFile { repo: String, file: String, there: Vec<String> },
    #[error("{repo} has {} GGUF files: choose with --file among {}", there.len(), listed(there))]
    SeveralGguf { repo: String, there: Vec<String> },
    #[error("{repo} has neither safetensors nor GGUF weights; it has {}", listed(there))]
    NoWeights { repo: String, there: Vec<String> },
    #[error("{repo}: {file} came with another SHA-256 than the Hub has for it; it was thrown away")]
    Hash { repo: String, file: String },
    #[error("HF_ENDPOINT is {0:?}, not the address of a Hub, such as https://huggingface.co")]
    Endpoint(String),
    #[error("{repo}: {source}")]
    Transfer { repo: String, source: TransferError },
    #[error("{repo}: the answer of {endpoint} cannot be used: {reason}")]
    Answer { repo: String, endpoint: String, reason: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

fn listed(files: &[String]) -> String {
    if files.is_empty() { "no files".to_owned() } else { files.join(", ") }
}

pub(crate) fn run(args: &PullArgs) -> Result<(), Error> {
    let pull = Pull::new(HubModel::parse(&format!("{}@{}", args.repo, args.revision))?)?;
    let (commit, there) = pull.listing()?;
    let files = chosen(&pull.model.repo, &there, &args.file)?;
    for file in &files {
        pull.fetch(&commit, file)?;
    }
    pull.name(&commit)?;
    let snapshot = pull.folder.snapshot(&commit);
    let path = match files.as_slice() {
        [file] if file.ends_with(".gguf") => snapshot.join(file),
        _ => snapshot,
    };
    print(&format!("{}\n", path.display()))
}

/// The files that are to be fetched.
fn chosen(repo: &str, there: &[String], asked: &[String]) -> Result<Vec<String>, PullError> {
    let repo = || repo.to_owned();
    if let Some(file) = asked.iter().find(|file| !there.contains(file)) {
        return Err(PullError::NoSuchFile { repo: repo(), file: file.clone(), there: there.to_vec() });
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let is_weights = |file: &str| match there.iter().any(|file| file == WEIGHTS) {
        true => file == WEIGHTS,
        // `model-00001-of-00002.safetensors`, which the index lists
        false => {
            there.iter().any(|file| file == WEIGHTS_INDEX)
                && file.starts_with("model-")
                && file.ends_with(".safetensors")
        }
    };
    if there.iter().any(|file| is_weights(file)) {
        let wanted = |file: &&String| TEXTS.contains(&file.as_str()) || is_weights(file);
        return Ok(there.iter().filter(wanted).cloned().collect());
    }
    let gguf: Vec<String> = there.iter().filter(|file| file.ends_with(".gguf")).cloned().collect();
    match gguf.len() {
        0 => Err(PullError::NoWeights { repo: repo(), there: there.to_vec() }),
        1 => Ok(gguf),
        _ => Err(PullError::SeveralGguf { repo: repo(), there: gguf }),
    }
}

/// What the Hub says of a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// One model to be fetched.
struct Pull {
    model: HubModel,
    folder: HubFolder,
    endpoint: String,
    client: Client,
}

impl Pull {
    fn new(model: HubModel) -> Result<Self, PullError> {
        let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let hub = Origin::of(&endpoint).ok_or_else(|| PullError::Endpoint(endpoint.clone()))?;
        Ok(Self { folder: model.folder(), client: Client::new(hub, token()), model, endpoint })
    }

    /// The commit that the revision means, and its files.
    fn listing(&self) -> Result<(String, Vec<String>), PullError> {
        let (repo, revision) = (&self.model.repo, encoded(&self.model.revision));
        let url = format!("{}/api/models/{repo}/revision/{revision}", self.endpoint);
        let text = self.client.text(&url).map_err(|error| self.error(error))?;
        let Listing { sha, siblings } =
            serde_json::from_str(&text).map_err(|error| self.unusable(error.to_string()))?;
        let files: Vec<String> = siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        if let Some(outside) = files.iter().chain([&sha]).find(|file| !is_inside(file)) {
            return Err(self.unusable(format!("{outside:?} is no name of a file")));
        }
        Ok((sha, files))
    }

    /// Fetches a file, if it is not there.
    fn fetch(&self, commit: &str, file: &str) -> Result<(), PullError> {
        let path = self.folder.snapshot(commit).join(file);
        if path.exists() {
            note(&format!("{file} is there"));
            return Ok(());
        }
        let file_path: Vec<String> = file.split('/').map(encoded).collect();
        let (repo, revision) = (&self.model.repo, encoded(&self.model.revision));
        let url = format!("{}/{repo}/resolve/{revision}/{}", self.endpoint, file_path.join("/"));
        let metadata = self.client.metadata(&url).map_err(|error| self.error(error))?;
        let Metadata { commit: there, etag, size } = &metadata;
        if !is_inside(etag) || etag.contains('/') || there != commit {
            return Err(self.unusable(format!("{file} has the tag {etag:?} and is of commit {there:?}")));
        }
        let blob = self.folder.blob(etag);
        for inner in [&blob, &path] {
            make_parent(inner)?;
        }
        // another program that fetches the same file is waited for
        let lock = beside(&blob, ".lock");
        let _held = locked(&lock).map_err(at(&lock))?;
        if !blob.exists() {
            let (part, bar) = (beside(&blob, ".part"), Bar::new(file, *size));
            self.client.fetch(&url, &part, *size, &bar).map_err(|error| self.error(error))?;
            bar.finish();
            self.verify(&part, file, etag).inspect_err(|_| {
                let _ = fs::remove_file(&part);
            })?;
            fs::rename(&part, &blob).map_err(at(&blob))?;
        }
        link(&blob, &path, file).map_err(at(&path))
    }

    /// Writes down that the revision means `commit`, of which all that was asked for is there now.
    fn name(&self, commit: &str) -> Result<(), PullError> {
        let path = self.folder.reference(&self.model.revision);
        make_parent(&path)?;
        fs::write(&path, commit).map_err(at(&path))
    }

    /// Checks that a file is the one that the Hub has: large ones are known by their SHA-256.
    fn verify(&self, path: &Path, file: &str, etag: &str) -> Result<(), PullError> {
        let is_sha256 = etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_sha256 && sha256(path).map_err(at(path))? != etag.to_ascii_lowercase() {
            return Err(PullError::Hash { repo: self.model.repo.clone(), file: file.to_owned() });
        }
        Ok(())
    }

    fn error(&self, error: TransferError) -> PullError {
        let (repo, endpoint) = (self.model.repo.clone(), self.endpoint.clone());
        match error {
            // the Hub says 401 of what does not exist, too, to those whom it does not know
            TransferError::Request(ureq::Error::StatusCode(status @ (401 | 403))) => {
                PullError::Refused { repo, status, endpoint }
            }
            TransferError::Request(ureq::Error::StatusCode(404)) => {
                PullError::NotFound { repo, revision: self.model.revision.clone(), endpoint }
            }
            source => PullError::Transfer { repo, source },
        }
    }

    fn unusable(&self, reason: String) -> PullError {
        PullError::Answer { repo: self.model.repo.clone(), endpoint: self.endpoint.clone(), reason }
    }
}

/// What may be shown to the Hub.
fn token() -> Option<String> {
    let of_hubs_tools = || fs::read_to_string(hub_cache().with_file_name("token")).ok();
    let token = |text: String| Some(text.trim().to_owned()).filter(|token| !token.is_empty());
    std::env::var("HF_TOKEN").ok().and_then(token).or_else(|| of_hubs_tools().and_then(token))
}

fn make_parent(path: &Path) -> Result<(), PullError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(at(parent))
}

fn at(path: &Path) -> impl Fn(io::Error) -> PullError {
    move |source| PullError::File { path: path.to_path_buf(), source }
}
