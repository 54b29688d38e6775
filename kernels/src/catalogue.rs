//! Every kernel of the embedded sources, parsed once.

use std::sync::LazyLock;

use crate::sources::{Source, sources};
use crate::syntax::{Kernel, SyntaxError, parse};

/// A kernel and the file it stands in.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its file.
    pub source: Source<'static>,
    /// Its signature.
    pub kernel: Kernel,
}

static ENTRIES: LazyLock<Result<Vec<Entry>, SyntaxError>> = LazyLock::new(|| {
    let mut entries = Vec::new();
    for source in sources() {
        let kernels = parse(source.file, source.text)?;
        entries.extend(kernels.into_iter().map(|kernel| Entry { source, kernel }));
    }
    Ok(entries)
});

/// Every kernel and instance, by file and in the order written.
///
/// # Errors
/// [`SyntaxError`] when an embedded source cannot be read; a test holds that all can.
pub fn kernels() -> Result<&'static [Entry], SyntaxError> {
    ENTRIES.as_deref().map_err(Clone::clone)
}

/// The kernel or instance `name`; none when no source has it.
///
/// # Errors
/// As [`kernels`].
pub fn find(name: &str) -> Result<Option<&'static Entry>, SyntaxError> {
    Ok(kernels()?.iter().find(|e| e.kernel.name == name))
}
