//! Instructions of backends and what holds make of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod filters;
mod instruct;
mod keep_alive;
mod links;
mod long_poll;
mod network_filters;
mod outside;
mod sequencing;
mod signature;
mod stream;

use waft_testkit::{Reply, Request, Server, Setup, Target};

/// A server with one route, to a target that answers so.
fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Target, Server) {
    let target = Target::start(answer);
    let server = Server::start(Setup::to(&target));
    (target, server)
}

/// Like [`serve`], with a route in debug mode, whose errors tell their cause.
fn serve_debug(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Target, Server) {
    let target = Target::start(answer);
    let server = Server::start(Setup::new().route(format!("*,debug {}", target.address())));
    (target, server)
}
