//! `thermite kernels`: the Metal kernels, to read, to check and to time.

mod bench;
mod roofline;
mod works;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, IsTerminal};

use indicatif::ProgressBar;
use thermite_device::conformance::Outcome;
use thermite_device::cpu::Cpu;
use thermite_device::launched::{Launched, Launcher, Variants};
use thermite_device::{Device, conformance, launched};
use thermite_engine::{BUILTIN, open_model};
use thermite_kernels::catalogue::{self, Entry};
use thermite_kernels::contract::{Dims, GeometryError, Limits, contract_of, dimensions, launch};
use thermite_kernels::document;
use thermite_kernels::syntax::Role;

use super::flow;
use crate::cli::{BenchKernelsArgs, CheckArgs, CheckDevice, KernelsArgs, KernelsCommand, ShowArgs};
use crate::error::Error;
use crate::output::print;

pub(crate) fn run(args: &KernelsArgs) -> Result<(), Error> {
    match &args.command {
        None | Some(KernelsCommand::List) => list(),
        Some(KernelsCommand::Show(args)) => show(args),
        Some(KernelsCommand::Check(args)) => check(args),
        Some(KernelsCommand::Bench(args)) => time(args),
        Some(KernelsCommand::Document) => print(&kernels_md()?),
    }
}

fn entries() -> Result<&'static [Entry], Error> {
    catalogue::kernels().map_err(|e| Error::Kernels(e.to_string()))
}

/// The page KERNELS.md: the diagram is that of the embedded model.
fn kernels_md() -> Result<String, Error> {
    let diagram = flow::diagram_of(&open_model(BUILTIN)?, 4, thermite_device::AttentionKind::Auto)?;
    document::document(&diagram).map_err(|e| Error::Kernels(e.to_string()))
}

fn list() -> Result<(), Error> {
    let mut out = String::new();
    let mut file = "";
    let mut instances: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries()? {
        let base = contract_of(&entry.kernel.name).map_or(entry.kernel.name.as_str(), |c| c.kernel);
        *instances.entry(base).or_default() += 1;
    }
    for entry in entries()? {
        let base = contract_of(&entry.kernel.name).map_or(entry.kernel.name.as_str(), |c| c.kernel);
        let Some(count) = instances.remove(base) else { continue };
        if entry.source.file != file {
            file = entry.source.file;
            let _ = writeln!(out, "{}{file}", if out.is_empty() { "" } else { "\n" });
        }
        let more = if count > 1 { format!("{count} instances") } else { String::new() };
        let _ = writeln!(out, "{}", format!("  {base:<28}{more}").trim_end());
    }
    print(&out)
}

fn show(args: &ShowArgs) -> Result<(), Error> {
    let found = entries()?.iter().find(|entry| entry.kernel.name == args.name);
    let Some(entry) = found else {
        let base = |entry: &&Entry| entry.kernel.name.starts_with(&args.name);
        let near: Vec<_> = entries()?.iter().filter(base).map(|entry| entry.kernel.name.as_str()).collect();
        let hint = if near.is_empty() { "`thermite kernels` lists them".to_owned() } else { near.join(", ") };
        return Err(Error::Kernels(format!("there is no kernel {} ({hint})", args.name)));
    };
    let mut out = document::page(entry).map_err(|e| Error::Kernels(e.to_string()))?;
    if !args.dims.is_empty() {
        out.push_str(&launch_at(entry, &args.dims)?);
    }
    if !args.no_source {
        let _ = write!(out, "\n{}", entry.source.text);
    }
    print(&out)
}

/// The launch at the dimensions that the user gave.
fn launch_at(entry: &'static Entry, given: &[(String, u64)]) -> Result<String, Error> {
    let kernel = &entry.kernel;
    let failed = |error: GeometryError| Error::Kernels(error.to_string());
    let mut known = dimensions(&kernel.name).map_err(failed)?;
    let ints =
        kernel.parameters.iter().filter(|p| matches!(p.role, Role::Constant { .. }) && p.element == "int");
    for parameter in ints {
        if !known.contains(&&*parameter.name) {
            known.push(&parameter.name);
        }
    }
    let mut dims = Vec::new();
    for (name, value) in given {
        let Some(&name) = known.iter().find(|known| *known == name) else {
            let known = known.join(", ");
            return Err(Error::Usage(format!(
                "--dims: {} has no dimension {name}; it has {known}",
                kernel.name
            )));
        };
        if dims.iter().any(|&(other, _)| other == name) {
            return Err(Error::Usage(format!("--dims: {name} is given twice")));
        }
        dims.push((name, *value));
    }
    let geometry = launch(&kernel.name, &Dims::new(&dims), &Limits::APPLE).map_err(failed)?;
    Ok(format!(
        "\n  grid {:?} threadgroups of {:?} threads, threadgroup memory {:?} bytes\n",
        geometry.grid, geometry.threadgroup, geometry.threadgroup_memory
    ))
}

