//! `thermite chat` without a terminal: a line a turn.
#![allow(clippy::unwrap_used)] // a failed helper is a failed test

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use common::{BIN, ModelCopy, error, run, slow_model, stdout, thermite};

/// A greedy chat: what it writes, and what it says of it, but for the figures.
fn chat(args: &[&str], input: &str) -> (String, Vec<String>) {
    let mut command = thermite(["chat", "--temperature", "0"]);
    let (out, err) = run(command.args(args).write_stdin(input));
    let notes = err.lines().filter(|line| !line.starts_with('[')).map(str::to_owned).collect();
    (out, notes)
}

#[test]
fn turns_go_on_from_one_another() {
    let (one, notes) = chat(&["-n", "30"], "Once upon a time\n");
    let whole = stdout(&["generate", "Once upon a time", "--no-echo", "--temperature", "0", "-n", "30"]);
    assert_eq!(one, whole);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("No chat template"), "{notes:?}");

    // empty lines let it go on, and answers that stop anywhere make the same text
    let (three, _) = chat(&["-n", "10"], "Once upon a time\n\n\n");
    let pieces: Vec<&str> = three.split_inclusive('\n').collect();
    assert!(whole.starts_with(pieces[0].trim_end_matches('\n')));
    assert_eq!(three.replace('\n', ""), whole.replace('\n', ""));
}

#[test]
fn what_is_typed_becomes_part_of_the_text() {
    // -n 1: the answers are "," and then what follows all of the text
    let (out, _) = chat(&["-n", "1"], "Once upon a time\nthere was a little girl named\n");
    let whole = "Once upon a time, there was a little girl named";
    let next = stdout(&["generate", whole, "--no-echo", "--temperature", "0", "-n", "1"]);
    assert_eq!(out, format!(",\n{next}"));
}

#[test]
fn a_text_that_has_ended_can_be_gone_on_from() {
    let (out, _) = chat(&[], "Once upon a time\nOnce upon a time, a dog\n");
    let end = stdout(&["generate", "Once upon a time", "--no-echo", "--temperature", "0"]);
    let rest = out.strip_prefix(&end).unwrap();
    assert!(rest.trim().len() > 10, "{rest:?}");
}

#[test]
fn commands() {
    let (out, notes) = chat(
        &["-n", "5"],
        "Once upon a time\n/clear\n\n/help\n/seed x\n/what\nOnce upon a time\n/quit\nmore\n",
    );
    let answer = ", there was a little\n";
    assert_eq!(out, answer.repeat(2));
    insta::assert_snapshot!(notes.join("\n"));
}

/// The built-in model with a chat template: messages stand one behind the other.
fn model_with_template() -> ModelCopy {
    let model = ModelCopy::new();
    let template = "{% for m in messages %}{{ ' ' if not loop.first }}{{ m.content | trim }}{% endfor %}";
    std::fs::write(model.path("chat_template.jinja"), template).unwrap();
    model
}

#[test]
fn a_template_says_how_messages_are_written() {
    let model = model_with_template();
    let model = model.dir.path().to_str().unwrap();
    let (out, notes) =
        chat(&["-m", model, "-n", "4", "--system", "Tom had a dog."], "Once upon a time\n\n Then Tom \n");
    assert_eq!(notes, ["The model answers what you type. /help for commands."]);
    let answers: Vec<&str> = out.lines().collect();
    let generate = |prompt: &str| {
        let args = ["generate", prompt, "--no-echo", "--temperature", "0", "-n", "4", "-m", model];
        stdout(&args).trim_end().to_owned()
    };
    let first = "Tom had a dog. Once upon a time";
    assert_eq!(answers[0].trim_end(), generate(first));
    let second = format!("{first} {} Then Tom", answers[0].trim());
    // the history is written anew each time, and what was cached of it is what would be computed
    assert_eq!(answers[1].trim_end(), generate(&second));
    let args = [
        "generate",
        "Once upon a time",
        "--chat",
        "--system",
        "Tom had a dog.",
        "--temperature",
        "0",
        "-n",
        "4",
        "-m",
        model,
    ];
    assert_eq!(stdout(&args).trim_end(), answers[0].trim_end());

    let (raw, notes) = chat(&["-m", model, "-n", "4", "--raw"], "Once upon a time\n");
    assert_eq!(notes, ["The model goes on from what you type. /help for commands."]);
    assert_eq!(raw.trim_end(), generate("Once upon a time"));
}

