//! An OpenAI-compatible HTTP server.
//!
//! Each model has a thread that owns its [`Scheduler`](thermite_engine::Scheduler); requests become orders for it, and
//! what it tells them becomes answers, whole or in pieces. Whoever goes away is forgotten within one step; whoever
//! reads slowly holds nobody up; what goes wrong with one request is an answer to that request.
//!
//! A request passes `listen` (connections and their time-outs), `guard` (host, key, body), `routes`, and meets the
//! `worker` of its model in `generation`.

mod clock;
mod generation;
mod guard;
mod limits;
mod listen;
mod metrics;
mod model;
mod openai;
mod routes;
mod server;
mod sse;
mod state;
mod worker;

pub use axum::http::HeaderValue;
pub use guard::{KeyError, Keys};
pub use limits::Limits;
pub use model::{LoadError, Loaded, Queue};
pub use server::{Server, ServerError, ServerOptions, Shutdown};
