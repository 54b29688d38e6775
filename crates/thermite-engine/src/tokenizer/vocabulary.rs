//! A vocabulary as GGUF files hold it, and tokenizing with it.
//!
//! Hugging Face's `tokenizers` could hold such vocabularies too, but takes seconds to build one of 262,144 scored
//! pieces, for which it needs every merge spelled out; here a load is one pass that fills a hash table.

use super::byte_level::ByteLevel;
use super::decoder::Decoder;
use super::error::TokenizerError;
use super::pieces::Pieces;
use super::pre_tokenizer::PreTokenizer;
use super::scored::{SPACE, Scored};
use super::special::{Fragment, Splitter, Standing};

/// What a token is (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Control: found in a text only where special tokens are asked for.
    Control,
    /// Text that is found before anything else is done.
    UserDefined,
    /// Not in use.
    Unused,
    /// One byte, spelled `<0x0A>`.
    Byte,
}

impl TokenKind {
    /// The kind of that number in a file.
    pub(super) fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether merges lead to it.
    fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }
}

/// How a vocabulary's tokens are joined.
#[derive(Debug, Clone, PartialEq)]
pub enum Joining<'a> {
    /// Byte-level BPE by a list of merges, each of which is two spellings with a space between them.
    Merges {
        /// The merges, best first.
        merges: Vec<&'a str>,
        /// The name of the pre-tokeniser.
        pre: &'a str,
    },
    /// SentencePiece's BPE by scores, one a token.
    Scores(Vec<f32>),
}

/// Everything that a vocabulary is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct VocabularyParts<'a> {
    /// The tokens' spellings by id.
    pub tokens: Vec<&'a str>,
    /// Their kinds; without them, all are text.
    pub kinds: Option<Vec<TokenKind>>,
    /// How they are joined.
    pub joining: Joining<'a>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The tokens that end a text or a turn.
    pub eos: Vec<u32>,
    /// The token for what has none.
    pub unknown: Option<u32>,
    /// Whether a text begins with `bos`; where a file does not say, the pre-tokeniser or the model does.
    pub add_bos: Option<bool>,
    /// Whether a text ends with the first of `eos`.
    pub add_eos: bool,
    /// Whether a space stands before a text, and before what follows a special token (scores only).
    pub add_space_prefix: bool,
}

#[derive(Debug)]
pub(super) struct Vocabulary {
    pieces: Pieces,
    kinds: Vec<TokenKind>,
    model: Model,
    splitter: Splitter,
    /// What begins a text, and what ends it.
    begin: Option<u32>,
    end: Option<u32>,
    add_space_prefix: bool,
    decoder: Decoder,
}

#[derive(Debug)]
enum Model {
    ByteLevel(ByteLevel),
    Scored(Scored),
}

