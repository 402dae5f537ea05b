//! What the door knows: open exchanges, their deadlines, and the way back to the clients.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;
use tokio::sync::Notify;
use waft_zhttp::{Condition, Due, Encoding, IDS_MAX, Id, Ids, Kind, Packet};
use waft_zmq::{LocalSender, Message};

use super::call::Rules;
use super::conf::Config;
use super::exchange::Exchange;
use super::publish::Publisher;
use crate::Client;

/// The state of the door, on one thread.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) rules: Rules,
    pub(crate) counters: Counters,
    /// Told when an exchange ends.
    pub(crate) ended: Notify,
    pub(crate) publisher: RefCell<Option<Publisher>>,
    replies: Option<LocalSender>,
    unflushed: Cell<bool>,
    flush_wanted: Notify,
    exchanges: RefCell<Slab<Rc<Exchange>>>,
    /// By id, then client: two clients may use the same id.
    by_id: RefCell<HashMap<Bytes, Vec<(Bytes, usize)>>>,
    deadlines: RefCell<BTreeSet<(Instant, usize)>>,
}

/// What went wrong, counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Packets that could not be read or were not right.
    pub(crate) malformed: Cell<u64>,
    /// Packets for exchanges that are not known.
    pub(crate) unknown: Cell<u64>,
    /// Packets out of order or beyond their credits.
    pub(crate) violations: Cell<u64>,
    /// Exchanges that ended by silence.
    pub(crate) expired: Cell<u64>,
    /// Exchanges begun.
    pub(crate) begun: Cell<u64>,
    /// Exchanges that ended with an error.
    pub(crate) failed: Cell<u64>,
}

/// Adds one.
pub(crate) fn count(counter: &Cell<u64>) {
    counter.set(counter.get().saturating_add(1));
}

impl Door {
    pub(crate) fn new(
        config: Config,
        client: Client,
        publisher: Option<Publisher>,
        replies: Option<LocalSender>,
    ) -> Self {
        Self {
            client,
            rules: Rules::new(&config),
            config,
            counters: Counters::default(),
            ended: Notify::new(),
            publisher: RefCell::new(publisher),
            replies,
            unflushed: Cell::new(false),
            flush_wanted: Notify::new(),
            exchanges: RefCell::default(),
            by_id: RefCell::default(),
            deadlines: RefCell::default(),
        }
    }

    /// Exchanges under way.
    pub(crate) fn open_exchanges(&self) -> usize {
        self.exchanges.borrow().len()
    }

