//! Text to token ids and back: the `tokenizer.json` of a model, or the vocabulary in a GGUF file.

mod byte_level;
mod decoder;
mod detokenizer;
mod error;
mod gguf;
mod huggingface;
mod merge;
mod parts;
mod pieces;
mod pre_tokenizer;
mod quiet;
mod scored;
mod special;
mod special_tokens;
mod vocabulary;

use std::sync::Arc;

use thermite_formats::gguf::Metadata;

use self::decoder::Decoder;
use self::huggingface::HuggingFace;
use self::vocabulary::Vocabulary;
use crate::chat::Prompt;

pub use self::detokenizer::Detokenizer;
pub use self::error::TokenizerError;
pub use self::special_tokens::SpecialTokens;
pub use self::vocabulary::{Joining, TokenKind, VocabularyParts};

/// Text to token ids and back. Cloning shares the vocabulary.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kind: Kind,
    bos: Option<u32>,
    /// Sorted.
    eos: Vec<u32>,
}

#[derive(Debug)]
enum Kind {
    HuggingFace(Box<HuggingFace>),
    Vocabulary(Box<Vocabulary>),
}

impl Tokenizer {
    /// Reads a `tokenizer.json`; `special` says which tokens begin and end a text. Truncation and
    /// padding that the file may ask for are not done: a prompt stays whole.
    ///
    /// # Errors
    /// Whatever is wrong with the file: see [`TokenizerError`].
    pub fn from_bytes(json: &[u8], special: &SpecialTokens) -> Result<Self, TokenizerError> {
        let huggingface::Read { tokenizer, bos, eos } = HuggingFace::read(json, special)?;
        Ok(Self::new(Kind::HuggingFace(Box::new(tokenizer)), bos, eos))
    }

    /// Reads the vocabulary in a GGUF file.
    ///
    /// # Errors
    /// Whatever is wrong with it: see [`TokenizerError`].
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenizerError> {
        Self::from_parts(&VocabularyParts::from_gguf(metadata)?)
    }

    /// Makes a tokenizer from a vocabulary's parts.
    ///
    /// # Errors
    /// Parts that do not fit together; a pre-tokeniser that is not known.
    pub fn from_parts(parts: &VocabularyParts<'_>) -> Result<Self, TokenizerError> {
        Ok(Self::new(Kind::Vocabulary(Box::new(Vocabulary::new(parts)?)), parts.bos, parts.eos.clone()))
    }

    fn new(kind: Kind, bos: Option<u32>, mut eos: Vec<u32>) -> Self {
        eos.sort_unstable();
        eos.dedup();
        Self { shared: Arc::new(Shared { kind, bos, eos }) }
    }

    /// The ids of `text`. With `add_special`, what the model wants around a text (such as the token
    /// that begins it) is added; with `parse_special`, spellings of special tokens in the text are
    /// those tokens, without they are plain text.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] for text that the vocabulary has no tokens for.
    pub fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.encode(text, add_special, parse_special),
            Kind::Vocabulary(vocabulary) => vocabulary.encode(text, add_special, parse_special, &[]),
        }
    }

    /// The ids of a prompt from a chat template, which brings all the special tokens that it wants.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] for text that the vocabulary has no tokens for.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, TokenizerError> {
        let Prompt { text, breaks } = prompt;
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) if breaks.is_empty() => tokenizer.encode(text, false, true),
            Kind::HuggingFace(tokenizer) => tokenizer.encode_broken(text, breaks),
            Kind::Vocabulary(vocabulary) => vocabulary.encode(text, false, true, breaks),
        }
    }

    /// The text of `ids`. Bytes that are no UTF-8 become U+FFFD, as in
    /// [`String::from_utf8_lossy`]; ids outside the vocabulary have no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut detokenizer = self.detokenizer(skip_special);
        let mut text: String = ids.iter().filter_map(|&id| detokenizer.push(id)).collect();
        text.extend(detokenizer.finish());
        text
    }

    /// A decoder of one text, token by token.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer {
        Detokenizer::new(self.clone(), skip_special)
    }

    /// The token's spelling in the vocabulary, such as `Ġonce`; `None` outside the vocabulary.
    pub fn token_piece(&self, id: u32) -> Option<String> {
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.piece(id),
            Kind::Vocabulary(vocabulary) => vocabulary.piece(id).map(str::to_owned),
        }
    }

    /// The token's bytes inside a text; `None` outside the vocabulary.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.bytes_at(id, false)
    }

    fn bytes_at(&self, id: u32, first: bool) -> Option<Vec<u8>> {
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) => Some(tokenizer.decoder().bytes(&tokenizer.piece(id)?, first)),
            Kind::Vocabulary(vocabulary) => vocabulary.bytes(id),
        }
    }

    /// The id of the token that is spelled so in the vocabulary.
    pub fn token_id(&self, piece: &str) -> Option<u32> {
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.id(piece),
            Kind::Vocabulary(vocabulary) => vocabulary.id(piece),
        }
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.len(),
            Kind::Vocabulary(vocabulary) => vocabulary.len(),
        }
    }

    /// The token that begins a text, if the model has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.shared.bos
    }

    /// The tokens that end a text, sorted.
    pub fn eos_ids(&self) -> &[u32] {
        &self.shared.eos
    }

    /// Whether this token ends a text.
    pub fn is_eos(&self, id: u32) -> bool {
        self.shared.eos.binary_search(&id).is_ok()
    }

    /// Whether this token is a special one: control, not text.
    pub fn is_special(&self, id: u32) -> bool {
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.is_special(id),
            Kind::Vocabulary(vocabulary) => vocabulary.is_special(id),
        }
    }

    /// The spellings of the special tokens.
    pub fn special_tokens(&self) -> Vec<&str> {
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.special().collect(),
            Kind::Vocabulary(vocabulary) => vocabulary.special().collect(),
        }
    }

    fn decoder(&self) -> &Decoder {
        match &self.shared.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.decoder(),
            Kind::Vocabulary(vocabulary) => vocabulary.decoder(),
        }
    }
}
