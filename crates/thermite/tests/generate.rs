//! `thermite generate`, as a user meets it.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::{BIN, error, run, stdout, stories, thermite};
use serde_json::Value;

const GREEDY: [&str; 2] = ["--temperature", "0"];

fn json(args: &[&str]) -> Value {
    let mut all = vec!["generate", "--json"];
    all.extend(args);
    serde_json::from_str(&stdout(&all)).unwrap()
}

#[test]
fn greedy_text_is_the_reference() {
    let reference = std::fs::read(stories().join("reference.json")).unwrap();
    let reference: Value = serde_json::from_slice(&reference).unwrap();
    let prompts = reference["prompts"].as_array().unwrap();
    assert_eq!(prompts.len(), 4);
    for case in prompts {
        let prompt = case["prompt"].as_str().unwrap();
        let (out, err) = run(&mut thermite(["generate", prompt, "-n", "64", "--temperature", "0"]));
        assert_eq!(out.strip_suffix('\n'), case["text"].as_str());
        assert!(err.starts_with('[') && err.contains("64 written at "), "{err}");

        let report = json(&[prompt, "-n", "64", "--temperature", "0"]);
        let ids = [&report["prompt_token_ids"], &report["token_ids"]];
        let ids: Vec<&Value> = ids.into_iter().flat_map(|ids| ids.as_array().unwrap()).collect();
        assert_eq!(ids, case["greedy"].as_array().unwrap().iter().collect::<Vec<_>>());
    }
}

#[test]
fn one_seed_is_one_text_with_any_threads_and_chunks() {
    let text = |seed: &str, threads: &str, chunk: &str| {
        stdout(&["generate", "Once upon a time", "-n", "50", "--seed", seed, "-t", threads, "--chunk", chunk])
    };
    let first = text("7", "1", "512");
    assert_eq!(first, text("7", "1", "512"));
    assert_eq!(first, text("7", "2", "512"));
    assert_eq!(first, text("7", "2", "1"));
    assert_ne!(first, text("8", "1", "512"));
    assert!(text("18446744073709551615", "1", "512").starts_with("Once upon a time"));
}

#[test]
fn json_is_one_object_of_five_fields() {
    let out = stdout(&["generate", "--json", "Once upon a time", "-n", "5", "--temperature", "0"]);
    assert_eq!(out.lines().count(), 1);
    let report: Value = serde_json::from_str(&out).unwrap();
    let keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["text", "prompt_token_ids", "token_ids", "finish_reason", "timings"]);
    assert_eq!(report["text"], ", there was a little");
    assert_eq!(report["token_ids"].as_array().unwrap().len(), 5);
    assert_eq!(report["finish_reason"], "length");
    assert_eq!(report["timings"]["prompt_tokens"], 4);
    assert_eq!(report["timings"]["generated_tokens"], 5);
}

#[test]
fn texts_end_where_they_should() {
    let ends = |args: &[&str]| {
        let report = json(&[&["Once upon a time"], &GREEDY[..], args].concat());
        let text = report["text"].as_str().unwrap().to_owned();
        (
            text,
            report["finish_reason"].as_str().unwrap().to_owned(),
            report["token_ids"].as_array().unwrap().len(),
        )
    };
    let stop = |text: &str| (text.to_owned(), "stop".to_owned());
    let (text, reason, _) = ends(&["--stop", "little girl", "--stop", "Lily"]);
    assert_eq!((text, reason), stop(", there was a "));
    // a stop string that ends inside a token, and one that never comes
    let (text, reason, _) = ends(&["--stop", "the xylophone", "--stop", "na"]);
    assert_eq!((text, reason), stop(", there was a little girl "));
    assert_eq!(ends(&["-n", "0"]), (String::new(), "length".to_owned(), 0));
    assert_eq!(ends(&["-n", "1"]), (",".to_owned(), "length".to_owned(), 1));
    let (_, reason, tokens) = ends(&["-n", "18446744073709551615"]);
    assert!(reason == "stop" && tokens < 508, "{reason} after {tokens}");
    let (_, reason, tokens) = ends(&["--ignore-eos"]);
    assert_eq!((reason.as_str(), tokens), ("length", 508));
    let (text, reason, tokens) = ends(&["--context", "6"]);
    assert_eq!((text.as_str(), reason.as_str(), tokens), (", there", "length", 2));
    assert_eq!(ends(&["--context", "4"]).2, 0);
}

