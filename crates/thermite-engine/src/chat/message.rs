//! Messages and tools, as requests bring them and as templates read them.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said. In JSON it may be a text, a list of parts of type `text` (a line each), or null.
    #[serde(default, deserialize_with = "content")]
    pub content: String,
    /// The speaker's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The tools that an assistant calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// `content`, said by `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// By which its answer names it.
    #[serde(default)]
    pub id: String,
    /// `function`.
    #[serde(rename = "type", default)]
    pub kind: ToolKind,
    /// What is called.
    pub function: FunctionCall,
}

/// The kinds of tools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// A function with arguments in JSON.
    #[default]
    Function,
}

/// A function with its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Its name.
    pub name: String,
    /// The arguments by name. In JSON they may be an object, or a text that is one.
    #[serde(default, deserialize_with = "arguments")]
    pub arguments: Map<String, Value>,
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// `function`.
    #[serde(rename = "type", default)]
    pub kind: ToolKind,
    /// The function.
    pub function: Function,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema of its arguments; without one, any object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "content must be a text, a list of parts of type text, or null")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

fn content<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let parts = match Option::<Content>::deserialize(from)? {
        None => return Ok(String::new()),
        Some(Content::Text(text)) => return Ok(text),
        Some(Content::Parts(parts)) => parts,
    };
    let texts = parts.into_iter().enumerate().map(|(i, part)| match (part.kind.as_str(), part.text) {
        ("text", Some(text)) => Ok(text),
        ("text", None) => Err(D::Error::custom(format!("content[{i}] has no text"))),
        (kind, _) => {
            Err(D::Error::custom(format!("content[{i}] is of type {kind:?}; only text is supported")))
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn arguments<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Value>, D::Error> {
    let wrong = |what: &str| D::Error::custom(format!("arguments must be a JSON object: {what}"));
    let value = match Value::deserialize(from)? {
        Value::String(text) if text.trim().is_empty() => return Ok(Map::new()),
        Value::String(text) => serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?,
        value => value,
    };
    match value {
        Value::Object(arguments) => Ok(arguments),
        other => Err(wrong(&format!("{other} is none"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: Value) -> Result<Message, String> {
        serde_json::from_value(message).map_err(|error| error.to_string())
    }

    #[test]
    fn content_is_a_text_parts_or_nothing() {
        let content = |value: Value| read(json!({ "role": "user", "content": value })).map(|m| m.content);
        assert_eq!(content(json!("a")).unwrap(), "a");
        assert_eq!(content(json!(null)).unwrap(), "");
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        assert_eq!(content(parts).unwrap(), "a\nb");
        assert_eq!(read(json!({ "role": "assistant" })).unwrap(), Message::new("assistant", ""));
        let image = content(json!([{ "type": "image_url", "image_url": {} }])).unwrap_err();
        assert_eq!(image, "content[0] is of type \"image_url\"; only text is supported");
        assert!(content(json!([{ "type": "text" }])).unwrap_err().contains("content[0] has no text"));
        assert!(content(json!(3)).unwrap_err().contains("content must be a text"));
    }

    #[test]
    fn arguments_are_an_object_in_either_form() {
        let call = |arguments: Value| {
            read(json!({ "role": "assistant", "tool_calls": [
                { "id": "1", "type": "function", "function": { "name": "f", "arguments": arguments } }
            ] }))
        };
        let as_text = call(json!(r#"{"b": 1, "a": [2]}"#)).unwrap();
        assert_eq!(as_text, call(json!({ "b": 1, "a": [2] })).unwrap());
        let function = serde_json::to_string(&as_text.tool_calls[0].function).unwrap();
        assert_eq!(
            function, r#"{"name":"f","arguments":{"b":1,"a":[2]}}"#,
            "templates get an object, in order"
        );
        assert!(call(json!("")).unwrap().tool_calls[0].function.arguments.is_empty());
        assert!(call(json!("{")).unwrap_err().contains("arguments must be a JSON object"));
        assert!(call(json!([1])).unwrap_err().contains("[1] is none"));
    }
}
