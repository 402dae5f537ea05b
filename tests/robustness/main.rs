//! Clients and backends that misbehave, and crowds: nobody else is delayed, and nothing leaks.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod crowd;
mod readers;
