//! Where a kernel file can be broken: every barrier dropped, every bound widened by one.
//!
//! All mutants are compiled into one library, each behind its number: `emulator_mutant`, read from the environment.

/// One way to break a file.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    pub(crate) number: usize,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) kind: &'static str,
    /// The line as written, without white space around it.
    pub(crate) text: String,
}

/// The environment variable that chooses the mutant of a process.
pub(crate) const CHOICE: &str = "THERMITE_MUTANT";

/// A kernel file that defines what the mutated ones read.
pub(crate) const SWITCH: &str = "extern \"C\" char* getenv(const char*);\nextern \"C\" int atoi(const char*);\n\
    extern \"C\" { int emulator_mutant = getenv(\"THERMITE_MUTANT\") ? atoi(getenv(\"THERMITE_MUTANT\")) : -1; }\n";
const DECLARATION: &str = "extern \"C\" int emulator_mutant; ";

/// The file with every mutant in it, numbered from `mutants.len()` on. Lines stay where they are.
pub(crate) fn mutate(file: &str, text: &str, mutants: &mut Vec<Mutant>) -> String {
    let mut out = String::new();
    let mut unrolled = false; // the line before asks for unrolling: a loop over registers
    for (index, line) in text.lines().enumerate() {
        let mut add = |kind| {
            let number = mutants.len();
            let text = line.trim().to_owned();
            mutants.push(Mutant { number, file: file.to_owned(), line: index + 1, kind, text });
            number
        };
        if index == 0 || line.trim_start() == "#pragma once" {
            // Directives need a line of their own; the first line is a comment.
            out += if line.starts_with('#') { "" } else { DECLARATION };
        }
        out += &mutate_line(line, unrolled, &mut add);
        unrolled = line.trim() == "#pragma unroll";
        out.push('\n');
    }
    out
}

fn mutate_line(line: &str, unrolled: bool, add: &mut dyn FnMut(&'static str) -> usize) -> String {
    let (code, comment) = line.split_at(line.find("//").unwrap_or(line.len()));
    if ["#", "template", "static_assert", "constant constexpr", "inline"]
        .iter()
        .any(|s| code.trim_start().starts_with(s))
    {
        return line.to_owned();
    }
    let barriers = drop_barriers(code, add);
    widen_bounds(&barriers, unrolled, add) + comment
}

/// `threadgroup_barrier(…)` becomes `(emulator_mutant == 3 ? (void)0 : threadgroup_barrier(…))`.
fn drop_barriers(code: &str, add: &mut dyn FnMut(&'static str) -> usize) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) =
        ["threadgroup_barrier(", "simdgroup_barrier("].iter().filter_map(|b| rest.find(b)).min()
    {
        let Some(length) = rest[start..].find(')') else { break };
        let (before, call) = (&rest[..start], &rest[start..=start + length]);
        let number = add("barrier dropped");
        out += &format!("{before}(emulator_mutant == {number} ? (void)0 : {call})");
        rest = &rest[start + length + 1..];
    }
    out + rest
}

/// `i < n` becomes `i < (emulator_mutant == 3) + n`, `i <= n` and `i >= n` likewise.
fn widen_bounds(code: &str, unrolled: bool, add: &mut dyn FnMut(&'static str) -> usize) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some((at, operator)) =
        [" < ", " <= ", " >= "].iter().filter_map(|o| Some((rest.find(o)?, *o))).min_by_key(|found| found.0)
    {
        let (before, after) = rest.split_at(at + operator.len());
        out += before;
        if is_bound(code, after, unrolled) {
            let number = add("bound widened");
            out += &format!("(emulator_mutant == {number}) + ");
        }
        rest = after;
    }
    out + rest
}

/// Not a bound: a comparison with a literal, and loops over registers, unrolled or up to a constant of the source.
fn is_bound(code: &str, right: &str, unrolled: bool) -> bool {
    let literal = right.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    let word: String = right.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let constant = word.len() > 1 && !word.chars().any(|c| c.is_ascii_lowercase());
    let by_thread = ["= tid", "= int(tid)", "= lane", ".id"].iter().any(|start| code.contains(start));
    !literal && (by_thread || !constant && !unrolled)
}
