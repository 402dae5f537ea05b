//! Mongrel2 without sockets: what it says to handlers and hears from them, its control port, its access log, its
//! patterns for hosts and paths, and the language of its configuration.
//!
//! What it deliberately lacks: ZeroMQ, HTTP, files, databases and clocks. The server that decides where a rule is in
//! doubt is Mongrel2 1.12.
//!
//! Start with [`Request`], which is written for a handler, and [`Response`], which is read from one.
//!
//! ```
//! use bytes::Bytes;
//! use waft_mongrel2::{Protocol, Request, Response};
//!
//! let mut request = Request::new(b"hand-1", 7, b"/chat", Protocol::Json);
//! request.server_header("METHOD", b"GET");
//! request.client_header("Accept", b"*/*");
//! let message = request.finish(b"");
//! assert_eq!(message, &br#"hand-1 7 /chat 46:{"PATH":"/chat","METHOD":"GET","accept":"*/*"},0:,"#[..]);
//!
//! let response = Response::parse(&Bytes::from_static(b"hand-1 4:7 12, hello"), 128).unwrap();
//! assert_eq!(response.ids, [7, 12]);
//! assert_eq!(response.body, "hello");
//! ```

mod access;
pub mod conf;
pub mod control;
mod notice;
mod pattern;
mod request;
mod response;
mod rule;

pub use access::{AccessLine, AccessLineError};
pub use notice::{credits_notice, disconnect_notice};
pub use pattern::{PATTERN_ITEMS_MAX, Pattern, PatternError, STEPS_MAX};
pub use request::{Protocol, Request};
pub use response::{Command, Ctl, Response, ResponseError, TARGETS_MAX};
pub use rule::{HostRule, PathRule};
