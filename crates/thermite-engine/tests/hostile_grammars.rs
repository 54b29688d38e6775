//! Schemas and grammars that want too much: each is compiled or refused, and what is compiled can be followed.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

use serde_json::{Map, Value, json};
use thermite_engine::{BUILTIN, Grammar, GrammarError, Grammars, load_tokenizer, open_model};

const N_VOCAB: usize = 4096;

fn grammars() -> Grammars {
    Grammars::new(load_tokenizer(&open_model(BUILTIN).unwrap()).unwrap(), N_VOCAB)
}

/// `inner` inside `depth` objects.
fn nested(depth: usize, inner: Value) -> Value {
    (0..depth).fold(inner, |inner, _| json!({ "properties": { "a": inner } }))
}

/// Definitions `d0` to `d{n}`, each made of the next two times.
fn doubling(n: usize, join: fn(Value, Value) -> Value) -> Value {
    let next = |i: usize| json!({ "$ref": format!("#/$defs/d{}", i + 1) });
    let mut defs: Map<String, Value> = (0..n).map(|i| (format!("d{i}"), join(next(i), next(i)))).collect();
    defs.insert(format!("d{n}"), json!({ "type": "string" }));
    json!({ "$defs": defs, "$ref": "#/$defs/d0" })
}

/// All of `n` choices between `m` objects each.
fn product(n: usize, m: usize) -> Value {
    let choice = |i: usize| {
        let one =
            |j: usize| json!({ "type": "object", "properties": { format!("p{i}_{j}"): { "const": j } } });
        json!({ "anyOf": (0..m).map(one).collect::<Vec<_>>() })
    };
    json!({ "allOf": (0..n).map(choice).collect::<Vec<_>>() })
}

