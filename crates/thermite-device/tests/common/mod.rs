//! What the tests of the CPU share.

use thermite_device::cpu::{ISA_VARIABLE, Isa};

/// The instruction sets to test: all this processor has, or the one that [`ISA_VARIABLE`] names, which must be there.
pub(crate) fn instruction_sets() -> Vec<Isa> {
    match std::env::var(ISA_VARIABLE) {
        Ok(name) if !name.is_empty() => {
            vec![
                Isa::named(&name)
                    .unwrap_or_else(|| panic!("{ISA_VARIABLE}={name}, which this processor lacks")),
            ]
        }
        _ => Isa::available(),
    }
}
