//! What stands before the routes: who may ask, for how long, and who is told about it.

mod access;
mod auth;
mod body;
mod cors;
mod drain;
mod hosts;

pub(crate) use access::{Arrived, RequestId, watch};
pub(crate) use auth::authorize;
pub use auth::{KeyError, Keys};
pub(crate) use body::JsonObject;
pub(crate) use cors::cors;
pub(crate) use drain::refuse_when_draining;
pub(crate) use hosts::{Hosts, check_host};
