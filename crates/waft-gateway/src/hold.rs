//! Connections in the held set: at rest between requests, long-polls, streams, and answers that
//! are still being taken by a slow client.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, warn};
use waft_grip::instruct::ResponseParts;
use waft_grip::keepalive::{KeepAlive, Mode as KeepAliveMode};
use waft_http1::{LAST_CHUNK, RequestHead, Version};
use waft_hub::Mode;
use waft_net::{Flush, Key, PeerAddr, Readiness, Socket, Stream, Wrote};
use waft_realm::Reason;
use waft_route::{Route, SlowClient};

use crate::buffer::ReadBuffer;
use crate::client::Client;
use crate::dress::{Dress, Whole};
use crate::link;
use crate::place::Base;
use crate::realm::{self, BayeuxStream, Guest, Poll, RealmSocket};
use crate::record::Seat;
use crate::respond::{self, Frame};
use crate::service::Door;
use crate::shard::{Presence, Shard};
use crate::subscribe::{self, Item, Sub};
use crate::update;
use crate::ws;

pub(crate) use crate::begin::{begin, wrap};

/// A listener as the hub's index keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) key: Key,
    /// The position of its channel when it joined: it gets what comes after.
    pub(crate) since: u64,
}

/// A connection in the held set.
#[derive(Debug)]
pub(crate) enum Hold {
    /// For the moment in which a connection changes its kind.
    Changing,
    /// The rest of an answer is being taken by the client.
    Finishing(Box<Line>),
    /// A long-poll.
    Response(Box<ResponseHold>),
    /// Between two requests.
    Resting(Box<Resting>),
    /// An open response.
    Stream(Box<StreamHold>),
    /// A client's WebSocket.
    Ws(Box<ws::WsHold>),
    /// The WebSocket to the target of a client's WebSocket.
    WsTarget(Box<ws::TargetSide>),
}

/// A connection between two requests.
#[derive(Debug)]
pub(crate) struct Resting {
    pub(crate) peer: PeerAddr,
    pub(crate) door: Door,
    pub(crate) presence: Presence,
    pub(crate) secure: bool,
}

/// What a held connection needs to become an ordinary one again.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) peer: PeerAddr,
    pub(crate) presence: Presence,
    pub(crate) secure: bool,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    /// The client has ended its side.
    pub(crate) half_closed: bool,
    /// What the client sent early: the beginning of its next request.
    pub(crate) leftover: Option<Box<[u8]>>,
    pub(crate) seat: Seat,
    /// Its place among the held connections of a realm.
    pub(crate) guest: Option<Guest>,
}

/// A long-poll.
#[derive(Debug)]
pub(crate) struct ResponseHold {
    pub(crate) line: Line,
    pub(crate) route: Arc<Route>,
    pub(crate) subs: Box<[Sub]>,
    pub(crate) meta: Rc<Meta>,
    pub(crate) template: Rc<Timeout>,
    pub(crate) request: Box<SavedRequest>,
    /// What answers it, if that is a realm and not a target.
    pub(crate) poll: Option<Box<Poll>>,
    pub(crate) gone: Option<Box<Gone>>,
}

/// An open response.
#[derive(Debug)]
pub(crate) struct StreamHold {
    pub(crate) line: Line,
    pub(crate) route: Arc<Route>,
    pub(crate) subs: Box<[Sub]>,
    pub(crate) meta: Rc<Meta>,
    pub(crate) keep_alive: Option<Rc<KeepAlive>>,
    pub(crate) keep_due: Option<Instant>,
    /// What the addresses of its filters are relative to, if it has filters that ask web services.
    pub(crate) place: Option<Box<Base>>,
    /// Where to get what was missed.
    pub(crate) next: Option<Box<Next>>,
    pub(crate) gone: Option<Box<Gone>>,
    /// The Bayeux client that it carries.
    pub(crate) bayeux: Option<Box<BayeuxStream>>,
    /// The client is told of gaps as events.
    pub(crate) is_sse: bool,
    /// Something was dropped since the client was last told.
    pub(crate) gap: bool,
    pub(crate) slow_said: bool,
}

/// The next link of a stream.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) base: Base,
    pub(crate) uri: String,
    pub(crate) timeout: Duration,
    pub(crate) due: Instant,
    /// The link is being fetched: items wait here.
    pub(crate) updating: bool,
    pub(crate) pending: Vec<Item>,
    /// Another fetch was asked for while one is under way.
    pub(crate) again: bool,
}

