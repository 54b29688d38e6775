//! The tokenizer of stories-3m, and small ones of other kinds, against the tokenizers library.
#![allow(clippy::unwrap_used)] // a test may

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use thermite_engine::{SpecialTokens, Tokenizer, TokenizerError};
use thermite_stories_3m::{CONFIG_JSON, GENERATION_CONFIG_JSON, TOKENIZER_JSON};

static STORIES: LazyLock<Tokenizer> = LazyLock::new(|| {
    let special = SpecialTokens::from_configs(CONFIG_JSON, None, Some(GENERATION_CONFIG_JSON)).unwrap();
    Tokenizer::from_bytes(TOKENIZER_JSON, &special).unwrap()
});

static STORIES_BY_LIBRARY: LazyLock<tokenizers::Tokenizer> =
    LazyLock::new(|| tokenizers::Tokenizer::from_bytes(TOKENIZER_JSON).unwrap());

fn model_file(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/stories-3m");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// A SentencePiece-like vocabulary: `▁` for spaces, bytes for all it does not have.
fn with_byte_fallback() -> Value {
    let mut vocab = serde_json::Map::new();
    for piece in ["<unk>", "<s>", "</s>"] {
        vocab.insert(piece.to_owned(), vocab.len().into());
    }
    for byte in 0..=255 {
        vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
    }
    for piece in ["▁", "a", "b", "▁a", "ab", "▁▁"] {
        vocab.insert(piece.to_owned(), vocab.len().into());
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": vocab,
            "merges": [["▁", "a"], ["a", "b"], ["▁", "▁"]]},
    })
}

fn load(json: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_bytes(json.to_string().as_bytes(), &SpecialTokens::default())
}

fn by_library(json: &Value) -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    tokenizer.with_truncation(None).unwrap();
    tokenizer
}

/// What a detokenizer gives, token by token; each piece is text already, so no character is split.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut detokenizer = tokenizer.detokenizer(skip_special);
    let mut text = String::new();
    for &id in ids {
        if let Some(piece) = detokenizer.push(id) {
            assert!(!piece.is_empty());
            text.push_str(&piece);
        }
    }
    text.extend(detokenizer.finish());
    text
}

#[test]
fn the_prompts_of_the_reference_have_its_ids() {
    let reference: Value = serde_json::from_str(&model_file("reference.json")).unwrap();
    for entry in reference["prompts"].as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(entry["ids"].clone()).unwrap();
        let greedy: Vec<u32> = serde_json::from_value(entry["greedy"].clone()).unwrap();
        let prompt = entry["prompt"].as_str().unwrap();
        assert_eq!(STORIES.encode(prompt, true, true).unwrap(), ids);
        assert!(greedy.starts_with(&ids)); // the prompt and what follows it
        assert_eq!(STORIES.decode(&greedy, false), entry["text"].as_str().unwrap());
    }
}

#[test]
fn the_validation_text_has_116804_ids_and_comes_back_whole() {
    let text = model_file("validation.txt");
    let ids = STORIES.encode(&text, true, true).unwrap();
    assert_eq!(ids.len(), 116_804);
    assert_eq!(ids.iter().filter(|&&id| STORIES.is_eos(id)).count(), text.matches("<|endoftext|>").count());
    assert_eq!(STORIES.decode(&ids, false), text);
    assert_eq!(STORIES.decode(&ids, true), text.replace("<|endoftext|>", ""));
}

#[test]
fn special_tokens_are_text_where_they_are_not_asked_for() {
    let text = "a<|endoftext|>b";
    let parsed = STORIES.encode(text, true, true).unwrap();
    let literal = STORIES.encode(text, true, false).unwrap();
    assert_eq!(parsed.iter().filter(|&&id| id == 0).count(), 1);
    assert!(!literal.contains(&0) && literal.len() > parsed.len());
    assert_eq!(STORIES.decode(&literal, true), text);
    assert_eq!(STORIES.decode(&parsed, true), "ab");
}

#[test]
fn what_the_vocabulary_says() {
    assert_eq!(STORIES.vocab_size(), 4096);
    assert_eq!((STORIES.bos_id(), STORIES.eos_ids()), (Some(0), &[0][..]));
    assert!(STORIES.is_eos(0) && STORIES.is_special(0) && !STORIES.is_special(1));
    let once = STORIES.encode(" once", false, false).unwrap();
    assert_eq!(STORIES.token_piece(once[0]).as_deref(), Some("Ġonce"));
    assert_eq!(STORIES.token_id("Ġonce"), Some(once[0]));
    assert_eq!(STORIES.bytes(once[0]).unwrap(), b" once");
    assert_eq!((STORIES.token_piece(4096), STORIES.bytes(4096)), (None, None));
    assert_eq!(STORIES.decode(&[4096, once[0], u32::MAX], false), " once");
    assert!(STORIES.encode("", true, true).unwrap().is_empty());
}

#[test]
fn a_prompt_is_never_truncated_and_gets_its_first_token() {
    let tokenizer = load(&with_byte_fallback()).unwrap();
    let ids = tokenizer.encode("ab a  é", true, true).unwrap();
    assert_eq!(ids[0], 1);
    assert!(ids.len() > 5, "{ids:?}");
    assert_eq!(tokenizer.decode(&ids, true), "ab a  é");
    assert_eq!(tokenizer.encode("ab a  é", false, true).unwrap(), ids[1..]);
}

