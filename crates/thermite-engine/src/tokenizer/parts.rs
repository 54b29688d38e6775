//! The parts of a `tokenizer.json` around its model, and what is said of those that the library does not know.

use serde::Deserialize;
use serde_json::Value;

use super::error::TokenizerError;

/// A part of the file, and what the library knows of it.
pub(super) struct Part {
    name: &'static str,
    /// Its types.
    types: &'static [&'static str],
    /// The field in which a part of type `Sequence` holds others.
    sequence: &'static str,
}

pub(super) const MODEL: Part =
    Part { name: "model", types: &["BPE", "Unigram", "WordPiece", "WordLevel"], sequence: "" };

pub(super) const NORMALIZER: Part = Part {
    name: "normalizer",
    types: &[
        "BertNormalizer",
        "ByteLevel",
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "Prepend",
        "Replace",
        "Sequence",
        "Strip",
        "StripAccents",
    ],
    sequence: "normalizers",
};

pub(super) const PRE_TOKENIZER: Part = Part {
    name: "pre_tokenizer",
    types: &[
        "BertPreTokenizer",
        "ByteLevel",
        "CharDelimiterSplit",
        "Digits",
        "FixedLength",
        "Metaspace",
        "Punctuation",
        "Sequence",
        "Split",
        "UnicodeScripts",
        "Whitespace",
        "WhitespaceSplit",
    ],
    sequence: "pretokenizers",
};

pub(super) const POST_PROCESSOR: Part = Part {
    name: "post_processor",
    types: &["BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"],
    sequence: "processors",
};

impl Part {
    /// The part that `json` describes.
    ///
    /// # Errors
    /// A type that is not known, by its name; fields that are not the type's.
    pub(super) fn read<'a, T: Deserialize<'a>>(&self, json: &'a Value) -> Result<T, TokenizerError> {
        T::deserialize(json).map_err(|source| match self.innermost(json) {
            Some(found) if self.types.contains(&found) => {
                TokenizerError::Fields { part: self.name, found: found.to_owned() }
            }
            Some(found) => self.unknown(found),
            None => TokenizerError::Json { part: self.name, source },
        })
    }

    /// Refuses a type that is not known.
    pub(super) fn check(&self, found: &str) -> Result<(), TokenizerError> {
        if self.types.contains(&found) { Ok(()) } else { Err(self.unknown(found)) }
    }

    fn unknown(&self, found: &str) -> TokenizerError {
        TokenizerError::Type { part: self.name, found: found.to_owned(), known: self.types.join(", ") }
    }

    /// The first type in `json` that is not known; if all are, that of `json`.
    fn innermost<'a>(&self, json: &'a Value) -> Option<&'a str> {
        let own = json.get("type")?.as_str()?;
        let inner = json.get(self.sequence).and_then(Value::as_array);
        let mut types = inner.into_iter().flatten().filter_map(|part| self.innermost(part));
        Some(types.find(|found| !self.types.contains(found)).unwrap_or(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokenizers::{NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

    fn error<T: for<'a> Deserialize<'a>>(part: &Part, json: &Value) -> String {
        part.read::<T>(json).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn unknown_types_are_named_however_deep() {
        let bogus = json!({"type": "Bogus"});
        for message in [
            error::<NormalizerWrapper>(&NORMALIZER, &bogus),
            error::<PreTokenizerWrapper>(&PRE_TOKENIZER, &bogus),
            error::<PostProcessorWrapper>(&POST_PROCESSOR, &bogus),
            error::<NormalizerWrapper>(
                &NORMALIZER,
                &json!({"type": "Sequence", "normalizers": [{"type": "NFC"},
                {"type": "Sequence", "normalizers": [bogus]}]}),
            ),
            error::<PreTokenizerWrapper>(
                &PRE_TOKENIZER,
                &json!({"type": "Sequence", "pretokenizers": [bogus]}),
            ),
            error::<PostProcessorWrapper>(
                &POST_PROCESSOR,
                &json!({"type": "Sequence", "processors": [bogus]}),
            ),
        ] {
            assert!(message.contains(" is of type \"Bogus\"; known are B"), "{message}");
        }
    }

    #[test]
    fn what_is_no_part_at_all_is_an_error() {
        assert_eq!(
            error::<NormalizerWrapper>(&NORMALIZER, &json!({"type": "Prepend"})),
            "tokenizer.json: normalizer: the fields are not those of the type \"Prepend\""
        );
        for json in [json!(1), json!([]), json!({}), json!({"type": 1})] {
            let message = error::<PreTokenizerWrapper>(&PRE_TOKENIZER, &json);
            assert!(message.starts_with("tokenizer.json: pre_tokenizer: "), "{message}");
        }
    }
}
