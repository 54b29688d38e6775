//! `thermite generate`.

use std::ops::ControlFlow;

use serde::Serialize;
use thermite_device::Device;
use thermite_engine::chat::{Conversation, Message};
use thermite_engine::{Engine, FinishReason, Generation, Grammar, Timings, open_model};
use thermite_formats::ModelFiles;

use crate::cli::GenerateArgs;
use crate::commands::chat::templates_of;
use crate::error::Error;
use crate::open::on_device;
use crate::output::{Stream, given_text, note, print_json};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    text: &'a str,
    prompt_token_ids: &'a [u32],
    token_ids: &'a [u32],
    finish_reason: FinishReason,
    timings: Timings,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<(), Error> {
    let prompt = given_text(args.prompt.as_deref(), args.file.as_deref())?;
    on_device!(&args.model.run, |device| generate(args, &prompt, device))
}

fn generate<D: Device>(args: &GenerateArgs, prompt: &str, device: D) -> Result<(), Error> {
    let mut params = args.sampling.params();
    params.validate()?;
    let grammar = grammar(args)?;
    let files = open_model(&args.model.model)?;
    let mut engine = Engine::load(&files, device, &args.model.run.options())?;
    if let Some(grammar) = &grammar {
        params.constraint = Some(engine.grammars().compile(grammar).map_err(thermite_engine::Error::from)?);
    }
    let ids = if args.chat { chat_ids(args, &engine, &files, prompt)? } else { engine.encode(prompt)? };
    if args.json {
        let done = engine.generate(&ids, &params, |_| ControlFlow::Continue(()))?;
        return print_json(&Report {
            text: &done.text,
            prompt_token_ids: &ids,
            token_ids: &done.token_ids,
            finish_reason: done.finish_reason,
            timings: done.timings,
        });
    }
    let mut stream = Stream::new();
    // the prompt comes with the first piece: a prompt that is refused leaves no output
    let mut echo = (!args.no_echo && !args.chat).then_some(prompt);
    let done = engine.generate(&ids, &params, |piece| {
        let echoed = echo.take().map_or(ControlFlow::Continue(()), |prompt| stream.write(prompt));
        echoed?;
        stream.write(piece)
    })?;
    if let Some(prompt) = echo {
        let _ = stream.write(prompt);
    }
    let _ = stream.write("\n");
    stream.finish()?;
    note(&closing_line(&done, ids.len() + done.token_ids.len(), engine.context()));
    Ok(())
}

/// What the text has to be.
fn grammar(args: &GenerateArgs) -> Result<Option<Grammar>, Error> {
    if let Some(file) = &args.grammar {
        return Ok(Some(Grammar::Lark(given_text(None, Some(file))?)));
    }
    let Some(file) = &args.json_schema else { return Ok(None) };
    let schema = serde_json::from_str(&given_text(None, Some(file))?);
    let wrong = |error| Error::Usage(format!("{}: {error}", file.display()));
    Ok(Some(Grammar::JsonSchema(schema.map_err(wrong)?)))
}

/// The prompt as a message to an assistant.
fn chat_ids<D: Device>(
    args: &GenerateArgs,
    engine: &Engine<D>,
    files: &ModelFiles,
    prompt: &str,
) -> Result<Vec<u32>, Error> {
    let Some((templates, _)) = templates_of(files, engine.tokenizer())? else {
        let model = &args.model.model;
        return Err(Error::Usage(format!("--chat needs a chat template, which {model} does not have")));
    };
    let system = args.system.iter().map(|text| Message::new("system", text));
    let messages: Vec<Message> = system.chain([Message::new("user", prompt)]).collect();
    Ok(engine.encode_chat(&templates, &Conversation::new(&messages))?)
}

/// What was done, and how fast; `tokens` of the `context` are taken now.
pub(crate) fn closing_line(done: &Generation, tokens: usize, context: usize) -> String {
    let t = &done.timings;
    let mut parts = Vec::new();
    if t.prompt_tokens > 0 {
        parts.push(format!("{} read at {:.0} tok/s", counted(t.prompt_tokens), t.prefill_rate()));
    }
    parts.push(match t.generated_tokens {
        n @ ..2 => format!("{n} written"),
        n => format!("{n} written at {:.0} tok/s", t.decode_rate()),
    });
    if t.generated_tokens > 0 {
        parts.push(format!("first after {:.1} ms", t.first_token_seconds * 1e3));
    }
    if tokens >= context {
        parts.push(format!("context of {context} full"));
    }
    format!("[{}]", parts.join(" | "))
}

/// `1 token`, `2 tokens`.
pub(crate) fn counted(tokens: usize) -> String {
    format!("{tokens} token{}", if tokens == 1 { "" } else { "s" })
}