#[test]
fn the_prompt_may_come_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prömpt of mine.txt");
    std::fs::write(&file, "Once upon a time\r\n").unwrap();
    let options = ["-n", "8", "--temperature", "0"];
    let expected = stdout(&["generate", "Once upon a time", "-n", "8", "--temperature", "0"]);
    let of = |command: &mut assert_cmd::Command| run(command.args(options)).0;
    assert_eq!(of(thermite(["generate", "-f"]).arg(&file)), expected);
    assert_eq!(of(thermite(["generate"]).write_stdin("Once upon a time\n")), expected);
    assert_eq!(of(thermite(["generate", "-"]).write_stdin("Once upon a time")), expected);
    assert_eq!(of(thermite(["generate", "--file", "-"]).write_stdin("Once upon a time")), expected);
    let text = of(&mut thermite(["generate", "--no-echo", "Once upon a time"]));
    assert_eq!(format!("Once upon a time{text}"), expected);
}

#[test]
fn the_model_may_be_a_folder_a_file_or_an_environment_variable() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mödel of mine 🦀");
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(stories().join(file), folder.join(file)).unwrap();
    }
    let options = ["generate", "Once upon a time", "-n", "8", "--temperature", "0"];
    let expected = stdout(&options);
    assert_eq!(run(thermite(options).arg("-m").arg(&folder)).0, expected);
    assert_eq!(run(thermite(options).arg("-m").arg(folder.join("model.safetensors"))).0, expected);
    assert_eq!(run(thermite(options).env("THERMITE_MODEL", &folder)).0, expected);
}