fn check(args: &CheckArgs) -> Result<(), Error> {
    match args.device {
        CheckDevice::Cpu => methods(args, &Cpu::new(None)?),
        #[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
        CheckDevice::Cuda => everything(args, crate::open::cuda),
        CheckDevice::Emulated => everything(args, crate::open::emulated),
        #[cfg(target_os = "macos")]
        CheckDevice::Metal => everything(args, crate::open::metal),
    }
}

fn time(args: &BenchKernelsArgs) -> Result<(), Error> {
    match args.device {
        CheckDevice::Cpu => Err(Error::Kernels(
            "the processor launches no kernels; `thermite bench` times it with a model".to_owned(),
        )),
        #[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
        CheckDevice::Cuda => bench::run(args, &crate::open::cuda(Variants::Fast)?),
        CheckDevice::Emulated => {
            Err(Error::Kernels("the emulated device shows what kernels do, not how long it takes".to_owned()))
        }
        #[cfg(target_os = "macos")]
        CheckDevice::Metal => bench::run(args, &crate::open::metal(Variants::Fast)?),
    }
}

/// The methods of a device.
fn methods<D: Device>(args: &CheckArgs, device: &D) -> Result<(), Error> {
    let bar = spinner(&device.describe());
    let outcomes =
        conformance::run(device, &|name| wanted(args, name)).map_err(|e| Error::Kernels(e.to_string()))?;
    bar.finish_and_clear();
    report(&device.describe(), &[("through the device's methods", outcomes)])
}

/// Every kernel and instance that a machine launches, and the methods of the device on top, plain and fast.
fn everything<L: Launcher>(
    args: &CheckArgs,
    open: impl Fn(Variants) -> Result<Launched<L>, Error>,
) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Kernels(e.to_string());
    let (plain, fast) = (open(Variants::Plain)?, open(Variants::Fast)?);
    let bar = spinner(&fast.describe());
    let wanted = |name: &str| wanted(args, name);
    let replaced = |name: &str| wanted(name) && fast.launcher().replaces(name);
    let parts = [
        ("kernels", launched::conformance::run(fast.launcher(), &wanted).map_err(|e| failed(&e))?),
        (
            "kernels that have a form for this GPU, in their own",
            launched::conformance::run(plain.launcher(), &replaced).map_err(|e| failed(&e))?,
        ),
        ("methods, plain kernels", conformance::run(&plain, &wanted).map_err(|e| failed(&e))?),
        ("methods, fast kernels", conformance::run(&fast, &wanted).map_err(|e| failed(&e))?),
    ];
    bar.finish_and_clear();
    report(&fast.describe(), &parts)
}

fn wanted(args: &CheckArgs, name: &str) -> bool {
    args.names.is_empty() || args.names.iter().any(|prefix| name.starts_with(prefix.as_str()))
}

fn spinner(device: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(format!("checking {device}"));
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

/// A line a kernel, then every failure; an error if there was one, or if nothing was checked.
fn report(device: &str, parts: &[(&str, BTreeMap<String, Outcome>)]) -> Result<(), Error> {
    let mut out = format!("{device}\n");
    let (mut passed, mut failed) = (0, 0);
    for (part, outcomes) in parts.iter().filter(|(_, outcomes)| !outcomes.is_empty()) {
        let _ = writeln!(out, "\n{part}");
        for (kernel, outcome) in outcomes {
            let word = if outcome.failures.is_empty() { "ok" } else { "FAILED" };
            let cases = outcome.passed + outcome.failures.len();
            let _ = writeln!(out, "  {kernel:<44} {:>5} of {cases:<5} {word}", outcome.passed);
            for failure in &outcome.failures {
                let _ = writeln!(out, "      {failure}");
            }
            passed += outcome.passed;
            failed += outcome.failures.len();
        }
    }
    let _ = writeln!(out, "\n{passed} passed, {failed} failed");
    print(&out)?;
    match (passed, failed) {
        (0, 0) => Err(Error::Kernels("no kernel has such a name".to_owned())),
        (_, 0) => Ok(()),
        _ => Err(Error::Kernels(format!("{failed} of {} cases failed", passed + failed))),
    }
}
