//! ZHTTP workers: targets that are reached by ZeroMQ.
//!
//! The sockets of a target are a [`Service`]. They live on a thread of their own, which only sorts what comes by them:
//! each shard has an address for its workers to answer to, and gets its packets by its mailbox. `call` is one exchange
//! as its shard has it, `packet` translates between requests of HTTP and packets, `ask` takes a client's request to a
//! worker and the answer back. Without such a target there is no thread and no socket.

mod ask;
mod call;
mod packet;
mod service;

use std::sync::Arc;

use bytes::Bytes;
use waft_route::{Target, TargetAddress};
use waft_zhttp::{Id, Packet};

pub(crate) use self::ask::{Unanswered, answer, ask, fetch, size_of_head};
pub(crate) use self::call::{Call, CallBody, Calls, receive, sweep};
pub(crate) use self::packet::{AnswerHead, request_of, websocket_of};
pub(crate) use self::service::{Service, Workers};

/// What the thread of the sockets has for a shard.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) service: Arc<Service>,
    pub(crate) content: Content,
    /// Bytes on the wire, by which a shard's backlog is measured.
    pub(crate) size: usize,
}

/// What came by a socket.
#[derive(Debug)]
pub(crate) enum Content {
    /// A packet of a worker.
    Packet(Box<Packet>),
    /// A packet that could not be read but for its exchange.
    Unreadable(Bytes),
    /// A packet for a worker that has gone, and the exchanges it was for.
    Undeliverable(Bytes, Vec<Id>),
}

/// Whether a target is reached by ZeroMQ.
pub(crate) fn is_worker(target: &Target) -> bool {
    matches!(target.address, TargetAddress::Zhttp(_) | TargetAddress::ZhttpReq(_))
}
