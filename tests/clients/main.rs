//! Unmodified clients and libraries of the world outside, and the examples that use them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod browser;
mod curl;
mod demo;
mod django;
mod express;
mod koa;
mod plain_python;
mod publishers;
mod sockjs;
mod sse;
mod stateless;

use waft_testkit::{Server, Setup, free_port};

/// A server with one route to a backend that will listen on the port; the backend is started with the server's
/// control port, which is why the server comes first.
fn server_for_backend() -> (Server, u16) {
    let port = free_port();
    (Server::start(Setup::new().route(format!("* 127.0.0.1:{port}"))), port)
}

/// A POST request with a text.
fn post(path: &str, text: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: example.com\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}
