//! GRIP headers and instructions, publish items and formats, filters and signatures, without IO.
//!
//! What it lacks on purpose: sockets, clocks, and any knowledge of who is subscribed. Bytes and header lists come in,
//! typed values go out. The one exception is [`sig`], which reads a key file when a `file:` key is configured.
//!
//! Start with [`instruct::Instruct`] (what an origin asks the proxy to do with a response) and [`item::Item`] (what a
//! publisher sends to a channel).
//!
//! ```
//! use waft_grip::instruct::{HoldMode, Instruct};
//! use waft_grip::item::parse_publish_body;
//!
//! let head = [("Grip-Hold", &b"stream"[..]), ("Grip-Channel", b"room-1; prev-id=41")];
//! let instruct = Instruct::from_head(200, "OK", head.iter().copied()).unwrap();
//! assert_eq!(instruct.hold, Some(HoldMode::Stream));
//! assert_eq!(instruct.channels[0].prev_id.as_deref(), Some("41"));
//!
//! let body = br#"{"items":[{"channel":"room-1","formats":{"http-stream":{"content":"hello\n"}}}]}"#;
//! let items = parse_publish_body(body).unwrap();
//! assert_eq!(&items[0].formats.http_stream.as_ref().unwrap().content[..], b"hello\n");
//! ```

pub mod feature;
pub mod filter;
pub mod header;
pub mod instruct;
pub mod item;
pub mod keepalive;
pub mod merge;
pub mod patch;
pub mod shape;
pub mod sig;
pub mod status;
pub mod tnetstring;

mod json;
mod lenient;
