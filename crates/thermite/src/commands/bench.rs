//! `thermite bench`: prefill and decode speed, medians of interleaved runs.

use std::fmt::Write;
use std::time::Instant;

use serde::Serialize;
use thermite_device::cpu::Cpu;
use thermite_device::{Batch, Device, Outputs};
use thermite_engine::{BLOCK_SIZE, open_model};
use thermite_formats::ModelFiles;
use thermite_model::random::{GPT2_124M, GPT2_355M, gpt2};
use thermite_model::{KvCache, Model, Options};

use crate::cli::{BenchArgs, FormatArg, ShapeArg};
use crate::error::Error;
use crate::open::cpu;
use crate::output::{print, print_json};

mod plot;

/// Bytes at most over which the memory is read to find its limit; it is as many as the weights have, so that what
/// fits a cache is measured there.
const MOST_READ: usize = 1 << 30;

/// The figures of one call.
#[derive(Serialize)]
struct Report {
    model: String,
    device: String,
    /// Bytes of the weights that one token reads.
    weight_bytes: usize,
    /// Bytes a second that all threads read from memory together.
    read_bandwidth: f64,
    rows: Vec<Row>,
}

/// One measurement.
#[derive(Serialize)]
struct Row {
    /// `prefill` or `decode`.
    phase: &'static str,
    /// Tokens of the prompt, or tokens decoded.
    tokens: usize,
    /// Tokens in the cache before.
    depth: usize,
    /// Tokens a second: median, slowest and fastest run.
    median: f64,
    min: f64,
    max: f64,
}

impl Row {
    fn label(&self) -> String {
        match self.phase {
            "prefill" => format!("prefill {}", self.tokens),
            _ => format!("decode {} at {}", self.tokens, self.depth),
        }
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Error> {
    let files = match args.shape {
        None => open_model(&args.model)?,
        Some(ShapeArg::Gpt2Small) => gpt2(GPT2_124M)?,
        Some(ShapeArg::Gpt2Medium) => gpt2(GPT2_355M)?,
    };
    let device = cpu(&args.run)?;
    let report = measure(args, &files, device)?;
    if let Some(path) = &args.svg {
        plot::draw(&report, path)?;
    }
    match args.format {
        FormatArg::Json => print_json(&report),
        FormatArg::Markdown => print(&markdown(&report)),
    }
}

/// A model with one sequence.
struct Bench<D: Device> {
    model: Model<D>,
    cache: KvCache<D>,
    blocks: Vec<i32>,
    context: usize,
}

impl<D: Device> Bench<D> {
    /// Runs `count` tokens from position `start` on.
    fn run(&mut self, start: usize, count: usize) -> Result<(), Error> {
        let chunk = self.model.options().max_rows;
        let n_vocab = self.model.config().n_vocab;
        let mut batch = Batch::default();
        for from in (start..start + count).step_by(chunk) {
            let end = (from + chunk).min(start + count);
            let tokens: Vec<u32> = (from..end).map(|i| (i * 31 % n_vocab) as u32).collect();
            batch.clear();
            batch.push(&tokens, from, &self.blocks, BLOCK_SIZE, Outputs::Last)?;
            self.model.forward(&batch, &mut self.cache)?;
        }
        self.model.device().submit()?;
        Ok(())
    }

    fn prefill(&mut self, tokens: usize) -> Result<f64, Error> {
        let begin = Instant::now();
        self.run(0, tokens)?;
        Ok(tokens as f64 / begin.elapsed().as_secs_f64())
    }

    fn decode(&mut self, tokens: usize, depth: usize) -> Result<f64, Error> {
        self.run(0, depth)?;
        let begin = Instant::now();
        for i in 0..tokens {
            self.run(depth + i, 1)?;
        }
        Ok(tokens as f64 / begin.elapsed().as_secs_f64())
    }
}

fn measure(args: &BenchArgs, files: &ModelFiles, device: Cpu) -> Result<Report, Error> {
    let options =
        Options { attention: args.run.attention.into(), max_rows: args.run.chunk, ..Options::default() };
    let model = Model::load(files, device, options)?;
    let config = model.config().clone();
    let context = args.run.context.unwrap_or(config.n_ctx).min(config.n_ctx);
    let blocks: Vec<i32> = (0..context.div_ceil(BLOCK_SIZE) as i32).collect();
    let kv = args.run.kv_type.into();
    let cache = KvCache::new(model.device(), &config, blocks.len(), BLOCK_SIZE, kv)?;
    let mut bench = Bench { model, cache, blocks, context };

    let mut plan: Vec<(Row, Vec<f64>)> = Vec::new();
    let row = |phase, tokens, depth| Row { phase, tokens, depth, median: 0.0, min: 0.0, max: 0.0 };
    plan.extend(args.prompt.iter().map(|&tokens| (row("prefill", tokens, 0), Vec::new())));
    plan.extend(args.depth.iter().map(|&depth| (row("decode", args.tokens, depth), Vec::new())));
    for (row, _) in &plan {
        let need = row.tokens + row.depth;
        if row.tokens == 0 || need > bench.context {
            let message = format!("{}: needs {need} tokens of {} of context", row.label(), bench.context);
            return Err(Error::Usage(message));
        }
    }
    // the position table is only looked up in
    let read = |name: &str| !name.ends_with("wpe.weight");
    let weight_bytes: usize = files.tensors.iter().filter(|t| read(t.name)).map(|t| t.data.len()).sum();
    let memory = bench.model.device().upload_f32(&vec![1.0; weight_bytes.min(MOST_READ) / 4])?;
    let mut bandwidth = Vec::new();
    // one run warms up; then all rows in turn, so that a slow moment is shared
    for run in 0..=args.runs {
        for (row, rates) in &mut plan {
            let rate = match row.phase {
                "prefill" => bench.prefill(row.tokens)?,
                _ => bench.decode(row.tokens, row.depth)?,
            };
            if run > 0 {
                rates.push(rate);
            }
        }
        bandwidth.push(bench.model.device().read_bandwidth(&memory)?);
    }
    bandwidth.sort_by(f64::total_cmp);
    let rows = plan.into_iter().map(|(row, mut rates)| {
        rates.sort_by(f64::total_cmp);
        let (min, max) = (rates[0], rates[rates.len() - 1]);
        Row { median: rates[rates.len() / 2], min, max, ..row }
    });
    Ok(Report {
        model: files.origin.display().to_string(),
        device: bench.model.device().describe(),
        weight_bytes,
        read_bandwidth: bandwidth[bandwidth.len() / 2],
        rows: rows.collect(),
    })
}

fn markdown(report: &Report) -> String {
    let mut out = format!(
        "{}, {}; weights {:.1} MB; memory read at {:.1} GB/s\n\n\
         | what | tok/s | slowest | fastest | share of the read limit |\n|---|---|---|---|---|\n",
        report.model,
        report.device,
        report.weight_bytes as f64 / 1e6,
        report.read_bandwidth / 1e9,
    );
    for row in &report.rows {
        let share = match row.phase {
            "decode" => {
                let limit = report.read_bandwidth / report.weight_bytes as f64;
                format!("{:.0}%", 100.0 * row.median / limit)
            }
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "| {} | {:.0} | {:.0} | {:.0} | {share} |",
            row.label(),
            row.median,
            row.min,
            row.max
        );
    }
    out
}
