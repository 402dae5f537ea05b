//! Webhooks that survive: messages are stored, answered when they are on the disk, and delivered at least once.
//!
//! What it deliberately lacks: trust in any URL (every try goes through `waft_outbound` and its address policy), and any
//! other program: the queue is a log of its own (`waft_store`).
//!
//! Start with [`core`]: the rules of delivery, without IO. `engine` is the thread that keeps the queue, `service` the API
//! on the control port, and [`Webhooks`] both of them, running. Signatures are those of Standard Webhooks 1.0.
//!
//! ```
//! use waft_webhooks::core::sign::{Key, Signed, Style, headers};
//!
//! let key = Key::parse("whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u").unwrap();
//! let signed = Signed { id: "msg_1", kind: "a.b", timestamp: 1_700_000_000, body: b"{\"type\":\"a.b\"}" };
//! let headers = headers(Style::Standard, &[&key], &signed);
//! assert_eq!(headers[2].1, "v1,TN6bKjC5wX3hgoeJ34JLPrwDw7uzH0FxldylWOCrIeg=");
//! ```

mod answers;
mod asks;
mod config;
pub mod core;
mod engine;
mod keep;
mod metrics;
mod send;
mod service;
pub mod submit;

pub use config::{ConfiguredApp, ConfiguredEndpoint, StartError, WebhooksConfig};
pub use service::Webhooks;
