//! What models say: the same as without a server, whole, in pieces, alone and in company.

use std::ops::ControlFlow;

use serde_json::{Value, json};
use thermite_engine::{GenerateParams, SamplingParams};

use super::common::{TestServer, engine};

const PROMPTS: [&str; 4] =
    ["Once upon a time", "The dog was very", "One day, Tom and his mom went to the park. Tom saw", "Lily"];

/// What the engine itself says, and for how many tokens.
fn alone(prompt: &str, tokens: usize) -> (String, usize) {
    let mut engine = engine(512, 1);
    let params = GenerateParams {
        sampling: SamplingParams::greedy(),
        max_tokens: Some(tokens),
        ..GenerateParams::default()
    };
    let ids = engine.encode(prompt).unwrap();
    let done = engine.generate(&ids, &params, |_| ControlFlow::Continue(())).unwrap();
    (done.text, done.token_ids.len())
}

fn greedy(prompt: &str, tokens: usize) -> Value {
    json!({ "prompt": prompt, "max_tokens": tokens, "temperature": 0 })
}

#[tokio::test]
async fn greedy_texts_are_those_of_the_engine() {
    let server = TestServer::new().await;
    let expected: Vec<_> = PROMPTS.iter().map(|prompt| alone(prompt, 60)).collect();
    let one = server.ask("/v1/completions", &greedy(PROMPTS[0], 60)).await;
    assert_eq!(one["choices"][0]["text"], expected[0].0);
    assert_eq!(one["usage"]["completion_tokens"], expected[0].1);
    let bodies = PROMPTS.map(|prompt| greedy(prompt, 60));
    let together = bodies.iter().cycle().take(16).map(|body| server.ask("/v1/completions", body));
    for (answer, (text, _)) in
        futures_util::future::join_all(together).await.iter().zip(expected.iter().cycle())
    {
        assert_eq!(answer["choices"][0]["text"], *text);
    }
    let batch = json!({ "prompt": PROMPTS, "max_tokens": 60, "temperature": 0 });
    let batch = server.ask("/v1/completions", &batch).await;
    for (choice, (text, _)) in batch["choices"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!(choice["text"], *text);
    }
    server.idle().await;
    server.end().await;
}

#[tokio::test]
async fn a_stream_is_the_same_text_in_pieces() {
    let server = TestServer::new().await;
    let (text, tokens) = alone(PROMPTS[0], 40);
    let mut body = greedy(PROMPTS[0], 40);
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let chunks = server.events("/v1/completions", &body).await;
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!(usage["usage"]["completion_tokens"], tokens);
    assert_eq!(usage["choices"], json!([]));
    let said: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(said, text);
    assert!(chunks.len() > tokens / 2, "it comes in pieces");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");

    let chat = json!({
        "messages": [{ "role": "user", "content": PROMPTS[0] }],
        "max_completion_tokens": 40, "temperature": 0, "stream": true,
    });
    let chunks = server.events("/v1/chat/completions", &chat).await;
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let said = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(said.collect::<String>(), text);
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk.get("usage").is_none()));
    server.end().await;
}

#[tokio::test]
async fn a_model_without_a_template_goes_on_from_the_messages() {
    let server = TestServer::new().await;
    let chat = json!({
        "model": "stories-3m",
        "messages": [
            { "role": "system", "content": "Once upon" },
            { "role": "user", "content": [{ "type": "text", "text": "a time" }] },
        ],
        "max_tokens": 30, "temperature": 0, "user": "me", "metadata": null, "store": false,
    });
    let answer = server.ask("/v1/chat/completions", &chat).await;
    assert_eq!(answer["choices"][0]["message"]["content"], alone(PROMPTS[0], 30).0);
    assert_eq!(answer["object"], "chat.completion");
    server.end().await;
}

#[tokio::test]
async fn stop_strings_end_a_text() {
    let server = TestServer::new().await;
    let (text, tokens) = alone(PROMPTS[0], 60);
    let stop = text.split_inclusive(' ').nth(8).unwrap();
    let mut body = greedy(PROMPTS[0], 60);
    body["stop"] = json!([stop, "never there"]);
    let answer = server.ask("/v1/completions", &body).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (choice["text"].as_str().unwrap(), &choice["finish_reason"]),
        (&text[..text.find(stop).unwrap()], &json!("stop"))
    );
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() < tokens as u64);
    server.idle().await;
    server.end().await;
}

