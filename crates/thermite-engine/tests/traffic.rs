//! Random traffic: submissions, cancellations and small pools. Every block comes back, and every text and embedding is
//! what it is alone, on the CPU and in emulated Metal kernels.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;
use thermite_device::Device;
use thermite_device::cpu::Cpu;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_engine::scheduler::{EmbeddingJob, Event, Job, JobId, Limits, Scheduler, Status};
use thermite_engine::{
    BUILTIN, Engine, EngineOptions, Error, GenerateParams, Grammar, SamplingParams, open_model,
};
use thermite_kernels::emulator::Build;

const CONTEXT: usize = 96;

fn engine<D: Device>(device: D, cache_tokens: usize, chunk: usize, max_outputs: usize) -> Engine<D> {
    let options = EngineOptions {
        context: Some(CONTEXT.min(cache_tokens)),
        cache_tokens: Some(cache_tokens),
        chunk,
        max_outputs,
        ..EngineOptions::default()
    };
    Engine::load(&open_model(BUILTIN).unwrap(), device, &options).unwrap()
}

fn cpu() -> Cpu {
    Cpu::new(Some(1)).unwrap()
}

/// A request, and steps that are run after it.
#[derive(Debug, Clone)]
struct Arrival {
    /// Which of some prompts that begin alike, and how much of it.
    prompt: (u32, usize),
    kind: Kind,
    max_tokens: usize,
    steps: usize,
    /// Is cancelled after those steps.
    cancelled: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Greedy,
    Seeded(u64),
    /// With log-probabilities, and a bias.
    Biased,
    /// Under a grammar.
    Constrained(u64),
    Embedding,
}

impl Arrival {
    fn tokens(&self) -> Vec<u32> {
        let (which, len) = self.prompt;
        let token = |i: u32| if i < 40 { i * 7 + 3 } else { i * 11 + which };
        (0..len as u32).map(token).collect()
    }

    fn job<D: Device>(&self, engine: &Engine<D>) -> Job {
        let greedy = Job {
            prompt: self.tokens(),
            sampling: SamplingParams::greedy(),
            max_tokens: Some(self.max_tokens),
            ..Job::default()
        };
        let seeded =
            |seed| SamplingParams { temperature: 1.5, seed: Some(seed), ..SamplingParams::default() };
        match self.kind {
            Kind::Greedy | Kind::Embedding => Job { ignore_eos: true, ..greedy },
            Kind::Seeded(seed) => Job { sampling: seeded(seed), ..greedy },
            Kind::Biased => Job { logit_bias: vec![(5, 3.0), (9, -100.0)], logprobs: Some(2), ..greedy },
            Kind::Constrained(seed) => {
                let grammar = Grammar::Regex("([a-z]{1,8} ){1,4}the end".to_owned());
                let constraint = Some(engine.grammars().compile(&grammar).unwrap());
                Job { sampling: seeded(seed), constraint, ..greedy }
            }
        }
    }
}

/// What a request got.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    embedding: Vec<f32>,
    over: bool,
}

fn listen(answers: &mut BTreeMap<JobId, Answer>, events: Vec<Event>) {
    for event in events {
        match event {
            Event::Started { job, .. } => assert!(answers.insert(job, Answer::default()).is_none()),
            Event::Token { job, token, logprobs } => {
                let ordered = |top: &[(u32, f32)]| top.is_sorted_by(|a, b| a.1 >= b.1);
                assert!(logprobs.is_none_or(|found| found.chosen <= 0.0 && ordered(&found.top)));
                answers.get_mut(&job).unwrap().tokens.push(token);
            }
            Event::Embedded { job, embedding } => {
                let answer = answers.get_mut(&job).unwrap();
                (answer.embedding, answer.over) = (embedding, true);
            }
            Event::Finished { job, .. } => answers.get_mut(&job).unwrap().over = true,
            Event::Failed { error, .. } => panic!("{error}"),
        }
    }
}