impl Vocabulary {
    pub(super) fn new(parts: &VocabularyParts<'_>) -> Result<Self, TokenizerError> {
        let count = parts.tokens.len();
        if u32::try_from(count).is_err() {
            return Err(TokenizerError::Vocabulary { reason: format!("{count} tokens are too many") });
        }
        let same_length = |what, len: usize| match len == count {
            true => Ok(()),
            false => Err(TokenizerError::Vocabulary { reason: format!("{count} tokens, but {len} {what}") }),
        };
        let kinds = parts.kinds.clone().unwrap_or_else(|| vec![TokenKind::Normal; count]);
        same_length("token types", kinds.len())?;
        for (role, id) in [("bos", parts.bos), ("unknown", parts.unknown)]
            .into_iter()
            .chain(parts.eos.iter().map(|&id| ("eos", Some(id))))
        {
            if let Some(id) = id.filter(|&id| id as usize >= count) {
                let reason = format!("the {role} token is {id}, but there are {count} tokens");
                return Err(TokenizerError::Vocabulary { reason });
            }
        }
        let pieces = Pieces::new(&parts.tokens);
        let text_ids = (0..count as u32).filter(|&id| kinds[id as usize].is_text());
        let (model, decoder, add_bos) = match &parts.joining {
            Joining::Merges { merges, pre } => {
                let pre_tokenizer = PreTokenizer::named(pre).ok_or_else(|| TokenizerError::PreTokenizer {
                    name: (*pre).to_owned(),
                    known: PreTokenizer::names().collect::<Vec<_>>().join(", "),
                })?;
                let add_bos = pre_tokenizer.add_bos;
                let model = ByteLevel::new(&pieces, text_ids, merges, pre_tokenizer)?;
                (Model::ByteLevel(model), Decoder::byte_level(), add_bos)
            }
            Joining::Scores(scores) => {
                same_length("scores", scores.len())?;
                let bytes = byte_tokens(&parts.tokens, &kinds);
                let model = Scored::new(&pieces, text_ids, scores, bytes, parts.unknown);
                (Model::Scored(model), Decoder::scored(SPACE, parts.add_space_prefix), true)
            }
        };
        let needed = |wanted: bool, id: Option<u32>, role| match (wanted, id) {
            (true, None) => {
                let reason = format!("add_{role}_token is set, but there is no {role} token");
                Err(TokenizerError::Vocabulary { reason })
            }
            (true, id) => Ok(id),
            (false, _) => Ok(None),
        };
        let standing = kinds.iter().zip(&parts.tokens).zip(0..).filter_map(|((kind, content), id)| {
            let special = matches!(kind, TokenKind::Control | TokenKind::Unknown);
            let stands = special || *kind == TokenKind::UserDefined;
            stands.then(|| Standing { id, content: (*content).to_owned(), special })
        });
        Ok(Self {
            splitter: Splitter::new(standing),
            begin: needed(parts.add_bos.unwrap_or(add_bos && parts.bos.is_some()), parts.bos, "bos")?,
            end: needed(parts.add_eos, parts.eos.first().copied(), "eos")?,
            add_space_prefix: parts.add_space_prefix,
            pieces,
            kinds,
            model,
            decoder,
        })
    }

    /// Ids of `text`; no special token is recognised across one of `breaks`.
    pub(super) fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
        breaks: &[usize],
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        ids.extend(self.begin.filter(|_| add_special));
        let mut after_token = true;
        for fragment in self.splitter.split(text, parse_special, breaks) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(text) => match &self.model {
                    Model::ByteLevel(model) => model.encode(&self.pieces, text, &mut ids)?,
                    Model::Scored(model) => {
                        let space_first = self.add_space_prefix && after_token;
                        model.encode(&self.pieces, text, space_first, &mut ids)?;
                    }
                },
            }
            after_token = matches!(fragment, Fragment::Token(_));
        }
        ids.extend(self.end.filter(|_| add_special));
        Ok(ids)
    }

    pub(super) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id)
    }

    /// The bytes of a token inside a text.
    pub(super) fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let piece = self.pieces.get(id)?;
        Some(match (self.kinds[id as usize], &self.model) {
            (TokenKind::Control | TokenKind::Unknown, _) => piece.as_bytes().to_vec(),
            (TokenKind::UserDefined, Model::ByteLevel(_)) => piece.as_bytes().to_vec(),
            _ => self.decoder.bytes(piece, false),
        })
    }

    /// The id of a spelling, whatever its kind.
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        (0..self.pieces.len() as u32).find(|&id| self.pieces.get(id) == Some(piece))
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        matches!(self.kinds.get(id as usize), Some(TokenKind::Control | TokenKind::Unknown))
    }

    /// The spellings of the special tokens.
    pub(super) fn special(&self) -> impl Iterator<Item = &str> {
        self.splitter.special()
    }
}

/// The tokens of single bytes.
fn byte_tokens(tokens: &[&str], kinds: &[TokenKind]) -> Vec<Option<u32>> {
    let mut bytes = vec![None; 256];
    for ((piece, kind), id) in tokens.iter().zip(kinds).zip(0..) {
        if let Some(byte) = super::decoder::spelled_byte(piece).filter(|_| *kind == TokenKind::Byte) {
            bytes[usize::from(byte)] = Some(id);
        }
    }
    bytes
}
