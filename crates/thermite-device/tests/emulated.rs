//! The trait's methods over the emulated kernels, plain and fast, against the float64 oracles.
#![cfg(feature = "emulated")]

use thermite_device::conformance::run;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_kernels::emulator::Build;

#[test]
fn every_method_of_the_emulated_device() {
    for variants in [Variants::Plain, Variants::Fast] {
        let device = Emulated::open(Build::Fast, variants).unwrap();
        let outcomes = run(&device, &|_| true).unwrap();
        let failures: Vec<_> =
            outcomes.values().flat_map(|o| o.failures.iter().map(ToString::to_string)).collect();
        assert!(outcomes.len() >= 33, "only {} kernels were checked", outcomes.len());
        assert!(failures.is_empty(), "{variants:?}:\n{}", failures.join("\n"));
    }
}
