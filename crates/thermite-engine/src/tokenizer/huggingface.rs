//! `tokenizer.json`: Hugging Face's `tokenizers` does the work.

use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{AddedToken, ModelWrapper, PreTokenizerWrapper};

use super::decoder::Decoder;
use super::error::TokenizerError;
use super::parts::{MODEL, NORMALIZER, POST_PROCESSOR, PRE_TOKENIZER};
use super::quiet::catch_quietly;
use super::special::{Fragment, Splitter, Standing};
use super::special_tokens::SpecialTokens;

/// A `tokenizer.json`.
#[derive(Debug)]
pub(super) struct HuggingFace {
    inner: tokenizers::Tokenizer,
    /// The same, for text in which special tokens are plain text; made when first needed.
    literal: OnceLock<tokenizers::Tokenizer>,
    /// The same, for text that stands behind other text.
    continued: OnceLock<tokenizers::Tokenizer>,
    decoder: Decoder,
    /// The special tokens, sorted by id.
    special: Vec<SpecialToken>,
    splitter: Splitter,
}

/// A tokenizer, with the tokens that begin and end a text.
pub(super) struct Read {
    pub(super) tokenizer: HuggingFace,
    pub(super) bos: Option<u32>,
    pub(super) eos: Vec<u32>,
}

impl HuggingFace {
    pub(super) fn read(json: &[u8], special: &SpecialTokens) -> Result<Read, TokenizerError> {
        if json.trim_ascii_start().first().is_some_and(|&byte| byte != b'{') {
            return Err(TokenizerError::Invalid { reason: "the file is no JSON object".to_owned() });
        }
        let file: TokenizerFile<'_> = parse("the file", json)?;
        // The tokenizers crate panics on some parts of a wrong form.
        catch_quietly(|| Self::from_file(file, special))
            .unwrap_or_else(|| Err(TokenizerError::Invalid { reason: "a part of a wrong form".to_owned() }))
    }

    fn from_file(file: TokenizerFile<'_>, special: &SpecialTokens) -> Result<Read, TokenizerError> {
        if let Some(version) = file.version.filter(|version| version != "1.0") {
            return Err(TokenizerError::Version { version });
        }
        let decoder = Decoder::from_json(&file.decoder)?;
        let mut inner = tokenizers::Tokenizer::new(model(file.model)?);
        inner
            .with_normalizer(NORMALIZER.read::<Option<tokenizers::NormalizerWrapper>>(&file.normalizer)?)
            .map_err(invalid)?
            .with_pre_tokenizer(PRE_TOKENIZER.read::<Option<PreTokenizerWrapper>>(&file.pre_tokenizer)?)
            .with_post_processor(
                POST_PROCESSOR.read::<Option<tokenizers::PostProcessorWrapper>>(&file.post_processor)?,
            );
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
        let standing = special_ids.iter().map(SpecialToken::standing);
        let splitter = Splitter::new(standing);
        let (literal, continued) = (OnceLock::new(), OnceLock::new());
        let tokenizer = Self { inner, literal, continued, decoder, splitter, special: special_ids };
        Ok(Read { tokenizer, bos, eos })
    }

