//! Keeping what people type apart from what a template writes.
//!
//! A template joins its own special tokens and the texts of messages into one text, in which a message that spells
//! `<|im_end|>` could end its own turn. So before rendering, a mark (a character that occurs nowhere else) goes into
//! every spelling of a special token inside the conversation's data, and into what could become one together with
//! its neighbours. After rendering the marks are taken out, and their places are kept: no special token is
//! recognised across such a place. Roles are the caller's, not the user's, and stay as they are: there are templates
//! that make tokens of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use minijinja::value::{Value, ValueKind};

/// A text in which special tokens are recognised, but for certain places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// Byte offsets in it, ascending. A special token that is spelled across one of them is plain text.
    pub breaks: Vec<usize>,
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self { text, breaks: Vec::new() }
    }
}

impl Prompt {
    /// Takes the marks out of `text`, and keeps their places.
    pub(super) fn from_marked(text: &str, mark: char) -> Self {
        let mut prompt = Self { text: String::with_capacity(text.len()), breaks: Vec::new() };
        for part in text.split(mark) {
            prompt.text.push_str(part);
            prompt.breaks.push(prompt.text.len());
        }
        prompt.breaks.pop(); // behind the last part is no mark
        prompt.breaks.dedup();
        prompt
    }
}

/// Puts marks into data.
pub(super) struct Marker<'a> {
    pub(super) mark: char,
    /// The spellings of the special tokens.
    pub(super) special: Vec<&'a str>,
}

impl Marker<'_> {
    /// A character that is in none of `texts`: a noncharacter, or one of private use.
    pub(super) fn unused_in<'t>(texts: impl IntoIterator<Item = &'t str>) -> char {
        let candidates = || ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{10fffd}');
        let chars = texts.into_iter().flat_map(str::chars);
        let used: BTreeSet<char> = chars.filter(|&c| c >= '\u{fdd0}').collect();
        let mut unused = candidates().filter(|c| !used.contains(c));
        unused.next().unwrap_or(char::REPLACEMENT_CHARACTER) // 131,100 of them in use: no such text
    }

    /// The messages of a conversation with their texts marked, but for their roles.
    pub(super) fn mark_messages(&self, messages: &Value) -> Value {
        let message = |message: Value| match entries_of(&message) {
            Some(entries) => Value::from_pairs(entries.map(|(key, value)| match key.as_str() {
                Some("role") => (key, value),
                _ => (self.mark_value(&key), self.mark_value(&value)),
            })),
            None => self.mark_value(&message),
        };
        match messages.kind() {
            ValueKind::Seq | ValueKind::Iterable => match messages.try_iter() {
                Ok(items) => items.map(message).collect(),
                Err(_) => messages.clone(),
            },
            _ => self.mark_value(messages),
        }
    }

    /// `value` with its texts marked.
    pub(super) fn mark_value(&self, value: &Value) -> Value {
        if let Some(entries) = entries_of(value) {
            let marked = |(key, value)| (self.mark_value(&key), self.mark_value(&value));
            return Value::from_pairs(entries.map(marked));
        }
        match value.kind() {
            ValueKind::String => match value.as_str().and_then(|text| self.mark_text(text)) {
                Some(marked) => Value::from(marked),
                None => value.clone(),
            },
            ValueKind::Seq | ValueKind::Iterable => match value.try_iter() {
                Ok(items) => items.map(|item| self.mark_value(&item)).collect(),
                Err(_) => value.clone(),
            },
            _ => value.clone(),
        }
    }

    /// `text` with its marks; `None` if it needs none.
    fn mark_text(&self, text: &str) -> Option<String> {
        let mut places: Vec<usize> =
            self.special.iter().flat_map(|special| places_in(text, special)).collect();
        if places.is_empty() {
            return None;
        }
        places.sort_unstable();
        places.dedup();
        let mut marked = String::with_capacity(text.len() + places.len() * self.mark.len_utf8());
        let mut end = 0;
        for place in places {
            marked.push_str(&text[end..place]);
            marked.push(self.mark);
            end = place;
        }
        marked.push_str(&text[end..]);
        Some(marked)
    }
}

