//! Every route, asked for what it is there for.

use serde_json::{Value, json};

use super::common::{TestServer, json as read};

#[tokio::test]
async fn models() {
    let server = TestServer::new().await;
    let list = read(server.get("/v1/models").send().await.unwrap()).await;
    assert_eq!(list["object"], "list");
    let card = &list["data"][0];
    assert_eq!((&card["id"], &card["context_length"]), (&json!("stories-3m"), &json!(512)));
    assert_eq!(&read(server.get("/v1/models/stories-3m").send().await.unwrap()).await, card);
    server.end().await;
}

#[tokio::test]
async fn tokens_and_back() {
    let server = TestServer::new().await;
    let answer = server.ask("/tokenize", &json!({ "prompt": "Once upon a time" })).await;
    let engine = super::common::engine(16, 1);
    assert_eq!(answer["tokens"], json!(engine.encode("Once upon a time").unwrap()));
    assert_eq!(answer["count"], answer["token_strs"].as_array().unwrap().len());
    assert_eq!(answer["max_model_len"], 512);
    let back = server.ask("/detokenize", &json!({ "tokens": answer["tokens"] })).await;
    assert_eq!(back["prompt"], engine.tokenizer().decode(&engine.encode("Once upon a time").unwrap(), false));
    let wrong = server.post("/detokenize", &json!({ "tokens": [1, 4_000_000] })).send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    server.end().await;
}

#[tokio::test]
async fn health_and_metrics() {
    let server = TestServer::new().await;
    let health = server.get("/health").send().await.unwrap();
    assert_eq!(health.status(), 200);
    assert!(health.headers().contains_key("x-request-id"));
    assert_eq!(read(health).await, json!({ "status": "ok", "models": { "stories-3m": { "status": "ok" } } }));
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 5, "ignore_eos": true });
    server.ask("/v1/completions", &body).await;
    server.idle().await;
    assert_eq!(server.metric("thermite_generated_tokens_total").await, 5.0);
    assert_eq!(server.metric("thermite_inter_token_seconds_count").await, 4.0);
    assert_eq!(server.metric("thermite_time_to_first_token_seconds_count").await, 1.0);
    assert!(server.metric("thermite_prompt_tokens_total").await >= 4.0);
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("route=\"/v1/completions\",status=\"200\""), "{text}");
    server.end().await;
}

#[tokio::test]
async fn the_document_of_the_api() {
    let server = TestServer::new().await;
    let mut document = read(server.get("/openapi.json").send().await.unwrap()).await;
    // whatever is refused by name is not in it
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/models", "/tokenize", "/health"] {
        assert!(paths.iter().any(|p| *p == path), "{path}");
    }
    document["info"]["version"] = json!("VERSION");
    insta::assert_json_snapshot!("openapi", document);
    server.end().await;
}

#[tokio::test]
async fn the_page() {
    let server = TestServer::new().await;
    for (path, kind) in [("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")] {
        let page = server.get(path).send().await.unwrap();
        assert_eq!(page.status(), 200, "{path}");
        let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-type").starts_with(kind), "{path}");
        assert!(header("content-security-policy").contains("default-src 'none'"));
        let (tag, kept) = (header("etag"), page.text().await.unwrap());
        let again = server.get(path).header("if-none-match", tag).send().await.unwrap();
        assert_eq!((again.status().as_u16(), again.text().await.unwrap().as_str()), (304, ""));
        // a page whose files are named otherwise would be blank
        if path == "/" && !kept.is_empty() {
            assert!(kept.contains("app.js") && kept.contains("style.css"));
        }
    }
    server.end().await;
}

#[tokio::test]
async fn several_models() {
    use thermite_engine::Error;
    use thermite_server::{Loaded, Queue, Server, ServerOptions};
    let queue = Queue { running: 1, waiting: 1 };
    let mut server = Server::new(ServerOptions::default()).unwrap();
    let load = move || Loaded::new(super::common::engine(16, 1), None, queue);
    server.add_model::<Error>("a", load).unwrap();
    server.add_model::<Error>("b/c", load).unwrap();
    let twice = server.add_model::<Error>("a", load).unwrap_err();
    assert_eq!(twice.to_string(), "there are two models \"a\": give one of them another name");
    let bad = move || Loaded::new(super::common::engine(16, 1), None, Queue { running: 2, waiting: 1 });
    assert!(server.add_model::<Error>("d", bad).unwrap_err().to_string().contains("made for 1 to 1"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, shutdown) = thermite_server::Shutdown::new();
    let task = tokio::spawn(server.serve(listener, shutdown));
    let get = async |path: &str| -> Value { read(reqwest::get(format!("{url}{path}")).await.unwrap()).await };
    assert_eq!(get("/v1/models/b/c").await["id"], "b/c");
    assert_eq!(get("/v1/models/b%2Fc").await["id"], "b/c");
    assert_eq!(get("/v1/models/x").await["error"]["code"], "model_not_found");
    tell.send(()).await.unwrap();
    task.await.unwrap().unwrap();
}
