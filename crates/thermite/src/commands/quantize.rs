//! `thermite quantize`: a model as a GGUF file, in another type or from another format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};
use thermite_engine::open_model;
use thermite_formats::convert::Plan;
use thermite_formats::{DType, ModelFiles};

use crate::cli::QuantizeArgs;
use crate::error::Error;
use crate::output::{note, print, printable};

pub(crate) fn run(args: &QuantizeArgs) -> Result<(), Error> {
    if args.output.exists() && !args.force {
        return Err(Error::Usage(format!("{} is there already: --force replaces it", args.output.display())));
    }
    let files = open_model(&args.model)?;
    let plan = Plan::new(&files, args.types())?;
    let coarse = files.tensors.iter().map(|tensor| tensor.dtype).find(|dtype| dtype.is_quantized());
    if let Some(dtype) = coarse.filter(|_| args.types().matrices.is_quantized()) {
        note(&format!("the input is quantised itself ({dtype}, for one): its errors add to the new ones"));
    }
    let threads =
        args.threads.map(usize::from).or_else(|| thread::available_parallelism().ok().map(usize::from));
    let bar = ProgressBar::new(plan.bytes()).with_style(style());
    plan.write(&args.output, threads.unwrap_or(1), |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    print(&report(&plan, &files, args))
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Sizes before and after, tensors by type, and what could not be as asked.
fn report(plan: &Plan<'_>, files: &ModelFiles, args: &QuantizeArgs) -> String {
    let before: usize = files.tensors.iter().map(|tensor| tensor.data.len()).sum();
    let name = printable(&args.output.display().to_string());
    let mut out = format!("{name}: {}, from {}\n", megabytes(plan.bytes()), megabytes(before as u64));
    let mut totals = BTreeMap::<DType, (usize, u64)>::new();
    for tensor in plan.tensors() {
        let total = totals.entry(tensor.dtype).or_default();
        total.0 += 1;
        total.1 += tensor.dtype.bytes_of(&tensor.shape).unwrap_or(0) as u64;
    }
    for (dtype, (tensors, bytes)) in totals {
        let plural = if tensors == 1 { "tensor" } else { "tensors" };
        let _ = writeln!(out, "  {:<5} {tensors:>5} {plural:<7} {:>10}", dtype.name(), megabytes(bytes));
    }
    let mut fallbacks = BTreeMap::<_, usize>::new();
    for pair in plan.fallbacks() {
        *fallbacks.entry(pair).or_default() += 1;
    }
    for ([wanted, dtype], count) in fallbacks {
        let block = wanted.block_len();
        let _ = writeln!(out, "{count} with rows that are no multiple of {block}: {dtype}, not {wanted}");
    }
    out
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
