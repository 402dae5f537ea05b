//! Encrypted connections, to targets and from clients. The other side is always OpenSSL.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod front;
mod targets;
