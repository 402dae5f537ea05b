//! The connections of a shard that handlers know, by their ids.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use waft_mongrel2::Command;

use super::desk::Link;

/// What a handler wants to be done with a connection.
#[derive(Debug)]
pub(crate) enum Order {
    /// Write this.
    Write(Bytes),
    /// Close when everything before has been written.
    Close,
    /// An extended message.
    Command(Command),
}

/// The connections of one shard that a handler has heard of.
#[derive(Debug)]
pub(crate) struct Book {
    shard: u64,
    shards: u64,
    issued: Cell<u64>,
    inboxes: RefCell<HashMap<u64, Rc<Inbox>>>,
}

impl Book {
    pub(crate) fn new(shard: u16, shards: usize) -> Self {
        Self {
            shard: u64::from(shard),
            shards: shards.max(1) as u64,
            issued: Cell::new(0),
            inboxes: RefCell::default(),
        }
    }

    /// A place for one more connection. Ids grow, begin at 1, and say which shard they are of, so that shards need not
    /// ask each other.
    pub(crate) fn contact(self: &Rc<Self>, link: Arc<Link>, limit: usize) -> Contact {
        let id = self.issued.get() * self.shards + self.shard + 1;
        self.issued.set(self.issued.get() + 1);
        let now = Cell::new(crate::sign::unix_seconds());
        let (last_ping, last_read, last_write) = (now.clone(), now.clone(), now);
        let inbox = Rc::new(Inbox { limit, last_ping, last_read, last_write, ..Inbox::default() });
        self.inboxes.borrow_mut().insert(id, Rc::clone(&inbox));
        Contact { id, inbox, link, book: Rc::clone(self), is_quiet: false }
    }

    /// Whether an id is one of this shard's.
    pub(crate) fn owns(&self, id: u64) -> bool {
        id.checked_sub(1).is_some_and(|number| number % self.shards == self.shard)
    }

    /// Puts an order into the inbox of a connection. False if there is no such connection.
    pub(crate) fn put(&self, id: u64, order: Order) -> bool {
        let inboxes = self.inboxes.borrow();
        let Some(inbox) = inboxes.get(&id) else { return false };
        inbox.put(order);
        true
    }

    /// What there is to be seen of the connections.
    pub(crate) fn connections(&self) -> Vec<HandlerConnection> {
        let inboxes = self.inboxes.borrow();
        let seen = inboxes.iter().map(|(id, inbox)| HandlerConnection {
            id: *id,
            last_ping: inbox.last_ping.get(),
            last_read: inbox.last_read.get(),
            last_write: inbox.last_write.get(),
            bytes_read: inbox.bytes_read.get(),
            bytes_written: inbox.bytes_written.get(),
        });
        seen.collect()
    }

    /// Ends a connection without a notice. False if there is no such connection.
    pub(crate) fn kill(&self, id: u64) -> bool {
        let inboxes = self.inboxes.borrow();
        let Some(inbox) = inboxes.get(&id) else { return false };
        inbox.kill();
        true
    }
}

/// What there is to be seen of a connection that a handler has heard of. Times are seconds of Unix time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerConnection {
    /// Its id.
    pub id: u64,
    /// When a handler last said that it is not idle; else when it was first heard of.
    pub last_ping: u64,
    /// When its client last sent something after its first request.
    pub last_read: u64,
    /// When it was last written to.
    pub last_write: u64,
    /// Bytes that came after its first request.
    pub bytes_read: u64,
    /// Bytes of handlers that were written.
    pub bytes_written: u64,
}

/// What waits for a connection.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    orders: RefCell<VecDeque<Order>>,
    bytes: Cell<usize>,
    /// Bytes that may wait.
    limit: usize,
    /// More than the limit was sent: the connection is to end.
    is_over: Cell<bool>,
    /// The connection is to end at once, and nobody is to hear of it.
    is_killed: Cell<bool>,
    /// Something came, or the connection is to end.
    arrived: Notify,
    pub(crate) bytes_read: Cell<u64>,
    pub(crate) bytes_written: Cell<u64>,
    /// Seconds of Unix time.
    pub(crate) last_ping: Cell<u64>,
    pub(crate) last_read: Cell<u64>,
    pub(crate) last_write: Cell<u64>,
}

impl Inbox {
    fn put(&self, order: Order) {
        let size = match &order {
            Order::Write(bytes) => bytes.len(),
            Order::Close | Order::Command(_) => 0,
        };
        let waiting = self.bytes.get();
        if waiting > 0 && waiting + size > self.limit {
            self.is_over.set(true);
        } else {
            self.bytes.set(waiting + size);
            self.orders.borrow_mut().push_back(order);
        }
        self.arrived.notify_one();
    }

    /// Waits for something to do.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The next order.
    pub(crate) fn take(&self) -> Option<Order> {
        self.orders.borrow_mut().pop_front()
    }

    /// Says that so many bytes do not wait any more.
    pub(crate) fn written(&self, count: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(count));
        self.bytes_written.set(self.bytes_written.get() + count as u64);
        self.last_write.set(crate::sign::unix_seconds());
    }

    /// Notes that a client has sent something.
    pub(crate) fn read(&self, count: usize) {
        self.bytes_read.set(self.bytes_read.get() + count as u64);
        self.last_read.set(crate::sign::unix_seconds());
    }

    /// Whether the connection is to end at once.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_over.get() || self.is_killed.get()
    }

    /// Whether more was sent than the client takes.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Ends the connection at once, without a notice.
    pub(crate) fn kill(&self) {
        self.is_killed.set(true);
        self.arrived.notify_one();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.get()
    }
}

/// A connection that a handler has heard of. When it ends, the handler of its last request is told.
#[derive(Debug)]
pub(crate) struct Contact {
    pub(crate) id: u64,
    pub(crate) inbox: Rc<Inbox>,
    /// The way to the handler that got the last request.
    pub(crate) link: Arc<Link>,
    book: Rc<Book>,
    is_quiet: bool,
}

impl Contact {
    /// Lets the connection end without a notice: its handler wanted it so.
    pub(crate) fn be_quiet(&mut self) {
        self.is_quiet = true;
    }
}

impl Drop for Contact {
    fn drop(&mut self) {
        self.book.inboxes.borrow_mut().remove(&self.id);
        if !self.is_quiet && !self.inbox.is_killed() {
            self.link.tell_gone(self.id);
        }
    }
}
