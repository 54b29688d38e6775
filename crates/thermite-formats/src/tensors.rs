//! The tensors of a model, from one file or several.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bytes::FileBytes;
use crate::error::{Error, Result};
use crate::near::near;
use crate::safetensors::Header;
use crate::shards::ShardIndex;
use crate::tensor::{TensorEntry, TensorView};

/// A model's tensors by name, over memory-mapped or embedded files.
#[derive(Debug)]
pub struct Tensors {
    origin: PathBuf,
    files: Vec<SourceFile>,
    by_name: BTreeMap<String, Located>,
}

#[derive(Debug)]
struct SourceFile {
    path: PathBuf,
    bytes: Arc<FileBytes>,
}

#[derive(Debug)]
struct Located {
    file: usize,
    entry: TensorEntry,
}

impl Tensors {
    /// Maps one safetensors file.
    ///
    /// # Errors
    /// Whatever is wrong with the file: see [`Error`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut tensors = Self::empty(path);
        tensors.add_safetensors(path.to_path_buf(), FileBytes::map(path)?)?;
        Ok(tensors)
    }

    /// Maps every shard that `index` (a `model.safetensors.index.json`) names, from its folder.
    ///
    /// # Errors
    /// Whatever is wrong with the index or a shard: see [`Error`].
    pub fn open_sharded(index: &Path) -> Result<Self> {
        let json = std::fs::read(index).map_err(|source| Error::io(index, source))?;
        let shard_index = ShardIndex::parse(index, &json)?;
        let mut tensors = Self::empty(index);
        for shard in shard_index.shards() {
            let path = index.with_file_name(shard);
            let bytes = FileBytes::map(&path).map_err(|error| match error {
                Error::NotFound { .. } => {
                    Error::ShardMissing { index: index.to_path_buf(), shard: shard.to_owned() }
                }
                other => other,
            })?;
            tensors.add_safetensors(path, bytes)?;
        }
        for (name, shard) in &shard_index.weight_map {
            let found = tensors.get(name).is_ok_and(|t| t.file.ends_with(shard));
            if !found {
                return Err(Error::NotInShard {
                    index: index.to_path_buf(),
                    shard: shard.clone(),
                    name: name.clone(),
                });
            }
        }
        Ok(tensors)
    }

    /// Reads a safetensors file that is part of the program; `name` is what errors call it.
    ///
    /// # Errors
    /// Whatever is wrong with the file: see [`Error`].
    pub fn embedded(name: &str, file: &'static [u8]) -> Result<Self> {
        let mut tensors = Self::empty(Path::new(name));
        tensors.add_safetensors(PathBuf::from(name), FileBytes::Embedded(file))?;
        Ok(tensors)
    }

    /// Reads a safetensors file that the program has made; `name` is what errors call it.
    ///
    /// # Errors
    /// Whatever is wrong with the file: see [`Error`].
    pub fn in_memory(name: &str, file: Vec<u8>) -> Result<Self> {
        let mut tensors = Self::empty(Path::new(name));
        tensors.add_safetensors(PathBuf::from(name), FileBytes::Owned(file))?;
        Ok(tensors)
    }

    pub(crate) fn empty(origin: &Path) -> Self {
        Self { origin: origin.to_path_buf(), files: Vec::new(), by_name: BTreeMap::new() }
    }

    /// The tensors of one file, whose descriptions were checked.
    pub(crate) fn of_file(path: &Path, bytes: Arc<FileBytes>, entries: Vec<TensorEntry>) -> Result<Self> {
        let mut tensors = Self::empty(path);
        tensors.add(path.to_path_buf(), bytes, entries)?;
        Ok(tensors)
    }

    fn add_safetensors(&mut self, path: PathBuf, bytes: FileBytes) -> Result<()> {
        let header = Header::parse(&path, &bytes)?;
        self.add(path, Arc::new(bytes), header.tensors)
    }

    pub(crate) fn add(
        &mut self,
        path: PathBuf,
        bytes: Arc<FileBytes>,
        entries: Vec<TensorEntry>,
    ) -> Result<()> {
        let file = self.files.len();
        for entry in entries {
            match self.by_name.entry(entry.name.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Located { file, entry });
                }
                Entry::Occupied(other) => {
                    let other = self.files.get(other.get().file).map(|file| file.path.clone());
                    return Err(Error::DuplicateTensor { path, name: entry.name, other });
                }
            }
        }
        self.files.push(SourceFile { path, bytes });
        Ok(())
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`], with the names that look like it.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>> {
        match self.by_name.get(name) {
            Some(located) => Ok(self.view(located)),
            None => Err(Error::NoSuchTensor {
                path: self.origin.clone(),
                name: name.to_owned(),
                near: near(name, self.names()),
            }),
        }
    }

    /// Lets go of the memory in which the tensor of that name is mapped, since it has been copied; it can be read again.
    pub fn release(&self, name: &str) {
        if let Some(located) = self.by_name.get(name) {
            self.files[located.file].bytes.release(located.entry.range.clone());
        }
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.by_name.values().map(|located| self.view(located))
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    fn view<'a>(&'a self, located: &'a Located) -> TensorView<'a> {
        let (file, entry) = (&self.files[located.file], &located.entry);
        TensorView {
            name: &entry.name,
            dtype: entry.dtype,
            shape: &entry.shape,
            data: &file.bytes[entry.range.clone()],
            file: &file.path,
            owner: &file.bytes,
            offset: entry.range.start,
        }
    }
}
