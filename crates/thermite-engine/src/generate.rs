//! From a prompt to a text, streamed.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde::Serialize;
use thermite_device::Device;
use thermite_model::DecodingRow;

use crate::Result;
use crate::chooser::Chooser;
use crate::engine::{Engine, Sequence};
use crate::grammar::Constraint;
use crate::lookahead::Lookahead;
use crate::sampling::SamplingParams;
use crate::stop::StopMatcher;
use crate::writer::Writer;

/// What to generate.
#[derive(Debug, Clone, Default)]
pub struct GenerateParams {
    /// How each token is chosen.
    pub sampling: SamplingParams,
    /// At most so many tokens; as many as the context holds if none is given.
    pub max_tokens: Option<usize>,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Goes on past the model's own end of text.
    pub ignore_eos: bool,
    /// What the text has to be; it ends where that does.
    pub constraint: Option<Constraint>,
}

impl GenerateParams {
    /// Checks every parameter.
    ///
    /// # Errors
    /// The first that is outside its range; an empty stop string.
    pub fn validate(&self) -> Result<()> {
        self.sampling.validate()?;
        StopMatcher::new(&self.stop)?;
        Ok(())
    }
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model's end of text, a stop string, or the end of what a constraint asks for.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// Whoever listened wanted no more.
    Cancelled,
}

/// How long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Tokens of the prompt that were computed.
    pub prompt_tokens: usize,
    /// Seconds for them.
    pub prompt_seconds: f64,
    /// Tokens chosen.
    pub generated_tokens: usize,
    /// Seconds from the first chosen token to the last.
    pub decode_seconds: f64,
    /// Seconds from the call to the first chosen token.
    pub first_token_seconds: f64,
}

impl Timings {
    /// Prompt tokens a second.
    #[must_use]
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prompt_seconds)
    }

    /// Tokens a second after the first.
    #[must_use]
    pub fn decode_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.decode_seconds)
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text, without the stop string and without what follows it.
    pub text: String,
    /// Every chosen token, the ending one included.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How long it took.
    pub timings: Timings,
}

