//! What a model's files say of texts: the tokenizer and the chat template.

use thermite_formats::gguf::Metadata;
use thermite_formats::{HuggingFace, ModelFiles, Source};

use crate::chat::{ChatTemplate, ChatTemplates, TemplateError};
use crate::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
use crate::{Error, Result};

/// A GGUF file's chat template, and what those begin with that have a name.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// The tokenizer of a model's files, and what they say of the tokens that begin and end a text.
///
/// # Errors
/// Files that are missing or of another form.
pub fn load_tokenizer(files: &ModelFiles) -> Result<Tokenizer> {
    match &files.source {
        Source::HuggingFace(folder) => {
            let json = folder.tokenizer_json()?;
            special_tokens(folder).and_then(|special| Tokenizer::from_bytes(json, &special)).map_err(
                |source| Error::TokenizerFiles { folder: files.origin.clone(), source: source.into() },
            )
        }
        Source::Gguf(metadata) => Tokenizer::from_gguf(metadata).map_err(|source| match source {
            TokenizerError::Gguf(error) => error.into(), // it names the file
            source => Error::Vocabulary { file: files.origin.clone(), source: source.into() },
        }),
    }
}

fn special_tokens(folder: &HuggingFace) -> Result<SpecialTokens, TokenizerError> {
    SpecialTokens::from_configs(
        &folder.config_json,
        folder.tokenizer_config_json.as_deref(),
        folder.generation_config_json.as_deref(),
    )
}

/// The chat templates in a model's files: `chat_template.jinja`, or what `tokenizer_config.json` has; in a GGUF file
/// `tokenizer.chat_template`. `None` if there are none.
///
/// # Errors
/// Templates that are none, or files of another form.
pub fn load_chat_templates(files: &ModelFiles, tokenizer: &Tokenizer) -> Result<Option<ChatTemplates>> {
    let templates = match &files.source {
        Source::HuggingFace(folder) => of_folder(folder, tokenizer),
        Source::Gguf(metadata) => of_metadata(metadata, tokenizer)?,
    };
    templates.map_err(|source| Error::Templates { files: files.origin.clone(), source: source.into() })
}

fn of_folder(folder: &HuggingFace, tokenizer: &Tokenizer) -> Result<Option<ChatTemplates>, TemplateError> {
    let spelled = special_tokens(folder).unwrap_or_default(); // the tokenizer was made from them
    let bos = spelled.bos_token.or_else(|| tokenizer.token_piece(tokenizer.bos_id()?));
    let eos = spelled.eos_token.or_else(|| tokenizer.token_piece(*tokenizer.eos_ids().first()?));
    if let Some(source) = &folder.chat_template {
        let template = ChatTemplate::new(source, "chat_template.jinja", bos.as_deref(), eos.as_deref())?;
        return Ok(Some(ChatTemplates::new(template)));
    }
    match &folder.tokenizer_config_json {
        Some(json) => ChatTemplates::from_tokenizer_config(json, bos.as_deref(), eos.as_deref()),
        None => Ok(None),
    }
}

type Templates = Result<Option<ChatTemplates>, TemplateError>;

fn of_metadata(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Templates> {
    let eos: Option<u32> = metadata.find("tokenizer.ggml.eos_token_id")?;
    let eos = eos.or_else(|| tokenizer.eos_ids().first().copied());
    let spelled = |id: Option<u32>| id.and_then(|id| tokenizer.token_piece(id));
    let (bos, eos) = (spelled(tokenizer.bos_id()), spelled(eos));
    let mut sources = Vec::new();
    if let Some(default) = metadata.find::<&str>(CHAT_TEMPLATE)? {
        sources.push(("default", default));
    }
    if let Some(tool_use) = metadata.find::<&str>(&format!("{CHAT_TEMPLATE}.tool_use"))? {
        sources.push(("tool_use", tool_use));
    }
    Ok(ChatTemplates::from_named(sources, "the GGUF file's metadata", bos.as_deref(), eos.as_deref()))
}