/// The link to be told when the client has gone.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) base: Base,
    pub(crate) uri: String,
}

/// A request that may have to be made again.
#[derive(Debug)]
pub(crate) struct SavedRequest {
    pub(crate) head: RequestHead,
    pub(crate) body: Vec<u8>,
    pub(crate) trusted: bool,
    /// What its answer is dressed with for scripts of other sites.
    pub(crate) dress: Option<Box<Dress>>,
}

impl SavedRequest {
    fn is_to_head(&self) -> bool {
        self.head.is_head() && self.dress.as_ref().is_none_or(|dress| dress.call.is_none())
    }
}

/// What a long-poll is answered with when nothing comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Timeout {
    pub(crate) parts: ResponseParts,
    pub(crate) body: Bytes,
}

impl Hash for Timeout {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts.code.hash(state);
        self.body.hash(state);
        for (name, value) in self.parts.headers.iter() {
            name.hash(state);
            value.hash(state);
        }
    }
}

/// The metadata of a listener, which filters look at.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Meta(pub(crate) Vec<(String, String)>);

/// What many holds have in common is kept once.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    timeouts: Interner<Timeout>,
    metas: Interner<Meta>,
    keep_alives: Interner<HashedKeepAlive>,
}

#[derive(Debug)]
struct Interner<T> {
    known: RefCell<HashMap<u64, Weak<T>>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { known: RefCell::default() }
    }
}

impl<T: Hash + Eq> Interner<T> {
    fn share(&self, value: T) -> Rc<T> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let mut known = self.known.borrow_mut();
        if let Some(shared) = known.get(&hasher.finish()).and_then(Weak::upgrade)
            && *shared == value
        {
            return shared;
        }
        if known.len() == known.capacity() {
            known.retain(|_, kept| kept.strong_count() > 0);
        }
        let shared = Rc::new(value);
        known.insert(hasher.finish(), Rc::downgrade(&shared));
        shared
    }
}

#[derive(Debug, PartialEq, Eq)]
struct HashedKeepAlive(Rc<KeepAlive>);

impl Hash for HashedKeepAlive {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.data.hash(state);
        self.0.timeout.hash(state);
    }
}

impl Templates {
    pub(crate) fn timeout(&self, timeout: Timeout) -> Rc<Timeout> {
        self.timeouts.share(timeout)
    }

    pub(crate) fn meta(&self, meta: Vec<(String, String)>) -> Rc<Meta> {
        self.metas.share(Meta(meta))
    }

    pub(crate) fn keep_alive(&self, keep_alive: KeepAlive) -> Rc<KeepAlive> {
        Rc::clone(&self.keep_alives.share(HashedKeepAlive(Rc::new(keep_alive))).0)
    }
}

/// When the next keep-alive is due: a little early, and at random, so that a crowd that came
/// together does not stay in step.
pub(crate) fn keep_alive_due(keep_alive: &KeepAlive, now: Instant) -> Instant {
    let early = Duration::from_millis(fastrand::u64(0..1000));
    now + keep_alive.timeout.saturating_sub(early)
}

/// Puts a connection with nothing to do into the held set.
pub(crate) fn rest(shard: &Rc<Shard>, socket: Socket, resting: Resting) {
    let limit = shard.gateway.settings().limits.idle_timeout;
    let mut held = shard.held.borrow_mut();
    match held.insert(socket, Hold::Resting(Box::new(resting))) {
        Ok(key) => {
            held.set_deadline(key, Some(Instant::now() + limit));
            shard.metrics.connections_idle.add(1);
        }
        Err(error) => warn!(%error, "A connection could not be kept between two requests and was closed."),
    }
}

/// Acts on what happened to a held connection.
pub(crate) fn on_ready(shard: &Rc<Shard>, key: Key, readiness: Readiness, scratch: &mut [u8]) {
    if readiness.failed {
        return end(shard, key);
    }
    if readiness.readable || readiness.read_closed {
        let is_websocket = matches!(shard.held.borrow().get(key), Some(Hold::Ws(_) | Hold::WsTarget(_)));
        if is_websocket {
            ws::read(shard, key, readiness.read_closed, scratch);
        } else {
            read(shard, key, scratch);
        }
    }
    if readiness.drained && shard.slow.borrow_mut().remove(&key) {
        on_drained(shard, key);
    }
}

