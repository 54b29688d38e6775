//! Finding tool calls in a text that comes in pieces.

use serde_json::{Map, Value};

use super::ToolFormat;
use crate::chat::FunctionCall;

/// A piece of a model's text.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolPiece {
    /// Text.
    Text(String),
    /// A call, once it is whole.
    Call(FunctionCall),
}

/// Finds the tool calls in a text that comes in pieces. What looks like a call and is none stays text.
#[derive(Debug)]
pub struct ToolParser {
    format: &'static ToolFormat,
    state: State,
    /// What is held back until it is known what it is.
    held: String,
    /// Calls found.
    calls: usize,
}

#[derive(Debug)]
enum State {
    /// Before any text, where a format without a mark has its calls; also between two of them.
    Start,
    /// In a text; `held` is the beginning of a mark.
    Text,
    /// Behind a mark, in the JSON of a call or a list of them.
    Json(Nesting),
    /// Behind the JSON of a call: `held` is the beginning of the closing mark.
    Close,
}

impl ToolParser {
    /// A parser of a text from its beginning.
    #[must_use]
    pub fn new(format: &'static ToolFormat) -> Self {
        Self { format, state: State::Start, held: String::new(), calls: 0 }
    }

    /// Calls found so far.
    #[must_use]
    pub const fn calls(&self) -> usize {
        self.calls
    }

    /// Takes the next piece of the text; gives what is certain now.
    pub fn push(&mut self, piece: &str) -> Vec<ToolPiece> {
        let mut out = Pieces::default();
        for c in piece.chars() {
            self.take(c, &mut out);
        }
        out.0
    }

    /// Ends the text: gives what was held back.
    #[must_use]
    pub fn finish(mut self) -> Vec<ToolPiece> {
        let mut out = Pieces::default();
        let space_behind_calls = self.calls > 0 && self.held.trim().is_empty();
        if !space_behind_calls && !matches!(self.state, State::Close) {
            self.release(&mut out);
        }
        out.0
    }

    fn take(&mut self, c: char, out: &mut Pieces) {
        let ToolFormat { open, close, .. } = *self.format;
        self.held.push(c);
        match &mut self.state {
            State::Start if c.is_whitespace() => {}
            State::Start if self.calls > 0 && open.is_empty() && matches!(c, ';' | ',') => {}
            State::Start if open.is_empty() && matches!(c, '{') => self.begin(c),
            State::Start if open.is_empty() => {
                self.state = State::Text;
                self.release(out);
            }
            State::Start => {
                if self.calls > 0 {
                    self.held = c.to_string(); // white space between calls is no text
                }
                self.state = State::Text;
                self.hold_mark(out);
            }
            State::Text if open.is_empty() => self.release(out),
            State::Text => self.hold_mark(out),
            State::Json(nesting) => match nesting.take(c) {
                Progress::Within => {}
                Progress::Over => self.end_json(out),
                Progress::None => {
                    self.state = State::Text;
                    self.release(out);
                }
            },
            State::Close if self.held.trim_start().is_empty() => self.held.clear(),
            State::Close if self.held == close => {
                self.state = State::Start;
                self.held.clear();
            }
            State::Close if close.starts_with(&self.held) => {}
            State::Close => {
                self.state = State::Start;
                let text = std::mem::take(&mut self.held);
                text.chars().for_each(|c| self.take(c, out));
            }
        }
    }

    /// In a text: gives all but what may begin a mark; behind a whole one, JSON follows.
    fn hold_mark(&mut self, out: &mut Pieces) {
        let open = self.format.open;
        if self.held.ends_with(open) {
            let text = self.held.len() - open.len();
            out.text(&self.held[..text]);
            self.held.drain(..text);
            self.state = State::Json(Nesting::default());
            return;
        }
        let starts = self.held.char_indices().map(|(at, _)| at);
        let beginning = starts.into_iter().find(|&at| open.starts_with(&self.held[at..]));
        let sure = beginning.unwrap_or(self.held.len());
        out.text(&self.held[..sure]);
        self.held.drain(..sure);
    }

    /// At the first character of a call without a mark.
    fn begin(&mut self, c: char) {
        let mut nesting = Nesting::default();
        nesting.take(c);
        self.state = State::Json(nesting);
    }

    /// Behind a whole JSON value: calls, or text after all.
    fn end_json(&mut self, out: &mut Pieces) {
        let between = |c: char| c.is_whitespace() || matches!(c, ';' | ',');
        let json = self.held.strip_prefix(self.format.open).unwrap_or(&self.held).trim_start_matches(between);
        match calls_of(json, self.format) {
            Some(calls) => {
                self.calls += calls.len();
                out.0.extend(calls.into_iter().map(ToolPiece::Call));
                self.held.clear();
                self.state = if self.format.close.is_empty() { State::Start } else { State::Close };
            }
            None => {
                self.state = State::Text;
                self.release(out);
            }
        }
    }

    /// What was held back is text.
    fn release(&mut self, out: &mut Pieces) {
        out.text(&self.held);
        self.held.clear();
    }
}

/// Pieces in which no two texts stand side by side.
#[derive(Default)]
struct Pieces(Vec<ToolPiece>);

impl Pieces {
    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(ToolPiece::Text(before)) => before.push_str(text),
            _ => self.0.push(ToolPiece::Text(text.to_owned())),
        }
    }
}

/// The calls that `json` holds, if it is a call or a list of some.
fn calls_of(json: &str, format: &ToolFormat) -> Option<Vec<FunctionCall>> {
    let values = match serde_json::from_str(json).ok()? {
        Value::Array(values) if values.is_empty() => return None,
        Value::Array(values) => values,
        value => vec![value],
    };
    values.into_iter().map(|value| call_of(value, format)).collect()
}

