//! The figures as a table.

use std::fmt::Write;

use super::Report;
use super::stats::Percentiles;

pub(super) fn markdown(report: &Report) -> String {
    let Report { model, max_tokens, seconds, .. } = report;
    let lengths: Vec<String> = report.prompt_tokens.iter().map(ToString::to_string).collect();
    let mut out = format!(
        "{model} at {}: prompts of {} tokens, {max_tokens} tokens each{}; {seconds} s each\n\n",
        report.url,
        lengths.join(" or "),
        if report.ignore_eos { "" } else { " at most" },
    );
    out.push_str(
        "| requests | tok/s | requests/s | first token p50 / p90 / p99, ms | between tokens p50 / p90 / p99, ms | \
         prompt, text | errors | memory |\n|---|---|---|---|---|---|---|---|\n",
    );
    for level in &report.levels {
        let memory = level.resident_bytes.map(|bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        let _ = writeln!(
            out,
            "| {} | {:.0} | {:.2} | {} | {} | {:.0}, {:.0} | {} | {} |",
            level.load,
            level.tokens_per_second,
            level.requests_per_second,
            milliseconds(level.first_token),
            milliseconds(level.inter_token),
            level.prompt_tokens,
            level.completion_tokens,
            level.failures(),
            memory.unwrap_or_default(),
        );
    }
    out.push_str("\nPercentiles are by nearest rank.\n");
    for level in &report.levels {
        for (error, count) in &level.errors {
            let _ = writeln!(out, "- {}: {count} times {error}", level.load);
        }
    }
    out
}

fn milliseconds(percentiles: Option<Percentiles>) -> String {
    let Some(Percentiles { p50, p90, p99, .. }) = percentiles else { return String::new() };
    let each = [p50, p90, p99].map(|seconds| match seconds * 1e3 {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms => format!("{ms:.0}"),
    });
    each.join(" / ")
}
