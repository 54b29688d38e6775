//! What models say, told apart into text and tool calls.

use thermite_engine::chat::tools::{ToolFormat, ToolParser, ToolPiece};

use crate::openai::Call;

/// More of an answer.
pub(super) enum Spoken {
    Text(String),
    Call(Call),
}

/// One answer, as far as it was said.
pub(super) struct Speech {
    parser: Option<ToolParser>,
    /// What the ids of calls begin with.
    id: String,
    calls: usize,
    /// Calls that there may be.
    most: usize,
}

impl Speech {
    /// An answer that calls tools as `format` has it, if it may call any; one or `several`.
    pub(super) fn new(format: Option<&'static ToolFormat>, id: String, several: bool) -> Self {
        let most = if several { usize::MAX } else { 1 };
        Self { parser: format.map(ToolParser::new), id, calls: 0, most }
    }

    /// Takes more of the text; gives what is certain now.
    pub(super) fn push(&mut self, text: String) -> Vec<Spoken> {
        match &mut self.parser {
            None if text.is_empty() => Vec::new(),
            None => vec![Spoken::Text(text)],
            Some(parser) => {
                let pieces = parser.push(&text);
                self.spoken(pieces)
            }
        }
    }

    /// Ends the text: gives what was held back.
    pub(super) fn finish(&mut self) -> Vec<Spoken> {
        let pieces = self.parser.take().map(ToolParser::finish).unwrap_or_default();
        self.spoken(pieces)
    }

    /// What OpenAI's API calls the end of an answer that ended by `reason`; one that was cut off is not done with its
    /// calls.
    pub(super) fn finish_reason(&self, reason: &'static str) -> &'static str {
        if self.calls > 0 && reason == "stop" { "tool_calls" } else { reason }
    }

    /// Calls so far.
    pub(super) const fn calls(&self) -> usize {
        self.calls
    }

    fn spoken(&mut self, pieces: Vec<ToolPiece>) -> Vec<Spoken> {
        let spoken = pieces.into_iter().filter_map(|piece| match piece {
            ToolPiece::Text(text) => Some(Spoken::Text(text)),
            ToolPiece::Call(_) if self.calls == self.most => None,
            ToolPiece::Call(call) => {
                self.calls += 1;
                Some(Spoken::Call(Call::new(format!("call_{}_{}", self.id, self.calls), call)))
            }
        });
        spoken.collect()
    }
}

#[cfg(test)]
mod tests {
    use thermite_engine::chat::ChatTemplate;

    use super::*;

    #[test]
    fn an_answer_that_was_cut_off_is_not_done_with_its_calls() {
        let template = ChatTemplate::new("{% if tools %}<tool_call>{% endif %}", "a test's", None, None);
        let format = ToolFormat::of(&template.unwrap()).unwrap();
        let mut speech = Speech::new(Some(format), "1".to_owned(), true);
        assert_eq!(speech.finish_reason("stop"), "stop");
        let call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";
        assert_eq!(speech.push(format!("{call}\n<tool_call>\n{{\"name\"")).len(), 1);
        assert_eq!((speech.calls(), speech.finish_reason("stop")), (1, "tool_calls"));
        assert_eq!(speech.finish_reason("length"), "length");
    }
}