#[tokio::test]
async fn several_answers_with_seeds() {
    let server = TestServer::new().await;
    let ask = async |seed: u64, n: usize| -> Vec<Value> {
        let body =
            json!({ "prompt": PROMPTS[0], "max_tokens": 16, "seed": seed, "n": n, "temperature": 1.5 });
        let answer = server.ask("/v1/completions", &body).await;
        assert_eq!(answer["usage"]["prompt_tokens"], engine(64, 1).encode(PROMPTS[0]).unwrap().len());
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].clone()).collect()
    };
    let three = ask(7, 3).await;
    assert_eq!((three.len(), &three[0]), (3, &ask(7, 1).await[0]));
    assert_eq!(three[2], ask(9, 1).await[0]);
    assert_ne!(three[0], three[1]);
    server.end().await;
}

#[tokio::test]
async fn what_was_read_before_is_not_read_again() {
    let server = TestServer::new().await;
    let prompt = PROMPTS.join(" ").repeat(3);
    let first = server.ask("/v1/completions", &greedy(&prompt, 8)).await;
    let second = server.ask("/v1/completions", &greedy(&prompt, 8)).await;
    assert_eq!(first["choices"][0]["text"], second["choices"][0]["text"]);
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached(&first), 0);
    assert!(cached(&second) >= 32, "{}", second["usage"]);
    server.end().await;
}

#[tokio::test]
async fn likelihoods_bias_and_form() {
    let server = TestServer::new().await;
    let (text, tokens) = alone(PROMPTS[0], 6);
    let mut body = greedy(PROMPTS[0], 6);
    body["logprobs"] = json!(2);
    let answer = server.ask("/v1/completions", &body).await;
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), tokens);
    assert_eq!(
        logprobs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect::<String>(),
        text
    );
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2);

    let chat = json!({
        "messages": [{ "role": "user", "content": PROMPTS[0] }],
        "max_tokens": 6, "temperature": 0, "logprobs": true, "top_logprobs": 3,
    });
    let answer = server.ask("/v1/chat/completions", &chat).await;
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), tokens);
    for token in content {
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(token["logprob"], token["top_logprobs"][0]["logprob"], "greedy takes the likeliest");
    }
    let mut chat = chat.clone();
    chat["stream"] = json!(true);
    let streamed = server.events("/v1/chat/completions", &chat).await;
    let told = streamed.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(told.flatten().collect::<Vec<_>>(), content.iter().collect::<Vec<_>>());

    let comma = engine(64, 1).encode(",").unwrap();
    let mut body = greedy(PROMPTS[1], 4);
    body["logit_bias"] = json!({ comma.last().unwrap().to_string(): 100 });
    let answer = server.ask("/v1/completions", &body).await;
    assert_eq!(answer["choices"][0]["text"], ",,,,");

    let mut body = greedy(PROMPTS[1], 120);
    body["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": "x", "strict": true,
        "schema": { "type": "object", "properties": { "big": { "type": "boolean" } },
                    "required": ["big"], "additionalProperties": false } } });
    let answer = server.ask("/v1/completions", &body).await;
    let said: Value = serde_json::from_str(answer["choices"][0]["text"].as_str().unwrap()).unwrap();
    assert!(said["big"].is_boolean(), "{said}");
    server.end().await;
}

#[tokio::test]
async fn embeddings_are_the_same_in_either_form_and_in_company() {
    use base64::Engine as _;
    let server = TestServer::new().await;
    let ask = async |input: Value, format: &str| {
        let answer =
            server.ask("/v1/embeddings", &json!({ "input": input, "encoding_format": format })).await;
        let data = answer["data"].as_array().unwrap().clone();
        (
            data.into_iter().map(|item| item["embedding"].clone()).collect::<Vec<_>>(),
            answer["usage"]["prompt_tokens"].clone(),
        )
    };
    let (all, tokens) = ask(json!(PROMPTS), "float").await;
    assert_eq!(all.len(), PROMPTS.len());
    assert!(tokens.as_u64().unwrap() > 10);
    for (prompt, expected) in PROMPTS.iter().zip(&all) {
        let numbers: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
        assert!((numbers.iter().map(|x| x * x).sum::<f32>().sqrt() - 1.0).abs() < 1e-4);
        assert_eq!(&ask(json!(prompt), "float").await.0[0], expected);
        let base64 = ask(json!(prompt), "base64").await.0.remove(0);
        let bytes = base64::prelude::BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap();
        let read: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(read, numbers);
    }
    server.idle().await;
    server.end().await;
}
