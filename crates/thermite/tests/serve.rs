//! `thermite serve`, as a process: it listens, answers, and ends when told to.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // a failed helper is a failed test

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

use common::{BIN, error, thermite};
use serde_json::Value;

/// A server on a free port, with its log, line by line in JSON.
struct Server {
    child: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(BIN);
        command.args([
            "serve",
            "--port",
            "0",
            "--log-format",
            "json",
            "--threads",
            "1",
            "--max-running",
            "4",
        ]);
        command
            .args(args)
            .env_remove("RUST_LOG")
            .env_remove("THERMITE_API_KEYS")
            .env_remove("THERMITE_MODEL");
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { child, log, address: String::new() };
        let line = server.logged("listening on http://");
        server.address = line.rsplit('/').next().unwrap().to_owned();
        server
    }

    /// The next line of the log that says this.
    fn logged(&mut self, said: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended before {said:?}");
            let entry: Value = serde_json::from_str(&line).unwrap();
            let message = entry["fields"]["message"].as_str().unwrap_or_default();
            if message.contains(said) {
                return message.to_owned();
            }
        }
    }

    fn ask(&self, request: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_answers_and_ends_well() {
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(&["a=stories-3m", "stories-3m"]);
        assert!(server.get("/health").starts_with("HTTP/1.1 200"));
        assert!(server.get("/v1/models").contains(r#""id":"a""#));
        let body = r#"{"prompt": "Once upon a time", "max_tokens": 5}"#;
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
        let answer = server.ask(&format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text_completion"), "{answer}");
        server.signal(signal);
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn keys_come_from_a_file_or_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, "# none yet\n").unwrap();
    let keys = ["serve", "--api-key-file", file.to_str().unwrap()];
    let message = error(&mut thermite(keys));
    assert_eq!(message, format!("{}: there is no key in it", file.display()));
    let message = error(thermite(["serve"]).env("THERMITE_API_KEYS", " ,"));
    assert_eq!(message, "THERMITE_API_KEYS: there is no key in it");
    std::fs::write(&file, "key\n").unwrap();
    let server = Server::start(&["--api-key-file", file.to_str().unwrap()]);
    assert!(server.get("/v1/models").starts_with("HTTP/1.1 401"));
}

#[test]
fn an_open_server_without_keys_is_warned_of() {
    let mut server = Server::start(&["--host", "0.0.0.0"]);
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    server.address = format!("127.0.0.1:{port}");
    assert!(server.get("/health").starts_with("HTTP/1.1 200"));
    let output = Command::new(BIN).args(["serve", "--host", "0.0.0.0", "--port", &port]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there are no API keys"), "{said}");
    assert!(said.contains(&format!("cannot listen on 0.0.0.0:{port}")), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_cannot_be_served_is_named() {
    let message = |args: &[&str]| error(thermite(["serve", "--port", "0"]).args(args).env("RUST_LOG", "off"));
    assert_eq!(message(&["/none"]), "/none: no such file or folder");
    assert_eq!(
        message(&["stories-3m", "stories-3m"]),
        "there are two models \"stories-3m\": give one of them another name"
    );
    assert_eq!(
        message(&["--context", "32", "--max-running", "64"]),
        "64 requests are to run together; the engine was made for 1 to 32"
    );
}

#[test]
fn what_nobody_could_mean_is_refused() {
    for (args, part) in [
        (["=stories-3m", "--port=0"], "give it as MODEL or NAME=MODEL"),
        (["a=", "--port=0"], "give it as MODEL or NAME=MODEL"),
        (["--host", "elsewhere.example"], "give an address of this machine"),
        (["--cors-origin", "chat.example"], "give it as browsers do"),
        (["--cors-origin", "https://chat.example/"], "give it as browsers do"),
        (["--cors-origin", ""], "give it as browsers do"),
        (["--allow-host", "llm.example:80"], "give a name without a port"),
        (["--allow-host", "a b"], "give a name without a port"),
        (["--allow-host", ""], "give a name without a port"),
    ] {
        let output = Command::new(BIN).arg("serve").args(args).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && message.contains(part), "{args:?}: {message}");
    }
    let server = Server::start(&["--host=localhost", "--cors-origin=HTTP://Chat.example:3000"]);
    let answer =
        server.ask("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: http://chat.example:3000\r\n\r\n");
    assert!(answer.contains("access-control-allow-origin: http://chat.example:3000"), "{answer}");
}
