//! Many requests at once: each gets what it would have got alone, and every block comes back.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use thermite_device::cpu::Cpu;
use thermite_engine::scheduler::{Event, Job, JobId, Limits, Scheduler};
use thermite_engine::{
    BUILTIN, Engine, EngineOptions, Error, FinishReason, GenerateParams, SamplingParams, open_model,
};

const PROMPTS: [&str; 5] = [
    "Once upon a time",
    "Once upon a time there was a little girl named Lily who lived in a small house near the big forest",
    "The dog was very",
    "One day, Tom and his mom went to the park to play with the ball. Tom saw",
    "Once upon a time there was a little girl named Lily who lived in a small house by the sea",
];

fn engine(cache_tokens: usize, chunk: usize, max_outputs: usize) -> Engine<Cpu> {
    let options = EngineOptions {
        context: Some(128),
        cache_tokens: Some(cache_tokens),
        chunk,
        max_outputs,
        ..EngineOptions::default()
    };
    Engine::load(&open_model(BUILTIN).unwrap(), Cpu::new(Some(1)).unwrap(), &options).unwrap()
}

fn scheduler(cache_tokens: usize, chunk: usize, running: usize) -> Scheduler<Cpu> {
    Scheduler::new(engine(cache_tokens, chunk, running), Limits { running, waiting: 64 }).unwrap()
}

fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Job {
    Job { prompt, sampling: SamplingParams::greedy(), max_tokens: Some(max_tokens), ..Job::default() }
}

/// What each prompt is answered alone.
fn alone(max_tokens: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut engine = engine(128, 512, 1);
    let params = GenerateParams {
        sampling: SamplingParams::greedy(),
        max_tokens: Some(max_tokens),
        ..GenerateParams::default()
    };
    let mut one = |text: &str| {
        let prompt = engine.encode(text).unwrap();
        let answer = engine.generate(&prompt, &params, |_| ControlFlow::Continue(())).unwrap();
        (prompt, answer.token_ids)
    };
    PROMPTS.iter().map(|text| one(text)).collect()
}

type Answers = BTreeMap<JobId, (Vec<u32>, Option<FinishReason>)>;

fn listen(answers: &mut Answers, events: Vec<Event>) {
    for event in events {
        match event {
            Event::Token { job, token, .. } => answers.entry(job).or_default().0.push(token),
            Event::Finished { job, reason } => answers.entry(job).or_default().1 = Some(reason),
            Event::Started { .. } => {}
            Event::Embedded { .. } => unreachable!(),
            Event::Failed { error, .. } => panic!("{error}"),
        }
    }
}

fn run_out(scheduler: &mut Scheduler<Cpu>, answers: &mut Answers) {
    while !scheduler.is_idle() {
        listen(answers, scheduler.step().unwrap());
    }
    let status = scheduler.status();
    assert_eq!((status.free_blocks, status.running, status.waiting), (status.blocks, 0, 0));
}

#[test]
fn company_changes_nothing() {
    let expected = alone(24);
    // room for all; so little that requests give their blocks back; chunks that cut prompts
    for (cache_tokens, chunk, running) in [(1024, 512, 5), (128, 512, 5), (160, 7, 4), (256, 16, 2)] {
        let mut scheduler = scheduler(cache_tokens, chunk, running);
        let mut answers = Answers::new();
        let mut ids = Vec::new();
        for (i, (prompt, _)) in expected.iter().enumerate() {
            ids.push(scheduler.submit(greedy(prompt.clone(), 24)).unwrap());
            // some come while others are under way
            (0..i).for_each(|_| listen(&mut answers, scheduler.step().unwrap()));
        }
        run_out(&mut scheduler, &mut answers);
        for (id, (_, tokens)) in ids.iter().zip(&expected) {
            assert_eq!(&answers[id].0, tokens, "cache {cache_tokens}, chunk {chunk}, running {running}");
        }
    }
}

#[test]
fn where_blocks_run_out_requests_are_computed_again() {
    let expected = alone(60);
    let mut scheduler = scheduler(128, 512, 5);
    let ids: Vec<_> =
        expected.iter().map(|(prompt, _)| scheduler.submit(greedy(prompt.clone(), 60)).unwrap()).collect();
    let mut answers = Answers::new();
    run_out(&mut scheduler, &mut answers);
    assert!(scheduler.status().preemptions > 0, "the test is about them");
    for (id, (_, tokens)) in ids.iter().zip(&expected) {
        assert_eq!(&answers[id].0, tokens);
    }
}

