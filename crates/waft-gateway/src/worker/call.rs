//! Exchanges with ZHTTP workers, as their shard has them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::debug;
use waft_net::Key;
use waft_zhttp::{Encoding, Failure, Front, FrontEvent, Id, Ids, Interface, Kind, Packet};
use waft_zmq::SendError;

use super::{Content, Delivery, Service};
use crate::shard::Shard;
use crate::ws;

/// The exchanges of one shard that are not over.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    open: RefCell<HashMap<u64, Rc<State>>>,
    next: Cell<u64>,
}

/// One exchange, for whoever wants it performed. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Call {
    state: Rc<State>,
    shard: Rc<Shard>,
}

#[derive(Debug)]
struct State {
    number: u64,
    service: Arc<Service>,
    front: RefCell<Front>,
    /// The first packet, as long as it may not have left.
    first: RefCell<Bytes>,
    arrived: Notify,
    room: Notify,
    /// The WebSocket in the held set that the exchange is of.
    socket: Cell<Option<Key>>,
}

/// The shard whose exchange has this id.
pub(super) fn shard_of(id: &[u8]) -> Option<u16> {
    let (shard, _) = str::from_utf8(id).ok()?.split_once('-')?;
    u16::from_str_radix(shard, 16).ok()
}

fn number_of(id: &[u8]) -> Option<u64> {
    let (_, number) = str::from_utf8(id).ok()?.split_once('-')?;
    u64::from_str_radix(number, 16).ok()
}

impl Call {
    /// Starts an exchange: the first packet waits for any worker of the service.
    pub(crate) fn start(
        shard: &Rc<Shard>,
        service: &Arc<Service>,
        interface: Interface,
        request: Packet,
    ) -> Result<Self, SendError> {
        let calls = &shard.calls;
        let number = calls.next.replace(calls.next.get().wrapping_add(1));
        let id = format!("{:x}-{number:x}", shard.number).into();
        let from = shard.gateway.workers.address(shard.number);
        let settings = shard.gateway.settings();
        let workers = &settings.workers;
        let (front, first) =
            Front::start(Instant::now(), interface, (from, id), (workers.window, workers.pace), request);
        let first = first.encode(Encoding::Tnetstring, None);
        service.request(&first)?;
        let state = Rc::new(State {
            number,
            service: Arc::clone(service),
            front: RefCell::new(front),
            first: RefCell::new(first),
            arrived: Notify::new(),
            room: Notify::new(),
            socket: Cell::new(None),
        });
        calls.open.borrow_mut().insert(number, Rc::clone(&state));
        shard.metrics.worker_exchanges.add(1);
        Ok(Self { state, shard: Rc::clone(shard) })
    }

    /// The next thing that happened.
    pub(crate) async fn next(&self) -> FrontEvent {
        loop {
            let arrived = self.state.arrived.notified();
            if let Some(event) = self.poll() {
                return event;
            }
            arrived.await;
        }
    }

    /// The next thing that happened, if anything has.
    pub(crate) fn poll(&self) -> Option<FrontEvent> {
        loop {
            match self.state.front.borrow_mut().poll_event()? {
                FrontEvent::Room => {}
                event => return Some(event),
            }
        }
    }

    /// Waits until something may be sent; says how many bytes. 0 if the exchange is over.
    pub(crate) async fn room(&self) -> usize {
        loop {
            let changed = self.state.room.notified();
            let room = self.room_now();
            if room > 0 || self.is_over() {
                return room;
            }
            changed.await;
        }
    }

    /// Bytes that may be sent now.
    pub(crate) fn room_now(&self) -> usize {
        usize::try_from(self.state.front.borrow().room()).unwrap_or(usize::MAX)
    }

