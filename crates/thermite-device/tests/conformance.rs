//! The CPU device, with each instruction set, against the float64 oracles.

mod common;

use common::instruction_sets;
use thermite_device::conformance::run;
use thermite_device::cpu::Cpu;

#[test]
fn every_kernel_of_the_cpu() {
    for isa in instruction_sets() {
        let device = Cpu::with(Some(2), isa).unwrap();
        let outcomes = run(&device, &|_| true).unwrap();
        let mut failures = Vec::new();
        for (kernel, outcome) in &outcomes {
            println!("{} {kernel}: {} passed, {} failed", isa.name(), outcome.passed, outcome.failures.len());
            failures.extend(outcome.failures.iter().map(ToString::to_string));
        }
        let reference = outcomes.keys().filter(|name| !name.contains("16")).count();
        assert!(reference >= 33, "only {reference} kernels were checked");
        assert!(failures.is_empty(), "{}:\n{}", isa.name(), failures.join("\n"));
    }
}
