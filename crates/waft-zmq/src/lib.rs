//! ZeroMQ sockets as asynchronous queues of multipart messages.
//!
//! The genuine libzmq runs on a thread of its own, the [`Engine`]. Each socket is a pair of handles: a
//! [`Sender`] that never blocks and a [`Receiver`] that hands over everything that has arrived in one
//! batch. Both directions are bounded; a full receive queue stops the reading of that socket, so that
//! ZeroMQ's own back pressure reaches the peers.
//!
//! A program whose work is all on one thread uses a [`LocalContext`] instead, and saves the hand-over.
//!
//! What it deliberately lacks: any protocol inside the messages.
//!
//! ```
//! use waft_zmq::{Engine, Kind, Message, SocketOptions};
//!
//! let engine = Engine::start("zmq").unwrap();
//! let pull = engine.open(&SocketOptions { bind: vec!["tcp://127.0.0.1:*".into()], ..SocketOptions::new(Kind::Pull) }).unwrap();
//! let push = engine.open(&SocketOptions { connect: pull.endpoints.clone(), ..SocketOptions::new(Kind::Push) }).unwrap();
//! push.sender.send(Message::single("hello")).unwrap();
//!
//! let mut receiver = pull.receiver;
//! let mut batch = Vec::new();
//! let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! assert!(runtime.block_on(receiver.receive(&mut batch)));
//! assert_eq!(batch, [Message::single("hello")]);
//! ```

mod engine;
mod local;
mod queue;
mod socket;

pub use engine::{Engine, Handler};
pub use local::{LocalContext, LocalOpened, LocalReceiver, LocalSender};
pub use queue::{Message, Receiver, SendError, Sender};
pub use socket::{Error, Keepalive, Kind, Opened, SocketOptions};
