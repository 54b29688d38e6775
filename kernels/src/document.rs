//! KERNELS.md, and the page of one kernel: written from the sources' heads, the parsed signatures and the contracts.

use std::fmt::Write;

use crate::catalogue::{self, Entry};
use crate::contract::{Access, Contract, Dispatch, contract_of};
use crate::sources::{Source, sources};
use crate::syntax::{Kernel, Parameter, Role, SyntaxError};

const OPENING: &str = "\
# The kernels

Every `.metal` file in [kernels/](kernels/) reads on its own: a head with the formula, the shapes and the dispatch, then
the kernels, plain before fast. This page is written from their signatures and contracts by
`thermite kernels document`; a test fails when it is stale.

A grid is given in threadgroups, or in threads with the dimension along which threadgroups stretch; `limit` is the
device's most threads a threadgroup (1,024 at Apple and NVIDIA), `r32(n)` is `n` rounded up to a multiple of 32.
Threadgroup memory is in bytes. In the names of dimensions, `N` counts rows or elements, `C` channels, `T` tokens, `hs`
channels a head, `nh` or `heads` heads (of all sequences), `V` the vocabulary, `K` and `M` inputs and outputs of a
product. `v` is the number of elements a thread: 4 in instances named `_v4`, 1 in the others; `row_share` is how many
elements of its row a thread holds: 16 in those instances, 1 in the others.
";

/// All of KERNELS.md; `diagram` is the data flow of a forward pass.
///
/// # Errors
/// [`SyntaxError`] when an embedded source cannot be read.
pub fn document(diagram: &str) -> Result<String, SyntaxError> {
    let mut out = format!("{OPENING}\n## Data flow\n\n```\n{}\n```\n", diagram.trim_end());
    for source in sources() {
        let entries = catalogue::kernels()?.iter().filter(|e| e.source.file == source.file);
        section(&mut out, source, &entries.collect::<Vec<_>>());
    }
    Ok(out)
}

/// The kernels of one file: how they are launched, and what is bound to them.
fn section(out: &mut String, source: Source<'_>, entries: &[&Entry]) {
    let file = source.file;
    let _ = write!(out, "\n## [{file}](kernels/{file})\n\n{}\n\n", title(source.text));
    let mut groups: Vec<(&'static Contract, Vec<&Kernel>)> = Vec::new();
    for entry in entries {
        let Some(contract) = contract_of(&entry.kernel.name) else { continue };
        match groups.iter_mut().find(|(c, _)| c.kernel == contract.kernel) {
            Some((_, kernels)) => kernels.push(&entry.kernel),
            None => groups.push((contract, vec![&entry.kernel])),
        }
    }
    let _ = writeln!(
        out,
        "| kernel | instances | grid | threadgroup | threadgroup memory |\n|---|---|---|---|---|"
    );
    for (contract, kernels) in &groups {
        let (grid, threads) = dispatch(&contract.dispatch);
        let memory = match contract.threadgroup_memory {
            [] => "none".to_owned(),
            sizes => sizes.iter().map(|size| format!("`{size}`")).collect::<Vec<_>>().join(", "),
        };
        let name = contract.kernel;
        let _ = writeln!(out, "| `{name}` | {} | {grid} | {threads} | {memory} |", instances(name, kernels));
    }
    for (contract, kernels) in &groups {
        if let [first, ..] = kernels[..] {
            let _ = writeln!(out, "\n```\n{}:\n{}```", contract.kernel, bindings(first, contract));
        }
    }
}

/// What a file is about: the first line of its head, after its name.
fn title(text: &str) -> String {
    let head = text.lines().map_while(|line| line.strip_prefix("//")).map(str::trim);
    let words: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
    let words = words.join(" ");
    let about = words.split_once(" - ").map_or(words.as_str(), |(_, about)| about);
    let mut letters = about.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", letters.as_str())
}

fn instances(base: &str, kernels: &[&Kernel]) -> String {
    let suffixes = kernels.iter().map(|kernel| &kernel.name[base.len()..]);
    let named: Vec<_> =
        suffixes.map(|s| if s.is_empty() { "plain".to_owned() } else { format!("`{s}`") }).collect();
    if named == ["plain"] { String::new() } else { named.join(" ") }
}

fn dispatch(dispatch: &Dispatch) -> (String, String) {
    let list = |grid: &[&str; 3]| {
        let last = grid.iter().rposition(|dim| *dim != "1").unwrap_or(0);
        format!("`({})`", grid[..=last].join(", "))
    };
    match dispatch {
        Dispatch::Rows { grid, length } => {
            (format!("{} groups", list(grid)), format!("`min(r32({length}), limit)`"))
        }
        Dispatch::Groups { grid, threads } => (format!("{} groups", list(grid)), format!("`{threads}`")),
        Dispatch::Threads { grid, along } => {
            let mut shape = ["1".to_owned(), "1".to_owned(), "1".to_owned()];
            shape[*along] = format!("min(r32({}), limit)", grid[*along]);
            let shape = shape[..=*along].join(", ");
            (format!("{} threads", list(grid)), format!("`({shape})`"))
        }
    }
}

/// A line an index: name, type, shape, access.
fn bindings(kernel: &Kernel, contract: &Contract) -> String {
    let mut out = String::new();
    let mut line = |index: String, name: &str, kind: String, rest: String| {
        let _ = writeln!(out, "  {index:<5} {name:<12} {kind:<9} {rest}");
    };
    for (index, parameter) in crate::contract::bindable(kernel) {
        let rule = contract.buffers.iter().find(|rule| rule.name == parameter.name);
        let rest = match rule {
            None => "constant".to_owned(),
            Some(rule) => {
                let access = match rule.access {
                    Access::Read => "read",
                    Access::Write => "write",
                    Access::ReadWrite => "read and write",
                };
                let nil = if rule.optional { ", may be nil" } else { "" };
                let below = rule.below.map_or(String::new(), |below| format!(", each below {below}"));
                let negative = if rule.negative { ", negative is skipped" } else { "" };
                format!("[{}]  {access}{nil}{below}{negative}", rule.shape.join(", "))
            }
        };
        line(format!("[{index}]"), &parameter.name, parameter.element.clone(), rest);
    }
    out
}

/// One kernel as its signature, for a terminal: bindings, threadgroup memory, positions.
///
/// # Errors
/// [`SyntaxError`] when an embedded source cannot be read.
pub fn page(entry: &Entry) -> Result<String, SyntaxError> {
    let kernel = &entry.kernel;
    let mut out = format!("{} ({}, line {})\n", kernel.name, entry.source.file, kernel.line);
    let Some(contract) = contract_of(&kernel.name) else { return Ok(out) };
    let (grid, threads) = dispatch(&contract.dispatch);
    let plain = |text: String| text.replace('`', "");
    let _ = writeln!(
        out,
        "grid {}, threadgroup {}\n\n{}",
        plain(grid),
        plain(threads),
        bindings(kernel, contract)
    );
    let threadgroup = |p: &&Parameter| matches!(p.role, Role::Threadgroup { .. });
    for (parameter, size) in kernel.parameters.iter().filter(threadgroup).zip(contract.threadgroup_memory) {
        let _ = writeln!(out, "  threadgroup {} {}: {size} bytes", parameter.element, parameter.name);
    }
    for condition in contract.conditions {
        let _ = writeln!(out, "  needs {condition}");
    }
    Ok(out)
}
