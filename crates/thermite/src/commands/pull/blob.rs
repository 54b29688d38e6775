//! Files of the cache: what is fetched, under its tag, and its names.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// `path` with something behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// A file of which no other program has the lock.
pub(super) fn locked(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    file.lock()?;
    Ok(file)
}

/// Puts `blob` at `path`, which is `file` in the folder of a commit, as the Hub's own tools do it.
pub(super) fn link(blob: &Path, path: &Path, file: &str) -> io::Result<()> {
    // a link that leads nowhere
    let _ = fs::remove_file(path);
    let up = "../".repeat(2 + file.matches('/').count());
    let target = Path::new(&up).join("blobs").join(blob.file_name().unwrap_or_default());
    symlink(&target, path, blob)
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path, _blob: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Not everybody may make links here: a copy does as well.
#[cfg(windows)]
fn symlink(target: &Path, path: &Path, blob: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path).or_else(|_| fs::copy(blob, path).map(drop))
}

/// In hexadecimal digits.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
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
