//! Requests and responses that pass through, and requests that do not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod cross_origin;
mod errors;
mod headers;
mod pass;
mod routes;
mod smuggling;

use waft_testkit::{Reply, Request, Server, Setup, Target};

/// A server with one route, to a target that answers so.
fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Target, Server) {
    let target = Target::start(answer);
    let server = Server::start(Setup::to(&target));
    (target, server)
}
