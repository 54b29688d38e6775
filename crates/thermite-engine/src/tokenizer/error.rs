//! What can be wrong with a tokenizer, or with what it is asked.

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
    /// A part is of a type that is not known.
    #[error("tokenizer.json: {part} is of type {found:?}; known are {known}")]
    Type {
        /// The part.
        part: &'static str,
        /// Its type.
        found: String,
        /// The types that are known.
        known: String,
    },
    /// A part has not the fields that its type has.
    #[error("tokenizer.json: {part}: the fields are not those of the type {found:?}")]
    Fields {
        /// The part.
        part: &'static str,
        /// Its type.
        found: String,
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
    /// The metadata of a GGUF file.
    #[error(transparent)]
    Gguf(#[from] thermite_formats::Error),
    /// A kind of vocabulary that is not known.
    #[error("{key} is {model:?}; known are {known}")]
    Model {
        /// The key.
        key: &'static str,
        /// The kind in the file.
        model: String,
        /// The kinds that are known.
        known: &'static str,
    },
    /// A pre-tokeniser that is not known.
    #[error("tokenizer.ggml.pre: the pre-tokeniser {name:?} is unknown; known are {known}")]
    PreTokenizer {
        /// Its name in the file.
        name: String,
        /// The names that are known.
        known: String,
    },
    /// A merge of tokens that are not there.
    #[error("tokenizer.ggml.merges: merge {index} ({merge:?}): {reason}")]
    Merge {
        /// Its place.
        index: usize,
        /// Its text.
        merge: String,
        /// Why.
        reason: String,
    },
    /// The parts of a vocabulary do not fit together.
    #[error("the vocabulary is contradictory: {reason}")]
    Vocabulary {
        /// Why.
        reason: String,
    },
    /// The text cannot be written in this vocabulary.
    #[error("the text cannot be tokenized: {reason}")]
    Encode {
        /// Why.
        reason: String,
    },
}
