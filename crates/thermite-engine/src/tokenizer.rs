//! Text to token ids and back: the `tokenizer.json` of a model.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, ModelWrapper};

use crate::decoder::Decoder;
use crate::detokenizer::Detokenizer;
use crate::quiet::catch_quietly;
use crate::special_tokens::SpecialTokens;

/// What is wrong with a tokenizer, or with what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A configuration file is not the JSON that it should be.
    #[error("{file}: {source}")]
    Config {
        /// The file.
        file: &'static str,
        /// What and where.
        source: serde_json::Error,
    },
    /// `tokenizer.json` is not JSON, or JSON of another form.
    #[error("tokenizer.json: {part}: {source}")]
    Json {
        /// The part that is wrong.
        part: &'static str,
        /// What and where.
        source: serde_json::Error,
    },
    /// The version of the file's format is another than 1.0.
    #[error("tokenizer.json: version {version} is not supported, 1.0 is")]
    Version {
        /// The version in the file.
        version: String,
    },
    /// Its parts do not fit together.
    #[error("tokenizer.json: {reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// The decoder is of a kind that cannot be streamed.
    #[error("tokenizer.json: decoder {decoder} is not supported")]
    Decoder {
        /// Its JSON.
        decoder: String,
    },
    /// An added token's place in the vocabulary is another than the one it declares.
    #[error("tokenizer.json: added token {token:?} declares id {declared}, its place is {actual}")]
    AddedTokenId {
        /// The token's spelling.
        token: String,
        /// The id in its entry.
        declared: u32,
        /// The id by its place.
        actual: u32,
    },
    /// A token that the configuration names is not in the vocabulary.
    #[error("tokenizer_config.json: {role} {token:?} is not in the vocabulary")]
    UnknownToken {
        /// What it is named as.
        role: &'static str,
        /// Its spelling.
        token: String,
    },
    /// The text cannot be written in this vocabulary.
    #[error("the text cannot be tokenized: {reason}")]
    Encode {
        /// Why.
        reason: String,
    },
}

