//! Texts under a grammar: whatever is drawn, alone or in company, is what was asked for.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

use std::collections::BTreeMap;

use serde_json::{Value, json};
use thermite_device::cpu::Cpu;
use thermite_engine::scheduler::{Event, Job, JobId, Limits, Scheduler};
use thermite_engine::{BUILTIN, Engine, EngineOptions, FinishReason, Grammar, SamplingParams, open_model};

fn engine(cache_tokens: usize, max_outputs: usize) -> Engine<Cpu> {
    let options = EngineOptions {
        context: Some(256),
        cache_tokens: Some(cache_tokens),
        chunk: 64,
        max_outputs,
        ..EngineOptions::default()
    };
    Engine::load(&open_model(BUILTIN).unwrap(), Cpu::new(Some(1)).unwrap(), &options).unwrap()
}

/// Whether `value` is valid under `schema`, of which root is the whole: by the definitions, for what these tests use.
fn is_valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let length = |key: &str| schema.get(key).and_then(Value::as_u64).map(|n| n as usize);
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return is_valid(value, target.unwrap(), root);
    }
    if let Some(options) = schema.get("anyOf").and_then(Value::as_array)
        && !options.iter().any(|option| is_valid(value, option, root))
    {
        return false;
    }
    let is_type = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some(other) => panic!("{other}"),
        None => true,
    };
    let in_enum = schema.get("enum").is_none_or(|allowed| allowed.as_array().unwrap().contains(value));
    let fits = match value {
        Value::Object(entries) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            required.clone().all(|key| entries.contains_key(key.as_str().unwrap()))
                && entries.iter().all(|(key, value)| match properties.and_then(|all| all.get(key)) {
                    Some(schema) => is_valid(value, schema, root),
                    None => schema.get("additionalProperties") != Some(&json!(false)),
                })
        }
        Value::Array(items) => {
            length("minItems").is_none_or(|least| items.len() >= least)
                && length("maxItems").is_none_or(|most| items.len() <= most)
                && items.iter().all(|item| schema.get("items").is_none_or(|of| is_valid(item, of, root)))
        }
        Value::String(text) => {
            length("minLength").is_none_or(|least| text.chars().count() >= least)
                && length("maxLength").is_none_or(|most| text.chars().count() <= most)
        }
        Value::Number(n) => {
            let n = n.as_f64().unwrap();
            number("minimum").is_none_or(|least| n >= least) && number("maximum").is_none_or(|most| n <= most)
        }
        Value::Bool(_) | Value::Null => true,
    };
    is_type && in_enum && fits
}

fn schemas() -> Vec<Value> {
    vec![
        json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 12 },
                "age": { "type": "integer", "minimum": 0, "maximum": 120 },
                "tags": {
                    "type": "array", "minItems": 1, "maxItems": 3,
                    "items": { "type": "string", "enum": ["red", "größer", "\"quoted\"\n"] }
                },
                "happy": { "type": "boolean" }
            },
            "required": ["name", "age", "tags", "happy"],
            "additionalProperties": false
        }),
        json!({
            "type": "array", "minItems": 2, "maxItems": 4,
            "items": { "anyOf": [
                { "type": "number", "minimum": -1, "maximum": 1 },
                { "type": "null" },
                { "type": "object", "properties": { "x": { "type": "integer", "minimum": -5, "maximum": 5 } },
                  "required": ["x"], "additionalProperties": false }
            ] }
        }),
        json!({
            "$defs": { "tree": {
                "type": "object",
                "properties": {
                    "leaf": { "type": "string", "maxLength": 4 },
                    "children": { "type": "array", "maxItems": 2, "items": { "$ref": "#/$defs/tree" } }
                },
                "required": ["leaf"], "additionalProperties": false
            } },
            "$ref": "#/$defs/tree"
        }),
        json!({ "enum": ["only", "these", 3, null, ["four"]] }),
    ]
}

