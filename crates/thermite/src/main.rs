//! The command `thermite`.

mod cli;
mod commands;
mod error;
mod open;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::Error;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // whoever read the output has had enough
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Generate(args) => commands::generate::run(&args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Serve(args) => commands::serve::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(&args),
        Command::Pull(args) => commands::pull::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Quantize(args) => commands::quantize::run(&args),
        Command::Flow(args) => commands::flow::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Kernels(args) => commands::kernels::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
    }
}
