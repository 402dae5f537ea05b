//! The HTTP control port: every answer and every error text.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod publish;
mod requests;
mod secure;
