//! What is refused, word for word: always in the shape of OpenAI's errors.

use serde_json::{Value, json};

use super::common::{TestServer, json as read};

/// Requests that are refused: method, path, type of the body, body.
fn requests() -> Vec<(&'static str, &'static str, &'static str, Vec<u8>)> {
    const JSON: &str = "application/json";
    let long = "Once upon a time ".repeat(200);
    let completion = |more: Value| {
        let mut body = json!({ "prompt": "Once" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("POST", "/v1/completions", JSON, body.to_string().into_bytes())
    };
    let chat = |body: Value| ("POST", "/v1/chat/completions", JSON, body.to_string().into_bytes());
    let user = json!([{ "role": "user", "content": "Hi" }]);
    vec![
        ("GET", "/v1/nowhere", "", vec![]),
        ("GET", "/v1/completions", "", vec![]),
        ("DELETE", "/health", "", vec![]),
        ("GET", "/v1/models/gpt-4", "", vec![]),
        ("POST", "/v1/completions", "text/plain", b"{}".to_vec()),
        ("POST", "/v1/completions", "", b"{}".to_vec()),
        ("POST", "/v1/completions", JSON, b"".to_vec()),
        ("POST", "/v1/completions", JSON, b"{\"prompt\": \"a\",}".to_vec()),
        ("POST", "/v1/completions", JSON, b"[1]".to_vec()),
        ("POST", "/v1/completions", JSON, b"{\"prompt\": \"\xff\"}".to_vec()),
        ("POST", "/v1/completions", JSON, vec![b'['; 100_000]),
        ("POST", "/v1/completions", JSON, b"{}".to_vec()),
        ("POST", "/v1/completions", JSON, b"{\"prompt\": 3}".to_vec()),
        completion(json!({ "prompt": "" })),
        completion(json!({ "prompt": [[], []] })),
        completion(json!({ "prompt": [1, 2, 4_000_000] })),
        completion(json!({ "prompt": long })),
        completion(json!({ "model": "gpt-4" })),
        completion(json!({ "temprature": 1 })),
        completion(json!({ "suffix": "end" })),
        completion(json!({ "best_of": 3 })),
        completion(json!({ "store": true })),
        completion(json!({ "temperature": -1 })),
        completion(json!({ "temperature": "hot" })),
        completion(json!({ "top_p": 2 })),
        completion(json!({ "frequency_penalty": 1e30 })),
        completion(json!({ "seed": 1.5 })),
        completion(json!({ "max_tokens": -1 })),
        completion(json!({ "max_tokens": 0 })),
        completion(json!({ "max_tokens": 1, "max_completion_tokens": 2 })),
        completion(json!({ "n": 1000 })),
        completion(json!({ "stop": [""] })),
        completion(json!({ "stop": 3 })),
        completion(json!({ "logprobs": 50 })),
        completion(json!({ "stream_options": { "include_usage": true } })),
        completion(json!({ "stream": true, "stream_options": { "chunks": 1 } })),
        completion(json!({ "logit_bias": { "x": 1 } })),
        completion(json!({ "logit_bias": { "4000000": 1 } })),
        completion(json!({ "logit_bias": { "1": 101 } })),
        completion(json!({ "response_format": { "type": "xml" } })),
        completion(json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x" } } })),
        completion(json!({ "response_format": { "type": "regex", "regex": "(" } })),
        chat(json!({ "messages": [] })),
        chat(json!({ "messages": "Hi" })),
        chat(json!({ "messages": [{ "role": "robot", "content": "Hi" }] })),
        chat(
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }] }),
        ),
        chat(json!({ "messages": [{ "role": "user", "content": "" }] })),
        chat(json!({ "messages": user, "audio": {} })),
        chat(json!({ "messages": user, "modalities": ["audio"] })),
        chat(json!({ "messages": user, "top_logprobs": 2 })),
        chat(json!({ "messages": user, "logprobs": true, "top_logprobs": 21 })),
        ("POST", "/tokenize", JSON, b"{\"prompt\": \"a\", \"x\": 1}".to_vec()),
        ("POST", "/detokenize", JSON, b"{\"tokens\": [-1]}".to_vec()),
    ]
}

#[tokio::test]
async fn every_refusal_says_what_is_wrong() {
    let server = TestServer::new().await;
    let mut told = String::new();
    for (method, path, kind, body) in requests() {
        let shown: String = String::from_utf8_lossy(&body).chars().take(100).collect();
        let mut request = server.client.request(method.parse().unwrap(), server.url(path)).body(body);
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert!((400..500).contains(&status), "{method} {path} {shown}: {status}");
        assert!(answer.headers().contains_key("x-request-id"));
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let error = answer["error"].as_object().unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"]);
        assert_eq!(error["type"], "invalid_request_error");
        told.push_str(&format!("{method} {path} {shown}\n  {status} {}\n", answer["error"]));
    }
    insta::assert_snapshot!(told);
    server.idle().await;
    server.end().await;
}

#[tokio::test]
async fn a_grammar_that_becomes_too_much_work_is_the_clients_matter() {
    let server = TestServer::new().await;
    let format = json!({ "type": "regex", "regex": ".{0,1000}".repeat(20) });
    let body = json!({ "prompt": "Once upon", "max_tokens": 60, "seed": 1, "response_format": format });
    let refused = server.post("/v1/completions", &body).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(read(refused).await["error"]["param"], "response_format");
    server.end().await;
}

#[tokio::test]
async fn a_long_name_is_not_said_back_at_length() {
    let server = TestServer::new().await;
    let body = json!({ "prompt": "Once", "model": "é".repeat(100_000) });
    let refused = server.post("/v1/completions", &body).send().await.unwrap();
    assert_eq!(refused.status(), 404);
    assert!(refused.text().await.unwrap().len() < 400);
    server.end().await;
}
