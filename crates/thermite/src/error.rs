//! What the command reports.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The engine, the model, the device or the files.
    #[error(transparent)]
    Engine(#[from] thermite_engine::Error),
    /// Standard output or standard error.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
    /// The terminal that a chat reads from.
    #[error("the terminal cannot be read: {0}")]
    Terminal(#[from] rustyline::error::ReadlineError),
    /// Ctrl-C cannot be taken over.
    #[error("no handler for Ctrl-C: {0}")]
    Interrupt(#[from] ctrlc::Error),
    /// JSON for standard output.
    #[error("the output cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// A file that the user named.
    #[error("{}: {source}", name(path))]
    File {
        /// The file, `-` for standard input.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A text file in another encoding.
    #[error("{}: not UTF-8 text: byte {offset} is invalid", name(path))]
    NotUtf8 {
        /// The file, `-` for standard input.
        path: PathBuf,
        /// Where the first wrong byte is.
        offset: usize,
    },
    /// No prompt anywhere.
    #[error("no prompt: give it as an argument, with --file, or on standard input")]
    NoPrompt,
    /// A kernel that is not there, or does not pass.
    #[error("{0}")]
    Kernels(String),
    /// A plot that could not be drawn.
    #[error("{}: the plot cannot be written: {reason}", path.display())]
    Plot {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A server that is to be measured, and cannot.
    #[error("{url}: {reason}")]
    Measured {
        /// Where it is.
        url: String,
        /// Why.
        reason: String,
    },
    /// A model that cannot be fetched.
    #[cfg(feature = "pull")]
    #[error(transparent)]
    Pull(#[from] crate::commands::pull::PullError),
    /// A server.
    #[error(transparent)]
    Server(#[from] thermite_server::ServerError),
    /// A model that is to be served.
    #[error(transparent)]
    Load(Box<thermite_server::LoadError<Error>>),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A combination of options that makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Whether the reader of the output went away: `thermite … | head`.
    pub(crate) fn is_closed_output(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Json(error) => error.io_error_kind() == Some(io::ErrorKind::BrokenPipe),
            _ => false,
        }
    }
}

/// What errors call the file that the user named.
fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

impl From<thermite_server::LoadError<Error>> for Error {
    fn from(error: thermite_server::LoadError<Error>) -> Self {
        match error {
            thermite_server::LoadError::Load(error) => error,
            error => Self::Load(Box::new(error)),
        }
    }
}

impl From<thermite_formats::Error> for Error {
    fn from(error: thermite_formats::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<thermite_device::Error> for Error {
    fn from(error: thermite_device::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<thermite_model::Error> for Error {
    fn from(error: thermite_model::Error) -> Self {
        Self::Engine(error.into())
    }
}
