//! `thermite kernels …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::help;

#[derive(Debug, Args)]
pub(crate) struct KernelsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<KernelsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelsCommand {
    /// List the kernels, file by file
    List,
    /// Show one kernel: what is bound to it, how it is launched, its source
    #[command(after_help = help::KERNELS_SHOW)]
    Show(ShowArgs),
    /// Check the kernels of a device against arithmetic in double precision
    #[command(after_help = help::KERNELS_CHECK)]
    Check(CheckArgs),
    /// Time the kernels of a GPU at the sizes of real models, beside what its memory reaches
    #[command(after_help = help::KERNELS_BENCH)]
    Bench(BenchKernelsArgs),
    /// Print the page about the kernels, KERNELS.md
    Document,
}

#[derive(Debug, Args)]
pub(crate) struct BenchKernelsArgs {
    /// Only kernels whose name begins so [default: all]
    pub(crate) names: Vec<String>,
    /// The device
    #[arg(long, value_enum, value_name = "DEVICE")]
    pub(crate) device: CheckDevice,
    /// Draw a roofline into this file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The kernel, or an instance of it
    pub(crate) name: String,
    /// Show the launch at these dimensions
    #[arg(long, value_name = "N=4,C=768", value_delimiter = ',', value_parser = dimension)]
    pub(crate) dims: Vec<(String, u64)>,
    /// Leave the source out
    #[arg(long)]
    pub(crate) no_source: bool,
}

fn dimension(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("give it as NAME=VALUE")?;
    let value = value.parse().map_err(|e| format!("{value}: {e}"))?;
    Ok((name.to_owned(), value))
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Only kernels whose name begins so [default: all]
    pub(crate) names: Vec<String>,
    /// The device
    #[arg(long, value_enum, default_value_t = CheckDevice::Emulated, value_name = "DEVICE")]
    pub(crate) device: CheckDevice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckDevice {
    Cpu,
    #[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
    Cuda,
    Emulated,
    #[cfg(target_os = "macos")]
    Metal,
}
