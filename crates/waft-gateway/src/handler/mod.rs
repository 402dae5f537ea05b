//! Mongrel2 handlers as targets.
//!
//! A handler is a program behind ZeroMQ that gets requests as messages and may answer any connection at any time, with
//! bytes that go to the client as they are. So nobody but the handler knows when an answer is over: from its first
//! request to a handler on, a connection belongs to a task of its own (`talk`), which reads requests and writes what its
//! `book::Inbox` gets, both at any time. `desk` has the sockets, which all shards share; `receive` takes what comes
//! out of them to the connections; `message` writes requests; `upload` sends bodies that are too long for one message.
//!
//! An answer with a GRIP hold makes an ordinary hold of the connection, which is nobody's business of a handler any more.

mod book;
mod desk;
mod message;
mod receive;
mod send_file;
mod talk;
mod upload;

pub use book::HandlerConnection;
pub(crate) use book::{Book, Contact};
pub use desk::HandlersError;
pub(crate) use desk::{Handlers, Opened};
pub(crate) use message::version;
pub(crate) use receive::{Handed, hand_over, run};
pub(crate) use talk::{handler_of, serve};
