//! Bayeux 1.0 as Faye and CometD speak it: messages, replies, names of channels, and the state of one client.
//!
//! What it deliberately lacks: HTTP, WebSockets, timers, and the channels themselves. A client's state holds how far it
//! has been served in the log of each of its channels, not what waits for it: the log has that.
//!
//! Start with [`parse_batch`], which reads what comes in a body or a frame, [`Reply`], which is what each message gets,
//! and [`Session`], the state of a client with the acknowledgement extension.
//!
//! ```
//! use waft_bayeux::{Reply, parse_batch};
//!
//! let batch = parse_batch(br#"{"channel":"/meta/connect","clientId":"x","id":7}"#).unwrap();
//! let mut out = Vec::new();
//! Reply::to(&batch[0]).failed("401:x:Unknown client").write(&mut out);
//! assert_eq!(out, br#"{"id":7,"channel":"/meta/connect","successful":false,"error":"401:x:Unknown client"}"#);
//! ```

mod message;
mod name;
mod reply;
mod session;

pub use message::{BatchError, Message, Subscription, parse_batch};
pub use name::{Kind, Target, patterns_of, read_publish, read_subscription};
pub use reply::{Advice, CONNECTION_TYPES, Reconnect, Reply, compact, event, script, write_delivery};
pub use session::{Session, Style};
