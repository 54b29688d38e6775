//! What the tests share, of which each takes what it needs.
#![allow(dead_code, reason = "each test is a crate of its own")]

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

/// Numbers that look random, in `-1 .. 1`.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
