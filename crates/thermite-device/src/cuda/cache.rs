//! Compiled kernels on disk: a file of machine code for each source, its options, architecture and driver.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use sha2::{Digest, Sha256};

/// What an entry begins with, before the digest of the code that follows.
const MAGIC: &[u8; 16] = b"thermite cubin 1";
const DIGEST: usize = 32;

/// What machine code depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    /// The translation unit and the headers it may include, as (name, text).
    pub(super) texts: &'a [(&'a str, &'a str)],
    /// The compiler's options, the architecture among them.
    pub(super) options: &'a [String],
    /// Version of the compiler.
    pub(super) compiler: (i32, i32),
    /// Version of the driver.
    pub(super) driver: i32,
}

impl Key<'_> {
    /// A name for the entry: the SHA-256 of everything, each part behind its length.
    pub(super) fn name(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (name, text) in self.texts {
            part(name.as_bytes());
            part(text.as_bytes());
        }
        part(&[]);
        for option in self.options {
            part(option.as_bytes());
        }
        part(&[]);
        for number in [self.compiler.0, self.compiler.1, self.driver] {
            part(&number.to_le_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A folder of compiled kernels. Nothing depends on it: what cannot be read is compiled again, what cannot be written
/// is not kept.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// `THERMITE_CACHE`, or `thermite` in the user's cache folder.
    pub(super) fn of_user() -> Self {
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = || {
            let base = var("XDG_CACHE_HOME").filter(|path| path.is_absolute());
            let base = base.or_else(|| var("LOCALAPPDATA")).or_else(|| Some(var("HOME")?.join(".cache")));
            base.map(|base| base.join("thermite"))
        };
        Self { folder: var("THERMITE_CACHE").or_else(user) }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join("cubin").join(name))
    }

    /// The code of entry `name`, if it is there and whole.
    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut entry = fs::read(self.path(name)?).ok()?;
        let (head, code) = entry.split_at_checked(MAGIC.len() + DIGEST)?;
        let whole = head.starts_with(MAGIC) && head[MAGIC.len()..] == *Sha256::digest(code);
        whole.then(|| entry.split_off(MAGIC.len() + DIGEST))
    }

    /// Keeps `code` as entry `name`. Readers see all of it or nothing.
    pub(super) fn write(&self, name: &str, code: &[u8]) -> io::Result<()> {
        let Some(path) = self.path(name) else { return Ok(()) };
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let partial = folder.join(format!("{name}.{}", process::id()));
        let written = fs::File::create(&partial).and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)?;
            file.sync_all()
        });
        let done = written.and_then(|()| fs::rename(&partial, &path));
        if done.is_err() {
            let _ = fs::remove_file(&partial);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key<'a>(texts: &'a [(&'a str, &'a str)], options: &'a [String]) -> Key<'a> {
        Key { texts, options, compiler: (13, 0), driver: 13_000 }
    }

    #[test]
    fn a_key_depends_on_every_part_and_on_where_parts_end() {
        let options = vec!["-a".to_owned(), "-b".to_owned()];
        let base = key(&[("k.metal", "text"), ("h.h", "")], &options);
        let joined = vec!["-a-b".to_owned()];
        let others = [
            key(&[("k.metal", "texth.h"), ("", "")], &options),
            key(&[("k.metal", "text!"), ("h.h", "")], &options),
            key(&[("k.metal", "text"), ("h.h", "")], &joined),
            Key { compiler: (13, 1), ..base },
            Key { driver: 13_010, ..base },
        ];
        assert_eq!(base.name(), key(&[("k.metal", "text"), ("h.h", "")], &options).name());
        for other in others {
            assert_ne!(base.name(), other.name(), "{other:?}");
        }
    }

    #[test]
    fn an_entry_that_is_not_whole_is_none() {
        let folder = env::temp_dir().join(format!("thermite-cache-{}", process::id()));
        let cache = Cache { folder: Some(folder.clone()) };
        assert_eq!(cache.read("entry"), None);
        cache.write("entry", b"machine code").unwrap();
        assert_eq!(cache.read("entry").as_deref(), Some(b"machine code".as_slice()));

        let path = cache.path("entry").unwrap();
        let whole = fs::read(&path).unwrap();
        for end in [0, 15, 40, whole.len() - 1] {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(cache.read("entry"), None, "cut to {end} bytes");
        }
        for at in [0, 20, whole.len() - 1] {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            fs::write(&path, &bent).unwrap();
            assert_eq!(cache.read("entry"), None, "byte {at} changed");
        }
        cache.write("entry", b"machine code").unwrap();
        assert!(cache.read("entry").is_some());
        assert_eq!(fs::read_dir(folder.join("cubin")).unwrap().count(), 1, "nothing partial is left");
        fs::remove_dir_all(folder).unwrap();
    }
}
