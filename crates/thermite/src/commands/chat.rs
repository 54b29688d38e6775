//! `thermite chat`: a conversation, or a text written in turns, which stays in the cache.

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
use self::turns::Turns;

pub(crate) use self::turns::templates_of;

mod input;
mod instruction;
mod interrupt;
mod turns;

pub(crate) fn run(args: &ChatArgs) -> Result<(), Error> {
    on_device!(&args.model.run, |device| chat(args, device))
}

fn chat<D: Device>(args: &ChatArgs, device: D) -> Result<(), Error> {
    let params = args.sampling.params();
    params.validate()?;
    let files = open_model(&args.model.model)?;
    let engine = Engine::load(&files, device, &args.model.run.options())?;
    let (turns, how) = Turns::of(args, &files, engine.tokenizer())?;
    let interrupt = Interrupt::install()?;
    let mut chat = Chat { engine, params, sequence: Sequence::default(), turns };
    let mut input = Input::open()?;
    note(&format!("{how} /help for commands."));
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

/// What the user and the model write in turns.
struct Chat<D: Device> {
    engine: Engine<D>,
    params: GenerateParams,
    sequence: Sequence,
    turns: Turns,
}

impl<D: Device> Chat<D> {
    fn clear(&mut self) {
        self.engine.truncate(&mut self.sequence, 0);
        self.turns.clear();
    }

    /// Adds `line` and streams what the model says to it.
    fn turn(&mut self, line: &str, interrupt: &Interrupt) -> Result<(), Error> {
        let next = match self.turns.next(&self.engine, self.sequence.tokens(), line) {
            Ok(next) => next,
            Err(error) => {
                complain(&error);
                return Ok(());
            }
        };
        let (total, context) = (next.kept + next.tokens.len(), self.engine.context());
        if total == 0 {
            return Ok(());
        }
        if total >= context {
            note(&format!(
                "No room for an answer: there are {} tokens, your line makes them {total}, and the context holds \
                 {context}. /clear begins anew.",
                self.sequence.tokens().len()
            ));
            return Ok(());
        }
        self.engine.truncate(&mut self.sequence, next.kept);
        let mut stream = Stream::new();
        interrupt.arm();
        let done = self.engine.continue_sequence(&mut self.sequence, &next.tokens, &self.params, |piece| {
            stream.write(piece)?;
            if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        interrupt.disarm();
        let done = done?;
        let _ = stream.write("\n");
        stream.finish()?;
        self.forget_end();
        self.turns.answered(&next.text, &done.text);
        note(&closing_line(&done, self.sequence.tokens().len(), context));
        Ok(())
    }

    /// Takes the model's end of text off: what goes on is what is seen.
    fn forget_end(&mut self) {
        let tokens = self.sequence.tokens();
        let ended =
            !self.params.ignore_eos && tokens.last().is_some_and(|&t| self.engine.tokenizer().is_eos(t));
        if ended && self.turns.go_on_after_an_end() {
            let keep = tokens.len() - 1;
            self.engine.truncate(&mut self.sequence, keep);
        }
    }
}
