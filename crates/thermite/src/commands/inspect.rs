//! `thermite inspect`: what a model is made of, from its files alone.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use thermite_device::Dtype;
use thermite_device::trace::Trace;
use thermite_engine::{MemoryPlan, is_weight, open_model};
use thermite_formats::gguf::Value;
use thermite_formats::{ModelFiles, Source};
use thermite_model::{Config, Model, Options};

use crate::cli::InspectArgs;
use crate::error::Error;
use crate::output::{note, print, print_json, printable};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: String,
    /// Of a model that can be run.
    config: Option<Sizes>,
    /// Of a GGUF file: its pairs, long ones in a few words.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, serde_json::Value>,
    parameters: usize,
    totals: BTreeMap<&'static str, Total>,
    memory: Option<Memory>,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Serialize)]
struct Sizes {
    architecture: String,
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    n_kv_head: usize,
    head_dim: usize,
    n_inner: usize,
    n_vocab: usize,
    n_ctx: usize,
    tied: bool,
}

/// Of all tensors of one type.
#[derive(Default, Serialize)]
struct Total {
    tensors: usize,
    elements: usize,
    bytes: usize,
}

#[derive(Serialize)]
struct Memory {
    #[serde(flatten)]
    plan: MemoryPlan,
    total: usize,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    dtype: &'static str,
    shape: &'a [usize],
    bytes: usize,
    /// Whether the model reads it.
    used: bool,
}

pub(crate) fn run(args: &InspectArgs) -> Result<(), Error> {
    let files = open_model(&args.model)?;
    // the trace computes nothing and copies nothing: it checks every tensor against the config
    let model = match (Model::load(&files, Trace::new(), Options::default()), &files.source) {
        (Ok(model), _) => Some(model),
        // what a GGUF file holds can be shown all the same
        (Err(error), Source::Gguf(_)) => {
            note(&format!("cannot be run: {}", printable(&error.to_string())));
            None
        }
        (Err(error), _) => return Err(error.into()),
    };
    let report = report(&files, model.as_ref().map(Model::config), args)?;
    if args.json { print_json(&report) } else { print(&text(&report, args)) }
}

fn report<'a>(
    files: &'a ModelFiles,
    config: Option<&Config>,
    args: &InspectArgs,
) -> Result<Report<'a>, Error> {
    let plan = config.map(|config| MemoryPlan::new(files, config, &args.size.options())).transpose()?;
    let mut totals = BTreeMap::<_, Total>::new();
    let mut parameters = 0;
    let tensors = files.tensors.iter().map(|tensor| {
        let total = totals.entry(tensor.dtype.name()).or_default();
        total.tensors += 1;
        total.elements += tensor.len();
        total.bytes += tensor.data.len();
        let used = config.is_none_or(|config| is_weight(&tensor, config));
        parameters += if used { tensor.len() } else { 0 };
        let (name, dtype, shape) = (tensor.name, tensor.dtype.name(), tensor.shape);
        Tensor { name, dtype, shape, bytes: tensor.data.len(), used }
    });
    let tensors = tensors.collect();
    let config = config.map(|config| Sizes {
        architecture: config.architecture.to_string(),
        n_layer: config.n_layer,
        n_embd: config.n_embd,
        n_head: config.n_head,
        n_kv_head: config.n_kv_head,
        head_dim: config.head_dim,
        n_inner: config.n_inner,
        n_vocab: config.n_vocab,
        n_ctx: config.n_ctx,
        tied: config.tied,
    });
    let metadata = match &files.source {
        Source::Gguf(metadata) => metadata.iter().map(|(key, value)| (key, shown(value))).collect(),
        Source::HuggingFace(_) => BTreeMap::new(),
    };
    let memory = plan.map(|plan| Memory { plan, total: plan.total() });
    let model = files.origin.display().to_string();
    Ok(Report { model, config, metadata, parameters, totals, memory, tensors })
}

/// A value of GGUF's metadata: itself, or what an array holds.
fn shown(value: Value<'_>) -> serde_json::Value {
    match value {
        Value::Bool(x) => x.into(),
        // its own digits, not those of the f64 beside it
        Value::F32(x) => x.to_string().parse::<f64>().ok().into(),
        Value::F64(x) => x.into(),
        Value::String(text) => text.into(),
        Value::Array(array) => format!("{} of {}", grouped(array.len), array.element).into(),
        Value::U64(x) => x.into(),
        whole => whole.integer().and_then(|x| i64::try_from(x).ok()).into(),
    }
}

