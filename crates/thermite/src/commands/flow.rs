//! `thermite flow`: the data-flow diagram, out of a trace.

use std::fmt::Write;

use thermite_device::trace::{Operand, Record, Trace};
use thermite_device::{AttentionKind, Batch, Dtype, Outputs, WeightType};
use thermite_engine::{BLOCK_SIZE, open_model};
use thermite_formats::ModelFiles;
use thermite_model::{Config, KvCache, Model, Options};

use crate::cli::FlowArgs;
use crate::error::Error;
use crate::output::print;

pub(crate) fn run(args: &FlowArgs) -> Result<(), Error> {
    let files = open_model(&args.model)?;
    print(&diagram_of(&files, args.tokens, args.attention.into())?)
}

/// The diagram of one forward pass over a prompt of `tokens` tokens.
pub(crate) fn diagram_of(
    files: &ModelFiles,
    tokens: usize,
    attention: AttentionKind,
) -> Result<String, Error> {
    let options = Options { attention, max_rows: tokens, ..Options::default() };
    let mut model = Model::load(files, Trace::new(), options)?;
    let config = model.config().clone();
    let blocks: Vec<i32> = (0..tokens.div_ceil(BLOCK_SIZE) as i32).collect();
    let mut cache = KvCache::new(model.device(), &config, blocks.len(), BLOCK_SIZE, Dtype::F32)?;
    let mut batch = Batch::default();
    batch.push(&vec![0; tokens], 0, &blocks, BLOCK_SIZE, Outputs::Last)?;
    model.forward(&batch, &mut cache)?;
    let records = model.device().take();
    Ok(diagram(&config, &records, tokens))
}

/// The records as text: one line a kernel, one frame a box, a repeated layer drawn once.
fn diagram(config: &Config, records: &[Record], tokens: usize) -> String {
    let Config { architecture, n_layer, n_embd, n_head, head_dim, n_vocab, .. } = config;
    let mut out = format!(
        "{architecture}: {n_layer} layers, {n_embd} channels, {n_head} heads of {head_dim}, vocabulary {n_vocab}\n\n\
         tokens [{tokens}]\n  │\n"
    );
    let parts: Vec<&[Record]> = records.chunk_by(|a, b| a.part == b.part).collect();
    let is_layer = |part: &&&[Record]| part.first().is_some_and(|record| LAYER.contains(&record.part));
    let first = parts.iter().take_while(|part| !is_layer(part)).count();
    let (before, rest) = parts.split_at(first);
    let (layers, after) = rest.split_at(rest.iter().take_while(is_layer).count());
    before.iter().for_each(|part| frame(&mut out, part));
    let kinds = kinds(layers);
    for (layer, numbers) in &kinds {
        let _ = match (kinds.len(), numbers.as_slice()) {
            (1, _) => writeln!(out, "  │  {n_layer} layers, each:"),
            (_, [number]) => writeln!(out, "  │  layer {number}:"),
            _ => writeln!(out, "  │  layers {}, each:", ranges(numbers)),
        };
        layer.iter().for_each(|part| frame(&mut out, part));
    }
    after.iter().for_each(|part| frame(&mut out, part));
    let _ = writeln!(out, "  ▼\nlogits [1, {n_vocab}]");
    out
}

/// The boxes of a layer.
const LAYER: [&str; 2] = ["attention_block", "mlp_block"];

/// The layers that differ, each with the numbers of those that are like it.
fn kinds<'a>(parts: &'a [&'a [Record]]) -> Vec<(&'a [&'a [Record]], Vec<usize>)> {
    let mut kinds: Vec<(&[&[Record]], Vec<usize>)> = Vec::new();
    for (number, layer) in parts.chunks(LAYER.len()).enumerate() {
        match kinds.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, numbers)) => numbers.push(number),
            None => kinds.push((layer, vec![number])),
        }
    }
    kinds
}

/// Numbers in their order, neighbours joined: `0-4, 6-10, 12`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let texts = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(usize::to_string).collect(),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn frame(out: &mut String, part: &[Record]) {
    let Some(first) = part.first() else { return };
    let _ = writeln!(out, "  ├─ {}", first.part);
    for record in part {
        let reads = operands(&record.reads);
        let writes = operands(&record.writes);
        let arrow = if reads.is_empty() { "" } else { " " };
        let _ = writeln!(out, "  │    {:<26}{reads}{arrow}→ {writes}", record.kernel);
    }
    let _ = writeln!(out, "  │");
}

fn operands(all: &[Operand]) -> String {
    let one = |o: &Operand| {
        let dtype = match o.dtype {
            WeightType::F32 => String::new(),
            dtype => format!("{} ", dtype.name().to_lowercase()),
        };
        format!("{} {dtype}{:?}", o.name, o.shape)
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}
