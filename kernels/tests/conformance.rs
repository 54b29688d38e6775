//! Every kernel and instance on the emulator, against the float64 oracles.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use thermite_kernels::catalogue;
use thermite_kernels::conformance::{check, each_case, each_case_of};
use thermite_kernels::contract::contract_of;
use thermite_kernels::emulator::{Build, Emulator};

/// What came of some kernels' cases.
#[derive(Default)]
struct Outcome {
    failures: Vec<String>,
    count: usize,
    slowest: (Duration, String),
}

/// Takes one kernel after another, as long as there are any that nobody has.
fn run_kernels(emulator: &Emulator, kernels: &Mutex<impl Iterator<Item = &'static str>>) -> Outcome {
    let (mut emulator, mut outcome) = (emulator.clone(), Outcome::default());
    let next = || kernels.lock().unwrap().next();
    while let Some(kernel) = next() {
        each_case_of(&|name| name == kernel, &mut |case| {
            let start = Instant::now();
            outcome.failures.extend(check(&mut emulator, &case).err().map(|f| f.to_string()));
            outcome.count += 1;
            if start.elapsed() > outcome.slowest.0 {
                outcome.slowest = (start.elapsed(), case.label());
            }
        })
        .unwrap();
    }
    outcome
}

#[test]
fn every_kernel_matches_its_oracle() {
    let emulator = Emulator::new(Build::Fast).expect("the kernels compile");
    let kernels = Mutex::new(catalogue::kernels().unwrap().iter().map(|entry| entry.kernel.name.as_str()));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| run_kernels(&emulator, &kernels))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let count: usize = outcomes.iter().map(|outcome| outcome.count).sum();
    let slowest = outcomes.iter().map(|outcome| &outcome.slowest).max();
    println!("{count} cases, the slowest {slowest:?}");
    let failures: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.failures).collect();
    let shown: Vec<_> = failures.iter().step_by(failures.len() / 40 + 1).collect();
    assert!(failures.is_empty(), "{} of {count} cases fail:\n{shown:#?}", failures.len());
}

#[test]
fn every_kernel_has_a_contract_and_cases() {
    let mut covered = BTreeSet::new();
    each_case(&mut |case| {
        covered.insert(case.kernel);
    })
    .unwrap();
    for entry in catalogue::kernels().unwrap() {
        let name = &entry.kernel.name;
        assert!(contract_of(name).is_some(), "{name} has no contract");
        assert!(covered.contains(name), "{name} has no case");
    }
}