fn job(engine: &Engine<Cpu>, grammar: &Grammar, seed: u64, temperature: f32) -> Job {
    Job {
        prompt: engine.encode("Once upon a time there was a little girl").unwrap(),
        sampling: SamplingParams {
            temperature,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: Some(seed),
            ..SamplingParams::default()
        },
        constraint: Some(engine.grammars().compile(grammar).unwrap()),
        ..Job::default()
    }
}

type Answers = BTreeMap<JobId, (Vec<u32>, Option<FinishReason>)>;

fn run_out(scheduler: &mut Scheduler<Cpu>) -> Answers {
    let mut answers = Answers::new();
    while !scheduler.is_idle() {
        for event in scheduler.step().unwrap() {
            match event {
                Event::Token { job, token, .. } => answers.entry(job).or_default().0.push(token),
                Event::Finished { job, reason } => answers.entry(job).or_default().1 = Some(reason),
                Event::Started { .. } | Event::Embedded { .. } => {}
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    let status = scheduler.status();
    assert_eq!(status.free_blocks, status.blocks);
    answers
}

#[test]
fn whatever_is_drawn_is_valid_under_its_schema() {
    // the second has so few blocks that requests are computed again
    for (cache_tokens, preempts) in [(4096, false), (256, true)] {
        let mut scheduler =
            Scheduler::new(engine(cache_tokens, 8), Limits { running: 8, waiting: 64 }).unwrap();
        let mut expected = Vec::new();
        for (i, schema) in schemas().into_iter().enumerate() {
            for seed in 0..6 {
                let grammar = Grammar::JsonSchema(schema.clone());
                let temperature = [0.0, 0.8, 3.0][seed as usize % 3];
                let job = job(scheduler.engine(), &grammar, seed + 100 * i as u64, temperature);
                expected.push((scheduler.submit(job).unwrap(), schema.clone()));
            }
        }
        let answers = run_out(&mut scheduler);
        assert_eq!(scheduler.status().preemptions > 0, preempts);
        let mut whole = 0;
        for (id, schema) in expected {
            let (tokens, reason) = &answers[&id];
            let text = scheduler.engine().tokenizer().decode(tokens, true);
            if *reason == Some(FinishReason::Stop) {
                let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                assert!(is_valid(&value, &schema, &schema), "{text}\n{schema}");
                whole += 1;
            }
        }
        // others branch or indent on until the context is full
        assert!(whole >= 12, "{whole} of 24 came to an end");
    }
}

#[test]
fn grammars_and_expressions_end_where_they_end() {
    let engine = engine(1024, 4);
    let mut scheduler = Scheduler::new(engine, Limits { running: 4, waiting: 64 }).unwrap();
    let lark =
        "start: greeting \" \" name\ngreeting: \"Hello\" | \"Good day\"\nname: /[A-Z][a-z]{2,5}/ \"!\"";
    let fits_lark = |text: &str| {
        let rest = text.strip_prefix("Hello ").or_else(|| text.strip_prefix("Good day ")).unwrap();
        let name = rest.strip_suffix('!').unwrap();
        (3..=6).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphabetic())
    };
    let fits_date = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        parts.iter().map(|part| part.len()).eq([4, 2, 2])
            && parts.iter().all(|part| part.parse::<u32>().is_ok())
    };
    type Fits<'a> = &'a dyn Fn(&str) -> bool;
    let cases: [(Grammar, Fits<'_>); 3] = [
        (Grammar::Lark(lark.to_owned()), &fits_lark),
        (Grammar::Regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}".to_owned()), &fits_date),
        (Grammar::JsonObject, &|text| serde_json::from_str::<Value>(text).unwrap().is_object()),
    ];
    let mut expected = Vec::new();
    for (grammar, fits) in &cases {
        for seed in 0..4 {
            let job = Job { ignore_eos: true, ..job(scheduler.engine(), grammar, seed, 1.5) };
            expected.push((scheduler.submit(job).unwrap(), fits));
        }
    }
    let answers = run_out(&mut scheduler);
    for (id, fits) in expected {
        let (tokens, reason) = &answers[&id];
        let text = scheduler.engine().tokenizer().decode(tokens, true);
        assert!(*reason != Some(FinishReason::Stop) || fits(&text), "{text:?}");
        assert!(reason.is_some());
    }
}
