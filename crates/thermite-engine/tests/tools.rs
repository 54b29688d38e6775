//! Tools: templates that take them, and calls that a grammar makes a model write, in each family's format.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

use std::ops::ControlFlow;

use serde_json::{Value, json};
use thermite_device::cpu::Cpu;
use thermite_engine::chat::tools::{ToolFormat, ToolParser, ToolPiece};
use thermite_engine::chat::{ChatTemplate, ChatTemplates, Conversation, Message, Tool};
use thermite_engine::{
    BUILTIN, Engine, EngineOptions, FinishReason, GenerateParams, SamplingParams, open_model,
};

const HERMES: &str = "\
{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n{% endif %}
{%- for message in messages %}
{{ message.role }}: {{ message.content }}
{%- for call in message.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}|
{%- endfor %}";
const MISTRAL: &str = "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}[TOOL_CALLS]";
const LLAMA: &str =
    "{% if tools is not none %}{{ tools | tojson }}{% endif %}{\"name\": \"\", \"parameters\": ";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "test.jinja", None, None).unwrap()
}

fn tools() -> Vec<Tool> {
    serde_json::from_value(json!([
        { "type": "function", "function": {
            "name": "get_weather",
            "description": "The weather \"now\"",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": { "$ref": "#/$defs/city" },
                    "days": { "type": "integer", "minimum": 1, "maximum": 9 }
                },
                "required": ["city", "days"],
                "additionalProperties": false,
                "$defs": { "city": { "enum": ["Rome", "Köln \"am Rhein\""] } }
            }
        } },
        { "type": "function", "function": { "name": "sto\"p", "parameters": {
            "type": "object", "properties": {}, "additionalProperties": false
        } } }
    ]))
    .unwrap()
}

#[test]
fn only_a_template_that_takes_tools_gets_them() {
    let format = |source: &str| ToolFormat::of(&template(source)).map(|format| format.name);
    assert_eq!(format(HERMES), Some("Hermes"));
    assert_eq!(format(MISTRAL), Some("Mistral"));
    assert_eq!(format(LLAMA), Some("Llama 3"));
    assert_eq!(format("{{ messages }}<tool_call>"), None, "it has a call, but takes no tools");
    assert_eq!(format("{{ tools }}"), None, "how calls look is not known");
    assert!(template("{{ tools }}").takes_tools());
    assert!(!template("{% set tools = [] %}{{ tools }} tools").takes_tools());
    let plain = ChatTemplates::new(template("{{ messages }}"));
    assert!(plain.with_tools().is_none());
    let sources = [("default", "{{ messages }}"), ("tool_use", HERMES)];
    let both = ChatTemplates::from_named(sources, "x.json", None, None).unwrap().unwrap();
    assert_eq!(both.with_tools().and_then(ToolFormat::of).map(|format| format.name), Some("Hermes"));
}

#[test]
fn messages_and_tools_reach_the_template() {
    let messages: Vec<Message> = serde_json::from_value(json!([
        { "role": "user", "content": [{ "type": "text", "text": "Hi" }] },
        { "role": "assistant", "content": null, "tool_calls": [
            { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"b\": 1, \"a\": 2}" } }
        ] },
        { "role": "tool", "tool_call_id": "c1", "content": "7" }
    ]))
    .unwrap();
    let tools = &tools()[1..];
    let text = template(HERMES).render(&Conversation::new(&messages).with_tools(tools)).unwrap();
    assert_eq!(
        text,
        "<tools>{\"type\": \"function\", \"function\": {\"name\": \"sto\\\"p\", \"parameters\": {\"type\": \
         \"object\", \"properties\": {}, \"additionalProperties\": false}}}</tools>\nuser: Hi|assistant: \
         <tool_call>{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}</tool_call>|tool: 7|"
    );
}

#[test]
fn a_grammar_makes_calls_that_the_parser_finds() {
    let options = EngineOptions { context: Some(256), ..EngineOptions::default() };
    let mut engine =
        Engine::load(&open_model(BUILTIN).unwrap(), Cpu::new(Some(1)).unwrap(), &options).unwrap();
    let prompt = engine.encode("Once upon a time").unwrap();
    let tools = tools();
    for source in [HERMES, MISTRAL, LLAMA] {
        let format = ToolFormat::of(&template(source)).unwrap();
        for (tools, several) in [(&tools[..], true), (&tools[..1], false), (&tools[1..], false)] {
            let grammar = format.grammar(tools, several, engine.tokenizer());
            for seed in 0..5 {
                let params = GenerateParams {
                    sampling: SamplingParams {
                        temperature: 2.0,
                        seed: Some(seed),
                        ..SamplingParams::default()
                    },
                    constraint: Some(engine.grammars().compile(&grammar).unwrap()),
                    ..GenerateParams::default()
                };
                let answer = engine.generate(&prompt, &params, |_| ControlFlow::Continue(())).unwrap();
                let mut parser = ToolParser::new(format);
                let mut pieces = parser.push(&answer.text);
                pieces.extend(parser.finish());
                // several calls may fill the context
                let whole = answer.finish_reason == FinishReason::Stop;
                assert!(several || whole && pieces.len() == 1, "{}: {:?}", format.name, answer.text);
                for piece in pieces.iter().filter(|_| whole) {
                    let ToolPiece::Call(call) = piece else { panic!("{}: {:?}", format.name, answer.text) };
                    let tool = tools.iter().find(|tool| tool.function.name == call.name).unwrap();
                    match tool.function.name.as_str() {
                        "get_weather" => {
                            let days = call.arguments["days"].as_u64().unwrap();
                            let city: &Value = &call.arguments["city"];
                            assert!(
                                (1..=9).contains(&days) && (city == "Rome" || city == "Köln \"am Rhein\"")
                            );
                        }
                        _ => assert!(call.arguments.is_empty()),
                    }
                }
            }
        }
    }
}
