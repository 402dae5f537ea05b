//! The control API, metrics and health, and the demonstration: what waft answers itself.
//!
//! What it deliberately lacks: sockets, framing and keep-alive (the gateway has them), and state of its own. Everything
//! reported is read from the gateway when it is asked for.
//!
//! Start with [`ControlApi`], which publishers call (GRIP section 11.5), and [`Demo`], which shows a newcomer that
//! everything works. [`MetricsService`] serves the metrics alone, on a listener of their own.

mod accept;
mod api;
mod auth;
mod demo;
mod exposition;
#[cfg(test)]
mod harness;
mod metrics;
mod process;
mod realm;
mod stats;
mod totals;

pub use api::{ControlApi, ControlConfig};
pub use demo::Demo;
pub use metrics::MetricsService;