#[test]
fn a_schema_or_a_grammar_says_what_the_text_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let schema = r#"{"type": "object", "properties": {"age": {"type": "integer", "minimum": 3, "maximum": 12}},
        "required": ["age"], "additionalProperties": false}"#;
    let schema = file("schema.json", schema);
    let grammar = file("answer.lark", "start: \"yes\" | \"no\"\n");
    for seed in ["1", "2", "3"] {
        let text = |option: &str, file: &str| {
            let report = json(&["Lily is", "--temperature", "2", "--seed", seed, option, file]);
            assert_eq!(report["finish_reason"], "stop");
            report["text"].as_str().unwrap().to_owned()
        };
        let value: Value = serde_json::from_str(&text("--json-schema", &schema)).unwrap();
        assert!((3..=12).contains(&value["age"].as_u64().unwrap()), "{value}");
        assert!(["yes", "no"].contains(&text("--grammar", &grammar).as_str()));
    }
    let wrong =
        |option: &str, text: &str| error(&mut thermite(["generate", "x", option, &file("wrong", text)]));
    assert!(wrong("--json-schema", "{").contains("wrong: EOF while parsing"));
    assert!(wrong("--json-schema", r#"{"type": "thing"}"#).contains("the JSON schema cannot be used"));
    assert!(wrong("--grammar", "start: nothing").contains("the grammar cannot be used"));
}

#[test]
fn characters_of_many_bytes_stay_whole() {
    let prompt = "Die Maus aß Käse — 🦀 «héllo» 日本語";
    for seed in ["1", "2", "3"] {
        let out = stdout(&["generate", prompt, "-n", "30", "--temperature", "3", "--seed", seed]);
        assert!(out.starts_with(prompt));
        let report = json(&[prompt, "-n", "30", "--temperature", "3", "--seed", seed]);
        assert_eq!(format!("{prompt}{}\n", report["text"].as_str().unwrap()), out);
    }
}

#[test]
fn the_edges_of_sampling_values_are_allowed() {
    let greedy = stdout(&["generate", "Once upon a time", "-n", "12", "--temperature", "0"]);
    for likeliest in [["--temperature", "1e-9"], ["--top-k", "1"], ["--top-p", "0"], ["--min-p", "1"]] {
        let args = [&["generate", "Once upon a time", "-n", "12"], &likeliest[..]].concat();
        assert_eq!(stdout(&args), greedy, "{likeliest:?}");
    }
    for wide in [["--top-k", "0"], ["--top-k", "1000000"], ["--top-p", "1"], ["--temperature", "1e30"]] {
        let args = [&["generate", "Once upon a time", "-n", "12"], &wide[..]].concat();
        assert!(stdout(&args).starts_with("Once upon a time"), "{wide:?}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let mut child = std::process::Command::new(BIN)
        .args(["generate", "Once upon a time", "--ignore-eos", "--seed", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut byte = [0];
    out.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"O");
    drop(out);
    let mut err = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn other_commands_end_quietly_too() {
    for args in [&["inspect"][..], &["flow"], &["completions", "bash"], &["tokenize", "Hi"], &["--help"]] {
        let mut shell = std::process::Command::new("sh");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output =
            shell.args(["-c", "exec \"$0\" \"$@\""]).arg(BIN).args(args).stdout(writer).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output =
        std::process::Command::new(BIN).args(["generate", "Hi", "-n", "4"]).stdout(full).output().unwrap();
    let err: Vec<_> = output.stderr.lines().map(Result::unwrap).collect();
    assert_eq!(output.status.code(), Some(1));
    assert!(err.len() == 1 && err[0].starts_with("error: the output cannot be written: "), "{err:?}");
}

#[test]
fn wrong_prompts_are_errors() {
    let empty = "the prompt is empty: the model needs at least one token to go on from";
    assert_eq!(error(&mut thermite(["generate", ""])), empty);
    assert_eq!(error(thermite(["generate"]).write_stdin("")), empty);
    assert_eq!(error(thermite(["generate"]).write_stdin("\n")), empty);
    let long = error(&mut thermite(["generate", "Once upon a time", "--context", "3"]));
    assert_eq!(long, "the prompt has 4 tokens, but the context holds 3");
    let long = error(&mut thermite(["generate", &"a ".repeat(600)]));
    assert!(
        long.starts_with("the prompt has ") && long.ends_with(" tokens, but the context holds 512"),
        "{long}"
    );

    let dir = tempfile::tempdir().unwrap();
    let latin = dir.path().join("latin.txt");
    std::fs::write(&latin, b"ol\xe9").unwrap();
    let of = |path: &std::path::Path| error(thermite(["generate", "-f"]).arg(path));
    assert_eq!(of(&latin), format!("{}: not UTF-8 text: byte 2 is invalid", latin.display()));
    assert!(of(dir.path()).starts_with(&format!("{}: ", dir.path().display())));
    assert!(of(&dir.path().join("none")).starts_with(&format!("{}: ", dir.path().join("none").display())));
    let piped = error(thermite(["generate"]).write_stdin(b"\xff".to_vec()));
    assert_eq!(piped, "standard input: not UTF-8 text: byte 0 is invalid");
}

#[test]
fn wrong_values_are_errors() {
    for (option, values, rest) in [
        ("--temperature", ["-1", "NaN", "inf"], "it must be 0 (greedy) or more"),
        ("--top-p", ["-0.1", "1.1", "NaN"], "it must be from 0 to 1"),
        ("--min-p", ["-0.1", "1.1", "NaN"], "it must be from 0 to 1"),
        ("--repeat-penalty", ["0", "-1", "inf"], "it must be from 0.01 to 100"),
        ("--presence-penalty", ["NaN", "inf", "-inf"], "it must be from -100 to 100"),
        ("--frequency-penalty", ["NaN", "inf", "-inf"], "it must be from -100 to 100"),
        ("--softcap", ["0", "-30", "NaN"], "it must be above 0"),
    ] {
        for value in values {
            let message = error(thermite(["generate", "Hi"]).arg(format!("{option}={value}")));
            let name = option.trim_start_matches('-').replace('-', "_");
            assert_eq!(message, format!("{name} is {value}; {rest}"));
        }
    }
    assert_eq!(error(&mut thermite(["generate", "Hi", "--stop", ""])), "stop string 1 is empty");
    for context in ["0", "513"] {
        let message = error(&mut thermite(["generate", "Hi", "--context", context]));
        assert_eq!(
            message,
            format!("a context of {context} tokens was asked for; the model has positions for 1 to 512")
        );
    }
    // a variable that is set to nothing is not set
    let unset = ["THERMITE_CPU_ISA", "THERMITE_CPU_ACTIVATIONS"].map(|variable| (variable, ""));
    run(thermite(["generate", "Hi", "-n", "1"]).envs(unset));
    let isa = error(thermite(["generate", "Hi"]).env("THERMITE_CPU_ISA", "mmx"));
    assert!(
        isa.starts_with("device cpu is not available: THERMITE_CPU_ISA=mmx, but this processor has "),
        "{isa}"
    );
}

#[test]
fn what_cannot_be_read_as_a_value_is_a_usage_error() {
    for args in [
        ["--max-tokens", "-1"],
        ["--max-tokens", "99999999999999999999"],
        ["--seed", "18446744073709551616"],
        ["--temperature", "warm"],
        ["--top-k", "-1"],
        ["--chunk", "0"],
        ["--threads", "0"],
        ["--context", "-1"],
        ["--device", "abacus"],
        ["--file", "x"],
    ] {
        let output = thermite(["generate", "Hi"]).args(args).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{err}");
        assert!(err.starts_with("error: ") && err.contains(args[0]), "{err}");
    }
}
