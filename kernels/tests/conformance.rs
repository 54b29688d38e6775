//! Every kernel and instance on the emulator, against the float64 oracles.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use thermite_kernels::catalogue;
use thermite_kernels::conformance::{check, each_case};
use thermite_kernels::contract::contract_of;
use thermite_kernels::emulator::{Build, Emulator, Recipe};

fn fast() -> Emulator {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    Emulator::from_recipe(&Recipe { cache, ..Recipe::embedded(Build::Fast) }).expect("the kernels compile")
}

#[test]
fn every_kernel_matches_its_oracle() {
    let mut emulator = fast();
    let (mut failures, mut count) = (Vec::new(), 0);
    let mut slowest = (Duration::ZERO, String::new());
    each_case(&mut |case| {
        let start = Instant::now();
        failures.extend(check(&mut emulator, &case).err().map(|f| f.to_string()));
        count += 1;
        if start.elapsed() > slowest.0 {
            slowest = (start.elapsed(), case.label());
        }
    })
    .unwrap();
    println!("{count} cases, the slowest {slowest:?}");
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
