//! Clients that behave badly: everybody else is served, and every block comes back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thermite_server::{Limits, Queue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::common::{Setup, TestServer, json as read};

fn long_stream() -> Value {
    json!({ "prompt": "Once upon a time", "max_tokens": 480, "ignore_eos": true, "stream": true })
}

/// A request as it goes over the wire.
fn raw(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn who_goes_away_is_forgotten() {
    let server = TestServer::new().await;
    let whole = json!({ "prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": true });
    for body in [long_stream(), whole].iter().cycle().take(20) {
        let mut connection = server.connect().await;
        connection.write_all(raw("/v1/completions", body).as_bytes()).await.unwrap();
        if body.get("stream").is_some() {
            let mut some = [0; 64];
            assert!(connection.read(&mut some).await.unwrap() > 0);
        } else {
            sleep(Duration::from_millis(2)).await;
        }
    }
    server.idle().await;
    assert!(server.metric("thermite_requests_cancelled_total").await >= 10.0);
    let tokens = server.metric("thermite_generated_tokens_total").await;
    assert!(tokens < 20.0 * 400.0 / 2.0, "{tokens}");
    server.ask("/v1/completions", &json!({ "prompt": "Once", "max_tokens": 3 })).await;
    server.end().await;
}

#[tokio::test]
async fn who_says_no_more_may_listen() {
    let server = TestServer::new().await;
    let body =
        json!({ "prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": true, "temperature": 0 });
    let expected = server.ask("/v1/completions", &body).await["choices"][0]["text"].clone();
    let ask = async |request: String| {
        let mut connection = server.connect().await;
        connection.write_all(request.as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = String::new();
        let whole = timeout(Duration::from_secs(20), connection.read_to_string(&mut answer)).await;
        whole.unwrap().unwrap();
        answer
    };
    let answer = ask(raw("/v1/completions", &body)).await;
    // what asks whether the client is still there comes before the answer
    let answer = answer.strip_prefix("HTTP/1.1 102 Processing\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, answer) = answer.split_once("\r\n\r\n").unwrap();
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["choices"][0]["text"], expected);

    let answer = ask(raw("/v1/completions", &long_stream())).await;
    assert!(answer.contains("data: [DONE]\n\n"), "{answer}");
    let answer = ask("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()).await;
    assert!(answer.contains("HTTP/1.1 200 "), "{answer}");
    // half a request is none
    let request = raw("/v1/completions", &body);
    let answer = ask(request[..request.len() - 3].to_owned()).await;
    assert!(!answer.contains("HTTP/1.1 200 "), "{answer}");
    server.idle().await;
    assert_eq!(server.metric("thermite_requests_cancelled_total").await, 0.0);
    server.end().await;
}

#[tokio::test]
async fn who_does_not_listen_any_more_is_forgotten_soon() {
    let server = TestServer::new().await;
    let mut body = json!({ "prompt": "Once upon a time", "max_tokens": 480, "ignore_eos": true, "n": 8 });
    for (stream, reset) in [(false, false), (true, false), (false, true), (true, true)] {
        body["stream"] = json!(stream);
        let cancelled = server.metric("thermite_requests_cancelled_total").await;
        let tokens = server.metric("thermite_generated_tokens_total").await;
        let mut connection = server.connect().await;
        connection.write_all(raw("/v1/completions", &body).as_bytes()).await.unwrap();
        while server.metric("thermite_requests_running").await == 0.0 {
            sleep(Duration::from_millis(1)).await;
        }
        if reset {
            connection.set_zero_linger().unwrap();
        }
        drop(connection);
        server.idle().await;
        assert!(server.metric("thermite_requests_cancelled_total").await > cancelled, "{stream} {reset}");
        let tokens = server.metric("thermite_generated_tokens_total").await - tokens;
        assert!(tokens < 8.0 * 480.0 / 2.0, "{tokens} tokens for nobody, {stream} {reset}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_slow_reader_holds_nobody_up() {
    let limits = Limits { write_time: Duration::from_millis(300), ..Limits::default() };
    let server = TestServer::start(Setup::limits(limits)).await;
    let mut slow = server.connect().await;
    slow.write_all(raw("/v1/completions", &long_stream()).as_bytes()).await.unwrap();
    sleep(Duration::from_millis(20)).await;
    for _ in 0..3 {
        server.ask("/v1/completions", &json!({ "prompt": "The dog", "max_tokens": 20 })).await;
    }
    // the text is computed to its end, whoever reads it
    server.idle().await;
    let mut text = String::new();
    while !text.contains("[DONE]") {
        let mut some = [0; 100];
        let read = slow.read(&mut some).await.unwrap();
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    assert_eq!(text.matches("finish_reason\":\"length\"").count(), 1);
    server.end().await;
}

#[tokio::test]
async fn half_a_request_ends_in_time() {
    let limits = Limits {
        head_time: Duration::from_millis(150),
        body_time: Duration::from_millis(150),
        ..Limits::default()
    };
    let server = TestServer::start(Setup::limits(limits)).await;
    let request = raw("/v1/completions", &json!({ "prompt": "Once" }));
    for (sent, answer) in [
        ("", ""),
        ("POST /v1/comple", ""),
        (&request[..request.len() - 3], "HTTP/1.1 408 "),
        ("GARBAGE\0\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        let mut connection = server.connect().await;
        let began = Instant::now();
        connection.write_all(sent.as_bytes()).await.unwrap();
        let mut told = String::new();
        let ended = timeout(Duration::from_secs(5), connection.read_to_string(&mut told)).await;
        assert!(ended.is_ok(), "{sent:?} after {:?}", began.elapsed());
        assert!(told.starts_with(answer), "{sent:?}: {told}");
    }
    let many = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut connection = server.connect().await;
    let _ = connection.write_all(many.as_bytes()).await; // it may be cut off before it has sent it all
    let mut told = Vec::new();
    let _ = connection.read_to_end(&mut told).await;
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&told));
    server.ask("/v1/completions", &json!({ "prompt": "Once", "max_tokens": 3 })).await;
    server.end().await;
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let setup = Setup { queue: Queue { running: 1, waiting: 1 }, ..Setup::default() };
    let server = TestServer::start(setup).await;
    let mut first = server.post("/v1/completions", &long_stream()).send().await.unwrap();
    let second = server.post("/v1/completions", &long_stream()).send().await.unwrap();
    let third = server.post("/v1/completions", &long_stream()).send().await.unwrap();
    assert_eq!((third.status().as_u16(), third.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    let error = read(third).await;
    assert_eq!(error["error"]["code"], "queue_full");
    assert_eq!(error["error"]["type"], "rate_limit_error");
    let never = json!({ "prompt": ["a", "b", "c"] });
    assert_eq!(server.post("/v1/completions", &never).send().await.unwrap().status(), 400);
    while first.chunk().await.unwrap().is_some() {}
    drop(second);
    server.idle().await;
    server.ask("/v1/completions", &json!({ "prompt": "Once", "max_tokens": 3 })).await;
    server.end().await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let server = TestServer::start(Setup::limits(limits)).await;
    let mut first = server.post("/v1/completions", &long_stream()).send().await.unwrap();
    let mut second = server.post("/v1/completions", &long_stream()).send().await.unwrap();
    // served as soon as one of the two has its answer
    let health = async { reqwest::Client::new().get(server.url("/health")).send().await.unwrap().status() };
    let read = async {
        while first.chunk().await.unwrap().is_some() {}
        while second.chunk().await.unwrap().is_some() {}
    };
    let both = async { tokio::join!(health, read).0 };
    assert_eq!(timeout(Duration::from_secs(20), both).await.unwrap(), 200);
    server.end().await;
}