/// Reads what a client sends while its connection is held.
fn read(shard: &Rc<Shard>, key: Key, scratch: &mut [u8]) {
    /// What a client may send ahead of the answer it waits for.
    const AHEAD_MAX: usize = 64 << 10;
    loop {
        let read = shard.held.borrow_mut().read(key, scratch);
        match read {
            Ok(0) => return on_half_close(shard, key),
            Ok(count) => {
                shard.metrics.bytes_received.add(count as u64);
                let data = scratch.get(..count).unwrap_or_default();
                let mut held = shard.held.borrow_mut();
                let line = match held.get_mut(key) {
                    Some(Hold::Resting(_)) => {
                        drop(held);
                        return wake(shard, key, data);
                    }
                    Some(Hold::Response(hold)) => &mut hold.line,
                    Some(Hold::Stream(hold)) => &mut hold.line,
                    Some(Hold::Finishing(line)) => line,
                    Some(Hold::Changing | Hold::Ws(_) | Hold::WsTarget(_)) | None => return,
                };
                let before = line.leftover.take().unwrap_or_default();
                if before.len() + count > AHEAD_MAX {
                    drop(held);
                    debug!("A client sent too much ahead of its answer and was closed.");
                    return end(shard, key);
                }
                line.leftover = Some([&*before, data].concat().into());
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => return end(shard, key),
        }
    }
}

/// The client will send no more. A long-poll is still answered; a stream that nobody may be
/// reading ends, as does a connection between two requests.
fn on_half_close(shard: &Rc<Shard>, key: Key) {
    match shard.held.borrow_mut().get_mut(key) {
        Some(Hold::Response(hold)) => {
            hold.line.half_closed = true;
            return;
        }
        Some(Hold::Finishing(line)) => {
            line.half_closed = true;
            return;
        }
        Some(hold @ (Hold::Stream(_) | Hold::Resting(_))) => hold.set_reason(Reason::Closed),
        Some(Hold::Changing | Hold::Ws(_) | Hold::WsTarget(_)) | None => return,
    }
    end(shard, key);
}

/// Gives a resting connection that got `data` to a task.
fn wake(shard: &Rc<Shard>, key: Key, data: &[u8]) {
    let removed = shard.held.borrow_mut().remove(key);
    let Some((Some(socket), _, Hold::Resting(resting))) = removed else { return };
    shard.metrics.connections_idle.add(-1);
    let Resting { peer, door, presence, secure } = *resting;
    if let Ok(stream) = Stream::from_socket(socket, &peer) {
        let buffer = ReadBuffer::holding(data);
        shard.serve(Client { stream, buffer, peer, door, secure, presence, contact: None });
    }
}

/// A client has taken all that waited for it.
fn on_drained(shard: &Rc<Shard>, key: Key) {
    shard.drained.notify_waiters();
    let mut held = shard.held.borrow_mut();
    match held.get_mut(key) {
        Some(Hold::Finishing(_)) => {
            drop(held);
            complete(shard, key);
        }
        Some(Hold::Stream(hold)) => {
            let gap = std::mem::take(&mut hold.gap);
            if gap && hold.can_recover() {
                rearm(shard, &mut held, key);
                drop(held);
                update::request(shard, key, update::Urgency::Low);
            } else if gap && hold.is_sse {
                let notice = framed(hold.line.version, GAP_NOTICE);
                drop(held);
                shard.metrics.gaps_told.add(1);
                send(shard, key, &notice);
            } else {
                rearm(shard, &mut held, key);
            }
        }
        Some(Hold::Ws(_) | Hold::WsTarget(_)) => {
            drop(held);
            ws::on_drained(shard, key);
        }
        Some(Hold::Changing | Hold::Response(_) | Hold::Resting(_)) | None => {}
    }
}

/// What an event stream is told when items are missing.
pub(crate) const GAP_NOTICE: &[u8] = b"event: gap\ndata: {\"reason\":\"items-dropped\"}\n\n";

/// Stream data as it goes over the wire.
pub(crate) fn framed(version: Version, data: &[u8]) -> Bytes {
    match version {
        Version::Http11 => waft_http1::chunk(data),
        Version::Http10 => Bytes::copy_from_slice(data),
    }
}

/// Sets the timer of a stream again.
fn rearm(shard: &Shard, held: &mut waft_net::HeldSet<Hold>, key: Key) {
    let now = Instant::now();
    let Some(Hold::Stream(hold)) = held.get_mut(key) else { return };
    hold.keep_due = hold.keep_alive.as_ref().map(|keep_alive| keep_alive_due(keep_alive, now));
    let due = hold.due();
    let _same_shard = shard;
    held.set_deadline(key, due);
}

impl StreamHold {
    /// When this hold wants to be looked at next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let link = self.next.as_ref().map(|next| next.due);
        match (self.keep_due, link) {
            (Some(keep), Some(link)) => Some(keep.min(link)),
            (keep, link) => keep.or(link),
        }
    }

    /// Whether its target can be asked for what is missing: it has a next link, and a position that says from where on.
    pub(crate) fn can_recover(&self) -> bool {
        self.next.is_some() && self.subs.iter().any(|sub| sub.prev_id.is_some())
    }

    /// How long the stream may be quiet before a keep-alive, if any item puts it off.
    pub(crate) fn idle_keep_alive(&self) -> Option<&KeepAlive> {
        self.keep_alive.as_deref().filter(|keep_alive| keep_alive.mode == KeepAliveMode::Idle)
    }
}

