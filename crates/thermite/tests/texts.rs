//! What the command prints, word for word.

mod common;

use common::{error, run, stdout, thermite};
use serde_json::{Value, json};

#[test]
fn help() {
    insta::assert_snapshot!("help", stdout(&["--help"]));
    for command in ["generate", "chat", "eval", "tokenize", "inspect", "quantize", "flow", "completions"] {
        insta::assert_snapshot!(format!("help_{command}"), stdout(&[command, "--help"]));
    }
}

#[test]
fn help_fits_eighty_columns_and_has_examples() {
    let commands = [
        "generate",
        "chat",
        "serve",
        "eval",
        "tokenize",
        "inspect",
        "quantize",
        "flow",
        "bench",
        "completions",
    ];
    for args in std::iter::once(vec!["--help"]).chain(commands.map(|command| vec![command, "--help"])) {
        let text = stdout(&args);
        assert!(text.contains("\nExamples:\n  "), "{args:?}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
    }
}

#[test]
fn tokenize() {
    insta::assert_snapshot!(stdout(&[
        "tokenize",
        "Once upon a time,\tTom ate \"Käse\" \\ 🦀<|endoftext|>\n"
    ]));
    insta::assert_snapshot!(stdout(&["tokenize", "--no-special", "a<|endoftext|>b"]));
    insta::assert_snapshot!(stdout(&["tokenize", "--json", "Once upon a time é"]));
    assert_eq!(stdout(&["tokenize", ""]), "0 tokens\n");
    assert_eq!(stdout(&["tokenize", "a"]).lines().last(), Some("1 token"));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.txt");
    std::fs::write(&file, "Once upon a time\n").unwrap();
    let expected = stdout(&["tokenize", "Once upon a time"]);
    assert_eq!(run(thermite(["tokenize", "-f"]).arg(&file)).0, expected);
    assert_eq!(run(thermite(["tokenize"]).write_stdin("Once upon a time\n")).0, expected);
    assert_eq!(run(thermite(["tokenize", "-"]).write_stdin("Once upon a time")).0, expected);
    assert_eq!(error(&mut thermite(["tokenize", "a", "-m", "/none"])), "/none: no such file or folder");
}

#[test]
fn inspect() {
    insta::assert_snapshot!(stdout(&["inspect"]));
    let report = |args: &[&str]| -> Value {
        serde_json::from_str(&stdout(&[&["inspect", "--json"], args].concat())).unwrap()
    };
    let whole = report(&[]);
    assert_eq!(whole["parameters"], 3_554_304);
    assert_eq!(whole["totals"], json!({"F16": {"tensors": 76, "elements": 3_554_304, "bytes": 7_108_608}}));
    assert_eq!(whole["tensors"].as_array().unwrap().len(), 76);
    let memory = &whole["memory"];
    // two floats a channel, layer and token
    assert_eq!(memory["kv_cache"], 2 * 4 * 192 * 6 * 512);
    let parts = ["weights", "kv_cache", "activations"].map(|part| memory[part].as_u64().unwrap());
    assert_eq!(memory["total"], parts.iter().sum::<u64>());
    let small = &report(&["--context", "32", "--kv-type", "f16"])["memory"];
    assert_eq!(small["kv_cache"], 2 * 2 * 192 * 6 * 32);
    let bytes = &report(&["--context", "32", "--kv-type", "q8_0"])["memory"];
    assert_eq!(bytes["kv_cache"], 2 * 192 / 32 * 34 * 6 * 32);
    assert_eq!((&small["context"], &small["weights"]), (&json!(32), &memory["weights"]));
    assert_eq!(
        error(&mut thermite(["inspect", "--context", "513"])),
        "a context of 513 tokens was asked for; the model has positions for 1 to 512"
    );
    assert_eq!(error(&mut thermite(["inspect", "/none"])), "/none: no such file or folder");
}

#[test]
fn eval() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.txt");
    std::fs::write(&file, "Once upon a time there was a little girl. ".repeat(20)).unwrap();
    let report = |args: &[&str]| -> Value {
        serde_json::from_str(&run(thermite(["eval", "--json"]).arg(&file).args(args)).0).unwrap()
    };
    // a window is as long as the context lets it be
    let short = report(&["--context", "48"]);
    assert_eq!(short["window"], 48);
    assert_eq!(report(&["--window", "48"]), short);
    assert!((3.0..5.0).contains(&short["nll"].as_f64().unwrap()), "{short}");
    assert_eq!(
        error(thermite(["eval", "--context", "48", "--window", "49"]).arg(&file)),
        "a window of 49 tokens was asked for; the context holds 1 to 48"
    );
}

#[test]
fn flow() {
    insta::assert_snapshot!(stdout(&["flow"]));
    insta::assert_snapshot!(stdout(&["flow", "--tokens", "1", "--attention", "flash"]));
    assert_eq!(
        error(&mut thermite(["flow", "--tokens", "513"])),
        "position 512 at row 512 is past the model's context of 512 tokens"
    );
}

#[test]
fn completions() {
    for (shell, word) in [
        ("bash", "complete -F _thermite"),
        ("zsh", "#compdef thermite"),
        ("fish", "complete -c thermite"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains(word) && script.contains("tokenize"), "{shell}");
    }
}

#[test]
#[cfg(unix)]
fn bash_completes_with_the_script() {
    let script = stdout(&["completions", "bash"]);
    let ask = r#"COMP_WORDS=(thermite ch); COMP_CWORD=1; _thermite thermite ch thermite; echo "${COMPREPLY[@]}"
COMP_WORDS=(thermite generate --top); COMP_CWORD=2; _thermite thermite --top generate; echo "${COMPREPLY[@]}""#;
    let output =
        std::process::Command::new("bash").args(["-c", &format!("{script}\n{ask}")]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "chat\n--top-k --top-p\n");
}
