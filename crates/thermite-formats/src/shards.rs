//! `model.safetensors.index.json`: which tensor is in which shard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The index of a model in several safetensors files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ShardIndex {
    /// Tensor name to shard file name; shards lie in the index's own folder.
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads the index text; `path` is what errors call it.
    pub fn parse(path: &Path, json: &[u8]) -> Result<Self> {
        let index: Self = serde_json::from_slice(json).map_err(|e| Error::json(path, e))?;
        for shard in index.shards() {
            // A plain name cannot lead out of the folder.
            let mut components = Path::new(shard).components();
            let plain = matches!(
                (components.next(), components.next()),
                (Some(Component::Normal(name)), None) if name == shard
            );
            if !plain || shard.contains(['\\', '\0']) {
                return Err(Error::ShardName { index: path.to_path_buf(), shard: shard.to_owned() });
            }
        }
        Ok(index)
    }

    /// The shards' file names, each once, in order.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}