fn submit<D: Device>(scheduler: &mut Scheduler<D>, arrival: &Arrival) -> JobId {
    match arrival.kind {
        Kind::Embedding => {
            let job = EmbeddingJob { tokens: arrival.tokens(), normalize: true };
            scheduler.submit_embedding(job).unwrap()
        }
        _ => {
            let job = arrival.job(scheduler.engine());
            scheduler.submit(job).unwrap()
        }
    }
}

fn run_out<D: Device>(scheduler: &mut Scheduler<D>, answers: &mut BTreeMap<JobId, Answer>) {
    while !scheduler.is_idle() {
        listen(answers, scheduler.step().unwrap());
    }
    let status = scheduler.status();
    assert_eq!((status.free_blocks, status.running, status.waiting), (status.blocks, 0, 0));
}

/// Runs `arrivals` through `scheduler`, and each of them by itself: what was not cancelled must be the same. Gives what
/// the scheduler did.
fn check<D: Device>(arrivals: &[Arrival], mut scheduler: Scheduler<D>, alone: &mut Scheduler<D>) -> Status {
    let mut answers = BTreeMap::new();
    let mut ids = Vec::new();
    for arrival in arrivals {
        let id = submit(&mut scheduler, arrival);
        (0..arrival.steps).for_each(|_| listen(&mut answers, scheduler.step().unwrap()));
        if arrival.cancelled {
            scheduler.cancel(id);
        }
        ids.push(id);
    }
    run_out(&mut scheduler, &mut answers);
    for (arrival, id) in arrivals.iter().zip(ids).filter(|(arrival, _)| !arrival.cancelled) {
        let one = submit(alone, arrival);
        let mut expected = BTreeMap::new();
        run_out(alone, &mut expected);
        assert_eq!(answers[&id], expected[&one], "{arrival:?}");
        assert!(answers[&id].over);
    }
    scheduler.status()
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Greedy),
        2 => (0u64..9).prop_map(Kind::Seeded),
        1 => Just(Kind::Biased),
        1 => (0u64..9).prop_map(Kind::Constrained),
        1 => Just(Kind::Embedding),
    ]
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = ((0u32..3, 1usize..CONTEXT), kinds(), 0usize..40, 0usize..5, prop::bool::weighted(0.2))
        .prop_map(|(prompt, kind, max_tokens, steps, cancelled)| Arrival {
            prompt,
            kind,
            max_tokens,
            steps,
            cancelled,
        });
    prop::collection::vec(arrival, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn company_changes_nothing_and_all_blocks_come_back(
        arrivals in arrivals(),
        cache_tokens in CONTEXT..320,
        chunk in 6usize..64,
        running in 1usize..6,
    ) {
        let limits = Limits { running, waiting: 16 };
        let scheduler = Scheduler::new(engine(cpu(), cache_tokens, chunk, running), limits).unwrap();
        let mut alone = Scheduler::new(engine(cpu(), CONTEXT, CONTEXT, 1), Limits { running: 1, waiting: 1 }).unwrap();
        check(&arrivals, scheduler, &mut alone);
    }
}

#[test]
fn company_changes_nothing_in_metal_kernels() {
    let arrival = |which, len, max_tokens, steps| {
        let (kind, prompt) = (Kind::Greedy, (which, len));
        Arrival { prompt, kind, max_tokens, steps, cancelled: false }
    };
    let arrivals = [
        arrival(0, 14, 4, 1),
        arrival(0, 17, 3, 1), // waits for blocks
        Arrival { cancelled: true, ..arrival(2, 5, 9, 0) },
        arrival(1, 17, 2, 0), // its first block is there already
    ];
    let device = || Emulated::open(Build::Fast, Variants::Invariant).unwrap();
    let scheduler = Scheduler::new(engine(device(), 48, 24, 3), Limits { running: 3, waiting: 16 }).unwrap();
    let mut alone = Scheduler::new(engine(device(), 32, 32, 1), Limits { running: 1, waiting: 1 }).unwrap();
    let status = check(&arrivals, scheduler, &mut alone);
    assert!(status.reused_tokens >= 16, "{status:?}");
}

