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
    print(&diagram_of(&files, args.tokens, args.run.options().attention)?)
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
    let mut rest = &parts[..];
    while let Some(part) = rest.first() {
        let layers = repeats(rest);
        if layers > 1 {
            let _ = writeln!(out, "  │  {layers} layers, each:");
            frame(&mut out, part);
            frame(&mut out, rest[1]);
            rest = &rest[2 * layers..];
        } else {
            frame(&mut out, part);
            rest = &rest[1..];
        }
    }
    let _ = writeln!(out, "  ▼\nlogits [1, {n_vocab}]");
    out
}

/// How often the first two boxes of `parts` are repeated.
fn repeats(parts: &[&[Record]]) -> usize {
    let [first, second, ..] = parts else { return 1 };
    parts.chunks_exact(2).take_while(|pair| pair[0] == *first && pair[1] == *second).count()
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