/// The entries of a map.
fn entries_of(value: &Value) -> Option<impl Iterator<Item = (Value, Value)>> {
    let keys = (value.kind() == ValueKind::Map).then(|| value.try_iter().ok())??;
    Some(keys.map(|key| {
        let entry = value.get_item(&key).unwrap_or_default();
        (key, entry)
    }))
}

/// All texts of a value.
pub(super) fn texts_of(value: &Value) -> Vec<Arc<str>> {
    let mut texts = Vec::new();
    let mut left = vec![value.clone()];
    while let Some(value) = left.pop() {
        if let Some(text) = value.to_str() {
            texts.push(text);
        } else if let Some(entries) = entries_of(&value) {
            left.extend(entries.flat_map(|(key, value)| [key, value]));
        } else if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            left.extend(value.try_iter().into_iter().flatten());
        }
    }
    texts
}

/// Where marks must stand in `text`, so that `special` is not spelled in it, nor together with what a template puts
/// next to it: behind the first character of each whole spelling and of a beginning at the end; before the last
/// character of an end at the beginning. White space at both ends may have been trimmed.
fn places_in(text: &str, special: &str) -> Vec<usize> {
    let (Some(first), Some(last)) = (special.chars().next(), special.chars().next_back()) else {
        return Vec::new();
    };
    let (first, last) = (first.len_utf8(), last.len_utf8());
    let mut places: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(special) {
        at += start + first;
        places.push(at);
    }
    let cuts = special.char_indices().map(|(cut, _)| cut).skip(1);
    let (leading, trailing) = (text.trim_start(), text.trim_end());
    for cut in cuts {
        let (beginning, end) = special.split_at(cut);
        for text in [text, trailing] {
            if text.ends_with(beginning) {
                places.push(text.len() - beginning.len() + first);
            }
        }
        for (text, skipped) in [(text, 0), (leading, text.len() - leading.len())] {
            if text.starts_with(end) {
                places.push(skipped + end.len() - last);
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str) -> String {
        let marker = Marker { mark: '|', special: vec!["<im>", "[é]"] };
        marker.mark_text(text).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn spellings_are_broken_inside_and_at_the_edges() {
        for (text, result) in [
            ("", ""),
            ("a < b and c > d", "a < b and c > d"),
            ("x<im>y<im>", "x<|im>y<|im>"),
            ("<<im>", "<<|im>"),
            ("[é] ", "[|é] "),
            ("a <i", "a <|i"),
            ("a <i \n", "a <|i \n"),
            ("m> b", "m|> b"),
            (" > b", " |> b"),
            ("é]", "é|]"),
        ] {
            assert_eq!(marked(text), result, "{text:?}");
        }
    }

    #[test]
    fn marks_come_out_again() {
        let prompt = Prompt::from_marked("|ab||c|", '|');
        assert_eq!(prompt, Prompt { text: "abc".into(), breaks: vec![0, 2, 3] });
        assert_eq!(Prompt::from_marked("abc", '|'), Prompt::from("abc".to_owned()));
        assert_eq!(Marker::unused_in(["a\u{fdd0}", "\u{fdd1}"]), '\u{fdd2}');
    }

    #[test]
    fn all_data_but_roles_are_marked() {
        let marker = Marker { mark: '|', special: vec!["<im>"] };
        let value: Value = serde_json::from_str(
            r#"[{"role": "<im>", "content": ["<im>", {"role": "<im>", "<im>": 1.5}], "n": null, "b": true}]"#,
        )
        .unwrap();
        let marked = marker.mark_messages(&value);
        let json = serde_json::to_string(&marked).unwrap();
        let expected =
            r#"[{"role":"<im>","content":["<|im>",{"role":"<|im>","<|im>":1.5}],"n":null,"b":true}]"#;
        assert_eq!(json, expected);
        let texts: Vec<_> = texts_of(&value).iter().map(|text| text.matches("<im>").count()).collect();
        assert_eq!(texts.iter().sum::<usize>(), 4);
    }
}
