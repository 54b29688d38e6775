//! Lines of a chat: from a terminal with a history, or from a pipe.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, KeyEvent, Movement,
    RepeatCount,
};

use crate::error::Error;
use crate::output::note;

/// Lines that the history keeps.
const HISTORY: usize = 1000;

/// Where lines come from.
pub(super) enum Input {
    Terminal(Box<Terminal>),
    Pipe { bytes_before: usize },
}

impl Input {
    pub(super) fn open() -> Result<Self, Error> {
        Ok(match io::stdin().is_terminal() {
            true => Self::Terminal(Box::new(Terminal::open()?)),
            false => Self::Pipe { bytes_before: 0 },
        })
    }

    /// The next line, without its end; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<String>, Error> {
        match self {
            Self::Terminal(terminal) => terminal.next(),
            Self::Pipe { bytes_before } => piped_line(bytes_before),
        }
    }
}

fn piped_line(bytes_before: &mut usize) -> Result<Option<String>, Error> {
    let path = || PathBuf::from("-");
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_until(b'\n', &mut bytes);
    let read = read.map_err(|source| Error::File { path: path(), source })?;
    if read == 0 {
        return Ok(None);
    }
    let mut line = String::from_utf8(bytes)
        .map_err(|e| Error::NotUtf8 { path: path(), offset: *bytes_before + e.utf8_error().valid_up_to() })?;
    *bytes_before += read;
    line.truncate(line.trim_end_matches(['\n', '\r']).len());
    Ok(Some(line))
}

/// A terminal. Its history outlives the program where a file for it can be written.
pub(super) struct Terminal {
    editor: Editor<(), FileHistory>,
    history: Option<PathBuf>,
}

impl Terminal {
    fn open() -> Result<Self, Error> {
        let config = Config::builder().max_history_size(HISTORY)?.history_ignore_dups(true)?.build();
        let mut editor = Editor::with_config(config)?;
        editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(ClearLine)));
        let history = history_file(std::env::var_os("XDG_STATE_HOME"), std::env::home_dir());
        if let Some(file) = &history {
            // no history is no reason not to chat
            let _ = file.parent().map(std::fs::create_dir_all);
            let _ = editor.load_history(file);
        }
        Ok(Self { editor, history })
    }

    fn next(&mut self) -> Result<Option<String>, Error> {
        let mut interrupted = false;
        loop {
            match self.editor.readline("> ") {
                Ok(line) => {
                    self.remember(&line);
                    return Ok(Some(line));
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Interrupted) if interrupted => return Ok(None),
                Err(ReadlineError::Interrupted) => {
                    interrupted = true;
                    note("(Ctrl-C again, or Ctrl-D, ends)");
                }
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    note("(that was not UTF-8 text)");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn remember(&mut self, line: &str) {
        let added = self.editor.add_history_entry(line).unwrap_or(false);
        if let Some(file) = self.history.as_ref().filter(|_| added) {
            let _ = self.editor.append_history(file);
        }
    }
}

/// Ctrl-C in a line that has text clears it; in an empty one it is left to [`Terminal::next`].
struct ClearLine;

impl ConditionalEventHandler for ClearLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        (!context.line().is_empty()).then_some(Cmd::Kill(Movement::WholeBuffer))
    }
}

/// `thermite/history` in the folder for what programs remember (XDG Base Directory Specification), which must be an
/// absolute path to count.
fn history_file(state: Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let state = state.map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| home.map(|home| home.join(Path::new(".local/state"))));
    state.map(|state| state.join("thermite").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_lies_where_state_belongs() {
        let home = || Some(PathBuf::from("/home/ada"));
        let of = |state: &str| history_file(Some(state.into()), home());
        let at_home = Some(PathBuf::from("/home/ada/.local/state/thermite/history"));
        assert_eq!(history_file(None, home()), at_home);
        assert_eq!(of("/state"), Some(PathBuf::from("/state/thermite/history")));
        assert_eq!((of(""), of("state")), (at_home.clone(), at_home));
        assert_eq!(history_file(None, None), None);
    }
}
