//! WebSocket-over-HTTP: a client's WebSocket as a sequence of HTTP requests to a target.
//!
//! [`codec`] is the form of events in bodies, [`Session`] decides what to send when and what an answer means.

pub mod codec;
mod exchange;
mod fields;
mod session;
mod work;

pub use exchange::{Client, DropReason, Failure, Kind, Options, RETRIES_MAX, RequestKind, RequestPlan, ToClient};
pub use fields::relayed_with_accept;
pub use session::Session;
