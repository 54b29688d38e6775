//! A plan, written: rows are read, quantised on all threads, and appended to a file that takes its name when whole.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;

use super::rows::Rows;
use super::{ConvertFault, Plan};
use crate::error::{Error, Result};
use crate::gguf::{ALIGNMENT, TensorInfo};
use crate::quant;

/// Elements that a thread quantises at a time: a few milliseconds' work.
const CHUNK: usize = 1 << 18;

impl Plan<'_> {
    /// Writes the file at `path`, with so many threads. It is written beside its place under another name and
    /// renamed when it is whole: there is never half a file at `path`. `progress` is told the bytes as they come.
    /// The bytes do not depend on the number of threads.
    ///
    /// # Errors
    /// A number that its type cannot hold, or a file that cannot be written.
    pub fn write(&self, path: &Path, threads: usize, mut progress: impl FnMut(u64)) -> Result<()> {
        if same_file(path, &self.origin) {
            return Err(Error::Convert { path: path.to_path_buf(), fault: ConvertFault::Itself });
        }
        let header = self.header(path)?;
        let mut file = PartialFile::create(path)?;
        file.append(&header)?;
        for (tensor, rows) in self.tensors().iter().zip(&self.rows) {
            let mut written = 0;
            self.each_part(tensor, rows, threads.max(1), |bytes| {
                written += bytes.len();
                progress(bytes.len() as u64);
                file.append(bytes)
            })?;
            file.append(&[0; ALIGNMENT][..written.next_multiple_of(ALIGNMENT) - written])?;
        }
        file.finish(path)
    }

    /// The bytes of the file up to the data of its first tensor; `path` is what errors call it.
    ///
    /// # Errors
    /// Two tensors of one name.
    pub fn header(&self, path: &Path) -> Result<Vec<u8>> {
        self.header.to_bytes(path)
    }

    /// Bytes of all tensors: what `progress` adds up to.
    pub fn bytes(&self) -> u64 {
        let bytes = self.tensors().iter().filter_map(|tensor| tensor.dtype.bytes_of(&tensor.shape));
        bytes.map(|bytes| bytes as u64).sum()
    }

    /// Hands the bytes of one tensor to `append`, part by part.
    fn each_part(
        &self,
        tensor: &TensorInfo,
        rows: &Rows<'_>,
        threads: usize,
        mut append: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if let Some(bytes) = rows.as_stored(tensor.dtype) {
            return bytes.chunks(4 * CHUNK).try_for_each(append);
        }
        let cols = tensor.shape.last().copied().unwrap_or(1);
        let elements: usize = tensor.shape.iter().product();
        let row_bytes = tensor.dtype.bytes_of(&[cols]).unwrap_or_default();
        if elements == 0 || row_bytes == 0 {
            return Ok(());
        }
        let height = elements / cols;
        let rows_each = (CHUNK / cols).max(1);
        let mut part = Vec::new();
        for start in (0..height).step_by(rows_each * threads) {
            let count = (rows_each * threads).min(height - start);
            part.resize(count * row_bytes, 0);
            let work = |first: usize, out: &mut [u8]| -> Result<()> {
                let range = first..first + out.len() / row_bytes;
                let mut values = vec![0.0; range.len() * cols];
                rows.read(range, cols, &mut values)?;
                quant::quantize(tensor.dtype, &values, out).map_err(|fault| Error::Quantize {
                    path: self.origin.clone(),
                    name: tensor.name.clone(),
                    fault,
                })
            };
            thread::scope(|scope| {
                let chunks = part.chunks_mut(rows_each * row_bytes).enumerate();
                let workers: Vec<_> =
                    chunks.map(|(i, out)| scope.spawn(move || work(start + i * rows_each, out))).collect();
                // a panic in a thread would be one here
                workers.into_iter().try_for_each(|worker| match worker.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
            })?;
            append(&part)?;
        }
        Ok(())
    }
}

/// A file that is being written; dropped before it is finished, it is removed.
struct PartialFile {
    path: PathBuf,
    out: Option<BufWriter<File>>,
}

impl PartialFile {
    /// # Errors
    /// [`Error::Unwritable`] also where `target` is there and no regular file: a device or a pipe would be replaced.
    fn create(target: &Path) -> Result<Self> {
        if std::fs::metadata(target).is_ok_and(|target| !target.is_file()) {
            return Err(unwritable(target, std::io::Error::other("it is there and is not a regular file")));
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let path = target.with_file_name(name);
        let file = File::create(&path).map_err(|source| unwritable(&path, source))?;
        Ok(Self { path, out: Some(BufWriter::new(file)) })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.out {
            Some(out) => out.write_all(bytes).map_err(|source| unwritable(&self.path, source)),
            None => Ok(()),
        }
    }

    fn finish(mut self, target: &Path) -> Result<()> {
        if let Some(out) = &mut self.out {
            let synced = out.flush().and_then(|()| out.get_ref().sync_all());
            synced.map_err(|source| unwritable(&self.path, source))?;
        }
        std::fs::rename(&self.path, target).map_err(|source| unwritable(target, source))?;
        self.out = None;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let _ = std::fs::remove_file(&self.path); // the error that ended the writing is the one to report
        }
    }
}

fn unwritable(path: &Path, source: std::io::Error) -> Error {
    Error::Unwritable { path: path.to_path_buf(), source }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
