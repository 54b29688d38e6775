//! `thermite bench`: prefill and decode speed, medians of interleaved runs.

use std::fmt::Write;
use std::time::Instant;

use serde::Serialize;
use thermite_device::{Batch, Device, Dtype, Outputs};
use thermite_engine::{BLOCK_SIZE, open_model};
use thermite_formats::ModelFiles;
use thermite_model::{DecodingRow, KvCache, Model, Options, Stepper};

use crate::cli::{BenchArgs, FormatArg};
use crate::error::Error;
use crate::open::on_device;
use crate::output::{print, print_json};

mod plot;
mod serve;

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
    /// From open files to a model on the device.
    load_seconds: f64,
    /// Part of it: laying out the matrices as the device wants them.
    packing_seconds: f64,
    /// Bytes of memory that they take there, beside their file.
    packed_bytes: usize,
    /// Bytes a second that the device reads from memory, where it measures that.
    read_bandwidth: Option<f64>,
    rows: Vec<Row>,
}

/// One measurement.
#[derive(Serialize)]
struct Row {
    /// `prefill` or `decode`.
    phase: &'static str,
    /// Tokens of the prompt, or tokens decoded.
    tokens: usize,
    /// Tokens of each sequence in the cache before.
    depth: usize,
    /// Sequences that decode together.
    sequences: usize,
    /// Tokens a second: median, slowest and fastest run.
    median: f64,
    min: f64,
    max: f64,
}