#[test]
fn a_special_token_looked_for_in_normalized_text_is_text_too() {
    let mut json = with_byte_fallback();
    json["normalizer"] = json!({"type": "Lowercase"});
    json["added_tokens"][1]["normalized"] = json!(true);
    let tokenizer = load(&json).unwrap();
    assert_eq!(tokenizer.encode("a<S>b", false, true).unwrap().len(), 3);
    let literal = tokenizer.encode("a<S>b", false, false).unwrap();
    assert_eq!(literal.len(), 5);
    assert!(!literal.contains(&1));
}

#[test]
fn dropout_of_the_training_is_not_used() {
    let mut json = with_byte_fallback();
    json["model"]["dropout"] = json!(0.9);
    let tokenizer = load(&json).unwrap();
    let text = "a a a a a a a a a a a a";
    let ids = tokenizer.encode(text, false, false).unwrap();
    assert_eq!(ids.len(), 12);
    let again = load(&json).unwrap();
    assert_eq!(again.encode(text, false, false).unwrap(), ids);
}

#[test]
fn tokenizers_of_a_wrong_form_are_refused() {
    let good = with_byte_fallback();
    let broken = |pointer: &str, value: Value| {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        load(&json).expect_err(pointer).to_string()
    };
    for (pointer, value, named) in [
        ("/version", json!("2.0"), "version 2.0"),
        ("/model", json!({"type": "BPE"}), "model"),
        ("/model", json!(3), "model"),
        ("/model/merges", json!([["a", "nobody"]]), "model"),
        ("/decoder", json!({"type": "CTC"}), "CTC"),
        ("/decoder", json!([]), "decoder"),
        ("/normalizer", json!({"type": "Nobody"}), "normalizer"),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "!"}), "tokenizer.json"),
        ("/pre_tokenizer", json!({"type": "Nobody"}), "pre_tokenizer"),
        ("/post_processor", json!(7), "post_processor"),
        ("/added_tokens/1/id", json!(77), "\"<s>\" declares id 77, its place is 1"),
        ("/added_tokens/1/content", json!(1), "the file"),
    ] {
        let error = broken(pointer, value);
        assert!(error.contains(named), "{pointer}: {error}");
    }
    let special = SpecialTokens { eos_token: Some("</nobody>".to_owned()), ..SpecialTokens::default() };
    let error = Tokenizer::from_bytes(good.to_string().as_bytes(), &special).unwrap_err();
    assert!(error.to_string().contains("eos_token \"</nobody>\" is not in the vocabulary"));
}

#[test]
fn a_file_truncated_anywhere_is_an_error() {
    let json = with_byte_fallback().to_string();
    for len in 0..json.len() {
        let error = Tokenizer::from_bytes(&json.as_bytes()[..len], &SpecialTokens::default());
        assert!(matches!(error, Err(TokenizerError::Json { .. })), "{len}");
    }
}

#[test]
fn words_without_a_decoder_and_marked_spaces() {
    let words = json!({"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"}});
    let marked = json!({"version": "1.0", "pre_tokenizer": null,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "WordLevel", "vocab": {"▁a": 0, "b": 1, "▁": 2}, "unk_token": "b"}});
    for json in [words, marked] {
        let (ours, theirs) = (load(&json).unwrap(), by_library(&json));
        for ids in [[0, 1, 2], [2, 2, 0], [1, 0, 9], [9, 0, 0]] {
            assert_eq!(streamed(&ours, &ids, false), theirs.decode(&ids, false).unwrap(), "{ids:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_tokens_of_stories_decode_as_by_the_library(
        ids in prop::collection::vec(prop_oneof![0_u32..300, 0_u32..4100], 0..40),
        skip_special in any::<bool>(),
    ) {
        let theirs = STORIES_BY_LIBRARY.decode(&ids, skip_special).unwrap();
        prop_assert_eq!(&streamed(&STORIES, &ids, skip_special), &theirs);
        prop_assert_eq!(&STORIES.decode(&ids, skip_special), &theirs);
    }

    #[test]
    fn any_text_comes_back(text in "\\PC{0,40}|[ab <>|endoftx\n]{0,40}") {
        for parse_special in [false, true] {
            let ids = STORIES.encode(&text, true, parse_special).unwrap();
            prop_assert_eq!(STORIES.decode(&ids, false), text.as_str());
        }
        let theirs = STORIES_BY_LIBRARY.encode(text.as_str(), true).unwrap();
        prop_assert_eq!(STORIES.encode(&text, true, true).unwrap(), theirs.get_ids());
    }

    #[test]
    fn any_text_by_bytes_comes_back_as_by_the_library(text in "[ab ▁é€🦀]{0,12}", skip in any::<bool>()) {
        let (ours, theirs) = BY_BYTES.get_or_init(|| {
            let json = with_byte_fallback();
            (load(&json).unwrap(), by_library(&json))
        });
        let ids = ours.encode(&text, true, true).unwrap();
        let encoding = theirs.encode(text.as_str(), true).unwrap();
        prop_assert_eq!(&ids, encoding.get_ids());
        prop_assert_eq!(streamed(ours, &ids, skip), theirs.decode(&ids, skip).unwrap());
    }

    #[test]
    fn mutated_files_never_panic_their_reader(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut json = with_byte_fallback().to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(json.len());
            json[at] = byte;
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes(&json, &SpecialTokens::default()) {
            tokenizer.decode(&[1, 200, 260], false);
        }
    }
}

static BY_BYTES: std::sync::OnceLock<(Tokenizer, tokenizers::Tokenizer)> = std::sync::OnceLock::new();
