//! The ZeroMQ sockets of the control side: the same clients see the same of both programs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod command;
mod items;
mod stats;
mod subscribe;