    /// Does something with the exchange, and sends what that brings about.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Front, Instant) -> T) -> T {
        let result = act(&mut self.state.front.borrow_mut(), Instant::now());
        self.state.flush();
        result
    }

    /// Whether the exchange is over.
    pub(crate) fn is_over(&self) -> bool {
        self.state.front.borrow().is_over()
    }

    /// Whether the whole response has come, and, if `at_end`, been taken.
    pub(crate) fn is_complete(&self, at_end: bool) -> bool {
        let front = self.state.front.borrow();
        front.is_complete() && (!at_end || matches!(front.peek_event(), None | Some(FrontEvent::End)))
    }

    /// Bytes of body in the event that comes next.
    pub(crate) fn body_at_hand(&self) -> u64 {
        match self.state.front.borrow().peek_event() {
            Some(FrontEvent::Body(body)) => body.len() as u64,
            _ => 0,
        }
    }

    /// Takes the first packet back, if no worker has been heard of and none can have it.
    pub(crate) fn withdraw(&self) -> bool {
        let unheard = self.state.front.borrow().worker().is_none();
        unheard && self.state.service.withdraw(&self.state.first.borrow())
    }

    /// From now on, what happens is told to the WebSocket `key`.
    pub(crate) fn hand_to(&self, key: Key) {
        self.state.socket.set(Some(key));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shard.calls.open.borrow_mut().remove(&self.state.number);
        if self.is_over() {
            return;
        }
        self.withdraw();
        self.with(|front, now| front.cancel(now));
    }
}

impl State {
    /// Sends what the exchange has for its worker.
    fn flush(&self) {
        loop {
            let Some((worker, packet)) = self.front.borrow_mut().poll_output() else { return };
            if let Err(error) = self.service.send(&worker, &packet) {
                debug!(%error, "A packet for a worker could not be sent; its exchange ends.");
                self.front.borrow_mut().undeliverable(&worker);
                return;
            }
        }
    }

    /// Tells whoever waits.
    fn tell(&self, shard: &Rc<Shard>) {
        self.flush();
        self.arrived.notify_one();
        self.room.notify_one();
        if let Some(key) = self.socket.get() {
            ws::on_worker(shard, key);
        }
    }
}

/// Takes what came by the sockets of a service.
pub(crate) fn receive(shard: &Rc<Shard>, delivery: Delivery) {
    let Delivery { service, content, size } = delivery;
    let now = Instant::now();
    match content {
        Content::Packet(packet) => receive_packet(shard, &service, *packet, now),
        Content::Unreadable(id) => {
            if let Some(state) = find(shard, &service, &id) {
                state.front.borrow_mut().unreadable(now);
                state.tell(shard);
            }
        }
        Content::Undeliverable(worker, ids) => {
            for state in ids.iter().filter_map(|id| find(shard, &service, &id.id)) {
                state.front.borrow_mut().undeliverable(&worker);
                state.tell(shard);
            }
        }
    }
    shard.gateway.workers.dealt_with(shard.number, size);
}

fn find(shard: &Shard, service: &Arc<Service>, id: &[u8]) -> Option<Rc<State>> {
    let number = number_of(id).filter(|_| shard_of(id) == Some(shard.number))?;
    let state = shard.calls.open.borrow().get(&number).map(Rc::clone)?;
    Arc::ptr_eq(&state.service, service).then_some(state)
}

fn receive_packet(shard: &Rc<Shard>, service: &Arc<Service>, mut packet: Packet, now: Instant) {
    let ids = match std::mem::take(&mut packet.ids) {
        Ids::None => return shard.metrics.worker_packets_unknown.add(1),
        Ids::One(Id { id, seq }) => return one(shard, service, (&id, seq), packet, now),
        Ids::List(ids) => ids,
    };
    for Id { id, seq } in ids {
        one(shard, service, (&id, seq), packet.clone(), now);
    }
}

fn one(shard: &Rc<Shard>, service: &Arc<Service>, (id, seq): (&Bytes, Option<u64>), packet: Packet, now: Instant) {
    let Some(state) = find(shard, service, id) else {
        shard.metrics.worker_packets_unknown.add(1);
        if !packet.kind.is_end()
            && let Some(worker) = &packet.from
        {
            // It may be at work for somebody who has gone before it was known where it is.
            let mut cancel = Packet::cancel_unknown(id.clone());
            cancel.from = Some(shard.gateway.workers.address(shard.number));
            let _told = service.send(worker, &cancel);
        }
        return;
    };
    if !state.front.borrow_mut().receive(now, seq, packet) {
        shard.metrics.worker_packets_unknown.add(1);
        return debug!("A packet for an exchange of another worker was dropped.");
    }
    state.tell(shard);
}