/// The deadline of a held connection has passed.
pub(crate) fn on_deadline(shard: &Rc<Shard>, key: Key, now: Instant) {
    let mut held = shard.held.borrow_mut();
    match held.get_mut(key) {
        Some(Hold::Resting(_)) => {
            drop(held);
            end(shard, key);
        }
        Some(Hold::Response(hold)) => {
            let answer = timeout_answer(hold, shard.is_draining());
            drop(held);
            answer_response(shard, key, &answer);
        }
        Some(Hold::Stream(_)) => {
            drop(held);
            stream_deadline(shard, key, now);
        }
        Some(Hold::Ws(_)) => {
            drop(held);
            ws::on_deadline(shard, key, now);
        }
        Some(Hold::Changing | Hold::Finishing(_) | Hold::WsTarget(_)) | None => {}
    }
}

fn stream_deadline(shard: &Rc<Shard>, key: Key, now: Instant) {
    let mut held = shard.held.borrow_mut();
    let waiting = held.is_waiting(key);
    let Some(Hold::Stream(hold)) = held.get_mut(key) else { return };
    let plain = hold.next.is_none();
    let mut keep_alive = None;
    if let Some(kept) = &hold.keep_alive
        && (plain || hold.keep_due.is_some_and(|due| due <= now))
    {
        // A client that has not taken what was sent before needs nothing to keep it awake.
        keep_alive = (!waiting).then(|| framed(hold.line.version, &kept.data));
        hold.keep_due = Some(keep_alive_due(kept, now));
    }
    let mut fetch = false;
    if let Some(next) = &mut hold.next
        && next.due <= now
    {
        next.due = now + next.timeout;
        fetch = !hold.subs.iter().all(|sub| sub.active) || hold.subs.is_empty();
        for sub in &mut hold.subs {
            sub.active = false;
        }
    }
    let due = hold.due();
    held.set_deadline(key, due);
    drop(held);
    if let Some(data) = keep_alive {
        send(shard, key, &data);
    }
    if fetch {
        update::request(shard, key, update::Urgency::Low);
    }
}

impl Hold {
    /// Says why it ends, if it is one of a realm's client. What was said first counts.
    pub(crate) fn set_reason(&mut self, reason: Reason) {
        let guest = match self {
            Self::Response(hold) => hold.line.guest.as_mut(),
            Self::Stream(hold) => hold.line.guest.as_mut(),
            Self::Ws(hold) => hold.realm_socket().map(RealmSocket::guest),
            Self::Changing | Self::Finishing(_) | Self::Resting(_) | Self::WsTarget(_) => None,
        };
        if let Some(guest) = guest {
            guest.set_reason(reason);
        }
    }

    /// The written id of its route, if it has one.
    pub(crate) fn shown_route(&self) -> Option<&Arc<str>> {
        match self {
            Self::Response(hold) => hold.route.shown_id(),
            Self::Stream(hold) => hold.route.shown_id(),
            Self::Ws(hold) => hold.route.shown_id(),
            Self::Changing | Self::Finishing(_) | Self::Resting(_) | Self::WsTarget(_) => None,
        }
    }
}

