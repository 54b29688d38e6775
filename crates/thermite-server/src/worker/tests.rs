//! What happens to requests when a step fails or panics.

use std::time::{Duration, Instant};

use thermite_device::cpu::Cpu;
use thermite_engine::scheduler::{EmbeddingJob, Event, Job, JobId, Status};
use thermite_engine::{BUILTIN, Engine, EngineOptions, Error, SamplingParams, Tokenizer, open_model};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::*;
use crate::metrics::Metrics;
use crate::model::{Loaded, Model, Queue};

/// A scheduler whose step number `at` goes wrong, and that waits while somebody holds `gate`.
struct Faulty {
    inner: Box<dyn Scheduling>,
    gate: Gate,
    step: usize,
    at: usize,
    panics: bool,
}

impl Scheduling for Faulty {
    fn submit(&mut self, job: Job) -> Result<JobId, Error> {
        self.inner.submit(job)
    }

    fn submit_embedding(&mut self, job: EmbeddingJob) -> Result<JobId, Error> {
        self.inner.submit_embedding(job)
    }

    fn cancel(&mut self, id: JobId) {
        self.inner.cancel(id);
    }

    fn step(&mut self) -> Result<Vec<Event>, Error> {
        drop(self.gate.lock().unwrap());
        self.step += 1;
        match (self.step == self.at, self.panics) {
            (false, _) => self.inner.step(),
            (true, true) => panic!("the device is on fire"),
            (true, false) => Err(Error::EmptyPrompt), // any error will do
        }
    }

    fn status(&self) -> Status {
        self.inner.status()
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.inner.tokenizer()
    }
}

type Gate = Arc<std::sync::Mutex<()>>;

fn model(at: usize, panics: bool, gate: Gate) -> Model {
    let load = move || -> Result<Loaded, Error> {
        let options = EngineOptions { max_outputs: 4, chunk: 16, ..EngineOptions::default() };
        let engine = Engine::load(&open_model(BUILTIN)?, Cpu::new(Some(1))?, &options)?;
        let loaded = Loaded::new(engine, None, Queue { running: 4, waiting: 4 })?;
        Ok(loaded.with(|inner| Box::new(Faulty { inner, gate, step: 0, at, panics })))
    };
    let metrics = Metrics::new().unwrap().of_model(BUILTIN);
    let (model, staff) = Model::start(BUILTIN.to_owned(), metrics, load).unwrap();
    tokio::spawn(staff.courier.deliver());
    model
}

fn orders(number: usize) -> Vec<Order> {
    let job = Job {
        prompt: vec![1, 2, 3],
        sampling: SamplingParams::greedy(),
        max_tokens: Some(20),
        ignore_eos: true,
        ..Job::default()
    };
    let work = Work::Text(TextJob { job, ..TextJob::default() });
    (0..number).map(|_| Order { work: work.clone(), arrived: Instant::now() }).collect()
}

/// All that is told of a request.
async fn told(mut receiver: Receiver<Update>) -> Vec<Update> {
    let mut told = Vec::new();
    while let Some(update) = timeout(Duration::from_secs(20), receiver.recv()).await.unwrap() {
        told.push(update);
    }
    told
}

#[tokio::test]
async fn a_step_that_fails_takes_its_requests_along_and_no_others() {
    let gate = Gate::default();
    let model = model(5, false, Arc::clone(&gate));
    let receivers = {
        let _held = gate.lock().unwrap(); // no step ends before all three are there
        model.worker.submit(orders(3)).unwrap()
    };
    for receiver in receivers {
        let told = told(receiver).await;
        assert!(matches!(told.last(), Some(Update::Failed(Failure::Engine(_)))), "{told:?}");
    }
    assert!(matches!(model.worker.faults().current(), Some(Fault::Step(_))));
    for receiver in model.worker.submit(orders(2)).unwrap() {
        let told = told(receiver).await;
        assert!(matches!(told.last(), Some(Update::Finished { tokens: 20, .. })), "{told:?}");
    }
    assert_eq!(model.worker.faults().current(), None);
}

#[tokio::test]
async fn after_a_panic_all_requests_fail_and_health_says_why() {
    let model = model(3, true, Gate::default());
    for _ in 0..2 {
        for receiver in model.worker.submit(orders(8)).unwrap() {
            let told = told(receiver).await;
            assert!(matches!(told.last(), Some(Update::Failed(Failure::Panic))), "{told:?}");
        }
    }
    assert_eq!(model.worker.faults().current(), Some(Fault::Panic("the device is on fire".to_owned())));
}

#[tokio::test]
async fn places_come_back() {
    let gate = Gate::default();
    let model = model(0, false, Arc::clone(&gate));
    assert_eq!(model.worker.submit(orders(9)).unwrap_err(), Refusal::TooMany { places: 8 });
    {
        let _held = gate.lock().unwrap(); // none is done yet
        let _running = model.worker.submit(orders(8)).unwrap();
        assert_eq!(model.worker.submit(orders(1)).unwrap_err(), Refusal::Full { places: 8 });
    }
    let again = async {
        loop {
            match model.worker.submit(orders(8)) {
                Ok(receivers) => return receivers,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    for receiver in timeout(Duration::from_secs(20), again).await.unwrap() {
        assert!(matches!(told(receiver).await.last(), Some(Update::Finished { .. })));
    }
    model.worker.end();
}
