//! What is recorded of single requests and of the traffic of routes, for whoever tells others of it.
//!
//! A gateway that was not asked to record has none of this: what a request keeps for it is one empty pointer. One that
//! was takes a lock of the shard's own at the beginning and at the end of a request, and for each thing that it counts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waft_http1::{RequestHead, ResponseHead};
use waft_net::{Key, PeerAddr};
use waft_route::Route;

use crate::metrics::SharedCounter;
use crate::payload::Payload;
use crate::settings::ForwardedFor;
use crate::shard::Shard;

/// How a client is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisitKind {
    /// A request with its response, which may be held.
    Http,
    /// A WebSocket.
    Ws,
}

/// A request with its response or hold, or a WebSocket: what Pushpin's statistics call a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Visit {
    /// Its name, unique in this process. That of a WebSocket is the `Connection-Id` that its target sees.
    pub id: Box<str>,
    /// How it is served.
    pub kind: VisitKind,
    /// The id of its route, if that is one that was written.
    pub route: Option<Arc<str>>,
    /// The client's address; none for a client on a Unix socket.
    pub peer: Option<IpAddr>,
    /// Whether the client's side is encrypted.
    pub secure: bool,
}

/// Something that happened to a visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisitEvent {
    /// It is there.
    Began(Arc<Visit>),
    /// Its response is held from now on.
    Held(Arc<Visit>),
    /// It is over.
    Ended(Arc<Visit>),
}

/// What went one way between two sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of heads: request and status lines without version, names and values, without what separates them.
    pub header_bytes: u64,
    /// Bytes of bodies and messages, without their framing.
    pub content_bytes: u64,
    /// WebSocket messages.
    pub messages: u64,
}

/// What a route did. The route without a written id stands for all that have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests of clients, those for WebSockets too.
    pub requests: u64,
    /// Items delivered, one a listener.
    pub deliveries: u64,
    /// Of these, the ones that answered a long-poll.
    pub polls_answered: u64,
    /// Blocks delivered, if items are counted in blocks.
    pub blocks: u64,
    /// From clients.
    pub client_received: Flow,
    /// To clients.
    pub client_sent: Flow,
    /// From targets.
    pub target_received: Flow,
    /// To targets.
    pub target_sent: Flow,
}

/// The traffic of routes by their written ids.
pub type TrafficByRoute = HashMap<Option<Arc<str>>, Traffic>;

/// What all shards have recorded and nobody has taken yet.
#[derive(Debug)]
pub struct Recorder {
    books: Box<[Mutex<Book>]>,
    block_size: Option<u64>,
    blocks_received: SharedCounter,
}

#[derive(Debug, Default)]
struct Book {
    events: Vec<VisitEvent>,
    traffic: TrafficByRoute,
}

impl Recorder {
    pub(crate) fn new(shards: usize, block_size: Option<u64>) -> Self {
        let books = (0..shards).map(|_| Mutex::default()).collect();
        Self { books, block_size, blocks_received: SharedCounter::default() }
    }

    /// Bytes of a block, if items are counted in blocks.
    pub fn block_size(&self) -> Option<u64> {
        self.block_size
    }

    /// Blocks of all items that were published.
    pub fn blocks_received(&self) -> u64 {
        self.blocks_received.value()
    }

    pub(crate) fn received(&self, payload: &Payload) {
        if let Some(block) = self.block_size {
            self.blocks_received.add(payload.blocks(block));
        }
    }

    /// Takes what was recorded since the last call: events are put behind those in `events`, of each shard in their order,
    /// and numbers are added to those in `traffic`. To be called several times a second, as nothing else bounds what waits.
    pub fn take(&self, events: &mut Vec<VisitEvent>, traffic: &mut TrafficByRoute) {
        for book in &self.books {
            let mut book = lock(book);
            events.append(&mut book.events);
            for (route, counted) in book.traffic.drain() {
                traffic.entry(route).or_default().add(&counted);
            }
        }
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    // A thread that panicked left whole numbers and a whole vector behind.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flow {
    fn add(&mut self, other: &Self) {
        self.header_bytes += other.header_bytes;
        self.content_bytes += other.content_bytes;
        self.messages += other.messages;
    }

    /// Counts a head as it is written, with what comes behind it.
    pub(crate) fn written(&mut self, bytes: &[u8]) {
        let (head, rest) = head_and_rest(bytes);
        self.header_bytes += head;
        self.content_bytes += rest;
    }

    /// Counts a piece of a message, which is one when its last piece has come.
    pub(crate) fn piece(&mut self, content: usize, last: bool) {
        self.messages += u64::from(last);
        self.content_bytes += content as u64;
    }
}

impl Traffic {
    /// Adds the numbers of `other` to these.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.deliveries += other.deliveries;
        self.polls_answered += other.polls_answered;
        self.blocks += other.blocks;
        self.client_received.add(&other.client_received);
        self.client_sent.add(&other.client_sent);
        self.target_received.add(&other.target_received);
        self.target_sent.add(&other.target_sent);
    }
}