/// Writes to a held connection; acts on what comes of it. Says whether it was taken.
pub(crate) fn send(shard: &Rc<Shard>, key: Key, data: &Bytes) -> bool {
    let wrote = shard.held.borrow_mut().write(key, data);
    match wrote {
        Wrote::Sent => shard.metrics.bytes_sent.add(data.len() as u64),
        Wrote::Queued => {
            shard.metrics.bytes_sent.add(data.len() as u64);
            shard.slow.borrow_mut().insert(key);
        }
        Wrote::Full => {
            on_full(shard, key);
            return false;
        }
        Wrote::Failed => {
            end(shard, key);
            return false;
        }
    }
    true
}

/// The queue of a slow client is full: something for it is lost.
pub(crate) fn on_full(shard: &Rc<Shard>, key: Key) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Stream(hold)) = held.get_mut(key) else { return };
    let said = std::mem::replace(&mut hold.slow_said, true);
    let channel = hold.subs.first().and_then(|sub| shard.listeners.borrow().name_of(sub.subscription).map(Arc::clone));
    if !said {
        warn!(client = %hold.line.peer, route = %hold.route.id, channel = channel.as_deref(), policy = ?hold.route.options.slow_client, "A client reads too slowly; its queue is full.");
    }
    shard.metrics.dropped_slow.add(1);
    // Who may not miss anything cannot go on after that.
    let policy = if hold.bayeux.is_some() { SlowClient::Close } else { hold.route.options.slow_client };
    match policy {
        SlowClient::Close => {
            if let Some(hold) = held.get_mut(key) {
                hold.set_reason(Reason::Slow);
            }
            drop(held);
            realm::too_slow(shard, key);
            shard.metrics.slow_disconnects.add(1);
            end(shard, key);
        }
        SlowClient::Drop => hold.gap = true,
    }
}

/// Cuts off clients that have taken nothing for too long.
pub(crate) fn cut_off_stalled(shard: &Rc<Shard>, limit: Duration) {
    let held = shard.held.borrow();
    let waiting: Vec<Key> = shard.slow.borrow().iter().copied().collect();
    let mut stalled = Vec::new();
    for key in waiting {
        match held.stalled_for(key) {
            Some(since) if since > limit => stalled.push(key),
            Some(_) => {}
            // What waited has been taken, or the connection has ended.
            None => {
                shard.slow.borrow_mut().remove(&key);
            }
        }
    }
    drop(held);
    for key in stalled {
        shard.slow.borrow_mut().remove(&key);
        shard.metrics.slow_disconnects.add(1);
        realm::too_slow(shard, key);
        debug!("A client took nothing for too long and was cut off.");
        if let Some(hold) = shard.held.borrow_mut().get_mut(key) {
            hold.set_reason(Reason::Slow);
        }
        end(shard, key);
    }
}

/// The bytes that answer a long-poll when nothing has come.
pub(crate) fn timeout_answer(hold: &ResponseHold, last: bool) -> Bytes {
    if let Some(answer) = hold.poll.as_ref().and_then(|poll| realm::answer_at_the_end(hold, poll, last)) {
        return answer;
    }
    let Timeout { parts, body } = &*hold.template;
    response_bytes(hold, parts.code, &parts.reason, &parts.headers, body, last)
}

/// The bytes of an answer to a long-poll.
pub(crate) fn response_bytes(
    hold: &ResponseHold,
    code: u16,
    reason: &str,
    headers: &waft_grip::header::HeaderList,
    body: &Bytes,
    last: bool,
) -> Bytes {
    let fields = respond::fields_from(headers.iter());
    let response = Whole { status: code, reason: reason.to_owned(), fields, body: body.clone() };
    whole_bytes(hold, response, last)
}

/// The bytes of a whole response to a long-poll, dressed as its route says.
pub(crate) fn whole_bytes(hold: &ResponseHold, response: Whole, last: bool) -> Bytes {
    let (line, request) = (&hold.line, &hold.request);
    let Whole { status, reason, fields, body } = match &request.dress {
        None => response,
        Some(dress) => dress.whole(response),
    };
    let frame = match status {
        100..=199 | 204 | 304 => Frame::None,
        _ => Frame::Length(body.len()),
    };
    let keep = line.keep_alive && !line.half_closed && !last;
    let mut out = respond::head(status, &reason, &fields, frame, line.version, keep);
    if !request.is_to_head() && frame != Frame::None {
        out.extend_from_slice(&body);
    }
    out.into()
}