fn text(report: &Report<'_>, args: &InspectArgs) -> String {
    let Report { model, config, metadata, parameters, totals, memory, tensors } = report;
    let architecture = match (config, metadata.get("general.architecture")) {
        (Some(config), _) => &config.architecture,
        (None, Some(serde_json::Value::String(name))) => name,
        (None, _) => "an unknown architecture",
    };
    let mut out =
        format!("{}: {}, {} parameters\n", printable(model), printable(architecture), grouped(*parameters));
    if let Some(config) = config {
        out.push_str(&config_text(config));
    }
    if !metadata.is_empty() {
        out.push_str(&metadata_text(metadata));
    }
    out.push_str(&tensors_text(tensors, totals));
    if let Some(memory) = memory {
        out.push_str(&memory_text(memory, args));
    }
    out
}

fn config_text(c: &Sizes) -> String {
    let mut out = "\nConfig\n".to_owned();
    let head = if c.tied { "the embedding (tied)" } else { "a matrix of its own" };
    for (name, value) in [
        ("layers", grouped(c.n_layer)),
        ("channels", grouped(c.n_embd)),
        ("heads", format!("{} of {} channels, {} for keys and values", c.n_head, c.head_dim, c.n_kv_head)),
        ("MLP channels", grouped(c.n_inner)),
        ("vocabulary", format!("{} tokens", grouped(c.n_vocab))),
        ("context", format!("{} tokens", grouped(c.n_ctx))),
        ("output head", head.to_owned()),
    ] {
        let _ = writeln!(out, "  {name:<13} {value}");
    }
    out
}

/// Keys and values in a line each, long texts cut.
fn metadata_text(metadata: &BTreeMap<&str, serde_json::Value>) -> String {
    /// Characters of a value that are shown.
    const SHOWN: usize = 60;
    let width = metadata.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    metadata.iter().fold("\nMetadata\n".to_owned(), |mut out, (key, value)| {
        let text = printable(value.as_str().unwrap_or(&value.to_string()));
        let short: String = text.chars().take(SHOWN).collect();
        let dots = if short.len() < text.len() { "…" } else { "" };
        let _ = writeln!(out, "  {:<width$}  {short}{dots}", printable(key));
        out
    })
}

fn tensors_text(tensors: &[Tensor<'_>], totals: &BTreeMap<&'static str, Total>) -> String {
    let mut out = String::new();
    let rows = tensors.iter().map(|t| {
        let note = if t.used { "" } else { "  not used" };
        [printable(t.name), t.dtype.to_owned(), format!("{:?}", t.shape), grouped(t.bytes), note.to_owned()]
    });
    let title = ["name", "type", "shape", "bytes", ""].map(str::to_owned);
    out.push_str("\nTensors\n");
    out.push_str(&columns(
        &std::iter::once(title).chain(rows).collect::<Vec<_>>(),
        [false, false, false, true],
    ));

    let rows = totals.iter().map(|(dtype, t)| {
        let cells = [grouped(t.tensors), grouped(t.elements), grouped(t.bytes)];
        let [tensors, elements, bytes] = cells;
        [(*dtype).to_owned(), tensors, elements, bytes, String::new()]
    });
    let title = ["type", "tensors", "numbers", "bytes", ""].map(str::to_owned);
    out.push_str("\nTotals\n");
    out.push_str(&columns(
        &std::iter::once(title).chain(rows).collect::<Vec<_>>(),
        [false, true, true, true],
    ));
    out
}

fn memory_text(memory: &Memory, args: &InspectArgs) -> String {
    let mut out = String::new();
    let (plan, size) = (memory.plan, &args.size);
    let (kv, rows) = (size.kv_type.map_or(Dtype::F32, Dtype::from), size.options().rows());
    let _ = writeln!(out, "\nMemory for a context of {} tokens", plan.context);
    for (name, bytes, note) in [
        ("weights", plan.weights, String::new()),
        ("KV cache", plan.kv_cache, format!("keys and values of all tokens, in {kv}")),
        ("activations", plan.activations, format!("for up to {rows} tokens at once")),
        ("together", memory.total, String::new()),
    ] {
        let line = format!("  {name:<12} {:>9}  {note}", megabytes(bytes));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Rows under each other, two spaces between their cells; what `right` says is flush right. What follows the last
/// of these columns is a remark.
fn columns(rows: &[[String; 5]], right: [bool; 4]) -> String {
    let widths: [usize; 4] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    rows.iter().fold(String::new(), |mut out, row| {
        for ((cell, width), right) in row.iter().zip(widths).zip(right) {
            let _ = if right { write!(out, "  {cell:>width$}") } else { write!(out, "  {cell:<width$}") };
        }
        let _ = writeln!(out, "{}", row[4]);
        out
    })
}

/// `3554496` as `3,554,496`.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|g| str::from_utf8(g).ok()).collect();
    groups.join(",")
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