#[test]
fn what_is_typed_is_no_special_token() {
    let model = model_with_template();
    let model = model.dir.path().to_str().unwrap();
    let ids = |args: &[&str]| -> Vec<u64> {
        let out = stdout(&[&["generate", "--json", "-n", "1", "-m", model], args].concat());
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        serde_json::from_value(report["prompt_token_ids"].clone()).unwrap()
    };
    let typed = "a<|endoftext|>b";
    assert_eq!(ids(&[typed]).iter().filter(|&&id| id == 0).count(), 1);
    assert!(!ids(&[typed, "--chat"]).contains(&0));
    assert!(!ids(&[typed, "--chat", "--system", "<|endoftext|>"]).contains(&0));
}

#[test]
fn templates_that_are_missing_wrong_or_unwilling() {
    assert_eq!(
        error(&mut thermite(["chat", "--system", "Be short."])),
        "--system needs a chat template, which stories-3m does not have"
    );
    assert_eq!(
        error(&mut thermite(["generate", "Hi", "--chat"])),
        "--chat needs a chat template, which stories-3m does not have"
    );
    let model = model_with_template();
    let message = |template: &str| {
        std::fs::write(model.path("chat_template.jinja"), template).unwrap();
        let message = error(thermite(["generate", "Hi", "--chat", "-m"]).arg(model.dir.path()));
        message.replace(model.dir.path().to_str().unwrap(), "MODEL")
    };
    assert_eq!(message("\n{% if %}"), "MODEL: chat_template.jinja, line 2: unexpected end of block");
    assert_eq!(
        message("{{ raise_exception('Not with me.') }}"),
        "the model's chat template refuses this conversation: Not with me."
    );
    assert_eq!(message("{{ messages[9].content }}"), "chat_template.jinja, line 1: undefined value");
}

#[test]
fn seeds_are_set() {
    let text =
        |input: &str| run(thermite(["chat", "-n", "20", "--seed", "3"]).write_stdin(input.to_owned())).0;
    let (three, four) = (text("Once upon a time\n"), text("/seed 4\nOnce upon a time\n"));
    assert_ne!(three, four);
    let four_again = run(thermite(["chat", "-n", "20", "--seed", "4"]).write_stdin("Once upon a time\n")).0;
    assert_eq!(four, four_again);
}

#[test]
fn a_full_context_is_said_and_cleared() {
    let (out, notes) =
        chat(&["--context", "20"], "Once upon a time\nThen a dog came.\n/clear\nOnce upon a time\n");
    let answers = stdout(&["generate", "Once upon a time", "--no-echo", "--temperature", "0", "-n", "16"]);
    assert_eq!(out, answers.repeat(2));
    assert_eq!(
        notes[1..],
        [
            "No room for an answer: there are 20 tokens, your line makes them 25, and the context holds 20. /clear begins anew."
        ]
    );
    let (out, notes) = chat(&["--context", "3"], "Once upon a time\n/clear\nHi\n");
    assert!(notes[1].contains("your line makes them 4, and the context holds 3"), "{notes:?}");
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn wrong_input_and_wrong_values_are_errors() {
    assert_eq!(error(&mut thermite(["chat", "--top-p", "2"])), "top_p is 2; it must be from 0 to 1");
    assert_eq!(error(&mut thermite(["chat", "--stop", ""])), "stop string 1 is empty");
    let output = thermite(["chat", "-n", "1"]).write_stdin(b"Hi\n\xff\n".to_vec()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err.ends_with("error: standard input: not UTF-8 text: byte 3 is invalid\n"), "{err}");
    assert_eq!(chat(&[], "").0, "");
}

#[test]
#[cfg(unix)]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let model = slow_model();
    let mut child = Command::new(BIN)
        .args(["chat", "--ignore-eos", "--seed", "1", "-t", "1", "-m"])
        .arg(model.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(notes.next().unwrap().contains("No chat template"));

    writeln!(input, "Once upon a time").unwrap();
    out.read_exact(&mut [0]).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let closing = notes.next().unwrap();
    assert!(closing.starts_with('[') && !closing.contains("full"), "{closing}");

    writeln!(input, "/clear\n/help\n/quit").unwrap();
    assert!(notes.next().unwrap().starts_with("/clear"));
    drop(input);
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.last()), (Some(0), Some(&b'\n')));
}
