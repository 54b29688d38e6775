//! Vocabularies in GGUF files.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer>.

use thermite_formats::gguf::Metadata;

use super::error::TokenizerError;
use super::vocabulary::{Joining, TokenKind, VocabularyParts};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const PRE: &str = "tokenizer.ggml.pre";

/// Control tokens that end a text or a turn in well-known models: files do not always name them all.
const ENDS: [&str; 9] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|return|>",
    "</s>",
];

impl<'a> VocabularyParts<'a> {
    /// Reads the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// A key that is missing or of another type; a model or a token type that is not known.
    pub fn from_gguf(metadata: &'a Metadata) -> Result<Self, TokenizerError> {
        let tokens: Vec<&str> = metadata.get(TOKENS)?;
        let kinds = match metadata.find::<Vec<i32>>(TOKEN_TYPE)? {
            None => None,
            Some(numbers) => Some(numbers.into_iter().enumerate().map(kind).collect::<Result<Vec<_>, _>>()?),
        };
        let joining = match metadata.get(MODEL)? {
            "gpt2" => Joining::Merges {
                merges: metadata.get(MERGES)?,
                pre: metadata.find(PRE)?.unwrap_or("default"),
            },
            "llama" => Joining::Scores(metadata.get(SCORES)?),
            other => {
                return Err(TokenizerError::Model {
                    key: MODEL,
                    model: other.to_owned(),
                    known: "gpt2, llama",
                });
            }
        };
        let scored = matches!(joining, Joining::Scores(_));
        // SentencePiece's own places, where a file does not say; of a vocabulary that has them
        let usual = |id: u32| scored.then_some(id).filter(|&id| (id as usize) < tokens.len());
        let id = |name: &str| metadata.find::<u32>(&format!("tokenizer.ggml.{name}_token_id"));
        let flag = |name: &str| metadata.find::<bool>(&format!("tokenizer.ggml.{name}"));
        let mut eos: Vec<u32> = id("eos")?.or_else(|| usual(2)).into_iter().collect();
        eos.extend([id("eot")?, id("eom")?].into_iter().flatten());
        if let Some(kinds) = &kinds {
            let control =
                tokens.iter().zip(kinds).zip(0..).filter(|((_, kind), _)| **kind == TokenKind::Control);
            eos.extend(control.filter(|((token, _), _)| ENDS.contains(token)).map(|(_, id)| id));
        }
        Ok(Self {
            bos: id("bos")?.or_else(|| usual(1)),
            unknown: id("unknown")?.or_else(|| usual(0)),
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?.unwrap_or(false),
            add_space_prefix: flag("add_space_prefix")?.unwrap_or(scored),
            tokens,
            kinds,
            joining,
            eos,
        })
    }
}

fn kind((id, number): (usize, i32)) -> Result<TokenKind, TokenizerError> {
    TokenKind::from_number(number).ok_or_else(|| TokenizerError::Vocabulary {
        reason: format!("token {id} is of type {number}, which is unknown"),
    })
}
