//! Requests as they come: so many at a time, or so many a second.

use std::fmt;
use std::time::{Duration, Instant};

use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::client::{Client, RequestError, Sample};
use super::prompts::Prompts;
use super::stats::{Level, Window};
use crate::error::Error;

/// Time under load before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Requests at most that are under way where they come by a rate.
const MOST: usize = 1024;

/// Words of the text whose tokens are counted.
const COUNTED: usize = 64;

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Load {
    /// So many at a time.
    Concurrency(usize),
    /// So many a second, at moments of a Poisson process.
    Rate(f64),
}

impl Load {
    /// The number, for an axis.
    pub(super) fn value(self) -> f64 {
        match self {
            Self::Concurrency(n) => n as f64,
            Self::Rate(rate) => rate,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrency(n) => write!(f, "{n} at a time"),
            Self::Rate(rate) => write!(f, "{rate} a second"),
        }
    }
}

/// What each request asks for, and how long requests are sent.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    prompt: Vec<usize>,
    tokens: usize,
    duration: Duration,
    /// Tokens of [`COUNTED`] words, and of one.
    counted: usize,
    one: usize,
}

impl Plan {
    /// A plan for prompts of one of the lengths `prompt`, in tokens; how many a word has, the server says.
    pub(super) async fn of(
        client: &Client,
        prompt: &[usize],
        tokens: usize,
        duration: Duration,
    ) -> Result<Self, Error> {
        let mut rng = Pcg64Mcg::seed_from_u64(0);
        let mut count = async |words| {
            let sample = client.complete(&Prompts::words(&mut rng, words), 1).await;
            let usage = sample.outcome.map_err(|e| client.failed(&e))?;
            Ok::<_, Error>(usage.prompt_tokens)
        };
        let (counted, one) = (count(COUNTED).await?, count(1).await?);
        Ok(Self { prompt: prompt.to_vec(), tokens, duration, counted, one })
    }

    fn prompts(&self, seed: u64) -> Prompts {
        Prompts::new(seed, COUNTED, self.counted, self.one)
    }
}

/// Puts a load on the server, and measures.
pub(super) async fn put(client: &Client, plan: &Plan, load: Load) -> Level {
    let begin = Instant::now() + WARM_UP;
    let window = Window { begin, end: begin + plan.duration };
    let samples = match load {
        Load::Concurrency(n) => at_a_time(client, plan, n, window.end).await,
        Load::Rate(rate) => by_rate(client, plan, rate, window.end).await,
    };
    Level::of(load, &samples, window)
}

/// `n` at a time until `end`, and those under way then to their own end.
async fn at_a_time(client: &Client, plan: &Plan, n: usize, end: Instant) -> Vec<Sample> {
    let mut users = JoinSet::new();
    for user in 0..n {
        let (client, plan) = (client.clone(), plan.clone());
        let mut prompts = plan.prompts((n as u64) << 32 | user as u64);
        users.spawn(async move {
            let mut samples = Vec::new();
            while Instant::now() < end {
                samples.push(client.complete(&prompts.next(&plan.prompt), plan.tokens).await);
                if samples.last().is_some_and(|sample| sample.outcome.is_err()) {
                    // a server that refuses is not to be flooded
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            samples
        });
    }
    users.join_all().await.into_iter().flatten().collect()
}

/// At moments of a Poisson process of `rate` a second, until `end`.
async fn by_rate(client: &Client, plan: &Plan, rate: f64, end: Instant) -> Vec<Sample> {
    let mut prompts = plan.prompts(rate.to_bits());
    let (mut requests, mut samples) = (JoinSet::new(), Vec::new());
    let mut moment = Instant::now();
    loop {
        moment += Duration::from_secs_f64(prompts.arrival(rate));
        if moment >= end {
            break;
        }
        sleep_until(moment.into()).await;
        while let Some(Ok(sample)) = requests.try_join_next() {
            samples.push(sample);
        }
        if requests.len() >= MOST {
            let outcome = Err(RequestError::NotSent(requests.len()));
            samples.push(Sample { sent: moment, pieces: Vec::new(), outcome });
            continue;
        }
        let (client, prompt, tokens) = (client.clone(), prompts.next(&plan.prompt), plan.tokens);
        requests.spawn(async move { client.complete(&prompt, tokens).await });
    }
    samples.extend(requests.join_all().await);
    samples
}
