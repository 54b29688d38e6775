//! Tokenizers from GGUF vocabularies: small ones written out here, and real ones against llama.cpp's token ids.
#![allow(clippy::unwrap_used)] // a test may

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use thermite_engine::chat::{ChatTemplates, Conversation, Message, Prompt};
use thermite_engine::{Joining, TokenKind, Tokenizer, VocabularyParts, load_chat_templates, load_tokenizer};
use thermite_formats::ModelFiles;
use thermite_formats::gguf::Gguf;

fn parts<'a>(tokens: Vec<&'a str>, kinds: Vec<TokenKind>, joining: Joining<'a>) -> VocabularyParts<'a> {
    VocabularyParts {
        tokens,
        kinds: Some(kinds),
        joining,
        bos: None,
        eos: Vec::new(),
        unknown: None,
        add_bos: None,
        add_eos: false,
        add_space_prefix: false,
    }
}

/// Byte-level: all the bytes of ASCII that stand for themselves, a few merges, two special tokens.
fn byte_level() -> VocabularyParts<'static> {
    const LETTERS: &str = "! \" # $ % & ' ( ) * + , - . / 0 1 2 3 4 5 6 7 8 9 : ; < = > ? @ A B C a b c d e f g h i l m n o t w | Ġ Ċ Ã ©";
    const MORE: [&str; 8] = ["Ġt", "he", "Ġthe", "ab", "abc", "<|end|>", "Ã©", "  "];
    let tokens: Vec<&str> = LETTERS.split(' ').chain(MORE).collect();
    let mut kinds = vec![TokenKind::Normal; tokens.len()];
    let count = tokens.len();
    kinds[count - 3] = TokenKind::Control;
    kinds[count - 1] = TokenKind::UserDefined;
    let merges = vec!["Ġ t", "h e", "Ġt he", "a b", "ab c", "Ã ©"];
    parts(tokens, kinds, Joining::Merges { merges, pre: "gpt-2" })
}

/// Scored: three special tokens, all bytes, a few pieces.
fn scored(spelled_bytes: &[String]) -> VocabularyParts<'_> {
    let mut tokens = vec!["<unk>", "<s>", "</s>"];
    let mut kinds = vec![TokenKind::Unknown, TokenKind::Control, TokenKind::Control];
    let mut scores = vec![0.0; 3];
    for byte in spelled_bytes {
        tokens.push(byte);
        kinds.push(TokenKind::Byte);
        scores.push(0.0);
    }
    for (piece, score) in
        [("▁", -9.0), ("a", -8.0), ("b", -7.0), ("▁a", -3.0), ("ab", -1.0), ("▁ab", -2.0), ("ba", -4.0)]
    {
        tokens.push(piece);
        kinds.push(TokenKind::Normal);
        scores.push(score);
    }
    tokens.push("\n\n");
    kinds.push(TokenKind::UserDefined);
    scores.push(-1000.0);
    VocabularyParts {
        bos: Some(1),
        eos: vec![2],
        unknown: Some(0),
        add_space_prefix: true,
        ..parts(tokens, kinds, Joining::Scores(scores))
    }
}

