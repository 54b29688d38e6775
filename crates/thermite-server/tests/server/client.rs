//! OpenAI's API as a client of others speaks it.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequestArgs, FinishReason,
};
use async_openai::types::completions::CreateCompletionRequestArgs;
use futures_util::StreamExt;

use super::common::{Setup, TestServer};

fn client(server: &TestServer) -> Client<OpenAIConfig> {
    Client::with_config(OpenAIConfig::new().with_api_key("key").with_api_base(server.url("/v1")))
}

fn chat() -> CreateChatCompletionRequestArgs {
    let mut args = CreateChatCompletionRequestArgs::default();
    let message = ChatCompletionRequestUserMessage::from("Once upon a time");
    args.model("stories-3m").messages(vec![message.into()]).max_completion_tokens(20_u32).temperature(0.0);
    args
}

#[tokio::test]
async fn it_talks() {
    let server = TestServer::start(Setup::keys("key")).await;
    let client = client(&server);
    let models = client.models().list().await.unwrap();
    assert_eq!(models.data[0].id, "stories-3m");

    let answer = client.chat().create(chat().build().unwrap()).await.unwrap();
    let said = answer.choices[0].message.content.clone().unwrap();
    assert_eq!(answer.choices[0].finish_reason, Some(FinishReason::Length));
    assert_eq!(answer.usage.unwrap().completion_tokens, 20);

    let mut stream = client.chat().create_stream(chat().build().unwrap()).await.unwrap();
    let mut streamed = String::new();
    while let Some(chunk) = stream.next().await {
        for choice in chunk.unwrap().choices {
            streamed.push_str(&choice.delta.content.unwrap_or_default());
        }
    }
    assert_eq!(streamed, said);

    let completion = CreateCompletionRequestArgs::default()
        .model("stories-3m")
        .prompt("Once upon a time")
        .max_tokens(20_u32)
        .temperature(0.0)
        .build()
        .unwrap();
    let answer = client.completions().create(completion).await.unwrap();
    assert_eq!(answer.choices[0].text, said);
    server.end().await;
}

#[tokio::test]
async fn it_understands_errors() {
    let server = TestServer::start(Setup::keys("key")).await;
    let api_error = async |request| match client(&server).chat().create(request).await {
        Err(OpenAIError::ApiError(error)) => error,
        other => panic!("{other:?}"),
    };
    let error = api_error(chat().temperature(-1.0).build().unwrap()).await;
    assert!(format!("{error:?}").contains("temperature is -1"), "{error:?}");
    let error = api_error(chat().model("gpt-4").build().unwrap()).await;
    assert!(format!("{error:?}").contains("model_not_found"), "{error:?}");
    server.end().await;
}
