//! Tool calls in the texts of models: how each family writes them, which its chat template tells.

mod parser;

use serde_json::{Value, json};

use super::{ChatTemplate, Tool};
use crate::grammar::Grammar;
use crate::tokenizer::Tokenizer;

pub use self::parser::{ToolParser, ToolPiece};

/// How a family of models writes tool calls.
#[derive(Debug, PartialEq, Eq)]
pub struct ToolFormat {
    /// Its name.
    pub name: &'static str,
    /// What a template says of which models follow it.
    known_by: &'static str,
    /// What stands before a call, or before a list of them. Nothing: a call is the whole text, from its beginning.
    open: &'static str,
    /// What stands after a call.
    close: &'static str,
    /// What the arguments are called.
    arguments: &'static str,
    /// Whether calls stand in a list.
    list: bool,
}

const FORMATS: [ToolFormat; 3] = [
    ToolFormat {
        name: "Hermes",
        known_by: "<tool_call>",
        open: "<tool_call>",
        close: "</tool_call>",
        arguments: "arguments",
        list: false,
    },
    ToolFormat {
        name: "Mistral",
        known_by: "[TOOL_CALLS]",
        open: "[TOOL_CALLS]",
        close: "",
        arguments: "arguments",
        list: true,
    },
    ToolFormat {
        name: "Llama 3",
        known_by: "\"parameters\": ",
        open: "",
        close: "",
        arguments: "parameters",
        list: false,
    },
];

impl ToolFormat {
    /// The format that `template` writes calls in; none if it knows no tools, or only others.
    #[must_use]
    pub fn of(template: &ChatTemplate) -> Option<&'static Self> {
        let known = FORMATS.iter().find(|format| template.source.contains(format.known_by));
        known.filter(|_| template.takes_tools())
    }

    /// The special tokens that tell of a call: a text without them hides it. They are to be shown by
    /// [`Detokenizer::showing`](crate::Detokenizer::showing).
    #[must_use]
    pub fn marks(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let ids = [self.open, self.close].into_iter().filter_map(|mark| tokenizer.token_id(mark));
        ids.filter(|&id| tokenizer.is_special(id)).collect()
    }

    /// What a text has to be that calls one of `tools`, or if `several`, one or more.
    #[must_use]
    pub fn grammar(&self, tools: &[Tool], several: bool, tokenizer: &Tokenizer) -> Grammar {
        let mark = |mark: &str| match tokenizer.token_id(mark).filter(|&id| tokenizer.is_special(id)) {
            Some(id) => format!("<[{id}]>"),
            None => literal(mark),
        };
        // where a mark is a text, models put a call on a line of its own
        let [before, after] = match (self.open, self.close, self.list) {
            (_, _, true) => [mark(self.open) + " \"[\"", "\"]\"".to_owned()],
            ("", "", _) => [String::new(), String::new()],
            _ => [mark(self.open) + " \"\\n\"", "\"\\n\" ".to_owned() + &mark(self.close)],
        };
        let calls = match (several, self.list, self.open.is_empty()) {
            (true, true, _) => format!("start: {before} call (\", \" call)* {after}"),
            (true, false, false) => format!("start: one (\"\\n\" one)*\none: {before} call {after}"),
            _ => format!("start: {before} call {after}"),
        };
        let names: Vec<String> = (0..tools.len()).map(|i| format!("tool{i}")).collect();
        let mut lark = format!("{calls}\ncall: {}\n", names.join(" | "));
        for (name, tool) in names.iter().zip(tools) {
            let function = &tool.function;
            let begin = format!("{{\"name\": {}, \"{}\": ", json!(function.name), self.arguments);
            let any = || json!({ "type": "object" });
            let schema =
                function.parameters.clone().filter(|schema| *schema != Value::Null).unwrap_or_else(any);
            let schema = crate::grammar::with_bounded_space(schema);
            lark.push_str(&format!("{name}: {} %json {schema} \"}}\"\n", literal(&begin)));
        }
        Grammar::Lark(lark)
    }
}

/// A text as a grammar's literal: Lark's have JSON's escapes.
fn literal(text: &str) -> String {
    json!(text).to_string()
}
