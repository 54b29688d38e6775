//! GGUF files written and shown.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

mod common;

use common::{error, run, stdout, thermite};
use serde_json::Value;

/// The built-in model as a GGUF file of that type; what writing it printed.
fn written(dir: &tempfile::TempDir, dtype: &str) -> (String, String) {
    let path = dir.path().join(format!("{dtype}.gguf")).to_str().unwrap().to_owned();
    let (out, err) = run(&mut thermite(["quantize", "stories-3m", &path, "--type", dtype]));
    assert_eq!(err, "");
    (path, out.replace(dir.path().to_str().unwrap(), "DIR"))
}

#[test]
fn quantize() {
    let dir = tempfile::tempdir().unwrap();
    let (q4_k, report) = written(&dir, "q4_k");
    insta::assert_snapshot!(report);
    let again = ["quantize", "stories-3m", &q4_k, "--type", "Q8_0"];
    assert_eq!(error(&mut thermite(again)), format!("{q4_k} is there already: --force replaces it"));
    run(thermite(again).arg("--force"));

    // a file of coarse numbers is worth a warning as a source of others
    let q4_0 = dir.path().join("q4_0.gguf");
    let (_, note) = run(thermite(["quantize", &q4_k]).arg(&q4_0).args(["--type", "q4_0"]));
    assert!(note.starts_with("the input is quantised itself (Q8_0"), "{note}");
    let itself = error(thermite(["quantize", &q4_k, &q4_k, "--type", "f16", "--force"]).arg("-t1"));
    assert!(itself.ends_with("is the input, and would be overwritten"), "{itself}");
}

#[test]
fn inspect() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = written(&dir, "f16");
    let (text, _) = run(&mut thermite(["inspect", &path]));
    let of_file = |line: &&str| !line.contains("blk.") || line.contains("blk.5");
    let files_part = text.split("\nMemory").next().unwrap_or_default();
    let metadata = files_part.split_once("\nMetadata").unwrap().1;
    insta::assert_snapshot!(metadata.lines().filter(of_file).collect::<Vec<_>>().join("\n"));
    let json: Value = serde_json::from_str(&stdout(&["inspect", "--json", &path])).unwrap();
    assert_eq!(json["metadata"]["gpt2.block_count"], 6);
    assert_eq!(json["metadata"]["tokenizer.ggml.tokens"], "4,096 of string");
    assert_eq!(json["tensors"].as_array().unwrap().len(), 76);

    let broken = dir.path().join("broken.gguf");
    std::fs::write(&broken, b"GGUF\x03\0\0\0").unwrap();
    let message = error(thermite(["inspect"]).arg(&broken));
    assert!(
        message.ends_with(
            "broken.gguf: truncated: the number of tensors and pairs at byte 8 takes 8 bytes, 0 are left"
        ),
        "{message}"
    );
}
