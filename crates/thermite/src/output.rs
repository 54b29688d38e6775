//! Standard output, and texts that the user hands over.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use serde::Serialize;

use crate::error::Error;

/// Writes a line, or several.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes `value` as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The text of a file, `-` being standard input.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let at = |source| Error::File { path: path.to_path_buf(), source };
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map_err(at)?;
        bytes
    } else {
        std::fs::read(path).map_err(at)?
    };
    String::from_utf8(bytes)
        .map_err(|e| Error::NotUtf8 { path: path.to_path_buf(), offset: e.utf8_error().valid_up_to() })
}

/// The text that a command works on: the argument, the file, or what is piped in. The last newline of a file or a
/// pipe is not part of it.
pub(crate) fn given_text(argument: Option<&str>, file: Option<&Path>) -> Result<String, Error> {
    let path = match (argument, file) {
        (Some("-"), _) => Path::new("-"),
        (Some(text), _) => return Ok(text.to_owned()),
        (None, Some(path)) => path,
        (None, None) if io::stdin().is_terminal() => return Err(Error::NoPrompt),
        (None, None) => Path::new("-"),
    };
    let mut text = read_text(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
