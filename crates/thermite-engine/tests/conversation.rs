//! Sequences that stay in the cache between turns.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

use std::ops::ControlFlow;

use thermite_device::cpu::Cpu;
use thermite_engine::{
    BUILTIN, Engine, EngineOptions, FinishReason, GenerateParams, Generation, SamplingParams, Sequence,
    open_model,
};

fn engine(chunk: usize) -> Engine<Cpu> {
    let options = EngineOptions { chunk, ..EngineOptions::default() };
    Engine::load(&open_model(BUILTIN).unwrap(), Cpu::new(Some(1)).unwrap(), &options).unwrap()
}

fn greedy(max_tokens: Option<usize>) -> GenerateParams {
    GenerateParams { sampling: SamplingParams::greedy(), max_tokens, ..GenerateParams::default() }
}

fn turn(engine: &mut Engine<Cpu>, sequence: &mut Sequence, prompt: &[u32], n: Option<usize>) -> Generation {
    engine.continue_sequence(sequence, prompt, &greedy(n), |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn two_turns_are_one_run_over_all_their_tokens() {
    // with a length that ends the first answer, and with the model's own end of text
    for n in [Some(1), Some(20), None] {
        let mut engine = engine(3);
        let first = engine.encode("Once upon a time").unwrap();
        let second = engine.encode(" Then a big dog came.").unwrap();

        let mut sequence = Sequence::default();
        let answer = turn(&mut engine, &mut sequence, &first, n);
        let reason = if n.is_some() { FinishReason::Length } else { FinishReason::Stop };
        assert_eq!(answer.finish_reason, reason);
        assert_eq!(sequence.tokens(), [&first[..], &answer.token_ids].concat());
        let next = turn(&mut engine, &mut sequence, &second, Some(24));

        let whole = [&first[..], &answer.token_ids, &second].concat();
        assert_eq!(sequence.tokens(), [&whole[..], &next.token_ids].concat());
        engine.truncate(&mut sequence, 0);
        let at_once = turn(&mut engine, &mut sequence, &whole, Some(24));
        assert_eq!((at_once.token_ids, at_once.text), (next.token_ids, next.text));
    }
}

#[test]
fn without_a_prompt_a_sequence_goes_on_as_it_stands() {
    let mut engine = engine(512);
    let prompt = engine.encode("The dog was very").unwrap();
    let mut sequence = Sequence::default();
    let whole = turn(&mut engine, &mut sequence, &prompt, Some(30)).token_ids;

    // the last token is not yet in the cache, or already is
    for forget in [0, 5] {
        engine.truncate(&mut sequence, 0);
        let mut parts = turn(&mut engine, &mut sequence, &prompt, Some(12)).token_ids;
        parts.truncate(parts.len() - forget);
        engine.truncate(&mut sequence, prompt.len() + parts.len());
        let rest = turn(&mut engine, &mut sequence, &[], Some(18 + forget)).token_ids;
        assert_eq!([parts, rest].concat(), whole, "{forget} tokens forgotten");
    }
    engine.truncate(&mut sequence, 0);
    let error = engine.continue_sequence(&mut sequence, &[], &greedy(None), |_| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("the prompt is empty"));
}

#[test]
fn a_full_context_is_an_error_that_leaves_the_sequence_as_it_was() {
    let options = EngineOptions { context: Some(24), ..EngineOptions::default() };
    let mut engine =
        Engine::load(&open_model(BUILTIN).unwrap(), Cpu::new(Some(1)).unwrap(), &options).unwrap();
    let prompt = engine.encode("Once upon a time").unwrap();
    let mut sequence = Sequence::default();
    let answer = turn(&mut engine, &mut sequence, &prompt, None);
    assert_eq!((answer.finish_reason, sequence.tokens().len()), (FinishReason::Length, 24));

    let before = sequence.tokens().to_vec();
    let more = engine.continue_sequence(&mut sequence, &prompt, &greedy(None), |_| ControlFlow::Continue(()));
    let message = more.unwrap_err().to_string();
    assert_eq!(message, "the prompt has 28 tokens, but the context holds 24");
    assert_eq!(sequence.tokens(), before);

    engine.truncate(&mut sequence, 0);
    assert_eq!(turn(&mut engine, &mut sequence, &prompt, None).token_ids, answer.token_ids);
}

#[test]
fn an_answer_that_is_cut_short_stays_and_can_be_gone_on_from() {
    let mut engine = engine(512);
    let prompt = engine.encode("Once upon a time").unwrap();
    let mut sequence = Sequence::default();
    let whole = turn(&mut engine, &mut sequence, &prompt, Some(30)).token_ids;
    engine.truncate(&mut sequence, 0);
    let mut pieces = 0;
    let cut = engine.continue_sequence(&mut sequence, &prompt, &greedy(Some(30)), |_| {
        pieces += 1;
        if pieces == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let cut = cut.unwrap();
    assert_eq!(cut.finish_reason, FinishReason::Cancelled);
    let left = 30 - cut.token_ids.len();
    let rest = turn(&mut engine, &mut sequence, &[], Some(left));
    assert_eq!([cut.token_ids, rest.token_ids].concat(), whole);
}

#[test]
fn a_prompt_can_be_stopped_between_its_chunks_and_gone_on_from() {
    let mut engine = engine(3);
    let prompt = engine.encode("Once upon a time, there was a little girl named Lily.").unwrap();
    let mut sequence = Sequence::default();
    let whole = turn(&mut engine, &mut sequence, &prompt, Some(12)).token_ids;
    engine.truncate(&mut sequence, 0);

    let mut asked = 0;
    let stopped = engine.continue_sequence(&mut sequence, &prompt, &greedy(Some(12)), |piece| {
        assert_eq!(piece, "");
        asked += 1;
        if asked == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let stopped = stopped.unwrap();
    assert_eq!((stopped.finish_reason, stopped.token_ids.len()), (FinishReason::Cancelled, 0));
    assert_eq!((stopped.timings.prompt_tokens, sequence.tokens()), (6, &prompt[..]));
    assert_eq!(turn(&mut engine, &mut sequence, &[], Some(12)).token_ids, whole);
}
