//! `thermite serve`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use thermite_engine::BUILTIN;

use super::RunArgs;
use super::model::at_least_one;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// [NAME=]MODEL: GGUF files, Hugging Face folders, hf:OWNER/NAME, or the built-in stories-3m
    #[arg(value_name = "MODEL", default_value = BUILTIN, env = "THERMITE_MODEL", hide_env_values = true)]
    pub(crate) models: Vec<String>,
    /// Address to listen on: 0.0.0.0 or :: for all of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    /// File with the keys, one a line, of which requests must have one
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Lets web pages of this origin (scheme, host and port) ask; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors_origin: Vec<String>,
    /// A name besides localhost that a server on a loopback address may be called by
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// Requests that are computed together
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub(crate) max_running: usize,
    /// Requests that wait for that; one more is refused with 429
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) queue: usize,
    /// Tokens that the cache holds of all requests together [default: 256 for each that may run, and a whole context at least]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) cache_tokens: Option<usize>,
    /// Tokens that an answer may have [default: as many as the context holds]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_tokens: Option<usize>,
    /// Seconds that running requests may take to finish at the end
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) drain_timeout: Duration,
    /// How the log on standard error is written; RUST_LOG says how much of it
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