/// The scheduler's texts are those of [`Engine::generate`].
#[test]
fn a_request_gets_what_generate_gives() {
    let mut scheduler = Scheduler::new(engine(cpu(), 256, 32, 2), Limits { running: 2, waiting: 9 }).unwrap();
    let mut engine = engine(cpu(), CONTEXT, CONTEXT, 1);
    for kind in [Kind::Greedy, Kind::Seeded(3), Kind::Constrained(4)] {
        let arrival = Arrival { prompt: (1, 44), kind, max_tokens: 30, steps: 0, cancelled: false };
        let Job { prompt, sampling, max_tokens, ignore_eos, constraint, .. } = arrival.job(&engine);
        let params = GenerateParams { sampling, max_tokens, ignore_eos, constraint, stop: Vec::new() };
        let expected = engine.generate(&prompt, &params, |_| ControlFlow::Continue(())).unwrap();
        let id = submit(&mut scheduler, &arrival);
        let mut answers = BTreeMap::new();
        run_out(&mut scheduler, &mut answers);
        assert_eq!(answers[&id].tokens, expected.token_ids, "{kind:?}");
    }
}

#[test]
fn who_asks_for_what_is_not_there_is_refused_by_name() {
    let mut scheduler = Scheduler::new(engine(cpu(), 256, 32, 2), Limits { running: 2, waiting: 9 }).unwrap();
    let job = |prompt: u32, bias| Job { prompt: vec![prompt], logit_bias: vec![bias], ..Job::default() };
    for (job, what) in [
        (job(99_999, (1, 0.0)), "the prompt names token 99999, but the model's vocabulary has 4096 entries"),
        (job(1, (4096, 0.0)), "logit_bias names token 4096, but"),
        (job(1, (1, 100.5)), "logit_bias is 100.5; it must be from -100 to 100"),
        (job(1, (1, f32::NAN)), "logit_bias is NaN"),
    ] {
        let error = scheduler.submit(job).unwrap_err().to_string();
        assert!(error.starts_with(what), "{error}");
    }
    let long = EmbeddingJob { tokens: vec![1; CONTEXT + 1], normalize: false };
    assert!(matches!(scheduler.submit_embedding(long), Err(Error::PromptTooLong { .. })));
    assert!(matches!(scheduler.submit_embedding(EmbeddingJob::default()), Err(Error::EmptyPrompt)));
    assert!(scheduler.is_idle());
}

/// One request that cannot go on is alone in that.
#[test]
fn a_grammar_that_is_stuck_stops_nobody_else() {
    let mut scheduler = Scheduler::new(engine(cpu(), 512, 32, 3), Limits { running: 3, waiting: 9 }).unwrap();
    // a token that the vocabulary does not have
    let stuck = Grammar::Lark("start: <[5000]>".to_owned());
    assert!(scheduler.engine().grammars().compile(&stuck).is_err());
    let arrival = |kind| Arrival { prompt: (0, 20), kind, max_tokens: 12, steps: 0, cancelled: false };
    let mut ids = vec![submit(&mut scheduler, &arrival(Kind::Greedy))];
    // a constraint that has already taken a token which the next one cannot follow
    let mut job = arrival(Kind::Constrained(1)).job(scheduler.engine());
    let constraint = job.constraint.as_mut().unwrap();
    assert!(constraint.accept(0).is_err());
    let broken = scheduler.submit(job).unwrap();
    ids.push(submit(&mut scheduler, &arrival(Kind::Seeded(1))));
    let mut failed = Vec::new();
    let mut finished = Vec::new();
    while !scheduler.is_idle() {
        for event in scheduler.step().unwrap() {
            match event {
                Event::Failed { job, error } => failed.push((job, error.to_string())),
                Event::Finished { job, .. } => finished.push(job),
                _ => {}
            }
        }
    }
    assert!(
        matches!(&failed[..], [(job, error)] if *job == broken && error.starts_with("the grammar cannot go on"))
    );
    finished.sort();
    assert_eq!(finished, ids);
    let status = scheduler.status();
    assert_eq!(status.free_blocks, status.blocks);
}
