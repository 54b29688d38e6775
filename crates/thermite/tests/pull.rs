//! `thermite pull` from a server that imitates the Hub: redirects, ranges, transfers that break off, refusals.
#![cfg(feature = "pull")]
#![allow(clippy::unwrap_used)] // a failed helper is a failed test

mod common;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{error, run, stories, thermite};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has, and what it is to do.
#[derive(Default)]
struct Hub {
    files: HashMap<String, Vec<u8>>,
    /// ETags other than a name's length.
    etags: HashMap<String, String>,
    /// How many more transfers of large files break off half-way.
    cuts: usize,
    /// Answers every request so, if set.
    status: Option<u16>,
    /// Where large files lie; with the server itself if not said.
    elsewhere: Option<String>,
    /// Where `ada/old` went: `ada/tiny`, after this.
    moved: String,
    /// Sends whole files, whatever range is asked for.
    ignores_ranges: bool,
    /// Method, path, range, authorization.
    log: Vec<(String, Option<String>, Option<String>)>,
}

struct Server {
    hub: Arc<Mutex<Hub>>,
    endpoint: String,
    home: tempfile::TempDir,
}

impl Server {
    fn start(hub: Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hub = Arc::new(Mutex::new(hub));
        let (shared, own) = (Arc::clone(&hub), endpoint.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // a client that goes away is none of the test's business
                let _ = answer(stream.unwrap(), &shared, &own);
            }
        });
        Self { hub, endpoint, home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = thermite(args);
        for variable in
            ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN"]
        {
            command.env_remove(variable);
        }
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", self.home.path());
        command
    }

    fn pull(&self, args: &[&str]) -> PathBuf {
        let (out, _) = run(&mut self.command(&[&["pull"], args].concat()));
        PathBuf::from(out.trim_end())
    }

    /// What was shown as authorization with each request.
    fn tokens(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.hub.lock().unwrap().log).into_iter().map(|(_, _, token)| token).collect()
    }

    fn error(&self, args: &[&str]) -> String {
        error(&mut self.command(&[&["pull"], args].concat())).replace(&self.endpoint, "HUB")
    }

    /// The ranges asked of large files.
    fn ranges(&self) -> Vec<String> {
        let log = std::mem::take(&mut self.hub.lock().unwrap().log);
        let large = log
            .into_iter()
            .filter(|(path, range, _)| path.starts_with("/cdn/") && range.as_deref() != Some("bytes=0-0"));
        large.filter_map(|(_, range, _)| range).collect()
    }
}

