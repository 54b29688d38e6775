//! Standard output, standard error, and texts that the user hands over.

use std::fmt::Display;
use std::io::{self, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use crate::error::Error;

/// Writes a line, or several.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    print_bytes(text.as_bytes())
}

/// Writes bytes as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes `value` as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Writes a line to standard error; if nobody can read that, so be it.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Reports an error, in one line.
pub(crate) fn complain(error: &impl Display) {
    note(&format!("error: {}", printable(&error.to_string())));
}

/// `text` without control characters, which names in files could bring to the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            _ if c.is_control() => out.extend(c.escape_default()),
            _ => out.push(c),
        }
        out
    })
}

/// Standard output, piece by piece; an error ends the text and is kept.
pub(crate) struct Stream {
    out: io::Stdout,
    result: io::Result<()>,
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self { out: io::stdout(), result: Ok(()) }
    }

    pub(crate) fn write(&mut self, piece: &str) -> ControlFlow<()> {
        if self.result.is_ok() {
            let mut out = self.out.lock();
            self.result = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        }
        if self.result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        Ok(self.result?)
    }
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