/// Once a second: ends exchanges whose workers are silent, and shows the others that this side lives.
pub(crate) fn sweep(shard: &Rc<Shard>, now: Instant) {
    /// Ids in one packet, which has to stay below what peers read at once.
    const IDS_MAX: usize = 128;
    let due: Vec<Rc<State>> = {
        let open = shard.calls.open.borrow();
        open.values().filter(|state| state.front.borrow().poll_timeout() <= now).map(Rc::clone).collect()
    };
    let mut lists: HashMap<Bytes, (Arc<Service>, Vec<Id>)> = HashMap::new();
    let from = shard.gateway.workers.address(shard.number);
    let send = |service: &Service, worker: &Bytes, ids: Ids| {
        let packet = Packet { from: Some(from.clone()), ids, kind: Kind::KeepAlive, ..Packet::default() };
        let _lost_with_the_worker = service.send(worker, &packet);
    };
    for state in due {
        let id = state.front.borrow_mut().handle_timeout(now);
        let Some(id) = id else {
            if state.front.borrow().is_over() {
                shard.metrics.workers_lost.add(1);
            }
            state.tell(shard);
            continue;
        };
        let (worker, multi) = {
            let front = state.front.borrow();
            (front.worker().cloned(), front.is_multi())
        };
        let Some(worker) = worker else { continue };
        if !multi {
            send(&state.service, &worker, Ids::One(id));
            continue;
        }
        let (service, ids) = lists.entry(worker.clone()).or_insert_with(|| (Arc::clone(&state.service), Vec::new()));
        ids.push(id);
        if ids.len() >= IDS_MAX {
            send(service, &worker, Ids::List(std::mem::take(ids)));
        }
    }
    for (worker, (service, ids)) in lists {
        if !ids.is_empty() {
            send(&service, &worker, Ids::List(ids));
        }
    }
}

/// The body of a worker's response.
#[derive(Debug)]
pub(crate) struct CallBody(Rc<Call>);

impl CallBody {
    pub(crate) fn new(call: Rc<Call>) -> Self {
        Self(call)
    }

    /// The next piece, none at the end.
    pub(crate) async fn next(&mut self, idle_limit: Duration) -> std::io::Result<Option<Bytes>> {
        loop {
            if self.is_at_end() {
                return Ok(None);
            }
            let event = match tokio::time::timeout(idle_limit, self.0.next()).await {
                Ok(event) => event,
                Err(_late) => return Err(std::io::ErrorKind::TimedOut.into()),
            };
            match event {
                FrontEvent::Body(piece) => {
                    self.0.with(|front, now| front.consumed(now, piece.len()));
                    return Ok(Some(piece));
                }
                FrontEvent::End => return Ok(None),
                FrontEvent::Failed(failure) => return Err(std::io::Error::other(failure)),
                _ => {}
            }
        }
    }

    /// Whether all that is left of it is there.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.0.is_complete(false)
    }

    /// Whether nothing of it is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_complete(true)
    }
}

/// Why an exchange failed, for the log and for clients in debug mode.
pub(crate) fn told(failure: &Failure) -> String {
    match failure {
        Failure::Expired { heard: false } => "Error: zhttp service for route is unreachable.".to_owned(),
        other => format!("Error: {other}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_to_their_shard_and_exchange() {
        assert_eq!((shard_of(b"0-0"), number_of(b"0-0")), (Some(0), Some(0)));
        assert_eq!((shard_of(b"1f-a0b"), number_of(b"1f-a0b")), (Some(31), Some(2571)));
        for id in ["", "-", "1", "x-1", "1-x", "1-1-1", "99999-1", "\u{e9}-1"] {
            assert!(shard_of(id.as_bytes()).is_none() || number_of(id.as_bytes()).is_none(), "{id}");
        }
    }
}