/// A shard's side of the recorder.
#[derive(Debug)]
pub(crate) struct ShardRecord {
    recorder: Arc<Recorder>,
    number: u16,
    visits: Cell<u64>,
    /// Where the WebSockets are.
    sockets: RefCell<HashMap<Box<str>, Key>>,
}

impl ShardRecord {
    pub(crate) fn new(recorder: Arc<Recorder>, number: u16) -> Self {
        Self { recorder, number, visits: Cell::new(0), sockets: RefCell::default() }
    }

    fn with(&self, act: impl FnOnce(&mut Book)) {
        if let Some(book) = self.recorder.books.get(usize::from(self.number)) {
            act(&mut lock(book));
        }
    }

    /// Bytes of a block, if items are counted in blocks.
    pub(crate) fn block_size(&self) -> Option<u64> {
        self.recorder.block_size
    }

    fn http_id(&self) -> Box<str> {
        let number = self.visits.get();
        self.visits.set(number.wrapping_add(1));
        format!("waft:{}-{number}", self.number).into()
    }

    /// Where the WebSocket of that name is, if it is one of this shard.
    pub(crate) fn socket(&self, id: &str) -> Option<Key> {
        self.sockets.borrow().get(id).copied()
    }
}

impl Shard {
    /// Bytes of a block, if items are counted in blocks.
    pub(crate) fn block_size(&self) -> Option<u64> {
        self.record.as_ref()?.block_size()
    }

    /// Counts traffic of `route`, if this gateway records.
    pub(crate) fn tally(&self, route: &Route, count: impl FnOnce(&mut Traffic)) {
        if let Some(record) = &self.record {
            record.with(|book| count(book.traffic.entry(route.shown_id().cloned()).or_default()));
        }
    }

    /// Counts a request in; what it returns goes where the request goes.
    pub(crate) fn seat(
        &self,
        kind: VisitKind,
        route: &Route,
        (peer, rule): (&PeerAddr, ForwardedFor),
        secure: bool,
        head: &RequestHead,
    ) -> Seat {
        let Some(record) = &self.record else { return Seat::default() };
        self.tally(route, |traffic| {
            traffic.requests += 1;
            traffic.client_received.header_bytes += request_head_size(head);
        });
        let random = fastrand::u128(..);
        let id = match kind {
            VisitKind::Http => record.http_id(),
            VisitKind::Ws => shown_id(random).into(),
        };
        let peer = told_address(head, rule).or(match peer {
            PeerAddr::Tcp(address) => Some(address.ip().to_canonical()),
            PeerAddr::Unix => None,
        });
        let visit = Arc::new(Visit { id, kind, route: route.shown_id().cloned(), peer, secure });
        let mut seat = Seat(Some(Box::new(Seated { record: Rc::clone(record), visit, random, began: false })));
        if kind == VisitKind::Http {
            seat.begin();
        }
        seat
    }

    /// Notes where a WebSocket is, so that it is found by its name.
    pub(crate) fn place(&self, seat: &Seat, key: Key) {
        if let (Some(record), Some(seated)) = (&self.record, &seat.0) {
            record.sockets.borrow_mut().insert(seated.visit.id.clone(), key);
        }
    }

    /// Forgets where a WebSocket was.
    pub(crate) fn unplace(&self, seat: &Seat) {
        if let (Some(record), Some(seated)) = (&self.record, &seat.0) {
            record.sockets.borrow_mut().remove(&seated.visit.id);
        }
    }
}

/// What a visit keeps for as long as it lasts: nothing, unless the gateway records.
#[derive(Debug, Default)]
pub(crate) struct Seat(Option<Box<Seated>>);

const _: () = assert!(size_of::<Seat>() == 8);

#[derive(Debug)]
struct Seated {
    record: Rc<ShardRecord>,
    visit: Arc<Visit>,
    /// What the id of a WebSocket is made of.
    random: u128,
    began: bool,
}

