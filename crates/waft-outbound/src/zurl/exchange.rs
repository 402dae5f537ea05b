//! One exchange of the door: its protocol state and what waits between the sockets and its task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use tokio::task::AbortHandle;
use waft_zhttp::{Encoding, Packet, Value};

/// Packets that wait in either direction. Bodies are bounded by credits; this bounds empty ones and control
/// frames.
const PACKETS_MAX: usize = 4_096;

/// An exchange, shared by the door and the exchange's task on one thread.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The client's address; none in request/reply and in fire and forget.
    pub(crate) from: RefCell<Option<Bytes>>,
    pub(crate) id: Option<Bytes>,
    pub(crate) encoding: Encoding,
    /// The frames before the payload of a request, to be repeated before that of the reply.
    pub(crate) envelope: Option<Vec<Bytes>>,
    /// Logged at debug level.
    pub(crate) quiet: bool,
    /// The client understands lists of ids.
    pub(crate) multi: bool,
    /// Silence of the client ends it: the client has to grant credits or to send more.
    pub(crate) expires: bool,
    /// Inactivity on the HTTP side ends it.
    pub(crate) times_out: bool,
    /// The end of the time that the request gives.
    pub(crate) ends_at: Option<Instant>,
    pub(crate) state: RefCell<waft_zhttp::Exchange>,
    pub(crate) user_data: RefCell<Option<Arc<Value>>>,
    /// The last progress on the HTTP side.
    pub(crate) active_at: Cell<Instant>,
    /// The entry in the door's list of deadlines.
    pub(crate) due: Cell<Instant>,
    pub(crate) slot: Cell<usize>,
    pub(crate) abort: RefCell<Option<AbortHandle>>,
    pub(crate) answered: Cell<bool>,
    /// Packets kept back while the client hands the exchange to another process.
    pub(crate) handoff: RefCell<Option<Vec<Packet>>>,
    inbound: RefCell<VecDeque<Packet>>,
    waker: RefCell<Option<Waker>>,
}

impl Exchange {
    pub(crate) fn new(packet: &Packet, encoding: Encoding, state: waft_zhttp::Exchange, now: Instant) -> Self {
        Self {
            from: RefCell::new(None),
            id: packet.ids.as_slice().first().map(|id| id.id.clone()),
            encoding,
            envelope: None,
            quiet: packet.ext_quiet,
            multi: packet.ext_multi,
            expires: false,
            times_out: true,
            ends_at: None,
            state: RefCell::new(state),
            user_data: RefCell::new(packet.user_data.clone()),
            active_at: Cell::new(now),
            due: Cell::new(now),
            slot: Cell::new(0),
            abort: RefCell::new(None),
            answered: Cell::new(false),
            handoff: RefCell::new(None),
            inbound: RefCell::default(),
            waker: RefCell::new(None),
        }
    }

    /// Nobody hears what becomes of it.
    pub(crate) fn is_silent(&self) -> bool {
        self.envelope.is_none() && (self.from.borrow().is_none() || self.id.is_none())
    }

    /// A packet of the client for the task: body, close, ping or pong. False if too many wait already.
    pub(crate) fn push(&self, packet: Packet) -> bool {
        let mut inbound = self.inbound.borrow_mut();
        let has_room = inbound.len() < PACKETS_MAX;
        if has_room {
            inbound.push_back(packet);
        }
        has_room
    }

    /// Keeps a packet back during a hand-over. False if too many are kept already.
    pub(crate) fn keep(&self, packet: Packet) -> bool {
        let mut handoff = self.handoff.borrow_mut();
        let Some(kept) = handoff.as_mut().filter(|kept| kept.len() < PACKETS_MAX) else { return false };
        kept.push(packet);
        true
    }

    /// Wakes the task to look at packets and credits.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The next packet for the task. Wakes it when there is one or when credits came.
    pub(crate) fn poll_packet(&self, cx: &mut Context<'_>) -> Poll<Packet> {
        match self.inbound.borrow_mut().pop_front() {
            Some(packet) => Poll::Ready(packet),
            None => {
                self.register(cx);
                Poll::Pending
            }
        }
    }

    /// Spends up to `wanted` credits; waits while there are none.
    pub(crate) fn poll_credits(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        match self.state.borrow_mut().spend(wanted) {
            0 if wanted > 0 => {
                self.register(cx);
                Poll::Pending
            }
            allowed => Poll::Ready(allowed),
        }
    }

    fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// When something is due if nothing happens until then.
    pub(crate) fn next_due(&self, timeout: std::time::Duration) -> Instant {
        let mut due = self.ends_at;
        let mut add = |at: Instant| due = Some(due.map_or(at, |due| due.min(at)));
        if self.times_out {
            add(self.active_at.get() + timeout);
        }
        if !self.is_silent() && self.envelope.is_none() {
            add(self.state.borrow().poll_timeout(self.expires));
        }
        due.unwrap_or_else(|| self.active_at.get() + timeout)
    }
}