/// Answers a long-poll and ends its hold.
pub(crate) fn answer_response(shard: &Rc<Shard>, key: Key, answer: &Bytes) {
    if let Some(Hold::Response(hold)) = shard.held.borrow().get(key) {
        shard.tally(&hold.route, |traffic| traffic.client_sent.written(answer));
    }
    let Some(line) = take_out(shard, key) else { return };
    finish(shard, key, line, answer);
}

/// Ends a stream in good order.
pub(crate) fn end_stream(shard: &Rc<Shard>, key: Key) {
    let Some(line) = take_out(shard, key) else { return };
    let last = if line.version == Version::Http11 { Bytes::from_static(LAST_CHUNK) } else { Bytes::new() };
    finish(shard, key, line, &last);
}

/// Ends the subscriptions of a hold and leaves its connection in the held set, to be finished.
fn take_out(shard: &Rc<Shard>, key: Key) -> Option<Line> {
    let mut held = shard.held.borrow_mut();
    let hold = held.get_mut(key)?;
    if !matches!(hold, Hold::Response(_) | Hold::Stream(_)) {
        return None;
    }
    let hold = std::mem::replace(hold, Hold::Changing);
    held.set_deadline(key, None);
    drop(held);
    let_go(shard, &hold);
    match hold {
        Hold::Response(hold) => Some(hold.line),
        Hold::Stream(hold) => Some(hold.line),
        Hold::Changing | Hold::Resting(_) | Hold::Finishing(_) | Hold::Ws(_) | Hold::WsTarget(_) => None,
    }
}

/// Ends what a hold has beyond its connection: subscriptions, its count, its gone link.
fn let_go(shard: &Rc<Shard>, hold: &Hold) {
    let (mode, subs, gone, route) = match hold {
        Hold::Response(hold) => (Mode::Response, &hold.subs, &hold.gone, &hold.route),
        Hold::Stream(hold) => (Mode::Stream, &hold.subs, &hold.gone, &hold.route),
        Hold::Resting(_) => return shard.metrics.connections_idle.add(-1),
        Hold::Ws(hold) => return ws::let_go(shard, hold),
        Hold::WsTarget(side) => return ws::target_gone(shard, side),
        Hold::Changing | Hold::Finishing(_) => return,
    };
    if let Hold::Response(hold) = hold
        && let Some(poll) = &hold.poll
    {
        realm::poll_ended(shard, poll);
    }
    if let Hold::Stream(hold) = hold
        && let Some(stream) = &hold.bayeux
    {
        realm::stream_ended(shard, stream, &hold.subs);
    }
    subscribe::leave(shard, mode, subs);
    count(shard, mode, -1);
    if let Some(gone) = gone {
        link::tell_gone(shard, route, &gone.base, &gone.uri);
    }
}

/// Counts a hold in or out.
pub(crate) fn count(shard: &Shard, mode: Mode, by: i64) {
    let gauge = match mode {
        Mode::Response => &shard.metrics.holds_response,
        Mode::Stream => &shard.metrics.holds_stream,
        Mode::Ws => &shard.metrics.holds_ws,
    };
    gauge.add(by);
    if by > 0 {
        shard.metrics.holds_begun.add(1);
    }
}

/// Writes the last bytes of an exchange. When they have been taken, the connection is free again.
pub(crate) fn finish(shard: &Rc<Shard>, key: Key, line: Line, last: &Bytes) {
    let mut held = shard.held.borrow_mut();
    let Some(hold) = held.get_mut(key) else { return };
    *hold = Hold::Finishing(Box::new(line));
    let wrote = held.write_last(key, last);
    drop(held);
    shard.metrics.bytes_sent.add(last.len() as u64);
    match wrote {
        Wrote::Sent => complete(shard, key),
        Wrote::Queued | Wrote::Full => {
            shard.slow.borrow_mut().insert(key);
        }
        Wrote::Failed => end(shard, key),
    }
}

