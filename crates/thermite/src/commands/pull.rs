//! `thermite pull`: a model from the Hugging Face Hub, into the cache that its own tools use.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use thermite_engine::{HubModel, hub_cache, is_inside};

use crate::cli::PullArgs;
use crate::error::Error;
use crate::output::{note, print};

use self::progress::Bar;

mod progress;

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

/// Times that a transfer is taken up again where it broke off.
const RETRIES: usize = 5;

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
    #[error("{repo}: {file} came as {have} bytes, not as {need}; it was thrown away")]
    Size { repo: String, file: String, have: u64, need: u64 },
    #[error("{repo}: {file} came with another SHA-256 than the Hub has for it; it was thrown away")]
    Hash { repo: String, file: String },
    #[error("{repo}: {source}")]
    Api { repo: String, source: ApiError },
    #[error("{repo}: the answer of {endpoint} cannot be used: {reason}")]
    Answer { repo: String, endpoint: String, reason: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

fn listed(files: &[String]) -> String {
    if files.is_empty() { "no files".to_owned() } else { files.join(", ") }
}

pub(crate) fn run(args: &PullArgs) -> Result<(), Error> {
    let model = HubModel::parse(&format!("{}@{}", args.repo, args.revision))?;
    let pull = Pull::new(model)?;
    let (commit, there) = pull.listing()?;
    let files = chosen(&pull.model.repo, &there, &args.file)?;
    for file in &files {
        pull.fetch(&commit, file)?;
    }
    let path = match files.as_slice() {
        [file] if file.ends_with(".gguf") => pull.snapshot(&commit).join(file),
        _ => pull.snapshot(&commit),
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

/// One model to be fetched.
struct Pull {
    model: HubModel,
    endpoint: String,
    api: Api,
    cache: Cache,
    repo: Repo,
}

impl Pull {
    fn new(model: HubModel) -> Result<Self, PullError> {
        let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let cache = Cache::new(hub_cache());
        let token =
            std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()).or_else(|| cache.token());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(endpoint.clone())
            .with_token(token)
            .with_retries(RETRIES)
            .with_user_agent("thermite", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|source| PullError::Api { repo: model.repo.clone(), source })?;
        let repo = Repo::with_revision(model.repo.clone(), RepoType::Model, model.revision.clone());
        Ok(Self { model, endpoint, api, cache, repo })
    }

    /// The commit that the revision means, and its files.
    fn listing(&self) -> Result<(String, Vec<String>), PullError> {
        let info = self.api.repo(self.repo.clone()).info().map_err(|error| self.error(error))?;
        let files: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        if let Some(outside) = files.iter().chain([&info.sha]).find(|file| !is_inside(file)) {
            return Err(self.unusable(format!("{outside:?} is no name of a file")));
        }
        Ok((info.sha, files))
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.repo(self.repo.clone()).pointer_path(commit)
    }

    /// Fetches a file, if it is not there.
    fn fetch(&self, commit: &str, file: &str) -> Result<(), PullError> {
        if self.snapshot(commit).join(file).exists() {
            note(&format!("{file} is there"));
            return Ok(());
        }
        let remote = self.api.repo(self.repo.clone());
        let metadata = self.api.metadata(&remote.url(file)).map_err(|error| self.error(error))?;
        if !is_inside(metadata.etag()) || metadata.etag().contains('/') || metadata.commit_hash() != commit {
            return Err(self.unusable(format!("{file} is of commit {:?}", metadata.commit_hash())));
        }
        let blob = self.cache.repo(self.repo.clone()).blob_path(metadata.etag());
        let fetched = remote.download_with_progress(file, Bar::new()).map_err(|error| self.error(error));
        if let Err(PullError::Api { source: ApiError::InvalidResume, .. }) = &fetched {
            // what is there of it is longer than the whole: it is of no use
            let _ = std::fs::remove_file(blob.with_extension("part"));
        }
        let path = fetched?;
        self.verify(&path, file, metadata.size() as u64, metadata.etag()).inspect_err(|_| {
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_file(&blob);
        })
    }

    /// Checks that a file is the one that the Hub has: large ones are known by their SHA-256.
    fn verify(&self, path: &Path, file: &str, need: u64, etag: &str) -> Result<(), PullError> {
        let repo = || self.model.repo.clone();
        let at = |source| PullError::File { path: path.to_path_buf(), source };
        let have = std::fs::metadata(path).map_err(at)?.len();
        if have != need {
            return Err(PullError::Size { repo: repo(), file: file.to_owned(), have, need });
        }
        let is_sha256 = etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_sha256 && sha256(path).map_err(at)? != etag.to_ascii_lowercase() {
            return Err(PullError::Hash { repo: repo(), file: file.to_owned() });
        }
        Ok(())
    }

    fn error(&self, error: ApiError) -> PullError {
        let (repo, endpoint) = (self.model.repo.clone(), self.endpoint.clone());
        match status_of(&error) {
            // the Hub says 401 of what does not exist, too, to those whom it does not know
            Some(status @ (401 | 403)) => PullError::Refused { repo, status, endpoint },
            Some(404) => PullError::NotFound { repo, revision: self.model.revision.clone(), endpoint },
            _ => PullError::Api { repo, source: error },
        }
    }

    fn unusable(&self, reason: String) -> PullError {
        PullError::Answer { repo: self.model.repo.clone(), endpoint: self.endpoint.clone(), reason }
    }
}

/// The HTTP status that an error comes from.
fn status_of(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status_of(error),
        _ => None,
    }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => context.update(&buffer[..read]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
