//! From `tokenizer.json` and its companions to `tokenizer.ggml.*`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::ConvertFault;
use super::pre_tokenizer::{self, Kind};
use crate::error::{Error, Result};
use crate::gguf::HeaderWriter;
use crate::source::{HuggingFace, TOKENIZER};

/// `tokenizer.ggml.token_type`, as the format numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// The score of tokens that nothing is merged into.
const NO_SCORE: f32 = -1000.0;

#[derive(Deserialize)]
struct TokenizerJson {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    model_type: String,
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    byte_fallback: bool,
    unk_token: Option<String>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// Two tokens that become one: in the older form a text with a space between them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

impl Merge {
    /// The two tokens, a space between them.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Pair(a, b) => format!("{a} {b}"),
        }
    }

    /// The token that they become.
    fn merged(&self) -> String {
        match self {
            Self::Text(text) => text.replacen(' ', "", 1),
            Self::Pair(a, b) => format!("{a}{b}"),
        }
    }
}

/// What the companions say.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    bos_token: Option<Named>,
    eos_token: Option<Named>,
    unk_token: Option<Named>,
    pad_token: Option<Named>,
    chat_template: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Plain(String),
    Added { content: String },
}

impl Named {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Added { content: text } => text,
        }
    }
}

/// `config.json` and `generation_config.json`.
#[derive(Default, Deserialize)]
struct SpecialIds {
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl SpecialIds {
    fn eos(&self) -> &[u32] {
        match &self.eos_token_id {
            None => &[],
            Some(OneOrMany::One(id)) => std::slice::from_ref(id),
            Some(OneOrMany::Many(ids)) => ids,
        }
    }
}

/// Writes the tokenizer of `folder`, filled up to `n_vocab` tokens; `fault` names the file.
pub(super) fn describe(
    folder: &HuggingFace,
    n_vocab: u32,
    header: &mut HeaderWriter,
    fault: impl Fn(ConvertFault) -> Error,
) -> Result<()> {
    let json_error = |file: &str| {
        let path = folder.folder.join(file);
        move |source| Error::Json { path, source }
    };
    let json: TokenizerJson =
        serde_json::from_slice(folder.tokenizer_json()?).map_err(json_error(TOKENIZER))?;
    let config: TokenizerConfig = match &folder.tokenizer_config_json {
        Some(text) => serde_json::from_str(text).map_err(json_error("tokenizer_config.json"))?,
        None => TokenizerConfig::default(),
    };
    let ids: SpecialIds = folder.config()?;
    let generation: SpecialIds = match &folder.generation_config_json {
        Some(text) => serde_json::from_str(text).map_err(json_error("generation_config.json"))?,
        None => SpecialIds::default(),
    };
    if json.model.model_type != "BPE" {
        return Err(fault(ConvertFault::Tokenizer {
            what: format!("model type {:?}", json.model.model_type),
        }));
    }
    let kind = pre_tokenizer::kind(&json.pre_tokenizer, &json.normalizer, json.model.byte_fallback);
    let kind = kind.map_err(|what| fault(ConvertFault::Tokenizer { what }))?;
    let vocabulary = Vocabulary::new(&json, n_vocab);
    let vocabulary = vocabulary.map_err(|what| fault(ConvertFault::Tokenizer { what: what.to_owned() }))?;
    vocabulary.describe(&json, &kind, header);

    let id_of = |token: &Option<Named>| vocabulary.ids.get(token.as_ref()?.text()).copied();
    let bos = id_of(&config.bos_token).or(ids.bos_token_id).or(generation.bos_token_id);
    let ends = [ids.eos(), generation.eos()].concat();
    let eos = id_of(&config.eos_token).or_else(|| ends.first().copied());
    // what ends an answer besides: the end of a turn
    let eot = ends.iter().copied().find(|&id| Some(id) != eos);
    let pad = id_of(&config.pad_token).or(ids.pad_token_id);
    let unknown = id_of(&config.unk_token)
        .or_else(|| json.model.unk_token.as_ref().and_then(|token| vocabulary.ids.get(token).copied()));
    let special = [("bos", bos), ("eos", eos), ("eot", eot), ("padding", pad), ("unknown", unknown)];
    for (name, id) in special {
        if let Some(id) = id {
            header.set(format!("tokenizer.ggml.{name}_token_id"), &id);
        }
    }
    let (first, last) = pre_tokenizer::added_around(&json.post_processor, &vocabulary.ids);
    let template = first.is_some() || last.is_some();
    let adds = |token: Option<u32>, id: Option<u32>, said: Option<bool>| match template {
        true => token.is_some() && token == id,
        false => said.unwrap_or(false) && id.is_some(),
    };
    header.set("tokenizer.ggml.add_bos_token", &adds(first, bos, config.add_bos_token));
    header.set("tokenizer.ggml.add_eos_token", &adds(last, eos, config.add_eos_token));
    if let Some(template) = chat_template(folder, &config) {
        header.set("tokenizer.chat_template", template);
    }
    Ok(())
}

/// The template of its own file, or of the config: the default one of several.
fn chat_template<'a>(folder: &'a HuggingFace, config: &'a TokenizerConfig) -> Option<&'a str> {
    if let Some(template) = &folder.chat_template {
        return Some(template);
    }
    match config.chat_template.as_ref()? {
        Value::String(template) => Some(template),
        Value::Array(named) => {
            named.iter().find(|entry| entry["name"] == "default").and_then(|entry| entry["template"].as_str())
        }
        _ => None,
    }
}

/// Tokens by id and ids by token.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<TokenType>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// The tokens of model and additions, filled up to `n_vocab`; else what is wrong with them.
    fn new(json: &TokenizerJson, n_vocab: u32) -> Result<Self, &'static str> {
        /// More than any vocabulary has: what passes it is a mistake in the file.
        const MOST: usize = 1 << 22;
        let mut ids = HashMap::new();
        for (token, id) in json.model.vocab.as_object().ok_or("a vocabulary that is no table of tokens")? {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            ids.insert(token.clone(), id.ok_or("a token whose id is no number of 32 bits")?);
        }
        ids.extend(json.added_tokens.iter().map(|token| (token.content.clone(), token.id)));
        let beyond = ids.values().map(|&id| id as usize + 1).max().unwrap_or(0);
        let len = beyond.max(n_vocab as usize);
        if len > MOST {
            return Err("a vocabulary of more than 4,194,304 tokens");
        }
        let mut tokens: Vec<String> = (0..len).map(|id| format!("[PAD{id}]")).collect();
        let mut types = vec![TokenType::Unused; len];
        for (token, &id) in &ids {
            tokens[id as usize].clone_from(token);
            types[id as usize] = match json.model.byte_fallback && is_byte(token) {
                true => TokenType::Byte,
                false => TokenType::Normal,
            };
        }
        for token in &json.added_tokens {
            types[token.id as usize] =
                if token.special { TokenType::Control } else { TokenType::UserDefined };
        }
        if let Some(id) = json.model.unk_token.as_ref().and_then(|token| ids.get(token)) {
            types[*id as usize] = TokenType::Unknown;
        }
        Ok(Self { tokens, types, ids })
    }

    fn describe(&self, json: &TokenizerJson, kind: &Kind, header: &mut HeaderWriter) {
        let types: Vec<i32> = self.types.iter().map(|&token_type| token_type as i32).collect();
        match kind {
            Kind::ByteLevel { pre } => {
                header.set("tokenizer.ggml.model", "gpt2");
                header.set("tokenizer.ggml.pre", *pre);
                let merges: Vec<String> = json.model.merges.iter().map(Merge::text).collect();
                header.set("tokenizer.ggml.merges", &merges[..]);
            }
            Kind::SentencePiece { space_prefix } => {
                header.set("tokenizer.ggml.model", "llama");
                header.set("tokenizer.ggml.pre", "default");
                header.set("tokenizer.ggml.add_space_prefix", space_prefix);
                header.set("tokenizer.ggml.scores", &self.scores(&json.model.merges)[..]);
            }
        }
        header.set("tokenizer.ggml.tokens", &self.tokens[..]);
        header.set("tokenizer.ggml.token_type", &types[..]);
    }

    /// SentencePiece merges what makes the token of the highest score: the earlier a merge, the higher.
    fn scores(&self, merges: &[Merge]) -> Vec<f32> {
        let mut scores: Vec<f32> = self
            .types
            .iter()
            .map(|token_type| match token_type {
                TokenType::Normal | TokenType::Byte => 0.0,
                _ => NO_SCORE,
            })
            .collect();
        for (rank, merge) in merges.iter().enumerate().rev() {
            if let Some(&id) = self.ids.get(&merge.merged()) {
                scores[id as usize] = -(rank as f32);
            }
        }
        scores
    }
}

/// Whether the token stands for a byte: `<0x41>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}
