//! waft in Mongrel2's place: the same handlers and clients see the same of both programs.
//!
//! Each test that says what Mongrel2's users rely on is run against the genuine program too, which must be installed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod adapter;
mod commands;
mod files;
mod grip;
mod handlers;
mod site;
