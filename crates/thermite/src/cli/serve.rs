//! `thermite serve`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hyper::http::uri::Authority;
use thermite_engine::BUILTIN;
use thermite_server::HeaderValue;

use super::RunArgs;
use super::model::at_least_one;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// [NAME=]MODEL: GGUF files, Hugging Face folders, hf:OWNER/NAME, or the built-in stories-3m
    #[arg(
        value_name = "MODEL",
        default_value = BUILTIN,
        env = "THERMITE_MODEL",
        hide_env_values = true,
        value_parser = model
    )]
    pub(crate) models: Vec<String>,
    /// Address to listen on: 0.0.0.0 or :: for all of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = address)]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    /// File with the keys, one a line, of which requests must have one
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Lets web pages of this origin (scheme, host and port; * for all) ask; may be given several times
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    pub(crate) cors_origin: Vec<HeaderValue>,
    /// A name besides localhost that a server on a loopback address may be called by
    #[arg(long, value_name = "NAME", value_parser = host)]
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

/// `MODEL` or `NAME=MODEL`.
fn model(text: &str) -> Result<String, String> {
    let (name, model) = text.split_once('=').unwrap_or((text, text));
    let whole = !name.is_empty() && !model.is_empty();
    whole.then(|| text.to_owned()).ok_or_else(|| "give it as MODEL or NAME=MODEL".to_owned())
}

fn address(text: &str) -> Result<IpAddr, String> {
    let known = (text == "localhost").then_some(Ipv4Addr::LOCALHOST.into());
    let address = known.or_else(|| text.parse().ok());
    address.ok_or_else(|| "give an address of this machine: 127.0.0.1, ::1, 0.0.0.0 for all".to_owned())
}

/// An origin as browsers write it: without a path, in lower case.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = |(scheme, authority): (&str, &str)| !scheme.is_empty() && is_authority(authority);
    let known = text == "*" || text.split_once("://").is_some_and(is_origin);
    let value = HeaderValue::from_str(&text.to_ascii_lowercase()).ok().filter(|_| known);
    value.ok_or_else(|| "give it as browsers do: https://chat.example or http://localhost:3000".to_owned())
}

fn host(text: &str) -> Result<String, String> {
    let is_name = is_authority(text) && !text.contains(':');
    is_name.then(|| text.to_owned()).ok_or_else(|| "give a name without a port: llm.example".to_owned())
}

/// Whether this is `host` or `host:port`.
fn is_authority(text: &str) -> bool {
    text.parse::<Authority>().is_ok_and(|authority| !authority.host().is_empty() && !text.contains('@'))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
