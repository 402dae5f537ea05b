//! WebSocket frames, messages, compression and the HTTP event form of WebSockets, without IO.
//!
//! The crate opens no socket, reads no clock and knows no channel: bytes, events, time and randomness come in as
//! arguments, bytes and events go out. It follows RFC 6455 (framing and handshake), RFC 7692 (permessage-deflate) and
//! the GRIP documents on WebSocket-over-HTTP.
//!
//! Start with [`connection::Receiver`], which turns bytes into messages, and [`over_http::Session`], which turns one
//! client's WebSocket into a sequence of HTTP requests.
//!
//! ```
//! use bytes::BytesMut;
//! use waft_websocket::connection::{Event, Limits, Receiver, Role};
//! use waft_websocket::frame::Opcode;
//! use waft_websocket::message::Message;
//!
//! let frame = Message::shared(Opcode::Text, b"hello");
//! let mut receiver = Receiver::new(Role::Client, Limits::default().into(), None);
//! let mut input = BytesMut::from(&frame[..]);
//! let event = receiver.receive(&mut input)?;
//! assert_eq!(event, Some(Event::Text("hello".into())));
//! # Ok::<(), waft_websocket::connection::Error>(())
//! ```

pub mod close;
pub mod connection;
pub mod control;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod negotiate;
pub mod over_http;
mod utf8;