/// An exchange in the held set has ended and everything was written.
fn complete(shard: &Rc<Shard>, key: Key) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Finishing(line)) = held.get_mut(key) else { return };
    let reusable = line.keep_alive && !line.half_closed && !shard.is_draining();
    if reusable && line.leftover.is_none() {
        let limit = shard.gateway.settings().limits.idle_timeout;
        if let Some(hold) = held.get_mut(key)
            && let Hold::Finishing(line) = std::mem::replace(hold, Hold::Changing)
        {
            let Line { peer, presence, secure, .. } = *line;
            *hold = Hold::Resting(Box::new(Resting { peer, door: Door::Front, presence, secure }));
            shard.metrics.connections_idle.add(1);
        }
        held.set_deadline(key, Some(Instant::now() + limit));
        return;
    }
    let Some((Some(socket), _, Hold::Finishing(line))) = held.remove(key) else { return };
    drop(held);
    let Line { peer, presence, secure, leftover, .. } = *line;
    let Ok(stream) = Stream::from_socket(socket, &peer) else { return };
    let mut client = Client { secure, ..Client::new(stream, peer, Door::Front, presence) };
    if let Some(leftover) = leftover.filter(|_| reusable) {
        client.buffer = ReadBuffer::holding(&leftover);
        shard.serve(client);
    } else {
        let shard = Rc::clone(shard);
        tokio::task::spawn_local(async move { client.close(&shard).await });
    }
}

/// Ends a held connection at once, whatever it is.
pub(crate) fn end(shard: &Rc<Shard>, key: Key) {
    shard.slow.borrow_mut().remove(&key);
    let removed = shard.held.borrow_mut().remove(key);
    if let Some((_, _, hold)) = removed {
        let_go(shard, &hold);
    }
}

/// Ends every hold in good order, for a shard that drains.
pub(crate) fn end_all(shard: &Rc<Shard>) {
    let keys: Vec<Key> = shard.held.borrow().keys().collect();
    for key in keys {
        let mut held = shard.held.borrow_mut();
        match held.get_mut(key) {
            Some(Hold::Response(hold)) => {
                let answer = timeout_answer(hold, true);
                drop(held);
                answer_response(shard, key, &answer);
            }
            Some(hold @ Hold::Stream(_)) => {
                hold.set_reason(Reason::GoingAway);
                drop(held);
                end_stream(shard, key);
            }
            Some(Hold::Resting(_)) => {
                drop(held);
                end(shard, key);
            }
            Some(Hold::Ws(_)) => {
                drop(held);
                ws::go_away(shard, key);
            }
            Some(Hold::Changing | Hold::Finishing(_) | Hold::WsTarget(_)) | None => {}
        }
    }
}

/// A long-poll that was taken out of the held set, to make its request again.
#[derive(Debug)]
pub(crate) struct Retried {
    pub(crate) client: Client,
    pub(crate) route: Arc<Route>,
    pub(crate) request: SavedRequest,
    /// Its channels, as the target calls them, with their positions.
    pub(crate) positions: Vec<(String, Option<String>)>,
    pub(crate) seat: Seat,
}

/// Takes a long-poll out of the held set.
pub(crate) fn take_response(shard: &Rc<Shard>, key: Key) -> Option<Retried> {
    if !matches!(shard.held.borrow().get(key), Some(Hold::Response(_))) {
        return None;
    }
    let removed = shard.held.borrow_mut().remove(key);
    let Some((Some(socket), _, Hold::Response(hold))) = removed else { return None };
    let ResponseHold { line, route, subs, request, .. } = *hold;
    let positions = subscribe::positions(shard, &route.options.prefix, &subs);
    subscribe::leave(shard, Mode::Response, &subs);
    count(shard, Mode::Response, -1);
    let Line { peer, presence, secure, leftover, seat, .. } = line;
    let stream = Stream::from_socket(socket, &peer).ok()?;
    let buffer = leftover.map_or_else(ReadBuffer::default, |leftover| ReadBuffer::holding(&leftover));
    let client = Client { stream, buffer, peer, door: Door::Front, secure, presence, contact: None };
    Some(Retried { client, route, request: *request, positions, seat })
}

/// Writes what waits for a hold whose socket has just been attached.
pub(crate) fn flush(shard: &Rc<Shard>, key: Key) {
    let flushed = shard.held.borrow_mut().flush(key);
    match flushed {
        Flush::Done => complete(shard, key),
        Flush::Waiting => {
            shard.slow.borrow_mut().insert(key);
        }
        Flush::Failed => end(shard, key),
    }
}
