//! Tokens to text, one at a time, without ever splitting a character.

use super::Tokenizer;

/// Decodes one text token by token. What all calls give, put together, is
/// [`Tokenizer::decode`] of all tokens; the cost of a token is that of its own bytes.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// Special tokens that are not skipped.
    shown: Vec<u32>,
    first: bool,
    /// How many characters the decoder may still strip from the start.
    strip: usize,
    /// The bytes of a character whose end is not there yet: at most three between calls.
    pending: Vec<u8>,
}

impl Detokenizer {
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool) -> Self {
        let strip = tokenizer.decoder().strip.map_or(0, |(_, count)| count);
        Self { tokenizer, skip_special, shown: Vec::new(), first: true, strip, pending: Vec::new() }
    }

    /// For tokens that stand behind others: a space that begins them is one.
    #[must_use]
    pub fn inside_a_text(self) -> Self {
        Self { first: false, strip: 0, ..self }
    }

    /// With the spellings of these special tokens in the text, which skips all others.
    #[must_use]
    pub fn showing(self, shown: Vec<u32>) -> Self {
        Self { shown, ..self }
    }

    /// Takes the next token; gives the characters that it completes, or `None` if it completes none.
    pub fn push(&mut self, id: u32) -> Option<String> {
        if self.skip_special && self.tokenizer.is_special(id) && !self.shown.contains(&id) {
            return None;
        }
        let bytes = self.tokenizer.bytes_at(id, self.first)?;
        self.first = false;
        self.pending.extend(bytes);
        let text = take_characters(&mut self.pending);
        self.without_start(text)
    }

    /// Ends the text: gives what is left of an unfinished character, as U+FFFD.
    pub fn finish(mut self) -> Option<String> {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned();
        self.without_start(text)
    }

    /// `text` without what the decoder strips from the start of the whole; `None` if nothing is left.
    fn without_start(&mut self, text: String) -> Option<String> {
        let mut rest = text.as_str();
        if let Some((strip, _)) = self.tokenizer.decoder().strip {
            while self.strip > 0 && !rest.is_empty() {
                match rest.strip_prefix(strip) {
                    Some(stripped) => {
                        rest = stripped;
                        self.strip -= 1;
                    }
                    None => self.strip = 0,
                }
            }
        }
        match rest.len() {
            0 => None,
            len if len == text.len() => Some(text),
            _ => Some(rest.to_owned()),
        }
    }
}

/// Takes all characters off the front of `bytes`, invalid ones as U+FFFD; leaves the bytes of a last
/// one that more bytes could still complete.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    let unfinished = loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                break 0;
            }
            Err(error) => {
                let (valid, invalid) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(len) = error.error_len() else {
                    break invalid.len();
                };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &invalid[len..];
            }
        }
    };
    bytes.drain(..bytes.len() - unfinished);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_comes_out_when_its_last_byte_is_there() {
        let mut pending = Vec::new();
        for (i, byte) in "🦀".bytes().enumerate() {
            pending.push(byte);
            let text = take_characters(&mut pending);
            assert_eq!(text, if i == 3 { "🦀" } else { "" });
        }
    }

    proptest! {
        #[test]
        fn bytes_in_any_portions_are_the_same_text(
            portions in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    "[aé€🦀]{0,3}".prop_map(String::into_bytes),
                    "🦀".prop_map(|s| s.into_bytes()[..3].to_vec()),
                ],
                0..12,
            ),
        ) {
            let mut pending = Vec::new();
            let mut text = String::new();
            for portion in &portions {
                pending.extend(portion);
                text.push_str(&take_characters(&mut pending));
                prop_assert!(pending.len() <= 3);
            }
            text.push_str(&String::from_utf8_lossy(&pending));
            let whole = portions.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