fn hostile() -> Vec<(&'static str, Grammar)> {
    let schema = Grammar::JsonSchema;
    let lark = |text: &str| Grammar::Lark(text.to_owned());
    let regex = |text: &str| Grammar::Regex(text.to_owned());
    let words: Vec<String> = (0..5000).map(|i| format!("word{i}")).collect();
    let chain: String = (0..2500).map(|i| format!("r{i}: \"a\" r{}\n", i + 1)).collect();
    let properties: Map<String, Value> =
        (0..300).map(|i| (format!("p{i}"), json!({ "type": "string" }))).collect();
    vec![
        ("nested 31 deep", schema(nested(31, json!(true)))),
        ("nested 40 deep", schema(nested(40, json!(true)))),
        ("5,000 words", schema(json!({ "enum": words }))),
        ("300 optional properties", schema(json!({ "properties": properties }))),
        (
            "300 required properties",
            schema(
                json!({ "properties": properties, "required": properties.keys().collect::<Vec<_>>(), "type": "object" }),
            ),
        ),
        ("10⁹ items at least", schema(json!({ "type": "array", "minItems": 1_000_000_000 }))),
        (
            "10⁹ items at most",
            schema(json!({ "type": "array", "maxItems": 1_000_000_000, "items": { "type": "object" } })),
        ),
        ("2⁶⁴ items", schema(json!({ "type": "array", "minItems": u64::MAX, "maxItems": u64::MAX }))),
        ("10⁹ characters at least", schema(json!({ "type": "string", "minLength": 1_000_000_000 }))),
        ("100,000 characters at least", schema(json!({ "type": "string", "minLength": 100_000 }))),
        ("10⁹ characters at most", schema(json!({ "type": "string", "maxLength": 1_000_000_000 }))),
        ("2⁶⁴ properties", schema(json!({ "type": "object", "minProperties": u64::MAX }))),
        ("a pattern of 10⁹", schema(json!({ "type": "string", "pattern": "^((a{1000}){1000}){1000}$" }))),
        ("an exponential pattern", schema(json!({ "type": "string", "pattern": "^(a|b)*a(a|b){40}$" }))),
        (
            "two patterns",
            schema(
                json!({ "allOf": [{ "pattern": "^(.a.?){1,60}$" }, { "pattern": "^(.?b.){1,60}$" }], "type": "string" }),
            ),
        ),
        (
            "many patterns",
            schema(
                json!({ "patternProperties": (0..40).map(|i| (format!("^.{{{i}}}(a|b)*a(a|b){{12}}$"), json!(true))).collect::<Map<_, _>>() }),
            ),
        ),
        ("a multiple of 10⁻³⁰⁰", schema(json!({ "type": "number", "multipleOf": 1e-300 }))),
        ("a multiple of 9,999,991", schema(json!({ "type": "integer", "multipleOf": 9_999_991 }))),
        ("a huge range", schema(json!({ "type": "number", "minimum": -1e308, "maximum": 1e308 }))),
        ("a tiny range", schema(json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 5e-324 }))),
        ("an empty range", schema(json!({ "type": "integer", "minimum": 3, "maximum": 2 }))),
        ("itself", schema(json!({ "$ref": "#" }))),
        (
            "all of itself",
            schema(json!({ "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/a" }] } }, "$ref": "#/$defs/a" })),
        ),
        (
            "all of itself and more",
            schema(
                json!({ "$defs": { "a": { "type": "object", "properties": { "x": { "$ref": "#/$defs/a" } }, "allOf": [{ "$ref": "#/$defs/a" }, { "required": ["x"] }] } }, "$ref": "#/$defs/a" }),
            ),
        ),
        ("any of itself", schema(json!({ "anyOf": [{ "$ref": "#" }, { "$ref": "#" }] }))),
        (
            "2³⁰ properties by reference",
            schema(doubling(30, |a, b| json!({ "properties": { "x": a, "y": b } }))),
        ),
        ("2¹² of all by reference", schema(doubling(12, |a, b| json!({ "allOf": [a, b] })))),
        ("2³⁰ of all by reference", schema(doubling(30, |a, b| json!({ "allOf": [a, b] })))),
        ("2³⁰ of any by reference", schema(doubling(30, |a, b| json!({ "anyOf": [a, b] })))),
        ("4³ choices", schema(product(3, 4))),
        ("10²⁰ choices", schema(product(20, 10))),
        ("a reference to nowhere", schema(json!({ "$ref": "#/nowhere" }))),
        ("a reference to the net", schema(json!({ "$ref": "https://example.com/schema.json" }))),
        ("white space that is none", schema(json!({ "x-guidance": { "whitespace_pattern": "(" } }))),
        ("guidance that is none", schema(json!({ "x-guidance": 3 }))),
        ("types that are none", schema(json!({ "type": [3, { "a": null }], "required": 7 }))),
        ("no schema", schema(json!("schema"))),
        ("nothing", schema(json!(false))),
        ("10⁹ a", regex("((a{1000}){1000}){1000}")),
        ("10⁵ of anything", regex(".{0,100000}")),
        ("an exponential expression", regex("(a|b)*a(a|b){60}")),
        ("letters", regex(r"\p{L}{1,2000}")),
        ("a bracket", regex("(")),
        ("an empty expression", regex("")),
        ("one that matches nothing", regex("[^\\s\\S]")),
        ("a chain of 2,500 rules", lark(&format!("start: r0\n{chain}r2500: \"b\"\n"))),
        ("left recursion", lark("start: start start | \"a\" |")),
        ("great ambiguity", lark("start: a*\na: b*\nb: \"x\"* | a a a")),
        ("a million", lark("start: \"a\"{1,1000000}")),
        ("a million rules", lark("start: a{1000,1000000}\na: b{1000,1000000}\nb: \"x\"")),
        ("itself only", lark("start: start")),
        ("no end", lark("start: a\na: \"x\" a")),
        ("not what is", lark("start: /(a|b)*/ & ~(/(a|b)*a(a|b){30}/)")),
        ("a JSON schema inside", lark("start: %json { \"type\": \"array\", \"minItems\": 1000000 }")),
        ("text of brackets", lark(&format!("start: {}", "(".repeat(60)))),
        ("an include", lark("%import common.NOTHING\nstart: NOTHING")),
        ("no rules", lark("")),
        ("a NUL", lark("start: \"\0\"")),
    ]
}

/// Follows a constraint for some tokens, always the `pick`th that is allowed.
fn follow(grammars: &Grammars, grammar: &Grammar, pick: usize) -> Result<usize, GrammarError> {
    let mut constraint = grammars.compile(grammar)?;
    for tokens in 0..24 {
        let mut logits = vec![0.0; N_VOCAB];
        constraint.restrict(&mut logits)?;
        let allowed: Vec<u32> = (0..N_VOCAB as u32).filter(|&id| logits[id as usize] == 0.0).collect();
        if !constraint.accept(allowed[pick * 7919 % allowed.len()])? {
            return Ok(tokens + 1);
        }
    }
    Ok(24)
}

#[test]
fn what_wants_too_much_is_refused_or_followed() {
    let grammars = grammars();
    grammars.compile(&Grammar::JsonObject).unwrap();
    for (name, grammar) in hostile() {
        let outcome: Vec<_> = (0..3).map(|pick| follow(&grammars, &grammar, pick)).collect();
        for error in outcome.into_iter().filter_map(Result::err) {
            let text = error.to_string();
            assert!(
                text.len() < 2000 && !text.contains("backtrace") && !text.contains("panic"),
                "{name}: {text}"
            );
        }
    }
}