impl Row {
    fn label(&self) -> String {
        match self.phase {
            "prefill" => format!("prefill {}", self.tokens),
            _ if self.sequences == 1 => format!("decode {} at {}", self.tokens, self.depth),
            _ => format!("decode {} x {} at {}", self.sequences, self.tokens, self.depth),
        }
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Error> {
    if args.load.serve {
        return serve::run(args);
    }
    let files = match args.shape {
        None => open_model(&args.model)?,
        Some(shape) => shape.model(args.weights)?,
    };
    let report = on_device!(&args.run, |device| measure(args, &files, device))?;
    match args.format {
        FormatArg::Json => print_json(&report),
        FormatArg::Markdown => print(&markdown(&report)),
    }?;
    args.svg.as_deref().map_or(Ok(()), |path| plot::draw(&report, path))
}

/// A model with its sequences.
struct Bench<D: Device> {
    model: Model<D>,
    cache: KvCache<D>,
    /// Blocks of each sequence.
    tables: Vec<Vec<i32>>,
    context: usize,
    batch: Batch,
    /// Steps without the host, where the device can record them.
    stepper: Option<Stepper<D>>,
}

impl<D: Device> Bench<D> {
    /// Adds `count` tokens of `sequence` from position `start` on to the batch.
    fn push(&mut self, sequence: usize, start: usize, count: usize) -> Result<(), Error> {
        let n_vocab = self.model.config().n_vocab;
        let tokens: Vec<u32> = (start..start + count).map(|i| (i * 31 % n_vocab) as u32).collect();
        Ok(self.batch.push(&tokens, start, &self.tables[sequence], BLOCK_SIZE, Outputs::Last)?)
    }

    fn forward(&mut self) -> Result<(), Error> {
        self.model.forward(&self.batch, &mut self.cache)?;
        self.batch.clear();
        Ok(())
    }

    /// Reads the first `tokens` tokens of `sequence`.
    fn read(&mut self, sequence: usize, tokens: usize) -> Result<(), Error> {
        let chunk = self.model.options().max_rows;
        for from in (0..tokens).step_by(chunk) {
            self.push(sequence, from, chunk.min(tokens - from))?;
            self.forward()?;
        }
        Ok(self.model.device().submit()?)
    }

    fn prefill(&mut self, tokens: usize) -> Result<f64, Error> {
        let begin = Instant::now();
        self.read(0, tokens)?;
        Ok(tokens as f64 / begin.elapsed().as_secs_f64())
    }

    fn decode(&mut self, row: &Row) -> Result<f64, Error> {
        for sequence in 0..row.sequences {
            self.read(sequence, row.depth)?;
        }
        if let Some(stepper) = &mut self.stepper {
            let row_of = |blocks| DecodingRow { token: 1, position: row.depth, blocks };
            let rows: Vec<_> =
                self.tables[..row.sequences].iter().map(|blocks| row_of(blocks.as_slice())).collect();
            stepper.start(&self.model, &rows, &self.cache)?;
            let begin = Instant::now();
            let mark = stepper.run(&mut self.model, &mut self.cache, row.tokens)?;
            let mut last = [0];
            stepper.read(&self.model, &mark, 0, 0, &mut last)?;
            return Ok((row.sequences * row.tokens) as f64 / begin.elapsed().as_secs_f64());
        }
        let begin = Instant::now();
        for i in 0..row.tokens {
            for sequence in 0..row.sequences {
                self.push(sequence, row.depth + i, 1)?;
            }
            self.forward()?;
            self.model.device().submit()?;
        }
        Ok((row.sequences * row.tokens) as f64 / begin.elapsed().as_secs_f64())
    }
}

fn measure<D: Device>(args: &BenchArgs, files: &ModelFiles, device: D) -> Result<Report, Error> {
    let sequences: Vec<usize> = args.sequences.iter().copied().map(usize::from).collect();
    let most = sequences.iter().copied().max().unwrap_or(1);
    let options = Options {
        attention: args.run.size.attention.into(),
        max_rows: args.run.size.chunk.max(most),
        max_outputs: most,
        context: Some(args.run.size.context.unwrap_or(args.longest())),
        ..Options::default()
    };
    let begin = Instant::now();
    let model = Model::load(files, device, options)?;
    let (load, packing) = (begin.elapsed(), model.packing());
    let config = model.config().clone();
    let context = model.context();
    let blocks = context.div_ceil(BLOCK_SIZE);
    let kv = args.run.size.kv_type.map_or_else(|| model.device().kv_dtype(), Dtype::from);
    let cache = KvCache::new(model.device(), &config, most * blocks, BLOCK_SIZE, kv)?;
    let tables = (0..most).map(|i| (i * blocks..(i + 1) * blocks).map(|block| block as i32).collect());
    let stepper = if model.device().records() { Some(Stepper::new(&model, most)?) } else { None };
    let batch = Batch::default();
    let mut bench = Bench { model, cache, tables: tables.collect(), context, batch, stepper };

    let row = |phase, tokens, depth, sequences| {
        let (median, min, max) = (0.0, 0.0, 0.0);
        (Row { phase, tokens, depth, sequences, median, min, max }, Vec::new())
    };
    let decode = args.depth.iter().flat_map(|&depth| {
        sequences.iter().map(move |&sequences| row("decode", args.tokens, depth, sequences))
    });
    let prefill = args.prompt.iter().map(|&tokens| row("prefill", tokens, 0, 1));
    let mut plan: Vec<(Row, Vec<f64>)> = prefill.chain(decode).collect();
    for (row, _) in &plan {
        let need = row.tokens + row.depth;
        if need > bench.context {
            let message = format!("{}: needs {need} tokens of {} of context", row.label(), bench.context);
            return Err(Error::Usage(message));
        }
    }
    let read = files.tensors.iter().filter(|tensor| !config.is_looked_up(tensor.name));
    let weight_bytes: usize = read.map(|tensor| tensor.data.len()).sum();
    let memory = bench.model.device().upload_f32(&vec![1.0; weight_bytes.min(MOST_READ) / 4])?;
    let mut bandwidth = Vec::new();
    // one run warms up; then all rows in turn, so that a slow moment is shared
    for run in 0..=args.runs {
        for (row, rates) in &mut plan {
            let rate = match row.phase {
                "prefill" => bench.prefill(row.tokens)?,
                _ => bench.decode(row)?,
            };
            if run > 0 {
                rates.push(rate);
            }
        }
        bandwidth.extend(bench.model.device().read_bandwidth(&memory)?);
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
        load_seconds: load.as_secs_f64(),
        packing_seconds: packing.time.as_secs_f64(),
        packed_bytes: packing.bytes,
        read_bandwidth: bandwidth.get(bandwidth.len() / 2).copied(),
        rows: rows.collect(),
    })
}

fn markdown(report: &Report) -> String {
    let megabytes = report.weight_bytes as f64 / 1e6;
    let mut out = format!("{}, {}; weights {megabytes:.1} MB", report.model, report.device);
    if let Some(limit) = report.read_bandwidth {
        let _ = write!(out, "; memory read at {:.1} GB/s", limit / 1e9);
    }
    let Report { load_seconds, packing_seconds, packed_bytes, .. } = report;
    let packed = *packed_bytes as f64 / 1e6;
    let _ = write!(
        out,
        "\nloaded in {load_seconds:.3} s, of which {packing_seconds:.3} s to lay out {packed:.1} MB of matrices for the device"
    );
    out.push_str(
        "\n\n| what | tok/s | slowest | fastest | share of the read limit |\n|---|---|---|---|---|\n",
    );
    for row in &report.rows {
        let share = match (row.phase, report.read_bandwidth) {
            // the weights are read once for all sequences
            ("decode", Some(limit)) => {
                let steps = row.median / row.sequences as f64;
                format!("{:.0}%", 100.0 * steps * report.weight_bytes as f64 / limit)
            }
            _ => String::new(),
        };
        let Row { median, min, max, .. } = row;
        let _ = writeln!(out, "| {} | {median:.0} | {min:.0} | {max:.0} | {share} |", row.label());
    }
    out
}
