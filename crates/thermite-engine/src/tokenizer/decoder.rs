//! How a token's spelling in the vocabulary becomes bytes of text.
//!
//! `tokenizer.json` describes this as a chain of decoders over all tokens. The chains that language
//! models use act on one token at a time, but for the first token and the start of the text: so the
//! bytes of a text are the bytes of its tokens, one after the other, and can be streamed.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::Value;

use super::error::TokenizerError;

/// The decoder of a `tokenizer.json`, as steps over one token's spelling.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    steps: Vec<Step>,
    /// Stripped from the start of the text: this character, so many times at most.
    pub(crate) strip: Option<(char, usize)>,
    /// Tokens are words, with a space between them (a tokenizer without a decoder).
    spaced: bool,
}

#[derive(Debug, PartialEq)]
enum Step {
    /// Every occurrence of a string becomes another.
    Replace { from: String, to: String },
    /// A replacement character becomes a space, or nothing in the first token.
    Metaspace { mark: char, drop_first: bool },
    /// `<0x41>` is the byte 0x41.
    ByteFallback,
    /// Each character stands for one byte, by the alphabet of byte-level BPE.
    ByteLevel,
    /// All tokens become one.
    Fuse,
}

impl Decoder {
    /// Reads the `decoder` of a `tokenizer.json`.
    pub(crate) fn from_json(json: &Value) -> Result<Self, TokenizerError> {
        let mut decoder = Self::default();
        if json.is_null() {
            decoder.spaced = true;
            return Ok(decoder);
        }
        decoder.add(json)?;
        Ok(decoder)
    }

    /// That of a byte-level vocabulary.
    pub(crate) fn byte_level() -> Self {
        Self { steps: vec![Step::ByteLevel], ..Self::default() }
    }

    /// That of a scored vocabulary, in which `mark` is a space, of which one stands before a text if `prefixed`.
    pub(crate) fn scored(mark: char, prefixed: bool) -> Self {
        let spaces = Step::Replace { from: mark.to_string(), to: " ".to_owned() };
        let strip = prefixed.then_some((' ', 1));
        Self { steps: vec![Step::ByteFallback, spaces], strip, spaced: false }
    }

    fn add(&mut self, json: &Value) -> Result<(), TokenizerError> {
        let unsupported = || TokenizerError::Decoder { decoder: json.to_string() };
        let text = |key: &str| json[key].as_str().ok_or_else(unsupported);
        let character = |key: &str| {
            let mut chars = text(key)?.chars();
            chars.next().filter(|_| chars.next().is_none()).ok_or_else(unsupported)
        };
        let step = match text("type")? {
            "Sequence" => {
                let parts = json["decoders"].as_array().ok_or_else(unsupported)?;
                return parts.iter().try_for_each(|part| self.add(part));
            }
            "Strip" => {
                // The start of a text can be streamed; an end is only known at the end.
                let start = json["start"].as_u64().and_then(|n| n.try_into().ok());
                let (Some(start), Some(0)) = (start, json["stop"].as_u64()) else {
                    return Err(unsupported());
                };
                if self.strip.is_some() || !self.fused() {
                    return Err(unsupported());
                }
                self.strip = Some((character("content")?, start));
                return Ok(());
            }
            "Replace" => Step::Replace {
                from: match json["pattern"]["String"].as_str() {
                    Some(from) if !from.is_empty() => from.to_owned(),
                    _ => return Err(unsupported()),
                },
                to: text("content")?.to_owned(),
            },
            "Metaspace" => Step::Metaspace {
                mark: character("replacement")?,
                drop_first: json["prepend_scheme"] != "never" && json["add_prefix_space"] != false,
            },
            "ByteFallback" => Step::ByteFallback,
            "ByteLevel" => Step::ByteLevel,
            "Fuse" => Step::Fuse,
            _ => return Err(unsupported()),
        };
        // What follows bytes, or a text made one, would have to act on more than one token.
        let ended = self.fused() || self.steps.contains(&Step::ByteFallback);
        if self.strip.is_some() || (ended && step != Step::Fuse) {
            return Err(unsupported());
        }
        self.steps.push(step);
        Ok(())
    }

    fn fused(&self) -> bool {
        matches!(self.steps.last(), Some(Step::Fuse | Step::ByteLevel))
    }

