//! Tools: offered by a chat template, called because a request wants it.

use serde_json::{Value, json};

use super::common::{Setup, TestServer, json as read};

/// A template that writes calls as many models of the Hermes family do.
const TEMPLATE: &str = "{% if tools %}Tools: {{ tools | tojson }} in <tool_call>\n{% endif %}\
{% for message in messages %}{{ message.role }}: {{ message.content }}\
{% for call in message.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}\n{% endfor %}\
{% if add_generation_prompt %}assistant: {% endif %}";

fn chat(more: Value) -> Value {
    let tool = |name: &str| {
        json!({ "type": "function", "function": { "name": name, "description": "Tells the weather.", "parameters": {
            "type": "object", "additionalProperties": false, "required": ["sunny"],
            "properties": { "sunny": { "type": "boolean" } },
        } } })
    };
    let mut body = json!({
        "messages": [{ "role": "user", "content": "How is the weather?" }],
        "tools": [tool("weather"), tool("forecast")],
        "temperature": 0, "max_tokens": 120,
    });
    if let Value::Object(more) = more {
        body.as_object_mut().unwrap().extend(more);
    }
    body
}

async fn server() -> TestServer {
    TestServer::start(Setup { template: Some(TEMPLATE), ..Setup::default() }).await
}

#[tokio::test]
async fn a_call_that_must_be_is_one() {
    let server = server().await;
    let forced = json!({ "type": "function", "function": { "name": "forecast" } });
    let body = chat(json!({ "tool_choice": forced }));
    let answer = server.ask("/v1/chat/completions", &body).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("forecast")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["sunny"].is_boolean());

    let mut streaming = chat(json!({ "tool_choice": forced }));
    streaming["stream"] = json!(true);
    let chunks = server.events("/v1/chat/completions", &streaming).await;
    let calls: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array())
        .flatten()
        .collect();
    assert_eq!((calls.len(), &calls[0]["index"]), (1, &json!(0)));
    assert_eq!(calls[0]["function"], call["function"]);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    // what a tool has answered goes into the conversation
    let messages = json!([
        { "role": "user", "content": "How is the weather?" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": call["id"], "content": "sunny" },
    ]);
    let answer = server
        .ask("/v1/chat/completions", &chat(json!({ "messages": messages, "tool_choice": "none" })))
        .await;
    assert_eq!(answer["choices"][0]["message"].get("tool_calls"), None);
    server.end().await;
}

#[tokio::test]
async fn some_call_is_wanted() {
    let server = server().await;
    let body = chat(json!({ "tool_choice": "required", "parallel_tool_calls": false }));
    let answer = server.ask("/v1/chat/completions", &body).await;
    let calls = answer["choices"][0]["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1);
    server.end().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let server = server().await;
    let plain = TestServer::new().await;
    let refused = async |server: &TestServer, more: Value| {
        let answer = server.post("/v1/chat/completions", &chat(more)).send().await.unwrap();
        format!("{} {}", answer.status().as_u16(), read(answer).await["error"])
    };
    let named = json!({ "type": "function", "function": { "name": "news" } });
    let bad = json!([{ "role": "assistant", "tool_calls": [
        { "id": "1", "type": "function", "function": { "name": "weather", "arguments": "[]" } }] }]);
    let told = [
        refused(&server, json!({ "tool_choice": named })).await,
        refused(&server, json!({ "tool_choice": "always" })).await,
        refused(&server, json!({ "tools": [], "tool_choice": "required" })).await,
        refused(&server, json!({ "tools": [{ "type": "retrieval" }] })).await,
        refused(&server, json!({ "response_format": { "type": "json_object" } })).await,
        refused(&server, json!({ "messages": bad })).await,
        refused(&plain, json!({})).await,
    ];
    insta::assert_snapshot!(told.join("\n"));
    server.end().await;
    plain.end().await;
}
