//! `thermite serve`: models over HTTP.

use std::env::VarError;
use std::fmt::Display;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;

use thermite_device::Device;
use thermite_engine::{Engine, EngineOptions, open_model};
use thermite_server::{Keys, Limits, Loaded, Queue, Server, ServerOptions, Shutdown};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::cli::{LogFormat, RunArgs, ServeArgs};
use crate::commands::chat::templates_of;
use crate::error::Error;
use crate::open::on_device;
use crate::output::read_text;

mod signals;

/// Tokens that the cache holds for each request that may run, if nothing is said of it.
const TOKENS_A_REQUEST: usize = 256;

/// Keys for those who do not want a file.
const API_KEYS: &str = "THERMITE_API_KEYS";

pub(crate) fn run(args: &ServeArgs) -> Result<(), Error> {
    log(args.log_format);
    let mut server = Server::new(options(args)?)?;
    for model in &args.models {
        let (name, path) = named(model);
        server.add_model(&name, loader(args, path))?;
        tracing::info!(model = name, "loaded");
    }
    let runtime = runtime()?;
    runtime.block_on(serve(args, server))
}

async fn serve(args: &ServeArgs, server: Server) -> Result<(), Error> {
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let address = listener.local_addr()?;
    let (tell, shutdown) = Shutdown::new();
    signals::forward(tell)?;
    tracing::info!("listening on http://{address}");
    Ok(server.serve(listener, shutdown).await?)
}

/// What computes has its own threads: few are enough for what is written and read.
fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_multi_thread().worker_threads(2).thread_name("http").enable_all().build()?)
}

fn log(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let stderr = std::io::stderr;
    let colours = stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(colours);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().with_current_span(true).with_span_list(false).init(),
    }
}

fn options(args: &ServeArgs) -> Result<ServerOptions, Error> {
    let keys = keys(args.api_key_file.as_deref())?;
    if keys.is_empty() && !args.host.is_loopback() {
        let host = args.host;
        tracing::warn!(
            "{host} is open to other machines, and there are no API keys: anybody may use this server"
        );
    }
    Ok(ServerOptions {
        limits: Limits { tokens: args.max_tokens, ..Limits::default() },
        keys,
        origins: args.cors_origin.clone(),
        hosts: args.allow_host.clone(),
        drain_time: args.drain_timeout,
    })
}

fn keys(file: Option<&Path>) -> Result<Keys, Error> {
    let of_file = file.map_or(Ok(Keys::default()), keys_of_file)?;
    let of_variable = match std::env::var(API_KEYS) {
        Err(VarError::NotUnicode(_)) => return Err(Error::Usage(format!("{API_KEYS} is not UTF-8"))),
        // a variable without a value is as good as none
        Ok(keys) if !keys.is_empty() => keys_of(&keys.replace([',', ' '], "\n"), &API_KEYS)?,
        _ => Keys::default(),
    };
    Ok(of_file.and(of_variable))
}

fn keys_of_file(path: &Path) -> Result<Keys, Error> {
    keys_of(&read_text(path)?, &path.display())
}

/// The keys of `lines`, which come from `source`: whoever means to have keys has some.
fn keys_of(lines: &str, source: &dyn Display) -> Result<Keys, Error> {
    let wrong = |what: &dyn Display| Error::Usage(format!("{source}: {what}"));
    let keys = Keys::from_lines(lines).map_err(|error| wrong(&error))?;
    if keys.is_empty() { Err(wrong(&"there is no key in it")) } else { Ok(keys) }
}

/// `NAME=MODEL`, or a model whose name is that of its file or folder.
fn named(model: &str) -> (String, String) {
    if let Some((name, path)) = model.split_once('=') {
        return (name.to_owned(), path.to_owned());
    }
    let path = Path::new(model);
    let stem = match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("gguf") => path.file_stem(),
        _ => path.file_name(),
    };
    let name = stem.filter(|_| !model.starts_with("hf:")).and_then(|name| name.to_str());
    (name.unwrap_or(model).to_owned(), model.to_owned())
}

/// What loads a model, on the thread that will run it.
fn loader(args: &ServeArgs, model: String) -> impl FnOnce() -> Result<Loaded, Error> + Send + use<> {
    let run = args.run.clone();
    let queue = Queue { running: args.max_running, waiting: args.queue };
    let cache_tokens = args.cache_tokens;
    move || on_device!(&run, |device| load(&run, &model, queue, cache_tokens, device))
}

fn load<D: Device + 'static>(
    run: &RunArgs,
    model: &str,
    queue: Queue,
    cache_tokens: Option<usize>,
    device: D,
) -> Result<Loaded, Error> {
    let files = open_model(model)?;
    let options = run.options();
    let options = EngineOptions {
        // every request that runs has a row in each step, besides what is read of prompts
        chunk: options.chunk.max(queue.running),
        max_outputs: queue.running,
        cache_tokens: cache_tokens.or(Some(TOKENS_A_REQUEST * queue.running)),
        ..options
    };
    let engine = Engine::load(&files, device, &options)?;
    let templates = templates_of(&files, engine.tokenizer())?.map(|(templates, _)| templates);
    Ok(Loaded::new(engine, templates, queue)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_names() {
        for (model, name, path) in [
            ("stories-3m", "stories-3m", "stories-3m"),
            ("a/b/SmolLM2.Q8.gguf", "SmolLM2.Q8", "a/b/SmolLM2.Q8.gguf"),
            ("/models/gpt2/", "gpt2", "/models/gpt2/"),
            ("hf:owner/name", "hf:owner/name", "hf:owner/name"),
            ("chat=hf:owner/name", "chat", "hf:owner/name"),
        ] {
            assert_eq!(named(model), (name.to_owned(), path.to_owned()));
        }
    }
}
