//! The server with the built-in model, over real connections.

#![allow(clippy::unwrap_used)] // a failed helper is a failed test

mod client;
mod common;
mod faults;
mod guards;
mod refusals;
mod routes;
mod texts;
mod tools;
