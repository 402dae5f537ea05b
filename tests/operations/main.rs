//! Running waft: configuration, reload, stopping, metrics.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod configuration;
mod life;
mod pushpin;
