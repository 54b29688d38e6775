//! `thermite bench --serve`: a server under load, over HTTP as its users have it.

mod client;
mod load;
mod plot;
mod prompts;
mod report;
mod server;
mod stats;

use std::time::Duration;

use serde::Serialize;

use self::client::Client;
use self::load::{Load, Plan};
use self::server::Server;
use self::stats::Level;
use crate::cli::{BenchArgs, FormatArg};
use crate::error::Error;
use crate::output::{note, print, print_json};

/// The figures of one call.
#[derive(Serialize)]
struct Report {
    model: String,
    url: String,
    /// Tokens of the prompts that were asked for: one of these, by chance, for each request.
    prompt_tokens: Vec<usize>,
    /// Tokens asked for; the end of a text does not end it sooner, where the server can do that.
    max_tokens: usize,
    ignore_eos: bool,
    /// Seconds of each measurement.
    seconds: f64,
    levels: Vec<Level>,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Output)?;
    let report = runtime.block_on(measure(args))?;
    match args.format {
        FormatArg::Json => print_json(&report),
        FormatArg::Markdown => print(&report::markdown(&report)),
    }?;
    args.svg.as_deref().map_or(Ok(()), |path| plot::draw(&report, path))
}

async fn measure(args: &BenchArgs) -> Result<Report, Error> {
    let load = &args.load;
    // lives as long as it is measured
    let (server, url) = match &load.url {
        Some(url) => (None, url.trim_end_matches('/').to_owned()),
        None => {
            let server = Server::start(&args.model, &args.run).await?;
            let url = server.url().to_owned();
            (Some(server), url)
        }
    };
    let client = Client::connect(&url, load.api_key.as_deref()).await?;
    let plan = Plan::of(&client, &args.prompt, args.tokens, Duration::from_secs_f64(load.duration)).await?;

    let loads: Vec<Load> = match load.rate.as_slice() {
        [] => load.concurrency.iter().map(|&n| Load::Concurrency(n)).collect(),
        rates => rates.iter().map(|&rate| Load::Rate(rate)).collect(),
    };
    let mut levels = Vec::new();
    for load in loads {
        note(&format!("[{load}]"));
        let mut level = load::put(&client, &plan, load).await;
        level.resident_bytes = server.as_ref().and_then(Server::resident_bytes);
        levels.push(level);
    }
    Ok(Report {
        model: client.model().to_owned(),
        url,
        prompt_tokens: args.prompt.clone(),
        max_tokens: args.tokens,
        ignore_eos: client.ignores_eos(),
        seconds: load.duration,
        levels,
    })
}