#[test]
fn a_beginning_that_is_in_the_cache_is_not_computed_again() {
    let expected = alone(24);
    let mut scheduler = scheduler(1024, 512, 2);
    let mut answers = Answers::new();
    for (prompt, tokens) in [&expected[1], &expected[1], &expected[4]] {
        let id = scheduler.submit(greedy(prompt.clone(), 24)).unwrap();
        run_out(&mut scheduler, &mut answers);
        assert_eq!(&answers[&id].0, tokens);
    }
    // twice the whole blocks of the beginning that these prompts share
    let shared = expected[1].0.iter().zip(&expected[4].0).take_while(|(a, b)| a == b).count();
    assert!(shared >= 16, "{shared}");
    let whole = (expected[1].0.len() - 1) / 16 * 16 + shared / 16 * 16;
    assert_eq!(scheduler.status().reused_tokens, whole as u64);
}

#[test]
fn seeds_mean_the_same_in_company() {
    let prompt = alone(1).swap_remove(0).0;
    let job = |seed| Job {
        prompt: prompt.clone(),
        sampling: SamplingParams { seed: Some(seed), ..SamplingParams::default() },
        max_tokens: Some(20),
        ignore_eos: true,
        ..Job::default()
    };
    let run = |seeds: &[u64], running| {
        let mut scheduler = scheduler(1024, 64, running);
        let ids: Vec<_> = seeds.iter().map(|&seed| scheduler.submit(job(seed)).unwrap()).collect();
        let mut answers = Answers::new();
        run_out(&mut scheduler, &mut answers);
        ids.iter().map(|id| answers[id].0.clone()).collect::<Vec<_>>()
    };
    let together = run(&[1, 2, 3], 3);
    assert_eq!(together[1], run(&[2], 1)[0]);
    assert_ne!(together[0], together[1]);
    assert!(together.iter().all(|tokens| tokens.len() == 20));
}

#[test]
fn who_is_cancelled_leaves_nothing_behind() {
    let expected = alone(24);
    let mut scheduler = scheduler(1024, 16, 2);
    let ids: Vec<_> =
        expected.iter().map(|(prompt, _)| scheduler.submit(greedy(prompt.clone(), 24)).unwrap()).collect();
    let mut answers = Answers::new();
    for _ in 0..3 {
        listen(&mut answers, scheduler.step().unwrap());
    }
    // one that runs, one that waits, and one twice
    assert!(scheduler.cancel(ids[0]) && scheduler.cancel(ids[3]) && !scheduler.cancel(ids[0]));
    run_out(&mut scheduler, &mut answers);
    assert!(!scheduler.cancel(ids[1]), "it is done");
    for i in [1, 2, 4] {
        assert_eq!(answers[&ids[i]].0, expected[i].1);
    }
    assert!(!answers.contains_key(&ids[3]) && answers.get(&ids[0]).is_none_or(|a| a.1.is_none()));
}

#[test]
fn what_cannot_be_taken_on_is_refused_by_name() {
    let mut scheduler = Scheduler::new(engine(128, 16, 1), Limits { running: 1, waiting: 2 }).unwrap();
    assert!(matches!(scheduler.submit(greedy(vec![], 4)), Err(Error::EmptyPrompt)));
    let long = scheduler.submit(greedy(vec![1; 129], 4)).unwrap_err();
    assert_eq!(long.to_string(), "the prompt has 129 tokens, but the context holds 128");
    let hot = SamplingParams { temperature: -1.0, ..SamplingParams::default() };
    assert!(scheduler.submit(Job { prompt: vec![1], sampling: hot, ..Job::default() }).is_err());
    for _ in 0..2 {
        scheduler.submit(greedy(vec![1, 2], 4)).unwrap();
    }
    let full = scheduler.submit(greedy(vec![1, 2], 4)).unwrap_err();
    assert_eq!(full.to_string(), "2 requests wait already, which is as many as may");
    let limits = Limits { running: 2, waiting: 1 };
    let error = Scheduler::new(engine(128, 16, 1), limits).unwrap_err();
    assert_eq!(error.to_string(), "2 requests are to run together; the engine was made for 1 to 1");
}

#[test]
fn ends_are_told() {
    let mut scheduler = scheduler(1024, 512, 4);
    let mut answers = Answers::new();
    let prompt = alone(1).swap_remove(0).0;
    let none = scheduler.submit(greedy(prompt.clone(), 0)).unwrap();
    let full = scheduler.submit(greedy(vec![1; 128], 5)).unwrap();
    let ignoring = Job { ignore_eos: true, max_tokens: None, ..greedy(prompt.clone(), 0) };
    let on = scheduler.submit(ignoring).unwrap();
    let ends = scheduler.submit(Job { max_tokens: None, ..greedy(prompt.clone(), 0) }).unwrap();
    run_out(&mut scheduler, &mut answers);
    let of = |id: &JobId| (answers[id].0.len(), answers[id].1);
    assert_eq!(of(&none), (0, Some(FinishReason::Length)));
    assert_eq!(of(&full), (0, Some(FinishReason::Length)));
    assert_eq!(of(&on), (128 - prompt.len(), Some(FinishReason::Length)));
    assert!(of(&ends).0 <= of(&on).0);
}
