//! NEON with dot products: what quantised products use. Vectors of eight floats are plain Rust, compiled to NEON.

use super::Portable;

/// The proof that the processor has NEON with dot products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neon(());

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }

    pub(crate) const fn portable(self) -> Portable {
        Portable::new()
    }
}