    pub(super) fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mentioned = self.special.iter().any(|token| token.may_be_in(text));
        let encoder = if parse_special || !mentioned { &self.inner } else { self.literal() };
        ids(encoder, text, add_special)
    }

    /// Ids of `text`, without what stands around a text; no special token is recognised across one of `breaks`.
    pub(super) fn encode_broken(&self, text: &str, breaks: &[usize]) -> Result<Vec<u32>, TokenizerError> {
        let fragments = self.splitter.split(text, true, breaks);
        let strips =
            |i: Option<usize>, side: fn(&SpecialToken) -> bool| match i.and_then(|i| fragments.get(i)) {
                Some(Fragment::Token(id)) => self.special_token(*id).is_some_and(side),
                _ => false,
            };
        let mut out = Vec::new();
        for (i, fragment) in fragments.iter().enumerate() {
            match *fragment {
                Fragment::Token(id) => out.push(id),
                Fragment::Text(mut text) => {
                    if strips(i.checked_sub(1), |token| token.rstrip) {
                        text = text.trim_start();
                    }
                    if strips(Some(i + 1), |token| token.lstrip) {
                        text = text.trim_end();
                    }
                    let encoder = if i == 0 { self.literal() } else { self.continued() };
                    out.extend(ids(encoder, text, false)?);
                }
            }
        }
        Ok(out)
    }

    fn literal(&self) -> &tokenizers::Tokenizer {
        self.literal.get_or_init(|| {
            let mut literal = self.inner.clone();
            literal.set_encode_special_tokens(true);
            literal
        })
    }

    /// As [`Self::literal`], but a space that is put before a whole text is not put before this.
    fn continued(&self) -> &tokenizers::Tokenizer {
        self.continued.get_or_init(|| {
            let mut continued = self.literal().clone();
            let pre_tokenizer = continued.get_pre_tokenizer().cloned().map(without_first_space);
            continued.with_pre_tokenizer(pre_tokenizer);
            continued
        })
    }

    fn special_token(&self, id: u32) -> Option<&SpecialToken> {
        let found = self.special.binary_search_by_key(&id, |token| token.id);
        found.ok().map(|i| &self.special[i])
    }

    pub(super) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    pub(super) fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    pub(super) fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.inner.token_to_id(piece)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special_token(id).is_some()
    }

    /// The spellings of the special tokens.
    pub(super) fn special(&self) -> impl Iterator<Item = &str> {
        self.special.iter().map(|token| token.content.as_str())
    }
}

fn ids(encoder: &tokenizers::Tokenizer, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
    let encoding = encoder.encode_fast(text, add_special);
    let encoding = encoding.map_err(|error| TokenizerError::Encode { reason: error.to_string() })?;
    Ok(encoding.get_ids().to_vec())
}

fn without_first_space(pre_tokenizer: PreTokenizerWrapper) -> PreTokenizerWrapper {
    match pre_tokenizer {
        PreTokenizerWrapper::Metaspace(mut metaspace) => {
            if metaspace.prepend_scheme == PrependScheme::First {
                metaspace.set_prepend_scheme(PrependScheme::Never);
            }
            PreTokenizerWrapper::Metaspace(metaspace)
        }
        PreTokenizerWrapper::Sequence(sequence) => {
            let parts: Vec<_> = sequence.as_ref().iter().cloned().map(without_first_space).collect();
            PreTokenizerWrapper::Sequence(tokenizers::pre_tokenizers::sequence::Sequence::new(parts))
        }
        other => other,
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
    let kind = parse::<Kind>("model", json)?.r#type;
    kind.as_deref().map_or(Ok(()), |kind| MODEL.check(kind))?;
    if kind.as_deref() != Some("BPE") {
        return parse("model", json);
    }
    let mut bpe: BPE = parse("model", json)?;
    bpe.dropout = None; // for training: with it, one text has many tokenizations
    Ok(bpe.into())
}

#[derive(Debug)]
struct SpecialToken {
    id: u32,
    content: String,
    /// Whether it is looked for in the normalized text.
    normalized: bool,
    /// Whether it takes white space before it, and after it.
    lstrip: bool,
    rstrip: bool,
}

impl SpecialToken {
    fn may_be_in(&self, text: &str) -> bool {
        self.normalized || text.contains(&self.content)
    }

    fn standing(&self) -> Standing {
        Standing { id: self.id, content: self.content.clone(), special: true }
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
            let AddedToken { content, normalized, lstrip, rstrip, .. } = token;
            special.push(SpecialToken { id, content, normalized, lstrip, rstrip });
        }
    }
    special.sort_unstable_by_key(|token| token.id);
    Ok(special)
}

fn parse<'a, T: Deserialize<'a>>(part: &'static str, json: &'a [u8]) -> Result<T, TokenizerError> {
    serde_json::from_slice(json).map_err(|source| TokenizerError::Json { part, source })
}

fn invalid(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Invalid { reason: error.to_string() }
}
