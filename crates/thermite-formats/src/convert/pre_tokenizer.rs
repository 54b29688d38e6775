//! How a tokenizer cuts a text before it merges: GGUF has names for what Hugging Face spells out.

use std::collections::HashMap;

use serde_json::Value;

/// What kind of tokenizer GGUF would call it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Byte-level BPE: `tokenizer.ggml.model` is `gpt2`.
    ByteLevel {
        /// `tokenizer.ggml.pre`.
        pre: &'static str,
    },
    /// BPE over characters with bytes for the rest: `tokenizer.ggml.model` is `llama`.
    SentencePiece {
        /// Whether a space is put before a text.
        space_prefix: bool,
    },
}

/// How Llama 3 cuts a text.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen 2 and 3 cut a text: as Llama 3, but for digits, which stand alone.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What SentencePiece writes for a space.
const SPACE: &str = "▁";

/// The kind of a tokenizer with these parts; else what GGUF has no name for.
pub(super) fn kind(pre_tokenizer: &Value, normalizer: &Value, byte_fallback: bool) -> Result<Kind, String> {
    let steps = sequence(pre_tokenizer, "pretokenizers");
    let before = sequence(normalizer, "normalizers");
    if byte_fallback {
        return sentence_piece(&steps, &before);
    }
    let types: Vec<&str> = steps.iter().map(|step| step["type"].as_str().unwrap_or_default()).collect();
    let last = steps.last().copied().unwrap_or(&Value::Null);
    let own_regex = last["use_regex"].as_bool().unwrap_or(true);
    let pre = match (&types[..], own_regex) {
        (["ByteLevel"], true) => "gpt-2",
        (["Digits", "ByteLevel"], true) if steps[0]["individual_digits"] == true => "smollm",
        (["Split", "ByteLevel"], false) => match steps[0]["pattern"]["Regex"].as_str() {
            Some(LLAMA_3) => "llama-bpe",
            Some(QWEN_2) => "qwen2",
            _ => return Err(format!("the pre-tokenizer {}", short(pre_tokenizer))),
        },
        _ => return Err(format!("the pre-tokenizer {}", short(pre_tokenizer))),
    };
    if last["add_prefix_space"] == true {
        return Err("a pre-tokenizer that adds a space before a text".to_owned());
    }
    // Qwen's normal form: texts are in it already, but for rare ones
    let known = before.is_empty() || (pre == "qwen2" && before.iter().all(|step| step["type"] == "NFC"));
    if known { Ok(Kind::ByteLevel { pre }) } else { Err(format!("the normalizer {}", short(normalizer))) }
}

/// Spaces become `▁`, by the normalizer or by the pre-tokenizer, and one may be put first.
fn sentence_piece(steps: &[&Value], before: &[&Value]) -> Result<Kind, String> {
    let mut space_prefix = false;
    for step in before.iter().chain(steps) {
        match step["type"].as_str().unwrap_or_default() {
            "Prepend" if step["prepend"] == SPACE => space_prefix = true,
            "Replace" if step["pattern"]["String"] == " " && step["content"] == SPACE => {}
            // Gemma: a split at spaces, of which the normalizer has left none
            "Split" if step["pattern"]["String"] == " " => {}
            "Metaspace" => {
                space_prefix = match step["prepend_scheme"].as_str() {
                    Some(scheme) => scheme != "never",
                    None => step["add_prefix_space"].as_bool().unwrap_or(true),
                };
            }
            _ => return Err(format!("{}, with byte_fallback", short(step))),
        }
    }
    Ok(Kind::SentencePiece { space_prefix })
}

/// The ids that a post-processor puts before and after a text.
pub(super) fn added_around(post_processor: &Value, ids: &HashMap<String, u32>) -> (Option<u32>, Option<u32>) {
    let steps = sequence(post_processor, "processors");
    let Some(template) = steps.into_iter().find(|step| step["type"] == "TemplateProcessing") else {
        return (None, None);
    };
    let parts = template["single"].as_array().map_or(&[][..], Vec::as_slice);
    let id = |part: Option<&Value>| ids.get(part?["SpecialToken"]["id"].as_str()?).copied();
    (id(parts.first()), id(parts.last()))
}

/// The steps of a part that may be none, one, or a sequence.
fn sequence<'a>(part: &'a Value, steps: &str) -> Vec<&'a Value> {
    match part {
        Value::Null => Vec::new(),
        _ if part["type"] == "Sequence" => part[steps].as_array().into_iter().flatten().collect(),
        _ => vec![part],
    }
}

/// JSON for a message.
fn short(value: &Value) -> String {
    const SHOWN: usize = 120;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