impl<D: Device> Engine<D> {
    /// Goes on from `prompt`, handing each piece of text to `listen` as soon as it is certain: never half a
    /// character, never the beginning of a stop string. Between the chunks of a long prompt `listen` is asked with an
    /// empty piece whether to go on.
    ///
    /// # Errors
    /// A parameter outside its range; an empty prompt, or one longer than the context; those of the model.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        params: &GenerateParams,
        listen: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let mut sequence = Sequence::default();
        let generation = self.continue_sequence(&mut sequence, prompt, params, listen);
        self.truncate(&mut sequence, 0);
        generation
    }

    /// As [`Engine::generate`], after what `sequence` already holds, of which nothing is computed again. Prompt and
    /// chosen tokens, all of [`Generation::token_ids`], become part of it. Without a prompt the sequence goes on as
    /// it stands.
    ///
    /// # Errors
    /// As [`Engine::generate`], the lengths being those of the whole sequence, which is then as it was.
    pub fn continue_sequence(
        &mut self,
        sequence: &mut Sequence,
        prompt: &[u32],
        params: &GenerateParams,
        mut listen: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let mut chooser = Chooser::new(params.sampling.clone())?.with_constraint(params.constraint.clone());
        let writer = Writer::new(self.tokenizer(), &params.stop, Vec::new())?;
        let mut telling = Telling { writer, text: String::new() };
        let begin = Instant::now();
        let cached = sequence.cached;
        let read = self.extend_while(sequence, prompt, || listen(""))?;
        let prefilled = begin.elapsed();
        let prompt_tokens = prompt.len().min(sequence.cached.saturating_sub(cached));
        if read.is_break() {
            let timings =
                Timings { prompt_tokens, prompt_seconds: prefilled.as_secs_f64(), ..Timings::default() };
            return Ok(Generation {
                text: String::new(),
                token_ids: Vec::new(),
                finish_reason: FinishReason::Cancelled,
                timings,
            });
        }
        let room = self.context() - sequence.tokens().len();
        let limit = params.max_tokens.unwrap_or(usize::MAX).min(room);

        let mut token_ids = Vec::new();
        let mut first = Duration::ZERO;
        let mut lookahead: Option<Lookahead<D>> = None;
        let finish_reason = loop {
            if token_ids.len() == limit {
                break FinishReason::Length;
            }
            let ahead = match &mut lookahead {
                Some(lookahead) => lookahead.next(&mut self.model, &mut self.cache)?,
                None => None,
            };
            let token = match ahead {
                Some(token) => token,
                None => {
                    if !token_ids.is_empty() {
                        self.extend(sequence, &[])?;
                    }
                    self.sample(sequence, &mut chooser)?
                }
            };
            token_ids.push(token);
            sequence.push(token);
            let goes_on = chooser.accept(token)?;
            if lookahead.is_none() && limit > 1 && chooser.is_plain() {
                lookahead = self.lookahead(sequence, &chooser, limit - 1)?;
            }
            if token_ids.len() == 1 {
                first = begin.elapsed();
            }
            if self.tokenizer().is_eos(token) && !params.ignore_eos {
                break FinishReason::Stop;
            }
            match telling.push(token, &mut listen) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(reason) => break reason,
            }
            if !goes_on {
                break FinishReason::Stop;
            }
        };
        let ended = begin.elapsed();
        if lookahead.is_some() {
            // all but the last token have certainly been run
            sequence.cached = sequence.tokens.len() - 1;
        }
        let text = match finish_reason {
            FinishReason::Cancelled => telling.text,
            FinishReason::Stop | FinishReason::Length => telling.finish(&mut listen),
        };
        let timings = Timings {
            prompt_tokens,
            prompt_seconds: prefilled.as_secs_f64(),
            generated_tokens: token_ids.len(),
            decode_seconds: ended.saturating_sub(first).as_secs_f64(),
            first_token_seconds: first.as_secs_f64(),
        };
        Ok(Generation { text, token_ids, finish_reason, timings })
    }
}

impl<D: Device> Engine<D> {
    /// Goes on from the sequence's last token for `steps` on the device alone, where it can: `chooser` is a plain one.
    fn lookahead(
        &mut self,
        sequence: &mut Sequence,
        chooser: &Chooser,
        steps: usize,
    ) -> Result<Option<Lookahead<D>>> {
        if !self.device().records() {
            return Ok(None);
        }
        let tokens = sequence.tokens.len();
        self.pool.grow(&mut sequence.blocks, tokens + steps - 1)?;
        let [.., token] = *sequence.tokens else { return Ok(None) };
        let row = DecodingRow { token, position: tokens - 1, blocks: sequence.blocks.blocks() };
        let drawing = chooser.sampling.draw().map(|draw| (draw, chooser.seed));
        Ok(Some(Lookahead::new(&self.model, &self.cache, row, drawing)?))
    }
}

/// The text so far, and who is told of it.
struct Telling {
    writer: Writer,
    text: String,
}

impl Telling {
    fn push(
        &mut self,
        token: u32,
        listen: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<FinishReason> {
        let sure = self.writer.push(token);
        if self.show(&sure.text, listen).is_break() {
            return ControlFlow::Break(FinishReason::Cancelled);
        }
        match sure.stopped_by {
            Some(_) => ControlFlow::Break(FinishReason::Stop),
            None => ControlFlow::Continue(()),
        }
    }

    /// Shows what was held back, and gives the whole text.
    fn finish(self, listen: &mut impl FnMut(&str) -> ControlFlow<()>) -> String {
        let Self { writer, mut text } = self;
        let last = writer.finish();
        if !last.is_empty() {
            // the text is over: whether anybody still listens changes nothing
            let _ = listen(&last);
            text.push_str(&last);
        }
        text
    }

    fn show(&mut self, text: &str, listen: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.text.push_str(text);
        listen(text)
    }
}
