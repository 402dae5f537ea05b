//! The pages in `docs/`: complete, equal to what the program says, and with commands that work.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod commands;
mod configuration;
mod conformance;
mod errors;
mod metrics;
mod page;
mod zurl;

use waft_testkit::workspace_root;

/// A page of the documentation.
fn read(path: &str) -> String {
    std::fs::read_to_string(workspace_root().join(path)).unwrap()
}