    /// Whether a first packet may be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.config.max_open_requests.is_none_or(|most| self.open_exchanges() < most)
    }

    pub(crate) fn find(&self, from: &[u8], id: &[u8]) -> Option<Rc<Exchange>> {
        let by_id = self.by_id.borrow();
        let (_, slot) = by_id.get(id)?.iter().find(|(client, _)| client == from)?;
        self.exchanges.borrow().get(*slot).cloned()
    }

    /// The exchange with this id that its client is handing over, whoever the client is.
    pub(crate) fn find_handed_over(&self, id: &[u8]) -> Option<Rc<Exchange>> {
        let by_id = self.by_id.borrow();
        let exchanges = self.exchanges.borrow();
        let mut candidates = by_id.get(id)?.iter().filter_map(|(_, slot)| exchanges.get(*slot));
        candidates.find(|exchange| exchange.handoff.borrow().is_some()).cloned()
    }

    pub(crate) fn insert(&self, exchange: Exchange) -> Rc<Exchange> {
        count(&self.counters.begun);
        let exchange = Rc::new(exchange);
        let slot = self.exchanges.borrow_mut().insert(Rc::clone(&exchange));
        exchange.slot.set(slot);
        if let (Some(from), Some(id)) = (&*exchange.from.borrow(), &exchange.id) {
            self.by_id.borrow_mut().entry(id.clone()).or_default().push((from.clone(), slot));
        }
        exchange.due.set(exchange.next_due(self.config.timeout));
        self.deadlines.borrow_mut().insert((exchange.due.get(), slot));
        exchange
    }

    /// The exchange answers to another client address from now on.
    pub(crate) fn rename(&self, exchange: &Exchange, from: &Bytes) {
        let slot = exchange.slot.get();
        let mut by_id = self.by_id.borrow_mut();
        let clients = exchange.id.as_ref().and_then(|id| by_id.get_mut(id));
        if let Some(entry) = clients.and_then(|clients| clients.iter_mut().find(|(_, other)| *other == slot)) {
            entry.0 = from.clone();
        }
        *exchange.from.borrow_mut() = Some(from.clone());
    }

    /// Forgets an exchange. Its task, if it still runs, ends.
    pub(crate) fn remove(&self, exchange: &Exchange) {
        let slot = exchange.slot.get();
        if self.exchanges.borrow_mut().try_remove(slot).is_none() {
            return;
        }
        self.deadlines.borrow_mut().remove(&(exchange.due.get(), slot));
        if let Some(id) = &exchange.id {
            let mut by_id = self.by_id.borrow_mut();
            if let Some(clients) = by_id.get_mut(id) {
                clients.retain(|(_, other)| *other != slot);
                if clients.is_empty() {
                    by_id.remove(id);
                }
            }
        }
        if let Some(abort) = exchange.abort.borrow_mut().take() {
            abort.abort();
        }
        self.ended.notify_one();
    }

    /// Sends a packet of an exchange, numbered and addressed.
    pub(crate) fn emit(&self, exchange: &Exchange, mut packet: Packet) {
        if exchange.is_silent() {
            return;
        }
        if exchange.handoff.borrow().is_some() {
            if !exchange.keep(packet) {
                // Nobody hears of it before the hand-over is done, and then the exchange is unknown.
                count(&self.counters.violations);
                self.remove(exchange);
            }
            return;
        }
        let now = Instant::now();
        let seq = exchange.state.borrow_mut().stamp(now);
        if let Some(id) = &exchange.id {
            packet.ids = Ids::One(Id { id: id.clone(), seq: Some(seq) });
        }
        packet.user_data.clone_from(&exchange.user_data.borrow());
        match &exchange.envelope {
            Some(envelope) => {
                let mut frames = envelope.clone();
                frames.push(packet.encode(exchange.encoding, None));
                self.reply(Message { frames });
            }
            None => {
                packet.from = Some(self.config.instance_id.clone());
                packet.ext_multi = exchange.multi && !exchange.answered.replace(true);
                if let Some(from) = &*exchange.from.borrow() {
                    self.publish(now, from, packet.encode(exchange.encoding, Some(from)));
                }
            }
        }
    }

    /// Ends an exchange with an error.
    pub(crate) fn fail(&self, exchange: &Exchange, condition: Condition) {
        self.fail_with(exchange, Packet { condition: Some(condition), ..Packet::default() });
    }

    /// Ends an exchange with an error that carries a response.
    pub(crate) fn fail_with(&self, exchange: &Exchange, packet: Packet) {
        count(&self.counters.failed);
        let condition = packet.condition.unwrap_or(Condition::Undefined);
        let id = exchange.id.as_deref().unwrap_or_default().escape_ascii();
        if exchange.quiet {
            tracing::debug!("OUT ERR id={id} condition={condition}");
        } else {
            tracing::info!("OUT ERR id={id} condition={condition}");
        }
        self.emit(exchange, Packet { kind: Kind::Error, condition: Some(condition), ..packet });
        self.remove(exchange);
    }

    /// Answers outside of any exchange, always as a TNetString.
    pub(crate) fn answer_stranger(&self, to: &Bytes, packet: &Packet) {
        self.publish(Instant::now(), to, packet.encode(Encoding::Tnetstring, Some(to)));
    }

    pub(crate) fn reply(&self, message: Message) {
        if let Some(replies) = &self.replies
            && let Err(error) = replies.queue(message)
        {
            tracing::warn!(%error, "Dropped a reply.");
        }
        self.flush_soon();
    }

    fn publish(&self, now: Instant, to: &Bytes, frame: Bytes) {
        if let Some(publisher) = self.publisher.borrow_mut().as_mut() {
            publisher.publish(now, to, frame);
        }
        self.flush_soon();
    }

    /// Asks for a flush once the tasks that are ready now have had their turn.
    pub(crate) fn flush_soon(&self) {
        if !self.unflushed.replace(true) {
            self.flush_wanted.notify_one();
        }
    }

    /// Waits until a flush is wanted.
    pub(crate) async fn flush_wanted(&self) {
        self.flush_wanted.notified().await;
    }

    /// Lets the packets of all tasks leave together.
    pub(crate) fn flush(&self) {
        if !self.unflushed.take() {
            return;
        }
        if let Some(publisher) = self.publisher.borrow().as_ref() {
            publisher.flush();
        }
        if let Some(replies) = &self.replies {
            replies.flush();
        }
    }

    /// Gives back credits for body bytes that were passed on.
    pub(crate) fn consumed(&self, exchange: &Exchange, length: usize) {
        let credits = {
            let mut state = exchange.state.borrow_mut();
            state.consumed(length);
            state.grant()
        };
        if let Some(credits) = credits {
            self.emit(exchange, Packet { kind: Kind::Credit, credits, ..Packet::default() });
        }
    }

    /// When [`Door::sweep`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let exchange = self.deadlines.borrow().first().map(|(due, _)| *due);
        let packet = self.publisher.borrow().as_ref().and_then(Publisher::due);
        exchange.into_iter().chain(packet).min()
    }

    /// Does what is due: keep-alives, timeouts, expiry.
    pub(crate) fn sweep(&self, now: Instant) {
        if let Some(publisher) = self.publisher.borrow_mut().as_mut() {
            publisher.sweep(now);
        }
        let mut alive: HashMap<(Bytes, bool), Vec<Rc<Exchange>>> = HashMap::new();
        while let Some((due, slot)) = self.first_deadline(now) {
            self.deadlines.borrow_mut().remove(&(due, slot));
            let Some(exchange) = self.exchanges.borrow().get(slot).cloned() else { continue };
            if exchange.next_due(self.config.timeout) <= now {
                match self.judge(&exchange, now) {
                    Judgement::Ended => continue,
                    Judgement::KeepAlive => {
                        if let Some(from) = &*exchange.from.borrow() {
                            let json = exchange.encoding == Encoding::Json;
                            alive.entry((from.clone(), json)).or_default().push(Rc::clone(&exchange));
                        }
                    }
                }
            }
            // A keep-alive moves the deadline once it is stamped below; until then a later look is enough.
            let next = exchange.next_due(self.config.timeout).max(now + Duration::from_millis(1));
            exchange.due.set(next);
            self.deadlines.borrow_mut().insert((next, slot));
        }
        for ((from, json), exchanges) in alive {
            self.keep_alive(now, &from, if json { Encoding::Json } else { Encoding::Tnetstring }, &exchanges);
        }
    }

    fn first_deadline(&self, now: Instant) -> Option<(Instant, usize)> {
        self.deadlines.borrow().first().copied().filter(|(due, _)| *due <= now)
    }

    fn judge(&self, exchange: &Exchange, now: Instant) -> Judgement {
        let timed_out = exchange.times_out && now >= exchange.active_at.get() + self.config.timeout;
        if timed_out || exchange.ends_at.is_some_and(|end| now >= end) {
            self.fail(exchange, Condition::SessionTimeout);
            return Judgement::Ended;
        }
        let due = exchange.state.borrow().handle_timeout(now, exchange.expires);
        if due == Some(Due::Expired) {
            count(&self.counters.expired);
            let id = exchange.id.as_deref().unwrap_or_default().escape_ascii();
            tracing::info!(%id, "Ended an exchange whose client was silent for 60 s.");
            exchange.handoff.take();
            self.emit(exchange, Packet { kind: Kind::Cancel, ..Packet::default() });
            self.remove(exchange);
            return Judgement::Ended;
        }
        Judgement::KeepAlive
    }

    /// One packet for many exchanges where the client understands it.
    fn keep_alive(&self, now: Instant, from: &Bytes, encoding: Encoding, exchanges: &[Rc<Exchange>]) {
        let (multi, single): (Vec<_>, Vec<_>) = exchanges
            .iter()
            .filter(|exchange| exchange.handoff.borrow().is_none())
            .partition(|exchange| exchange.multi);
        for exchange in single {
            self.emit(exchange, Packet { kind: Kind::KeepAlive, ..Packet::default() });
        }
        for chunk in multi.chunks(IDS_MAX) {
            let id = |exchange: &&Rc<Exchange>| {
                let id = exchange.id.clone()?;
                Some(Id { id, seq: Some(exchange.state.borrow_mut().stamp(now)) })
            };
            let packet = Packet {
                from: Some(self.config.instance_id.clone()),
                ids: Ids::List(chunk.iter().filter_map(id).collect()),
                kind: Kind::KeepAlive,
                ..Packet::default()
            };
            self.publish(now, from, packet.encode(encoding, Some(from)));
        }
    }

    /// Ends everything, and says so.
    pub(crate) fn close(&self) {
        let open: Vec<_> = self.exchanges.borrow().iter().map(|(_, exchange)| Rc::clone(exchange)).collect();
        for exchange in open {
            if exchange.envelope.is_some() {
                self.fail(&exchange, Condition::Disconnected);
            } else {
                self.emit(&exchange, Packet { kind: Kind::Cancel, ..Packet::default() });
                self.remove(&exchange);
            }
        }
    }
}

enum Judgement {
    Ended,
    KeepAlive,
}
