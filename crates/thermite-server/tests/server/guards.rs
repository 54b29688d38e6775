//! Who may ask, and how much.

use std::time::Duration;

use serde_json::json;
use thermite_server::{HeaderValue, Limits, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::common::{Setup, TestServer, json as read};

#[tokio::test]
async fn keys() {
    let server = TestServer::start(Setup::keys("first\nsecond\n")).await;
    for path in ["/health", "/", "/app.js", "/style.css"] {
        assert_eq!(server.get(path).send().await.unwrap().status(), 200, "{path}");
    }
    for path in ["/v1/models", "/metrics", "/openapi.json", "/v1/completions", "/nowhere"] {
        let refused = server.get(path).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
        assert_eq!(read(refused).await["error"]["code"], "invalid_api_key");
        let wrong = server.get(path).bearer_auth("firs").send().await.unwrap();
        assert_eq!(wrong.status(), 401);
    }
    for key in ["first", "second"] {
        assert_eq!(server.get("/v1/models").bearer_auth(key).send().await.unwrap().status(), 200);
    }
    server.end().await;
}

#[tokio::test]
async fn names_of_other_machines() {
    let setup = Setup::default();
    let options = ServerOptions { hosts: vec!["llm.example".to_owned()], ..setup.options };
    let server = TestServer::start(Setup { options, ..Setup::default() }).await;
    let status =
        async |host: &str| server.get("/health").header("host", host).send().await.unwrap().status().as_u16();
    let port = server.address.port();
    for (host, expected) in [
        (format!("localhost:{port}"), 200),
        ("127.0.0.1".to_owned(), 200),
        ("llm.example:80".to_owned(), 200),
        ("evil.example".to_owned(), 403),
        (format!("127.0.0.1.evil.example:{port}"), 403),
    ] {
        assert_eq!(status(&host).await, expected, "{host}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_name_that_can_be_read_in_two_ways() {
    let server = TestServer::new().await;
    for hosts in ["localhost\r\nHost: evil.example", "localhost\r\nHost: localhost", "evil.example@localhost"]
    {
        let mut stream = server.connect().await;
        let request = format!("GET /health HTTP/1.1\r\nConnection: close\r\nHost: {hosts}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{hosts}: {answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn connections_that_ask_nothing_make_room() {
    let limits = Limits { connections: 4, head_time: Duration::from_secs(60), ..Limits::default() };
    let server = TestServer::start(Setup::limits(limits)).await;
    let body = json!({ "prompt": "Once", "max_tokens": 450, "ignore_eos": true, "stream": true });
    let running = server.post("/v1/completions", &body).send().await.unwrap();
    let mut idle = Vec::new();
    // nothing, the beginning of a head, all of it but its end
    for sent in ["", "GET /hea", "GET /health HTTP/1.1\r\nHost: localhost\r\nX: y\r\n"] {
        for _ in 0..5 {
            let mut connection = server.connect().await;
            connection.write_all(sent.as_bytes()).await.unwrap();
            idle.push(connection);
        }
        let asked = reqwest::Client::new().get(server.url("/health")).send();
        let answer = timeout(Duration::from_secs(10), asked).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    }
    // one that has asked something gets all of its answer
    assert!(running.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    // the one that has waited longest went first
    let still = idle.split_off(13);
    for mut closed in idle {
        let mut said = Vec::new();
        assert!(timeout(Duration::from_secs(10), closed.read_to_end(&mut said)).await.is_ok());
    }
    assert!(still.iter().all(|open| open.try_read(&mut [0]).is_err()), "nothing was said to them");
    server.end().await;
}

#[tokio::test]
async fn pages_of_other_origins() {
    let ask = async |server: &TestServer, origin: &str| {
        let preflight = server.client.request("OPTIONS".parse().unwrap(), server.url("/v1/chat/completions"));
        let preflight = preflight.header("origin", origin).header("access-control-request-method", "POST");
        let preflight = preflight.send().await.unwrap();
        let get = server.get("/v1/models").header("origin", origin).send().await.unwrap();
        let allowed = |name: &reqwest::Response| name.headers().get("access-control-allow-origin").cloned();
        (preflight.status().as_u16(), allowed(&preflight), allowed(&get))
    };
    let server = TestServer::new().await;
    assert_eq!(ask(&server, "https://a.example").await, (405, None, None));
    server.end().await;

    let origin = HeaderValue::from_static("https://a.example");
    let setup = Setup::keys("key");
    let options = ServerOptions { origins: vec![origin.clone()], ..setup.options };
    let server = TestServer::start(Setup { options, ..Setup::default() }).await;
    assert_eq!(ask(&server, "https://a.example").await, (204, Some(origin.clone()), Some(origin)));
    assert_eq!(ask(&server, "https://b.example").await, (401, None, None));
    server.end().await;
}

#[tokio::test]
async fn limits() {
    let limits = Limits {
        body_bytes: 1000,
        text_bytes: 300,
        choices: 2,
        inputs: 2,
        messages: 2,
        stops: 1,
        tokens: Some(9),
        ..Limits::default()
    };
    let server = TestServer::start(Setup::limits(limits)).await;
    let message = json!({ "role": "user", "content": "x" });
    let mut told = Vec::new();
    for (path, body) in [
        ("/v1/completions", json!({ "prompt": "x".repeat(1000) })),
        ("/v1/completions", json!({ "prompt": "x".repeat(301) })),
        ("/tokenize", json!({ "prompt": "x".repeat(301) })),
        ("/v1/completions", json!({ "prompt": "x", "n": 3 })),
        ("/v1/completions", json!({ "prompt": "x", "n": 0 })),
        ("/v1/completions", json!({ "prompt": ["x", "x", "x"] })),
        ("/v1/completions", json!({ "prompt": [] })),
        ("/v1/chat/completions", json!({ "messages": [message, message, message] })),
        ("/v1/completions", json!({ "prompt": "x", "stop": ["a", "b"] })),
        ("/v1/completions", json!({ "prompt": "x", "max_tokens": 10 })),
    ] {
        let refused = server.post(path, &body).send().await.unwrap();
        let status = refused.status().as_u16();
        told.push(format!("{status} {}", read(refused).await["error"]["message"].as_str().unwrap()));
    }
    insta::assert_snapshot!(told.join("\n"));
    let answer = server.ask("/v1/completions", &json!({ "prompt": "The", "ignore_eos": true })).await;
    assert_eq!(answer["usage"]["completion_tokens"], 9);
    server.end().await;
}

#[tokio::test]
async fn a_server_that_shuts_down() {
    let server = TestServer::new().await;
    let body = json!({ "prompt": "Once", "max_tokens": 450, "ignore_eos": true, "stream": true });
    let mut running = server.post("/v1/completions", &body).send().await.unwrap();
    assert!(running.chunk().await.unwrap().is_some(), "it has begun");
    server.tell.send(()).await.unwrap();
    while read(server.get("/health").send().await.unwrap()).await["status"] != "draining" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // what comes now on a connection of its own is refused; what runs is finished
    let late = reqwest::Client::new().get(server.url("/v1/models")).send().await;
    if let Ok(late) = late {
        assert_eq!(late.status(), 503);
        assert_eq!(read(late).await["error"]["code"], "shutting_down");
    }
    let mut text = String::new();
    while let Some(chunk) = running.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn told_twice_it_waits_for_nobody() {
    let setup = Setup { chunk: 8, ..Setup::default() };
    let server = TestServer::start(setup).await;
    let body = json!({ "prompt": "Once", "n": 8, "max_tokens": 500, "ignore_eos": true, "stream": true });
    let mut running = server.post("/v1/completions", &body).send().await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    server.tell.send(()).await.unwrap();
    server.tell.send(()).await.unwrap();
    server.task.await.unwrap().unwrap();
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = running.chunk().await {
        text.extend(chunk);
    }
    assert!(!text.ends_with(b"data: [DONE]\n\n"), "it was cut off");
}
