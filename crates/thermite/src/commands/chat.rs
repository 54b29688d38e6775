//! `thermite chat`: a text written in turns, which stays in the cache.

use std::ops::ControlFlow;

use thermite_device::Device;
use thermite_engine::{Engine, GenerateParams, Sequence, open_model};

use crate::cli::ChatArgs;
use crate::commands::generate::closing_line;
use crate::error::Error;
use crate::open::on_device;
use crate::output::{Stream, complain, note};

use self::input::Input;
use self::instruction::{HELP, Instruction};
use self::interrupt::Interrupt;

mod input;
mod instruction;
mod interrupt;

pub(crate) fn run(args: &ChatArgs) -> Result<(), Error> {
    on_device!(&args.model.run, |device| chat(args, device))
}

fn chat<D: Device>(args: &ChatArgs, device: D) -> Result<(), Error> {
    let params = args.sampling.params();
    params.validate()?;
    let files = open_model(&args.model.model)?;
    let engine = Engine::load(&files, device, &args.model.run.options())?;
    let interrupt = Interrupt::install()?;
    let mut chat = Chat { engine, params, sequence: Sequence::default(), last: None };
    let mut input = Input::open()?;
    note("No chat template: the model goes on from what you type. /help for commands.");
    while let Some(line) = input.next()? {
        match Instruction::of(&line) {
            Instruction::Quit => break,
            Instruction::Help => note(HELP),
            Instruction::Clear => chat.clear(),
            Instruction::Seed(seed) => chat.params.sampling.seed = seed,
            Instruction::Wrong(reason) => note(&reason),
            Instruction::Text(text) => chat.turn(text, &interrupt)?,
        }
    }
    Ok(())
}

/// A text that the user and the model write in turns.
struct Chat<D: Device> {
    engine: Engine<D>,
    params: GenerateParams,
    sequence: Sequence,
    /// The last character of the text, if there is one.
    last: Option<char>,
}

impl<D: Device> Chat<D> {
    fn clear(&mut self) {
        self.engine.truncate(&mut self.sequence, 0);
        self.last = None;
    }

    /// Adds `line` to the text and streams what the model adds to it.
    fn turn(&mut self, line: &str, interrupt: &Interrupt) -> Result<(), Error> {
        let text = joined(self.last, line);
        let tokens = match self.last {
            _ if text.is_empty() => Ok(Vec::new()),
            None => self.engine.encode(&text),
            Some(_) => self.engine.encode_more(&text),
        };
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(error) => {
                complain(&error);
                return Ok(());
            }
        };
        let (before, new, context) = (self.sequence.tokens().len(), tokens.len(), self.engine.context());
        if before + new == 0 {
            return Ok(());
        }
        if before + new >= context {
            note(&format!(
                "No room for an answer: the text has {before} tokens, your line {new}, and the context holds \
                 {context}. /clear begins anew."
            ));
            return Ok(());
        }
        let mut stream = Stream::new();
        interrupt.arm();
        let done = self.engine.continue_sequence(&mut self.sequence, &tokens, &self.params, |piece| {
            stream.write(piece)?;
            if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        interrupt.disarm();
        let done = done?;
        let _ = stream.write("\n");
        stream.finish()?;
        self.forget_end();
        self.last = done.text.chars().last().or(text.chars().last()).or(self.last);
        note(&closing_line(&done, self.sequence.tokens().len(), context));
        Ok(())
    }

    /// Takes the model's end of text off: the text that goes on is the one that is seen.
    fn forget_end(&mut self) {
        let tokens = self.sequence.tokens();
        let ended =
            !self.params.ignore_eos && tokens.last().is_some_and(|&t| self.engine.tokenizer().is_eos(t));
        if ended {
            let keep = tokens.len() - 1;
            self.engine.truncate(&mut self.sequence, keep);
        }
    }
}

/// `line` as it goes behind a text that ends in `last`: words do not run into each other.
fn joined(last: Option<char>, line: &str) -> String {
    let opens_word = line.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '"' | '“' | '('));
    match last {
        Some(last) if opens_word && !last.is_whitespace() => format!(" {line}"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_do_not_run_into_each_other() {
        assert_eq!(joined(None, "Once"), "Once");
        assert_eq!(joined(Some('.'), "Then"), " Then");
        assert_eq!(joined(Some('\n'), "Then"), "Then");
        assert_eq!(joined(Some('d'), ", and"), ", and");
        assert_eq!(joined(Some('d'), " and"), " and");
        assert_eq!(joined(Some('d'), ""), "");
    }
}
