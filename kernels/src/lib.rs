//! The Metal compute kernels of Thermite, and what parses, launches and checks them.
//!
//! The `.metal` files at the top of this crate are the only GPU source. This crate embeds them
//! ([`sources`]), reads their signatures ([`syntax`], [`catalogue`]), says how each is launched and what may
//! be bound to it ([`contract`]), writes the wrappers with which other compilers read the same bytes
//! ([`wrap`]), runs them on the CPU ([`emulator`], feature `emulated`), and holds the cases that every
//! device must pass ([`conformance`], feature `conformance`). A few kernels have a second form for one GPU
//! ([`hopper`]).

pub mod address_spaces;
pub mod catalogue;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod contract;
pub mod document;
#[cfg(feature = "emulated")]
pub mod emulator;
pub mod hopper;
pub mod sources;
pub mod syntax;
pub mod wrap;
