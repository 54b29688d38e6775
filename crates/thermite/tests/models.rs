//! Models that are wrong in every way: one line of error each, which names the file and what is wrong in it.

mod common;

use common::{ModelCopy, error, thermite};
use serde_json::json;

/// Spoils a copy of the built-in model; gives the error of using it.
fn spoilt(spoil: impl FnOnce(&ModelCopy)) -> String {
    let model = ModelCopy::new();
    spoil(&model);
    model.error()
}

#[test]
fn missing_and_unreadable_models() {
    assert_eq!(
        error(&mut thermite(["generate", "Hi", "-m", "/no/such model"])),
        "/no/such model: no such file or folder"
    );
    for (file, message) in [
        ("config.json", "MODEL: no config.json in this folder"),
        ("tokenizer.json", "MODEL: no tokenizer.json in this folder"),
        ("model.safetensors", "MODEL: no model.safetensors in this folder"),
    ] {
        let message_of = spoilt(|model| std::fs::remove_file(model.path(file)).unwrap());
        assert_eq!(message_of, message);
        // a folder in its place is there, and cannot be read
        let message = spoilt(|model| {
            std::fs::remove_file(model.path(file)).unwrap();
            std::fs::create_dir(model.path(file)).unwrap();
        });
        assert!(message.starts_with(&format!("MODEL/{file}: cannot be read: ")), "{message}");
    }
    let text = ModelCopy::new();
    let message = error(thermite(["inspect"]).arg(text.path("config.json")));
    assert!(message.contains("config.json: ") && message.contains("is not supported"), "{message}");
}

#[test]
fn configs() {
    let with = |key: &str, value: serde_json::Value| {
        spoilt(|model| model.edit_json("config.json", |config| config[key] = value))
    };
    insta::assert_snapshot!(with("model_type", json!("mamba")));
    insta::assert_snapshot!(with("n_head", json!(5)));
    insta::assert_snapshot!(with("n_layer", json!(7)));
    insta::assert_snapshot!(with("n_embd", json!(96)));
    insta::assert_snapshot!(with("n_positions", json!(1024)));
    insta::assert_snapshot!(with("vocab_size", json!(4095)));
    insta::assert_snapshot!(with("n_inner", json!(0)));
    insta::assert_snapshot!(with("tie_word_embeddings", json!(false)));
    insta::assert_snapshot!(with("activation_function", json!("tan")));
    insta::assert_snapshot!(with("n_layer", json!("six")));
    insta::assert_snapshot!(with("eos_token_id", json!("\u{1b}[31m\n")));
    insta::assert_snapshot!(spoilt(|model| std::fs::write(model.path("config.json"), "{").unwrap()));
    insta::assert_snapshot!(spoilt(|model| std::fs::write(model.path("config.json"), b"\"\xff\"").unwrap()));
}

#[test]
fn tokenizers() {
    insta::assert_snapshot!(spoilt(|model| std::fs::write(model.path("tokenizer.json"), "[]").unwrap()));
    insta::assert_snapshot!(spoilt(
        |model| model.edit_json("tokenizer.json", |t| t["version"] = json!("2.0"))
    ));
    insta::assert_snapshot!(spoilt(
        |model| model.edit_json("tokenizer.json", |t| t["model"]["type"] = json!("X"))
    ));
    insta::assert_snapshot!(spoilt(|model| {
        model.edit_json("tokenizer.json", |t| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
        });
    }));
}

#[test]
fn weights() {
    const C_FC: &str = "transformer.h.3.mlp.c_fc.weight";
    let cut = |len: usize| {
        spoilt(|model| {
            let file = std::fs::read(model.path("model.safetensors")).unwrap();
            std::fs::write(model.path("model.safetensors"), &file[..file.len().min(len)]).unwrap();
        })
    };
    insta::assert_snapshot!(cut(0));
    insta::assert_snapshot!(cut(100));
    insta::assert_snapshot!(cut(1_000_000));
    insta::assert_snapshot!(spoilt(|model| std::fs::write(
        model.path("model.safetensors"),
        "no weights at all"
    )
    .unwrap()));
    insta::assert_snapshot!(spoilt(|model| model.edit_header(|header| {
        let mut entry = header[C_FC].clone();
        entry["data_offsets"] = json!([0, 2 * 192 * 768]);
        header.insert(C_FC.to_owned(), entry);
    })));
    insta::assert_snapshot!(spoilt(|model| model.edit_header(|header| {
        header.remove(C_FC).unwrap();
    })));
    insta::assert_snapshot!(spoilt(|model| model.edit_header(|header| {
        let entry = header.remove(C_FC).unwrap();
        header.insert("transformer.h.3.mlp.c_fc.wait".to_owned(), entry);
    })));
    insta::assert_snapshot!(spoilt(|model| model.edit_header(|header| {
        header[C_FC]["shape"] = json!([768, 192]);
    })));
    insta::assert_snapshot!(spoilt(|model| model.edit_header(|header| {
        header[C_FC]["dtype"] = json!("I16");
    })));
    insta::assert_snapshot!(spoilt(|model| model.edit_header(|header| {
        header[C_FC]["dtype"] = json!("Q4\n\u{7}");
    })));
}
