//! What an answer has to be.

use serde::Deserialize;
use serde_json::Value;
use thermite_engine::Grammar;
use utoipa::ToSchema;

use super::ApiError;

/// What an answer has to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// A JSON text that is valid under a schema.
    JsonSchema { json_schema: NamedSchema },
    /// A text of a grammar in the form of the Lark parser generator. Not of OpenAI's API.
    Lark { lark: String },
    /// A text that the whole of a regular expression matches. Not of OpenAI's API.
    Regex { regex: String },
}

/// A JSON schema.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedSchema {
    /// Its name, which changes nothing.
    #[serde(rename = "name")]
    _name: Option<String>,
    /// What it is for, which changes nothing.
    #[serde(rename = "description")]
    _description: Option<String>,
    /// The schema.
    #[schema(value_type = Object)]
    schema: Option<Value>,
    /// The schema is always followed.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

impl ResponseFormat {
    /// The same in the engine's terms.
    ///
    /// # Errors
    /// 400 for a format without its schema.
    pub(crate) fn grammar(&self) -> Result<Option<Grammar>, ApiError> {
        Ok(Some(match self {
            Self::Text => return Ok(None),
            Self::JsonObject => Grammar::JsonObject,
            Self::JsonSchema { json_schema } => match &json_schema.schema {
                Some(schema) => Grammar::JsonSchema(schema.clone()),
                None => {
                    let message = "response_format.json_schema has no schema";
                    return Err(ApiError::invalid(message).param("response_format"));
                }
            },
            Self::Lark { lark } => Grammar::Lark(lark.clone()),
            Self::Regex { regex } => Grammar::Regex(regex.clone()),
        }))
    }
}
