//! One module a command.

pub(crate) mod bench;
pub(crate) mod eval;
pub(crate) mod flow;
pub(crate) mod generate;
