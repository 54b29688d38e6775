//! `thermite generate`.

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde::Serialize;
use thermite_device::Device;
use thermite_engine::{Engine, FinishReason, Generation, Timings, open_model};

use crate::cli::GenerateArgs;
use crate::error::Error;
use crate::open::on_device;
use crate::output::{given_text, print_json};

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
    let files = open_model(&args.model.model)?;
    let mut engine = Engine::load(&files, device, &args.model.run.options())?;
    let ids = engine.encode(prompt)?;
    let params = args.sampling.params();
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
    let mut echo = (!args.no_echo).then_some(prompt);
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
    eprintln!("{}", closing_line(&done));
    Ok(())
}

/// Standard output, piece by piece; an error ends the text and is kept.
pub(crate) struct Stream {
    out: io::Stdout,
    result: io::Result<()>,
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self { out: io::stdout(), result: Ok(()) }
    }

    pub(crate) fn write(&mut self, piece: &str) -> ControlFlow<()> {
        if self.result.is_ok() {
            let mut out = self.out.lock();
            self.result = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        }
        if self.result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        Ok(self.result?)
    }
}

/// What was done, and how fast.
pub(crate) fn closing_line(done: &Generation) -> String {
    let t = &done.timings;
    format!(
        "[{} prompt tokens, prefill {:.0} tok/s | {} tokens, decode {:.0} tok/s | first token after {:.1} ms]",
        t.prompt_tokens,
        t.prefill_rate(),
        t.generated_tokens,
        t.decode_rate(),
        t.first_token_seconds * 1e3,
    )
}
