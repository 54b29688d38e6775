//! `thermite bench --serve`: a server under load.
#![allow(clippy::unwrap_used)] // a failed helper is a failed test

mod common;

use common::{error, run, thermite};
use serde_json::Value;

#[test]
fn a_server_is_started_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("load.svg");
    let mut command = thermite([
        "bench",
        "--serve",
        "--concurrency=1,3",
        "--duration=0.3",
        "--prompt=20",
        "--tokens=8",
        "--format=json",
    ]);
    let (out, _) = run(command.arg("--svg").arg(&svg));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["model"], &report["ignore_eos"]), (&"stories-3m".into(), &true.into()));
    let levels = report["levels"].as_array().unwrap();
    assert_eq!(levels.len(), 2);
    for level in levels {
        assert_eq!(level["errors"], Value::Object(Default::default()));
        assert!(level["requests"].as_u64().unwrap() > 0);
        assert_eq!(level["completion_tokens"], 8.0);
        assert!((level["prompt_tokens"].as_f64().unwrap() - 20.0).abs() < 4.0, "{level}");
        let first = &level["first_token"];
        assert!(first["p50"].as_f64().unwrap() <= first["p99"].as_f64().unwrap());
    }
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
}

#[test]
fn what_cannot_be_measured_says_why() {
    let message = error(&mut thermite(["bench", "--serve", "--url", "http://127.0.0.1:1"]));
    assert!(message.starts_with("http://127.0.0.1:1: no connection: "), "{message}");
    let message = error(&mut thermite(["bench", "--serve", "--url", "https://127.0.0.1"]));
    assert_eq!(message, "https://127.0.0.1: only http:// is spoken here");
    let message = error(&mut thermite(["bench", "--serve", "--model", "/nowhere"]));
    assert!(message.contains("/nowhere"), "{message}");
}