impl Seat {
    /// The visit is there from now on.
    pub(crate) fn begin(&mut self) {
        if let Some(seated) = &mut self.0 {
            seated.began = true;
            seated.tell(VisitEvent::Began);
        }
    }

    /// The response is held from now on.
    pub(crate) fn hold(&self) {
        if let Some(seated) = &self.0 {
            seated.tell(VisitEvent::Held);
        }
    }

    /// What the id of a WebSocket is made of.
    pub(crate) fn random(&self) -> Option<u128> {
        self.0.as_ref().map(|seated| seated.random)
    }
}

impl Seated {
    fn tell(&self, event: impl FnOnce(Arc<Visit>) -> VisitEvent) {
        self.record.with(|book| book.events.push(event(Arc::clone(&self.visit))));
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        if self.began {
            self.tell(VisitEvent::Ended);
        }
    }
}

/// The address of the client as proxies before this one tell it, unless the rule of the route believes none of them.
fn told_address(head: &RequestHead, rule: ForwardedFor) -> Option<IpAddr> {
    let first = head.field("x-forwarded-for").filter(|_| rule.truncate != Some(0))?;
    str::from_utf8(first).ok()?.split(',').next()?.trim().parse().ok()
}

/// An id made of random bits, in the usual form of 36 characters.
pub(crate) fn shown_id(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn request_head_size(head: &RequestHead) -> u64 {
    (head.method().len() + head.path_and_query().len()) as u64 + fields_size(head.fields())
}

/// Bytes of a response head.
pub(crate) fn response_head_size(head: &ResponseHead) -> u64 {
    3 + head.reason().len() as u64 + fields_size(head.fields())
}

/// Bytes of names and values.
fn fields_size<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> u64 {
    fields.map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// Bytes of a head as it is written, without what separates its parts and without the version, and those of what comes
/// behind it.
fn head_and_rest(written: &[u8]) -> (u64, u64) {
    let end = memchr::memmem::find(written, b"\r\n\r\n").map_or(written.len(), |at| at + 4);
    let (head, rest) = written.split_at_checked(end).unwrap_or((written, &[]));
    let mut size = 0;
    for (number, line) in
        head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).enumerate()
    {
        // Two spaces and `HTTP/1.1` stand in the first line, a colon and a space in the others.
        let frame = if number == 0 { 10 } else { 2 };
        size += line.len().saturating_sub(frame);
    }
    (size as u64, rest.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_and_versions_are_no_header_bytes() {
        let check = |written: &str, expected: (u64, u64)| assert_eq!(head_and_rest(written.as_bytes()), expected);
        check("GET /a?b HTTP/1.1\r\nHost: ab\r\nX: \r\n\r\n", (3 + 4 + 6 + 1, 0));
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", (3 + 2 + 14 + 1, 2));
        check("HTTP/1.1 404 Not Found\r\n\r\n", (3 + 9, 0));
        check("", (0, 0));
    }

    #[test]
    fn ids_have_the_form_of_a_random_uuid() {
        let id = shown_id(u128::MAX);
        assert_eq!(id, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_is_taken_is_added_up_over_shards_and_gone() {
        let recorder = Arc::new(Recorder::new(2, None));
        for number in 0..2 {
            let record = ShardRecord::new(Arc::clone(&recorder), number);
            record.with(|book| book.traffic.entry(None).or_default().requests += 2);
        }
        let (mut events, mut traffic) = (Vec::new(), TrafficByRoute::new());
        recorder.take(&mut events, &mut traffic);
        recorder.take(&mut events, &mut traffic);
        assert_eq!(traffic[&None].requests, 4);
    }

    #[test]
    fn a_visit_is_told_from_its_beginning_to_its_end() {
        let recorder = Arc::new(Recorder::new(1, None));
        let record = Rc::new(ShardRecord::new(Arc::clone(&recorder), 0));
        let visit =
            Arc::new(Visit { id: record.http_id(), kind: VisitKind::Http, route: None, peer: None, secure: false });
        let seated = |began| {
            Seat(Some(Box::new(Seated { record: Rc::clone(&record), visit: Arc::clone(&visit), random: 0, began })))
        };
        let mut seat = seated(false);
        seat.begin();
        seat.hold();
        drop(seat);
        // A WebSocket that was refused had never begun.
        drop(seated(false));
        let mut events = Vec::new();
        recorder.take(&mut events, &mut TrafficByRoute::new());
        let expected = [VisitEvent::Began, VisitEvent::Held, VisitEvent::Ended].map(|event| event(Arc::clone(&visit)));
        assert_eq!(events, expected);
    }
}