    /// The bytes of a token spelled `piece`; `first` if no token stands before it.
    pub(crate) fn bytes(&self, piece: &str, first: bool) -> Vec<u8> {
        let mut text = Cow::Borrowed(piece);
        if self.spaced && !first {
            text = Cow::Owned(format!(" {piece}"));
        }
        for step in &self.steps {
            match step {
                Step::Replace { from, to } => {
                    if text.contains(from.as_str()) {
                        text = Cow::Owned(text.replace(from.as_str(), to));
                    }
                }
                Step::Metaspace { mark, drop_first } => {
                    let space = if first && *drop_first { "" } else { " " };
                    text = Cow::Owned(text.replace(*mark, space));
                }
                Step::ByteFallback => {
                    if let Some(byte) = spelled_byte(&text) {
                        return vec![byte];
                    }
                }
                Step::ByteLevel => {
                    let bytes: Option<Vec<u8>> = text.chars().map(alphabet_byte).collect();
                    return bytes.unwrap_or_else(|| text.into_owned().into_bytes());
                }
                Step::Fuse => {}
            }
        }
        text.into_owned().into_bytes()
    }
}

/// The byte that `<0x..>` spells.
pub(super) fn spelled_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The byte that a character of the byte-level alphabet stands for: printable bytes stand for
/// themselves, the others, in order, for the characters from U+0100 on.
fn alphabet_byte(c: char) -> Option<u8> {
    static SHIFTED: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..=u8::MAX).filter(|&b| !stands_for_itself(b)).collect());
    match u32::from(c) {
        code @ 0..0x100 => Some(code as u8).filter(|&b| stands_for_itself(b)),
        code => SHIFTED.get(code as usize - 0x100).copied(),
    }
}

/// The character of the byte-level alphabet that stands for `byte`.
pub(super) fn byte_alphabet(byte: u8) -> char {
    static ALPHABET: LazyLock<Vec<char>> = LazyLock::new(|| {
        let mut shifted = '\u{100}'..;
        let character = |byte: u8| if stands_for_itself(byte) { Some(byte.into()) } else { shifted.next() };
        (0..=u8::MAX).filter_map(character).collect()
    });
    ALPHABET[usize::from(byte)]
}

fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decoder(json: &Value) -> Decoder {
        Decoder::from_json(json).unwrap()
    }

    #[test]
    fn byte_level_spells_every_byte_once() {
        let mut seen = [false; 256];
        for c in '\0'..'\u{200}' {
            if let Some(byte) = alphabet_byte(c) {
                assert!(!std::mem::replace(&mut seen[usize::from(byte)], true));
            }
        }
        assert!(seen.iter().all(|&s| s));
        assert!((0..=u8::MAX).all(|byte| alphabet_byte(byte_alphabet(byte)) == Some(byte)));
        assert_eq!(alphabet_byte('Ġ'), Some(b' '));
        assert_eq!(alphabet_byte('Ċ'), Some(b'\n'));
        assert_eq!(alphabet_byte('€'), None);
    }

    #[test]
    fn byte_level_leaves_other_spellings_as_they_are() {
        let byte_level = decoder(&json!({"type": "ByteLevel"}));
        assert_eq!(byte_level.bytes("Ġa", true), b" a");
        assert_eq!(byte_level.bytes("a b€", true), "a b€".as_bytes());
    }

    #[test]
    fn byte_fallback_needs_two_hexadecimal_digits() {
        assert_eq!(spelled_byte("<0x0A>"), Some(10));
        for other in ["<0x0>", "<0x0AA>", "<0xGG>", "0x0A", "<0x>", "<0xé>"] {
            assert_eq!(spelled_byte(other), None, "{other}");
        }
    }

    #[test]
    fn chains_that_cannot_be_streamed_are_refused_by_name() {
        let strip_before_fuse = json!({"type": "Sequence", "decoders": [
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Fuse"}]});
        let replace_after_bytes = json!({"type": "Sequence", "decoders": [
            {"type": "ByteFallback"},
            {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}]});
        let strip_the_end = json!({"type": "Sequence", "decoders": [
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}]});
        let regex = json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"});
        let nonsense = [json!({}), json!(3), json!({"type": "Metaspace", "replacement": "ab"})];
        let word_piece = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        for chain in
            [strip_before_fuse, replace_after_bytes, strip_the_end, regex, word_piece].iter().chain(&nonsense)
        {
            let error = Decoder::from_json(chain).unwrap_err().to_string();
            assert!(error.contains("decoder"), "{error}");
        }
    }
}
