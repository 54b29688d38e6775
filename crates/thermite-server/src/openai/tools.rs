//! Tools that a model may call, and its calls.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thermite_engine::chat::{Function, FunctionCall, Tool, ToolCall, ToolKind};
use utoipa::ToSchema;

use super::ApiError;

/// A tool that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatTool {
    #[serde(rename = "type")]
    _kind: Kind,
    function: ToolFunction,
}

/// The kinds of tools.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Function,
}

/// A function that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolFunction {
    name: String,
    /// What it is good for.
    description: Option<String>,
    /// The JSON schema of its arguments. They are sure to follow it where `tool_choice` makes the model call.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Changes nothing.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

impl From<ChatTool> for Tool {
    fn from(tool: ChatTool) -> Self {
        let ToolFunction { name, description, parameters, _strict } = tool.function;
        Self { kind: ToolKind::Function, function: Function { name, description, parameters } }
    }
}

/// Whether the model calls tools, and which.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected \"none\", \"auto\", \"required\" or a tool by its name")]
pub(crate) enum ToolChoice {
    Mode(ToolMode),
    Named(NamedTool),
}

/// Whether the model calls tools: not at all, as it likes, or at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToolMode {
    None,
    Auto,
    Required,
}

/// The tool that the model calls.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedTool {
    #[serde(rename = "type")]
    _kind: Kind,
    function: NamedFunction,
}

/// A function by its name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedFunction {
    name: String,
}

impl ToolChoice {
    /// Whether tools are out of the question.
    pub(crate) const fn is_none(&self) -> bool {
        matches!(self, Self::Mode(ToolMode::None))
    }

    /// Whether one tool is named, to be called once.
    pub(crate) const fn is_named(&self) -> bool {
        matches!(self, Self::Named(_))
    }

    /// Those of `tools` of which one must be called, if one must.
    ///
    /// # Errors
    /// 400 for a name that none has.
    pub(crate) fn forced(&self, tools: &[Tool]) -> Result<Option<Vec<Tool>>, ApiError> {
        let name = match self {
            Self::Mode(ToolMode::None | ToolMode::Auto) => return Ok(None),
            Self::Mode(ToolMode::Required) => return Ok(Some(tools.to_vec())),
            Self::Named(tool) => &tool.function.name,
        };
        match tools.iter().find(|tool| tool.function.name == *name) {
            Some(tool) => Ok(Some(vec![tool.clone()])),
            None => {
                let message = format!("tool_choice names {name:?}, which none of the tools is called");
                Err(ApiError::invalid(message).param("tool_choice"))
            }
        }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) function: CalledFunction,
}

/// A function and its arguments.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CalledFunction {
    pub(crate) name: String,
    /// The arguments as JSON in a text.
    pub(crate) arguments: String,
}

impl Call {
    /// The model's call, under the name `id`.
    pub(crate) fn new(id: String, call: FunctionCall) -> Self {
        let FunctionCall { name, arguments } = call;
        let arguments = Value::Object(arguments).to_string();
        Self { id, kind: Kind::Function, function: CalledFunction { name, arguments } }
    }

    /// The same in the engine's terms.
    ///
    /// # Errors
    /// 400 for arguments that are no JSON object.
    pub(crate) fn into_engine(self) -> Result<ToolCall, ApiError> {
        let CalledFunction { name, arguments } = self.function;
        let arguments: Map<String, Value> = match arguments.trim() {
            "" => Map::new(),
            json => serde_json::from_str(json).map_err(|error| {
                let message = format!("the arguments of the call {:?} are no JSON object: {error}", self.id);
                ApiError::invalid(message).param("messages")
            })?,
        };
        Ok(ToolCall { id: self.id, kind: ToolKind::Function, function: FunctionCall { name, arguments } })
    }
}

/// A call in a piece of a stream: it comes whole.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CallDelta {
    /// Its place among the calls of the answer.
    pub(crate) index: usize,
    #[serde(flatten)]
    pub(crate) call: Call,
}