/// Answers one request and closes.
fn answer(mut stream: TcpStream, hub: &Mutex<Hub>, endpoint: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap()?;
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut hub = hub.lock().unwrap();
    let range = headers.get("range").cloned();
    hub.log.push((path.clone(), range.clone(), headers.get("authorization").cloned()));
    if let Some(status) = hub.status {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if path.contains("/ada/old/") {
        let location = format!("{}{}", hub.moved, path.replace("/ada/old/", "/ada/tiny/"));
        return write!(
            stream,
            "HTTP/1.1 307 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    if path.starts_with("/api/models/ada/tiny/revision/") {
        let names: Vec<_> = hub.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({"siblings": names, "sha": COMMIT, "id": "ada/tiny"}).to_string();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let of_revision = path.strip_prefix("/ada/tiny/resolve/").and_then(|path| path.split_once('/'));
    let (name, large) = match (of_revision, path.strip_prefix("/cdn/")) {
        (Some((_, name)), _) => (name, false),
        (None, Some(name)) => (name, true),
        (None, None) => ("", false),
    };
    let Some(body) = hub.files.get(name).cloned() else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let etag = hub.etags.get(name).cloned().unwrap_or_else(|| format!("{name}-{}", body.len()));
    if body.len() > 10_000 && !large {
        // large files lie elsewhere
        let endpoint = hub.elsewhere.as_deref().unwrap_or(endpoint);
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {endpoint}/cdn/{name}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let (start, end) = span(range.as_deref(), body.len());
    let mut head = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n");
    let mut part = if hub.ignores_ranges && start > 0 {
        head.insert_str(0, "HTTP/1.1 200 OK\r\n");
        &body[..]
    } else {
        head.insert_str(0, "HTTP/1.1 206 Partial Content\r\n");
        let _ = write!(head, "Content-Range: bytes {start}-{}/{}\r\n", end.max(1) - 1, body.len());
        &body[start..end]
    };
    let _ = write!(head, "Content-Length: {}\r\n\r\n", part.len());
    if large && part.len() > 1 && hub.cuts > 0 {
        hub.cuts -= 1;
        part = &part[..part.len() / 2];
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(part)
}

fn span(range: Option<&str>, len: usize) -> (usize, usize) {
    let Some((start, end)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return (0, len);
    };
    let start: usize = start.parse().unwrap();
    (start.min(len), end.parse().map_or(len, |end: usize| (end + 1).min(len)))
}

fn model() -> Hub {
    let mut hub = Hub::default();
    for file in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        hub.files.insert(file.to_owned(), std::fs::read(stories().join(file)).unwrap());
    }
    hub.files.insert("README.md".to_owned(), b"not needed".to_vec());
    hub
}

fn same(path: &Path, file: &str) {
    assert!(
        std::fs::read(path.join(file)).unwrap() == std::fs::read(stories().join(file)).unwrap(),
        "{file}"
    );
}

#[test]
fn a_model_is_fetched_once_and_can_be_used() {
    let server = Server::start(model());
    let not_there = error(&mut server.command(&["generate", "Hi", "-m", "hf:ada/tiny"]));
    assert!(not_there.ends_with("`thermite pull ada/tiny` fetches it"), "{not_there}");

    let folder = server.pull(&["ada/tiny"]);
    assert!(folder.starts_with(server.home.path()));
    for file in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        same(&folder, file);
    }
    assert!(!folder.join("README.md").exists());
    let expected = run(&mut thermite(["generate", "Once", "--temperature", "0", "-n", "5"])).0;
    for model in ["hf:ada/tiny", "hf:ada/tiny@main", folder.to_str().unwrap()] {
        let args = ["generate", "Once", "--temperature", "0", "-n", "5", "-m", model];
        assert_eq!(run(&mut server.command(&args)).0, expected, "{model}");
    }
    // the second time, only the list is asked for
    server.hub.lock().unwrap().log.clear();
    assert_eq!(server.pull(&["ada/tiny"]), folder);
    assert_eq!(server.hub.lock().unwrap().log.len(), 1);
}

#[test]
fn transfers_that_break_off_go_on_where_they_ended() {
    let hub = Hub { cuts: 2, ..model() };
    let len = hub.files["model.safetensors"].len();
    let server = Server::start(hub);
    let folder = server.pull(&["ada/tiny", "--file", "model.safetensors"]);
    same(&folder, "model.safetensors");
    let ranges = server.ranges();
    let half = len / 2;
    assert_eq!(
        ranges,
        ["bytes=0-".to_owned(), format!("bytes={half}-"), format!("bytes={}-", half + (len - half) / 2)]
    );
}

#[test]
fn the_next_command_goes_on_too() {
    // the first transfer, and the five times that it is taken up again
    let server = Server::start(Hub { cuts: 6, ..model() });
    let message = server.error(&["ada/tiny", "--file", "model.safetensors"]);
    assert!(message.starts_with("ada/tiny: "), "{message}");
    let broken = server.ranges();
    assert_eq!(broken.len(), 6);
    same(&server.pull(&["ada/tiny", "--file", "model.safetensors"]), "model.safetensors");
    let ranges = server.ranges();
    assert_eq!(ranges.len(), 1);
    assert!(ranges[0] != "bytes=0-" && !broken.contains(&ranges[0]), "{ranges:?}");
}

#[test]
fn a_server_that_sends_all_where_the_rest_was_asked_for_is_understood() {
    let server = Server::start(Hub { cuts: 1, ignores_ranges: true, ..model() });
    same(&server.pull(&["ada/tiny", "--file", "model.safetensors"]), "model.safetensors");
}

#[test]
fn what_came_wrong_is_thrown_away() {
    let mut hub = model();
    hub.etags.insert("model.safetensors".to_owned(), "ab".repeat(32));
    let server = Server::start(hub);
    let message = server.error(&["ada/tiny"]);
    assert!(message.contains("model.safetensors came with another SHA-256"), "{message}");
}

#[test]
fn the_token_is_sent_to_the_hub_alone() {
    let elsewhere = Server::start(model());
    let server = Server::start(Hub { elsewhere: Some(elsewhere.endpoint.clone()), ..model() });
    let pull =
        |repo| PathBuf::from(run(server.command(&["pull", repo]).env("HF_TOKEN", "secret")).0.trim_end());
    let shown =
        |tokens: &[Option<String>]| tokens.iter().all(|token| token.as_deref() == Some("Bearer secret"));
    same(&pull("ada/tiny"), "model.safetensors");
    let (hub, others) = (server.tokens(), elsewhere.tokens());
    assert!(!hub.is_empty() && shown(&hub), "{hub:?}");
    assert!(!others.is_empty() && others.iter().all(Option::is_none), "{others:?}");

    // one that has another name now
    same(&pull("ada/old"), "model.safetensors");
    let hub = server.tokens();
    assert!(!hub.is_empty() && shown(&hub), "{hub:?}");
    elsewhere.tokens();

    // one that is with somebody else now, who is not believed
    server.hub.lock().unwrap().moved.clone_from(&elsewhere.endpoint);
    let home = tempfile::tempdir().unwrap();
    let mut again = server.command(&["pull", "ada/old"]);
    let message = error(again.env("HF_HOME", home.path()).env("HF_TOKEN", "secret"));
    assert!(message.ends_with("the answer has no header etag, or one that makes no sense"), "{message}");
    let others = elsewhere.tokens();
    assert!(!others.is_empty() && others.iter().all(Option::is_none), "{others:?}");
}

#[test]
fn a_revision_is_known_once_all_of_it_is_there() {
    let server = Server::start(Hub { cuts: 6, ..model() });
    server.error(&["ada/tiny"]);
    let generate = |model| server.command(&["generate", "Once", "-n", "1", "-m", model]);
    assert!(error(&mut generate("hf:ada/tiny")).ends_with("`thermite pull ada/tiny` fetches it"));
    server.pull(&["ada/tiny"]);
    run(&mut generate("hf:ada/tiny"));
    // another name for the same commit, of which all files are there
    server.pull(&["ada/tiny", "--revision", "v1"]);
    run(&mut generate("hf:ada/tiny@v1"));
}

#[test]
fn refusals_say_what_to_do() {
    let status = |status| {
        let server = Server::start(Hub { status: Some(status), ..model() });
        server.error(&["ada/tiny"])
    };
    assert_eq!(status(404), "ada/tiny: there is no such model, or not at revision main, on HUB");
    for refused in [401, 403] {
        let message = status(refused);
        let begin = format!("ada/tiny: access is refused (status {refused}): ");
        assert!(message.starts_with(&begin) && message.contains("accept it at HUB/ada/tiny"), "{message}");
    }
    assert!(status(500).starts_with("ada/tiny: request error: http status: 500"));
    let server = Server::start(model());
    assert_eq!(
        server.error(&["ada/other"]),
        "ada/other: there is no such model, or not at revision main, on HUB"
    );
    assert!(
        server.error(&["ada/tiny", "--file", "x.gguf"]).starts_with("ada/tiny has no file x.gguf; it has ")
    );
    assert!(server.error(&["../tiny"]).contains("is no model of the Hub"));
    drop(server);
    let message = error(thermite(["pull", "ada/tiny"]).env("HF_ENDPOINT", "hub.example"));
    assert!(message.starts_with("HF_ENDPOINT is \"hub.example\", not the address of a Hub"), "{message}");
    let mut command = thermite(["pull", "ada/tiny"]);
    let message = error(command.env("HF_ENDPOINT", "http://127.0.0.1:1").env("NO_PROXY", "*"));
    assert!(message.starts_with("ada/tiny: request error: "), "{message}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let mut hub = model();
    hub.files.insert("../../evil.json".to_owned(), b"{}".to_vec());
    let server = Server::start(hub);
    let message = server.error(&["ada/tiny"]);
    assert!(message.contains("\"../../evil.json\" is no name of a file"), "{message}");
    let mut hub = model();
    hub.etags.insert("config.json".to_owned(), "../../../evil".to_owned());
    let message = Server::start(hub).error(&["ada/tiny", "--file", "config.json"]);
    assert!(message.contains("cannot be used"), "{message}");
}

#[test]
fn gguf_files_are_chosen() {
    let gguf = |names: &[&str]| {
        let files = names.iter().map(|name| ((*name).to_owned(), vec![b'x'; 3])).collect();
        Server::start(Hub { files, ..Hub::default() })
    };
    let path = gguf(&["a.gguf", "README.md"]).pull(&["ada/tiny"]);
    assert!(path.ends_with("a.gguf"), "{path:?}");
    let several = gguf(&["a.gguf", "b.gguf"]);
    assert!(several.error(&["ada/tiny"]).starts_with("ada/tiny has 2 GGUF files: choose with --file among "));
    assert!(several.pull(&["ada/tiny", "--file", "b.gguf"]).ends_with("b.gguf"));
    let none = gguf(&["README.md"]).error(&["ada/tiny"]);
    assert_eq!(none, "ada/tiny has neither safetensors nor GGUF weights; it has README.md");
}
