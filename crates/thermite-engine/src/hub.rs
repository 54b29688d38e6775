//! Models of the Hugging Face Hub, where its own tools keep them: `HF_HOME`, or `~/.cache/huggingface`.
//!
//! `hub/models--OWNER--NAME` there has a folder for each commit in `snapshots`, and in `refs` the commit that each
//! branch or tag means.

use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// What stands before the name of a model of the Hub.
pub const HUB: &str = "hf:";

/// A model of the Hub: `OWNER/NAME`, with a revision `OWNER/NAME@REVISION`, with a file `OWNER/NAME/FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// `OWNER/NAME`.
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The file that is the model, where not the whole folder is.
    pub file: Option<String>,
}

impl HubModel {
    /// Reads a name, without [`HUB`] before it.
    ///
    /// # Errors
    /// [`Error::HubName`] for a name of another form, or one that would lead out of its folder.
    pub fn parse(name: &str) -> Result<Self> {
        let wrong = || Error::HubName { name: name.to_owned() };
        let mut parts = name.splitn(3, '/');
        let (Some(owner), Some(repo)) = (parts.next(), parts.next()) else { return Err(wrong()) };
        let (repo, revision) = repo.split_once('@').unwrap_or((repo, "main"));
        let file = parts.next();
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let fits =
            [owner, repo].into_iter().all(|part| plain(part) && is_inside(part) && !part.contains("--"));
        if !fits || !is_inside(revision) || !file.is_none_or(is_inside) {
            return Err(wrong());
        }
        Ok(Self {
            repo: format!("{owner}/{repo}"),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }

    /// Where its repository lies in the cache.
    pub fn folder(&self) -> HubFolder {
        HubFolder::of(&self.repo, &hub_cache())
    }

    /// Where it lies in the cache: a folder, or its file.
    ///
    /// # Errors
    /// [`Error::NotPulled`] if it is not there.
    pub fn path(&self) -> Result<PathBuf> {
        let there = self.path_in(&self.folder());
        there.ok_or_else(|| Error::NotPulled { repo: self.repo.clone(), cache: hub_cache() })
    }

    fn path_in(&self, folder: &HubFolder) -> Option<PathBuf> {
        let snapshot = |commit: &str| Some(folder.snapshot(commit)).filter(|path| path.is_dir());
        let files = snapshot(&self.revision).or_else(|| {
            let commit = std::fs::read_to_string(folder.reference(&self.revision)).ok()?;
            snapshot(Some(commit.trim()).filter(|commit| is_inside(commit))?)
        })?;
        match &self.file {
            None => Some(files),
            Some(file) => Some(files.join(file)).filter(|path| path.exists()),
        }
    }
}

/// The folder of a repository in the cache. What its parts are called by must be [`is_inside`].
#[derive(Debug, Clone)]
pub struct HubFolder(PathBuf);

impl HubFolder {
    fn of(repo: &str, cache: &Path) -> Self {
        Self(cache.join(format!("models--{}", repo.replace('/', "--"))))
    }

    /// The files of a commit under their names, which are links to blobs.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.0.join("snapshots").join(commit)
    }

    /// What a file has in it to which the Hub gives the tag `etag`.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.0.join("blobs").join(etag)
    }

    /// The file that says which commit a branch or tag means.
    pub fn reference(&self, revision: &str) -> PathBuf {
        self.0.join("refs").join(revision)
    }
}

/// Where the Hub's tools keep what they have fetched.
pub fn hub_cache() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cache").join("huggingface");
    std::env::var_os("HF_HOME").map_or_else(home, PathBuf::from).join("hub")
}

/// Whether a path leads to something below where it starts.
pub fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && !path.contains('\\') && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let model = |name: &str| {
            let HubModel { repo, revision, file } = HubModel::parse(name).unwrap();
            (repo, revision, file)
        };
        assert_eq!(model("a/b"), ("a/b".into(), "main".into(), None));
        assert_eq!(model("a/b.C_1@v1"), ("a/b.C_1".into(), "v1".into(), None));
        assert_eq!(model("a/b/c/d.gguf"), ("a/b".into(), "main".into(), Some("c/d.gguf".into())));
        for wrong in [
            "", "a", "a/", "/b", "../b", "a/..", "a/b@", "a/b@../x", "a/b/../c", "a/b//etc", "a b/c",
            "a--b/c",
        ] {
            let error = HubModel::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{wrong:?} is no model of the Hub")), "{error}");
        }
    }
}
