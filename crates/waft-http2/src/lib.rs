//! HTTP/2 at the edges: each stream of a connection becomes a connection of its own that speaks HTTP/1.1.
//!
//! Holding, routing, proxying and WebSockets are written once, for HTTP/1.1. A client that speaks HTTP/2 is served by
//! the same code: its connection is read by [`serve`], which makes of each stream a [`Pipe`](waft_net::Pipe) and writes
//! the request into it as HTTP/1.1; what comes back is sent as the stream's answer. An extended CONNECT (RFC 8441)
//! becomes a WebSocket handshake.
//!
//! Frames, header compression and flow control are those of the `h2` crate. What this crate adds is the translation of
//! heads, the framing of bodies, and that neither side can make the other hold more than a bounded number of bytes: a
//! stream's answer waits in its pipe until the peer's window takes it, and a request's body is taken from the peer only
//! as the pipe has room.
//!
//! Standards: RFC 9113, RFC 8441.

mod body;
mod head;
mod io;
mod server;
mod stream;

pub use io::PREFACE_START;
pub use server::{ServeError, ServerLimits, serve};