fn spelled_bytes() -> Vec<String> {
    (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect()
}

fn pieces(tokenizer: &Tokenizer, text: &str, add_special: bool, parse_special: bool) -> Vec<String> {
    let ids = tokenizer.encode(text, add_special, parse_special).unwrap();
    ids.iter().map(|&id| tokenizer.token_piece(id).unwrap()).collect()
}

#[test]
fn byte_level_words_are_merged_in_rank_order() {
    let tokenizer = Tokenizer::from_parts(&byte_level()).unwrap();
    let plain = |text| pieces(&tokenizer, text, true, false);
    assert_eq!(plain("the the"), ["t", "he", "Ġthe"]);
    assert_eq!(plain("abcab é\n"), ["abc", "ab", "Ġ", "Ã©", "Ċ"]);
    // a special token is text where it is not asked for, one that the user has defined is itself everywhere
    assert_eq!(plain("a<|end|>").concat(), "a<|end|>");
    assert_eq!(plain("a<|end|>").len(), 8);
    assert_eq!(pieces(&tokenizer, "a<|end|>b", false, true), ["a", "<|end|>", "b"]);
    assert_eq!(plain("a  b"), ["a", "  ", "b"]);
    assert_eq!(
        tokenizer.decode(&tokenizer.encode("the  é<|end|>", false, true).unwrap(), false),
        "the  é<|end|>"
    );
    assert_eq!(tokenizer.decode(&tokenizer.encode("the  é<|end|>", false, true).unwrap(), true), "the  é");
    assert_eq!(tokenizer.special_tokens(), ["<|end|>"]);
    let error = tokenizer.encode("z", false, false).unwrap_err().to_string();
    assert_eq!(error, "the text cannot be tokenized: the vocabulary has no token for the byte 0x7A");
}

#[test]
fn whole_words_come_before_merges_where_the_model_says_so() {
    let vocabulary = VocabularyParts { bos: Some(0), ..byte_level() };
    let Joining::Merges { mut merges, .. } = vocabulary.joining.clone() else { unreachable!() };
    merges.truncate(2); // what "abc" is merged from is gone
    let with = |pre| {
        Tokenizer::from_parts(&VocabularyParts {
            joining: Joining::Merges { merges: merges.clone(), pre },
            ..vocabulary.clone()
        })
    };
    assert_eq!(pieces(&with("gpt-2").unwrap(), "abc", true, false), ["a", "b", "c"]);
    assert_eq!(pieces(&with("llama-bpe").unwrap(), "abc", true, false), ["!", "abc"]); // with the BOS token
    let error = with("gpt-5").unwrap_err().to_string();
    assert!(
        error.starts_with("tokenizer.ggml.pre: the pre-tokeniser \"gpt-5\" is unknown; known are gpt-2, "),
        "{error}"
    );
}

#[test]
fn scored_pieces_are_merged_by_score_and_bytes_spell_the_rest() {
    let bytes = spelled_bytes();
    let tokenizer = Tokenizer::from_parts(&scored(&bytes)).unwrap();
    let plain = |text| pieces(&tokenizer, text, false, false);
    assert_eq!(plain("ab"), ["▁ab"]);
    assert_eq!(plain("bab a"), ["▁", "b", "ab", "▁a"]); // "ab" scores more than "ba"
    assert_eq!(plain("é"), ["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(plain("a\n\na"), ["▁a", "\n\n", "▁a"]); // a space before what follows a token
    assert_eq!(plain("<s>")[1..], ["<0x3C>", "<0x73>", "<0x3E>"]);
    assert_eq!(plain("<0x0A>").len(), 7);
    assert_eq!(pieces(&tokenizer, "a</s>", true, true), ["<s>", "▁a", "</s>"]);
    assert_eq!(plain(""), [""; 0]);
    let ids = tokenizer.encode("ab é\n\n b", true, false).unwrap();
    assert_eq!(tokenizer.decode(&ids, true), "ab é\n\n  b"); // each text has its space, of which the first is hidden
    let mut inside = tokenizer.detokenizer(true).inside_a_text();
    assert_eq!(inside.push(tokenizer.token_id("▁a").unwrap()).as_deref(), Some(" a"));

    // without bytes there is the unknown token, without that an error
    let none = Tokenizer::from_parts(&scored(&[])).unwrap();
    assert_eq!(pieces(&none, "aé", false, false), ["▁a", "<unk>"]);
    let error = Tokenizer::from_parts(&VocabularyParts { unknown: None, ..scored(&[]) }).unwrap();
    let error = error.encode("é", false, false).unwrap_err().to_string();
    assert_eq!(
        error,
        "the text cannot be tokenized: the vocabulary has no token for \"é\", nor for its bytes"
    );
}

#[test]
fn what_begins_and_ends_a_text() {
    let bytes = spelled_bytes();
    let with = |add_bos, add_eos| {
        Tokenizer::from_parts(&VocabularyParts { add_bos, add_eos, ..scored(&bytes) }).unwrap()
    };
    assert_eq!(pieces(&with(None, false), "a", true, false), ["<s>", "▁a"]);
    assert_eq!(pieces(&with(Some(false), true), "a", true, false), ["▁a", "</s>"]);
    assert_eq!(pieces(&with(Some(true), true), "", true, false), ["<s>", "</s>"]);
    assert_eq!(pieces(&with(Some(true), true), "a", false, false), ["▁a"]);
    let tokenizer = with(None, false);
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_ids()), (Some(1), &[2][..]));
    assert!(tokenizer.is_eos(2) && tokenizer.is_special(0) && !tokenizer.is_special(9));
}

#[test]
fn contradictory_vocabularies_are_refused() {
    let bytes = spelled_bytes();
    let count = scored(&bytes).tokens.len();
    let error = |parts: VocabularyParts<'_>| Tokenizer::from_parts(&parts).unwrap_err().to_string();
    let cases = [
        (
            VocabularyParts { eos: vec![count as u32], ..scored(&bytes) },
            "the eos token is 267, but there are 267 tokens",
        ),
        (VocabularyParts { kinds: Some(vec![]), ..scored(&bytes) }, "267 tokens, but 0 token types"),
        (
            VocabularyParts { joining: Joining::Scores(vec![0.0]), ..scored(&bytes) },
            "267 tokens, but 1 scores",
        ),
        (
            VocabularyParts { bos: None, add_bos: Some(true), ..scored(&bytes) },
            "add_bos_token is set, but there is no bos token",
        ),
    ];
    for (parts, reason) in cases {
        assert_eq!(error(parts), format!("the vocabulary is contradictory: {reason}"));
    }
    let merge = |merge| {
        let joining = Joining::Merges { merges: vec!["a b", merge], pre: "gpt-2" };
        error(VocabularyParts { joining, ..byte_level() })
    };
    assert_eq!(merge("a x"), r#"tokenizer.ggml.merges: merge 1 ("a x"): "x" is not in the vocabulary"#);
    assert_eq!(merge("a g"), r#"tokenizer.ggml.merges: merge 1 ("a g"): "ag" is not in the vocabulary"#);
    assert!(merge("ab").ends_with("two spellings with a space between them are needed"));
}

#[test]
fn breaks_keep_tokens_apart_and_nothing_else() {
    let bytes = spelled_bytes();
    for tokenizer in
        [Tokenizer::from_parts(&scored(&bytes)).unwrap(), Tokenizer::from_parts(&byte_level()).unwrap()]
    {
        for special in tokenizer.special_tokens() {
            let text = format!("a{special}ab{special}");
            let breaks = vec![2, 5 + special.len()];
            let ids = tokenizer.encode_prompt(&Prompt { text: text.clone(), breaks }).unwrap();
            assert!(!ids.iter().any(|&id| tokenizer.is_special(id)), "{special}");
            assert_eq!(ids, tokenizer.encode(&text, false, false).unwrap());
            let ids = tokenizer.encode_prompt(&Prompt::from(text.clone())).unwrap();
            assert_eq!(ids, tokenizer.encode(&text, false, true).unwrap());
        }
    }
}

proptest! {
    #[test]
    fn every_text_comes_back(text in "[ab \\n\\PC]{0,30}") {
        let bytes = spelled_bytes();
        let tokenizer = Tokenizer::from_parts(&scored(&bytes)).unwrap();
        prop_assume!(!text.contains('▁') && !text.contains("\n\n"));
        let ids = tokenizer.encode(&text, true, false).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, true), text);
    }
}

/// A value of a GGUF file.
enum Item<'a> {
    Text(&'a str),
    Id(u32),
    Flag(bool),
    Texts(&'a [&'a str]),
    Floats(&'a [f32]),
    Ints(&'a [i32]),
}

/// A GGUF file of these pairs, without tensors.
fn gguf(pairs: &[(&str, Item<'_>)]) -> Gguf {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let array = |element: u32, len: usize, items: Vec<u8>| {
        [&9u32.to_le_bytes()[..], &element.to_le_bytes(), &(len as u64).to_le_bytes(), &items].concat()
    };
    let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes()].concat();
    file.extend((pairs.len() as u64).to_le_bytes());
    for (key, item) in pairs {
        file.extend(text(key));
        file.extend(match item {
            Item::Text(value) => [&8u32.to_le_bytes()[..], &text(value)].concat(),
            Item::Id(value) => [4u32.to_le_bytes(), value.to_le_bytes()].concat(),
            Item::Flag(value) => [&7u32.to_le_bytes()[..], &[u8::from(*value)]].concat(),
            Item::Texts(values) => {
                array(8, values.len(), values.iter().flat_map(|value| text(value)).collect())
            }
            Item::Floats(values) => {
                array(6, values.len(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            Item::Ints(values) => {
                array(5, values.len(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
        });
    }
    Gguf::in_memory("test.gguf", file).unwrap()
}

#[test]
fn vocabularies_are_read_from_metadata() {
    let file = gguf(&[
        ("tokenizer.ggml.model", Item::Text("gpt2")),
        ("tokenizer.ggml.pre", Item::Text("qwen2")),
        ("tokenizer.ggml.tokens", Item::Texts(&["a", "b", "ab", "<|end|>", "<|im_end|>", "c"])),
        ("tokenizer.ggml.token_type", Item::Ints(&[1, 1, 1, 3, 3, 4])),
        ("tokenizer.ggml.merges", Item::Texts(&["a b"])),
        ("tokenizer.ggml.bos_token_id", Item::Id(3)),
        ("tokenizer.ggml.eos_token_id", Item::Id(5)),
        ("tokenizer.ggml.eot_token_id", Item::Id(2)),
        ("tokenizer.ggml.add_bos_token", Item::Flag(true)),
    ]);
    use TokenKind::{Control, Normal, UserDefined};
    let read = VocabularyParts::from_gguf(&file.metadata).unwrap();
    let expected = VocabularyParts {
        bos: Some(3),
        eos: vec![5, 2, 3, 4], // what the keys say, and control tokens that are known to end a turn
        add_bos: Some(true),
        ..parts(
            vec!["a", "b", "ab", "<|end|>", "<|im_end|>", "c"],
            vec![Normal, Normal, Normal, Control, Control, UserDefined],
            Joining::Merges { merges: vec!["a b"], pre: "qwen2" },
        )
    };
    assert_eq!(read, expected);
    let tokenizer = Tokenizer::from_gguf(&file.metadata).unwrap();
    assert_eq!(pieces(&tokenizer, "abc", true, true), ["<|end|>", "ab", "c"]);
    assert_eq!(tokenizer.eos_ids(), [2, 3, 4, 5]);

    // a scored vocabulary that says nothing has SentencePiece's own places and ways
    let file = gguf(&[
        ("tokenizer.ggml.model", Item::Text("llama")),
        ("tokenizer.ggml.tokens", Item::Texts(&["<unk>", "<s>", "</s>", "▁", "a"])),
        ("tokenizer.ggml.scores", Item::Floats(&[0.0, 0.0, 0.0, -1.0, -2.0])),
        ("tokenizer.ggml.token_type", Item::Ints(&[2, 3, 3, 1, 1])),
    ]);
    let tokenizer = Tokenizer::from_gguf(&file.metadata).unwrap();
    assert_eq!(pieces(&tokenizer, "aé", true, false), ["<s>", "▁", "a", "<unk>"]);
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_ids()), (Some(1), &[2][..]));
}

#[test]
fn vocabularies_that_are_not_known_are_named() {
    let error =
        |pairs: &[(&str, Item<'_>)]| Tokenizer::from_gguf(&gguf(pairs).metadata).unwrap_err().to_string();
    let tokens = || ("tokenizer.ggml.tokens", Item::Texts(&["a"]));
    assert_eq!(error(&[]), "test.gguf: no key tokenizer.ggml.tokens");
    let bert = error(&[tokens(), ("tokenizer.ggml.model", Item::Text("bert"))]);
    assert_eq!(bert, "tokenizer.ggml.model is \"bert\"; known are gpt2, llama");
    let scores = error(&[tokens(), ("tokenizer.ggml.model", Item::Text("llama"))]);
    assert!(scores.starts_with("test.gguf: no key tokenizer.ggml.scores"), "{scores}");
    let kind = error(&[tokens(), ("tokenizer.ggml.token_type", Item::Ints(&[9]))]);
    assert_eq!(kind, "the vocabulary is contradictory: token 0 is of type 9, which is unknown");
}

#[test]
fn chat_templates_are_read_from_metadata() {
    let tokens = &["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"];
    let vocabulary = || {
        vec![
            ("tokenizer.ggml.model", Item::Text("llama")),
            ("tokenizer.ggml.tokens", Item::Texts(tokens)),
            ("tokenizer.ggml.scores", Item::Floats(&[0.0; 5])),
            ("tokenizer.ggml.token_type", Item::Ints(&[2, 3, 3, 3, 3])),
        ]
    };
    let of = |pairs: &[(&str, Item<'_>)]| {
        let files = ModelFiles::of_gguf(gguf(pairs)).unwrap();
        let tokenizer = load_tokenizer(&files).unwrap();
        (load_chat_templates(&files, &tokenizer), tokenizer)
    };
    let hello = Conversation::new(&[Message::new("user", "Hello")]);
    let mut pairs = vocabulary();
    pairs.push(("tokenizer.chat_template", Item::Text("{{ bos_token + messages[0].content + eos_token }}")));
    let templates = of(&pairs).0.unwrap().unwrap();
    assert_eq!(templates.of(&hello).render(&hello).unwrap(), "<s>Hello</s>");
    pairs.pop();
    pairs.push(("tokenizer.chat_template", Item::Text("{% if %}")));
    let error = of(&pairs).0.unwrap_err().to_string();
    assert!(
        error.starts_with("test.gguf: the chat template default in the GGUF file's metadata, line 1: "),
        "{error}"
    );

    // without one, the tokens tell
    let (none, tokenizer) = of(&vocabulary());
    assert!(none.unwrap().is_none());
    let (templates, name) = ChatTemplates::of_vocabulary(&tokenizer).unwrap();
    assert_eq!(name, "ChatML");
    assert!(templates.of(&hello).render(&hello).unwrap().starts_with("<|im_start|>user\nHello<|im_end|>\n"));
}

fn downloaded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/downloaded").join(name)
}

/// All four ways to tokenize every string, as llama.cpp does it.
fn check_reference(file: &str, reference: &str) {
    let gguf = Gguf::open(&downloaded(file)).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf.metadata).unwrap();
    let entries: Vec<Value> = serde_json::from_str(reference).unwrap();
    assert_eq!(entries.len(), 25);
    for entry in entries {
        let text = entry["text"].as_str().unwrap();
        for (column, add_special, parse_special) in [
            ("plain", false, false),
            ("add_special", true, false),
            ("parse_special", false, true),
            ("add_and_parse", true, true),
        ] {
            let ids = tokenizer.encode(text, add_special, parse_special).unwrap();
            assert_eq!(Value::from(ids), entry[column], "{column} of {text:?}");
        }
        let ids = tokenizer.encode(text, false, false).unwrap();
        let back = tokenizer.decode(&ids, false);
        assert_eq!(Value::from(back == text), entry["roundtrip_ok"], "{text:?} became {back:?}");
    }
}

#[test]
#[ignore = "needs models/fetch.sh"]
fn smollm2_has_the_ids_of_llama_cpp() {
    let reference = include_str!("token_ids/SmolLM2-135M-Instruct.Q4_1.json");
    check_reference("SmolLM2-135M-Instruct.Q4_1.gguf", reference);
}

#[test]
#[ignore = "needs models/fetch.sh"]
fn gemma3_has_the_ids_of_llama_cpp() {
    check_reference("gemma-3-270m-q4_k_m.gguf", include_str!("token_ids/gemma-3-270m-q4_k_m.json"));
}
