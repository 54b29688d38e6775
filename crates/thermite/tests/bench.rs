//! `thermite bench`: what it prints, and what it refuses. How fast anything is, no test asks.

mod common;

use common::{error, run, stdout, thermite};
use serde_json::Value;

const SHORT: [&str; 7] = ["bench", "--runs", "1", "--tokens", "2", "--prompt", "8"];

fn short(more: &[&str]) -> assert_cmd::Command {
    thermite([&SHORT, more].concat())
}

#[test]
fn what_loading_took_is_shown() {
    let (out, _) =
        run(&mut short(&["--format", "json", "--device", "cpu", "--depth", "0,3", "--sequences", "1,2"]));
    let report: Value = serde_json::from_str(&out).unwrap();
    let number = |key: &str| report[key].as_f64().unwrap();
    assert!(number("load_seconds") >= number("packing_seconds") && number("packing_seconds") > 0.0, "{out}");
    // all matrices of the built-in model, positions too, in 16 bits, their rows rounded up to panels
    assert_eq!(number("packed_bytes"), 2.0 * (4096.0 + 512.0 + 6.0 * 12.0 * 192.0) * 192.0);
    let rows = report["rows"].as_array().unwrap();
    let decoded = rows
        .iter()
        .filter(|row| row["phase"] == "decode")
        .map(|row| (row["depth"].as_u64(), row["sequences"].as_u64()));
    let wanted = [(0, 1), (0, 2), (3, 1), (3, 2)].map(|(depth, sequences)| (Some(depth), Some(sequences)));
    assert_eq!(decoded.collect::<Vec<_>>(), wanted);
    assert!(rows.iter().all(|row| row["median"].as_f64() > Some(0.0)), "{out}");

    let text = run(&mut short(&[])).0;
    assert!(
        text.contains("\nloaded in ") && text.contains(" to lay out 7.1 MB of matrices for the device"),
        "{text}"
    );
}

#[test]
fn a_plot_that_cannot_be_drawn_costs_no_figures() {
    let output = short(&["--svg", "/no/such/folder/x.svg"]).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(out.contains("| decode 2 at 8 |") && !output.status.success(), "{out}");
    assert!(err.starts_with("error: /no/such/folder/x.svg: the plot cannot be written: "), "{err}");
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    for (args, part) in [
        (["--prompt", "0"], "must be at least 1"),
        (["--prompt", "18446744073709551615"], "must be at most 1048576"),
        (["--depth", "18446744073709551615"], "must be at most 1048576"),
        (["--depth", "-1"], "unexpected argument"),
        (["--sequences", "0"], "0 is not in 1..=1024"),
        (["--sequences", "1025"], "1025 is not in 1..=1024"),
        (["--weights", "q4_0"], "--shape <NAME>"),
        (["--model", ""], "a value is required for '--model <MODEL>'"),
    ] {
        let output = thermite([&["bench"], &args[..]].concat()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && message.contains(part), "{args:?}: {message}");
    }
    assert_eq!(error(&mut short(&["--depth", "511"])), "decode 2 at 511: needs 513 tokens of 512 of context");
    let columns = error(&mut short(&["--shape", "gpt2-124m", "--weights", "q4_0"]));
    assert!(columns.ends_with(".weight lies column by column, which blocks of Q4_0 do not"), "{columns}");
}

#[test]
fn options_that_change_nothing_are_not_taken() {
    for args in [["flow", "--threads", "2"], ["flow", "--context", "9"], ["inspect", "--device", "cpu"]] {
        let output = thermite(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    assert!(stdout(&["flow", "--attention", "flash"]).contains("flash_attention_forward"));
}
