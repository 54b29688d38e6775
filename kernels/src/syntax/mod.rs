//! Reads Metal source: tokens, kernel signatures, lint, and the blanking of attributes for other compilers.

mod blank;
mod lexer;
mod lint;
mod macros;
mod parser;
mod signature;

pub use blank::blank_attributes;
pub use lint::{Finding, lint};
pub use parser::parse;
pub use signature::{Kernel, Parameter, Role, SyntaxError};
