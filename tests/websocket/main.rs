//! WebSockets, passed to backends as events over HTTP or as they are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod compression;
mod conformance;
mod direct;
mod event_rules;
mod events;
mod gaps;
mod outage;
mod over_http;
mod probe;
mod restart;
mod rules;
mod sockjs;
mod steering;
