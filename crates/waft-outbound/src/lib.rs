//! Calls to the outside on behalf of others: webhooks, ZHTTP workers, links to foreign hosts.
//!
//! What it deliberately lacks: any trust in a URL. Every address is judged by a [`policy::Policy`] after it
//! was resolved and before it is dialled by number, on every redirect, for WebSockets too; proxy settings
//! of the environment are not looked at.
//!
//! Start with [`Client`] and [`Call`]; [`policy`] and [`target`] are pure. [`zurl`] is the door for programs
//! that speak ZHTTP, in the manner of the Zurl daemon.
//!
//! ```
//! use std::sync::Arc;
//! use waft_outbound::policy::Policy;
//! use waft_outbound::target::Target;
//! use waft_outbound::{Call, CallError, Client, Limits, Lookup};
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! tokio::task::LocalSet::new().block_on(&runtime, async {
//!     let client = Client::new(Limits::default(), Lookup::System);
//!     let target = Target::parse(b"http://0x7f.1/latest/meta-data").unwrap();
//!     let call = Call::new("GET", target, Arc::new(Policy::hardened()));
//!     assert!(matches!(client.call(call).await, Err(CallError::Denied(_))));
//! });
//! ```

mod client;
pub mod egress;
mod error;
mod limits;
mod metrics;
pub mod policy;
mod resolve;
pub mod target;
pub mod zurl;

pub use client::{
    Answer, BodySource, Call, Client, Redirects, Replay, RequestBody, Response, ResponseBody, WebSocket, check_tls,
};
pub use error::CallError;
pub use limits::Limits;
pub use metrics::{Metrics, Sample};
pub use resolve::Lookup;
pub use waft_net::ClientIdentity;
