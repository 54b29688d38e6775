//! `thermite kernels bench`: the kernels of a GPU against the clock.

use std::fmt::Write;

use thermite_device::Device;
use thermite_device::launched::bench::{Ceilings, Figure};
use thermite_device::launched::{Launched, Launcher};

use super::works::works;
use super::{roofline, spinner};
use crate::cli::BenchKernelsArgs;
use crate::error::Error;
use crate::output::print;

/// Times what is wanted, prints a table in Markdown, draws a roofline.
pub(super) fn run<L: Launcher>(args: &BenchKernelsArgs, device: &Launched<L>) -> Result<(), Error> {
    let wanted =
        |name: &str| args.names.is_empty() || args.names.iter().any(|n| name.starts_with(n.as_str()));
    let works: Vec<_> = works().into_iter().filter(|work| wanted(&work.kernel)).collect();
    if works.is_empty() {
        return Err(Error::Kernels("no kernel that is timed has such a name".to_owned()));
    }
    let bar = spinner(&device.describe());
    let ceilings = device.ceilings()?;
    let mut figures = Vec::new();
    for work in &works {
        bar.set_message(format!("{} {}", work.kernel, work.size));
        figures.push(device.bench(work)?);
    }
    bar.finish_and_clear();
    print(&table(&device.describe(), &ceilings, &figures))?;
    match &args.svg {
        Some(path) => roofline::draw(&device.describe(), &ceilings, &figures, path),
        None => Ok(()),
    }
}

fn table(device: &str, ceilings: &Ceilings, figures: &[Figure]) -> String {
    let (add, read) = (ceilings.add / 1e9, ceilings.read / 1e9);
    let mut out = format!("{device}\n\nIn this run: addition {add:.0} GB/s, read {read:.0} GB/s");
    if let Some(product) = ceilings.product {
        let _ = write!(out, ", product of bfloat16 matrices {:.0} TFLOP/s", product / 1e12);
    }
    out += ".\n\n| kernel | size | us | us, cached | GB/s | TFLOP/s | share |\n|---|---|---:|---:|---:|---:|---|\n";
    for figure in figures {
        let micros = |seconds: f64| {
            let us = seconds * 1e6;
            if us < 100.0 { format!("{us:.2}") } else { format!("{us:.0}") }
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {:.0} | {} | {} |",
            figure.work.kernel,
            figure.work.size,
            micros(figure.seconds),
            figure.cached.map_or_else(String::new, micros),
            figure.bandwidth() / 1e9,
            rate(figure.rate() / 1e12),
            share(figure, ceilings),
        );
    }
    out
}

fn rate(tera: f64) -> String {
    if tera < 10.0 { format!("{tera:.2}") } else { format!("{tera:.0}") }
}

/// How much of its ceiling a kernel reaches: the product's rate if matrix units could do its work, the rate of an
/// addition if it writes much, of a read if it does not.
fn share(figure: &Figure, ceilings: &Ceilings) -> String {
    let percent = |part: f64, of: &str| format!("{:.0}% of {of}", part * 100.0);
    match ceilings.product.filter(|_| figure.work.matrix) {
        Some(product) => percent(figure.rate() / product, "product"),
        None if figure.written * 10 < figure.read => percent(figure.bandwidth() / ceilings.read, "read"),
        None => percent(figure.bandwidth() / ceilings.add, "addition"),
    }
}