fn call_of(value: Value, format: &ToolFormat) -> Option<FunctionCall> {
    let Value::Object(mut call) = value else { return None };
    let Value::String(name) = call.remove("name")? else { return None };
    // models mix the two names up
    let arguments = [format.arguments, "arguments", "parameters"].iter().find_map(|&key| call.remove(key));
    match arguments {
        Some(Value::Object(arguments)) => Some(FunctionCall { name, arguments }),
        Some(Value::Null) | None => Some(FunctionCall { name, arguments: Map::new() }),
        Some(_) => None,
    }
}

/// Where the end of a JSON object or list is.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

enum Progress {
    /// It goes on, or has not begun.
    Within,
    /// This was its last character.
    Over,
    /// It is neither object nor list.
    None,
}

impl Nesting {
    fn take(&mut self, c: char) -> Progress {
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.in_text => self.escaped = true,
            '"' if self.depth > 0 => self.in_text = !self.in_text,
            _ if self.in_text => {}
            '{' | '[' => self.depth += 1,
            '}' | ']' if self.depth == 1 => return Progress::Over,
            '}' | ']' if self.depth > 1 => self.depth -= 1,
            _ if self.depth > 0 || c.is_whitespace() => {}
            _ => return Progress::None,
        }
        Progress::Within
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::FORMATS;
    use super::*;

    fn read(format: usize, pieces: &[&str]) -> (String, Vec<(String, Value)>) {
        let mut parser = ToolParser::new(&FORMATS[format]);
        let mut found: Vec<ToolPiece> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
        found.extend(parser.finish());
        let (mut text, mut calls) = (String::new(), Vec::new());
        for piece in found {
            match piece {
                ToolPiece::Text(more) => text.push_str(&more),
                ToolPiece::Call(call) => calls.push((call.name, Value::Object(call.arguments))),
            }
        }
        (text, calls)
    }

    const HERMES: usize = 0;
    const MISTRAL: usize = 1;
    const LLAMA: usize = 2;

    #[test]
    fn each_family_calls_in_its_own_way() {
        let call = |name: &str, arguments: Value| (name.to_owned(), arguments);
        let two = vec![call("f", json!({ "a": "}\"{" })), call("g", json!({}))];
        let hermes = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\"}}\n</tool_call>\n\
                      <tool_call>{\"name\": \"g\"}</tool_call>\n";
        assert_eq!(read(HERMES, &[hermes]), ("Let me see.\n".to_owned(), two.clone()));
        let mistral = " [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\"}}, {\"name\": \"g\", \"arguments\": {}}]";
        assert_eq!(read(MISTRAL, &[mistral]), (" ".to_owned(), two.clone()));
        let llama = "\n{\"name\": \"f\", \"parameters\": {\"a\": \"}\\\"{\"}}; {\"name\": \"g\", \"parameters\": {}}\n";
        assert_eq!(read(LLAMA, &[llama]), (String::new(), two));
    }

    #[test]
    fn what_is_no_call_stays_as_it_is() {
        for (format, text) in [
            (HERMES, "a < b <tool_calls> <tool_call>none</tool_call> <tool_call>{\"x\": 1}</tool_call>"),
            (HERMES, "<tool_call>{\"name\": \"f\", \"argum"),
            (HERMES, "<tool_call>{\"name\": 3}</tool_call>"),
            (HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": 7}"),
            (MISTRAL, "[TOOL_CALLS"),
            (MISTRAL, "[TOOL_CALLS][1, 2]"),
            (LLAMA, "Here: {\"name\": \"f\", \"parameters\": {}}"),
            (LLAMA, "{\"a\": }"),
            (LLAMA, "{ not json }"),
            (LLAMA, " \n "),
            (HERMES, ""),
        ] {
            assert_eq!(read(format, &[text]), (text.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn text_comes_out_at_once_and_a_call_when_it_is_whole() {
        let mut parser = ToolParser::new(&FORMATS[HERMES]);
        assert_eq!(parser.push("Hi <b"), [ToolPiece::Text("Hi <b".into())]);
        assert_eq!(parser.push(" <tool"), [ToolPiece::Text(" ".into())]);
        assert!(parser.push("_call>{\"name\":\"f\"").is_empty());
        assert!(matches!(&parser.push("}")[..], [ToolPiece::Call(call)] if call.name == "f"));
        assert!(parser.push("</tool_call>\n").is_empty() && parser.calls() == 1);
        assert_eq!(parser.push("Done"), [ToolPiece::Text("Done".into())]);
    }

    proptest! {
        #[test]
        fn pieces_change_nothing_and_nothing_is_lost(
            format in 0..FORMATS.len(),
            parts in prop::collection::vec(
                prop_oneof![
                    Just("<tool_call>"), Just("</tool_call>"), Just("[TOOL_CALLS]"), Just("{\"name\": \"f\", "),
                    Just("\"arguments\": {}}"), Just("\"parameters\": {\"é\": \"\\\"}\"}}"), Just("["), Just("]"),
                    Just("{"), Just("}"), Just("<tool"), Just(" "), Just("é"), Just(";"), Just("\\"), Just("\""),
                ],
                0..12,
            ),
        ) {
            let whole = parts.concat();
            let found = read(format, &[&whole]);
            prop_assert_eq!(&read(format, &parts), &found);
            if found.1.is_empty() {
                prop_assert_eq!(found.0, whole);
            }
        }
    }
}