/// Text to token ids and back. Cloning shares the vocabulary.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: tokenizers::Tokenizer,
    /// The same, for text in which special tokens are plain text; made when first needed.
    literal: OnceLock<tokenizers::Tokenizer>,
    decoder: Decoder,
    /// The special tokens, sorted by id.
    special: Vec<SpecialToken>,
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`; `special` says which tokens begin and end a text. Truncation and
    /// padding that the file may ask for are not done: a prompt stays whole.
    ///
    /// # Errors
    /// Whatever is wrong with the file: see [`TokenizerError`].
    pub fn from_bytes(json: &[u8], special: &SpecialTokens) -> Result<Self, TokenizerError> {
        let file: TokenizerFile<'_> = parse("the file", json)?;
        // The tokenizers crate panics on some parts of a wrong form.
        catch_quietly(|| Self::from_file(file, special))
            .unwrap_or_else(|| Err(TokenizerError::Invalid { reason: "a part of a wrong form".to_owned() }))
    }

    fn from_file(file: TokenizerFile<'_>, special: &SpecialTokens) -> Result<Self, TokenizerError> {
        if let Some(version) = file.version.filter(|version| version != "1.0") {
            return Err(TokenizerError::Version { version });
        }
        let decoder = Decoder::from_json(&file.decoder)?;
        let mut inner = tokenizers::Tokenizer::new(model(file.model)?);
        inner
            .with_normalizer(part::<Option<tokenizers::NormalizerWrapper>>("normalizer", file.normalizer)?)
            .map_err(invalid)?
            .with_pre_tokenizer(part::<Option<tokenizers::PreTokenizerWrapper>>(
                "pre_tokenizer",
                file.pre_tokenizer,
            )?)
            .with_post_processor(part::<Option<tokenizers::PostProcessorWrapper>>(
                "post_processor",
                file.post_processor,
            )?);
        let special_ids = add_tokens(&mut inner, file.added_tokens.unwrap_or_default())?;
        let id_of = |role, token: &Option<String>| match token {
            None => Ok(None),
            Some(token) => match inner.token_to_id(token) {
                Some(id) => Ok(Some(id)),
                None => Err(TokenizerError::UnknownToken { role, token: token.clone() }),
            },
        };
        let bos = special.bos.or(id_of("bos_token", &special.bos_token)?);
        let mut eos = special.eos.clone();
        eos.extend(id_of("eos_token", &special.eos_token)?);
        eos.sort_unstable();
        eos.dedup();
        Ok(Self {
            shared: Arc::new(Shared {
                inner,
                literal: OnceLock::new(),
                decoder,
                special: special_ids,
                bos,
                eos,
            }),
        })
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
        let Shared { inner, special, .. } = &*self.shared;
        let mentioned = special.iter().any(|token| token.may_be_in(text));
        let encoder = if parse_special || !mentioned {
            inner
        } else {
            self.shared.literal.get_or_init(|| {
                let mut literal = inner.clone();
                literal.set_encode_special_tokens(true);
                literal
            })
        };
        let encoding = encoder.encode_fast(text, add_special);
        let encoding = encoding.map_err(|error| TokenizerError::Encode { reason: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
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
        self.shared.inner.id_to_token(id)
    }

    /// The token's bytes inside a text; `None` outside the vocabulary.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        Some(self.decoder().bytes(&self.token_piece(id)?, false))
    }

    /// The id of the token that is spelled so in the vocabulary.
    pub fn token_id(&self, piece: &str) -> Option<u32> {
        self.shared.inner.token_to_id(piece)
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.shared.inner.get_vocab_size(true)
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
        let special = &self.shared.special;
        special.binary_search_by_key(&id, |token| token.id).is_ok()
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.shared.decoder
    }
}

/// `tokenizer.json`. The model, which is nearly all of it, is left as text.
#[derive(Deserialize)]
struct TokenizerFile<'a> {
    version: Option<String>,
    added_tokens: Option<Vec<AddedTokenEntry>>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct AddedTokenEntry {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

/// The model. The library's own way through its union of models copies the whole vocabulary twice;
/// a BPE that says so is read straight from the text.
fn model(json: &RawValue) -> Result<ModelWrapper, TokenizerError> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: Option<String>,
    }
    let json = json.get().as_bytes();
    match parse::<Kind>("model", json)?.r#type.as_deref() {
        Some("BPE") => {
            let mut bpe: BPE = parse("model", json)?;
            bpe.dropout = None; // for training: with it, one text has many tokenizations
            Ok(bpe.into())
        }
        _ => parse("model", json),
    }
}

#[derive(Debug)]
struct SpecialToken {
    id: u32,
    content: String,
    /// Whether it is looked for in the normalized text.
    normalized: bool,
}

impl SpecialToken {
    fn may_be_in(&self, text: &str) -> bool {
        self.normalized || text.contains(&self.content)
    }
}

/// Adds the tokens in their order; gives the special ones, sorted by id.
fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    entries: Vec<AddedTokenEntry>,
) -> Result<Vec<SpecialToken>, TokenizerError> {
    let tokens = entries.iter().map(|entry| entry.token.clone());
    inner.add_tokens(tokens).map_err(invalid)?;
    let mut special = Vec::new();
    for AddedTokenEntry { id, token } in entries {
        let actual = inner.token_to_id(&token.content).unwrap_or(id); // an empty one is not added
        if actual != id {
            let token = token.content;
            return Err(TokenizerError::AddedTokenId { token, declared: id, actual });
        }
        if token.special && !token.content.is_empty() {
            let AddedToken { content, normalized, .. } = token;
            special.push(SpecialToken { id, content, normalized });
        }
    }
    special.sort_unstable_by_key(|token| token.id);
    Ok(special)
}

fn parse<'a, T: Deserialize<'a>>(part: &'static str, json: &'a [u8]) -> Result<T, TokenizerError> {
    serde_json::from_slice(json).map_err(|source| TokenizerError::Json { part, source })
}

fn part<T: DeserializeOwned>(part: &'static str, json: Value) -> Result<T, TokenizerError> {
    serde_json::from_value(json).map_err(|source| TokenizerError::Json { part, source })
}

fn invalid(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Invalid { reason: error.to_string() }
}
