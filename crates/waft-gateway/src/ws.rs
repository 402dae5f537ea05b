//! WebSockets: from the handshake to a record in the held set, and what happens there.
//!
//! A client's WebSocket has no task and no buffer of its own. What it sends is read into the shard's scratch memory
//! and turned into messages at once; what its target says goes out in one write a turn. The modules in the order of
//! a connection's life: `handshake` judges the request and asks a target, `over_http`, `direct` and `worker` are the ways
//! to a target, `control` obeys the messages by which a target steers, `channels` has the subscriptions, `deliver`
//! brings what is published, and `timers` has what is due at a time. This module has the record itself, and the
//! reading and writing of its connection.

mod channels;
mod control;
mod deliver;
mod direct;
mod handshake;
mod over_http;
mod timers;
mod worker;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;
use tracing::debug;
use waft_http1::Version;
use waft_hub::Mode;
use waft_net::{Key, PeerAddr, Wrote};
use waft_realm::Reason;
use waft_route::Route;
use waft_websocket::close::{self, Close};
use waft_websocket::connection::{Event, Limits, Receiver};
use waft_websocket::control::{GripExtension, KeepAliveMode, Scheduled};
use waft_websocket::deflate::Compressors;
use waft_websocket::frame::{self, Header, Opcode};
use waft_websocket::message::Message;
use waft_websocket::negotiate::Params;
use waft_websocket::over_http::{Client, Kind, Options};

use self::over_http::Link;
use self::timers::{keep_alive_due, put_off_keep_alive};
use self::worker::ToWorker;
use crate::hold::{self, Hold, Line, Meta, count};
use crate::realm::{self, RealmSocket};
use crate::record::Seat;
use crate::shard::{Presence, Shard};
use crate::subscribe::{self, Sub};

pub(crate) use self::channels::place_in;
pub(crate) use self::deliver::{
    deliver, give, in_form as deliver_form, one as deliver_to, refresh_channel, refresh_socket,
    write_published as deliver_bytes,
};
pub(crate) use self::direct::{TargetSide, target_gone};
pub(crate) use self::handshake::{accept_in_realm, forged, forges_events, refusal, serve};
pub(crate) use self::timers::{on_deadline, rearm};
pub(crate) use self::worker::on_worker;

/// Content of the pings that waft sends: pongs with it are ours and go no further.
const PING_CONTENT: &[u8] = b"waft";
/// How long a client may take to answer a close frame before it is cut off.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes that may wait on one side before the other is no longer read.
const WINDOW: usize = 200_000;
/// Full reads of one connection before others get their turn.
const READS_AT_ONCE: usize = 8;
/// Bytes read at once outside the shard's own loop.
const SCRATCH: usize = 64 << 10;

/// What the WebSockets of a shard share.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Memory that input passes through.
    input: RefCell<BytesMut>,
    scratch: RefCell<Vec<u8>>,
    compressors: RefCell<Compressors>,
    limits: RefCell<Vec<Arc<Limits>>>,
    options: RefCell<Vec<Arc<Options>>>,
    /// Sessions whose client has gone and whose target still has to hear of it.
    background: Cell<usize>,
}

/// One of the few values that many connections share.
fn shared<T: PartialEq>(known: &RefCell<Vec<Arc<T>>>, wanted: T) -> Arc<T> {
    /// More than settings usually have; after a number of reloads the oldest goes.
    const KEPT: usize = 16;
    let mut known = known.borrow_mut();
    if let Some(found) = known.iter().find(|value| ***value == wanted) {
        return Arc::clone(found);
    }
    if known.len() >= KEPT {
        known.remove(0);
    }
    let value = Arc::new(wanted);
    known.push(Arc::clone(&value));
    value
}

/// A client's WebSocket in the held set.
#[derive(Debug)]
pub(crate) struct WsHold {
    peer: PeerAddr,
    presence: Presence,
    pub(crate) route: Arc<Route>,
    receiver: Receiver,
    subs: Vec<Sub>,
    meta: Rc<Meta>,
    deflate: Option<Params>,
    grip: Option<GripExtension>,
    target: ToTarget,
    /// The URI of its handshake, if it may have filters.
    uri: Box<str>,
    schedule: Option<Box<Schedule>>,
    /// When the client last sent anything.
    heard: Instant,
    pings_unanswered: u8,
    /// Reading stopped because its target takes no more.
    paused: bool,
    /// A close frame went to the client.
    close_sent: bool,
    /// The client's close frame has come.
    close_received: bool,
    secure: bool,
    seat: Seat,
}

const _: () = assert!(size_of::<WsHold>() <= 224, "an idle WebSocket is kept as a small record");

/// Where the messages of a client go.
#[derive(Debug)]
enum ToTarget {
    /// To another WebSocket.
    Direct(Key),
    /// Back.
    Echo,
    /// Nowhere: the target has left, the client stays.
    Nowhere,
    /// To the realm whose client it is.
    Realm(Box<RealmSocket>),
    /// Into HTTP requests.
    OverHttp(Rc<Link>),
    /// To a ZHTTP worker.
    Worker(Rc<worker::Side>),
}

/// What only some WebSockets wait for.
#[derive(Debug, Default)]
struct Schedule {
    keep_alive: Option<(Scheduled, KeepAliveMode, Instant)>,
    delayed: Option<(Scheduled, Instant)>,
    /// The client has to close by then.
    close_by: Option<Instant>,
    /// A connect of a Bayeux client has to be answered by then.
    connect: Option<Instant>,
}

/// What comes after the bytes of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum After {
    /// The connection is cut without more ado.
    Cut,
    /// The connection ends in good order.
    Finish,
    #[default]
    Nothing,
    /// The session of an `over_http` target has something to do.
    Pump,
}

/// What one turn makes for the two sides, gathered into one write each.
#[derive(Debug, Default)]
pub(crate) struct Out {
    client: BytesMut,
    target: BytesMut,
    /// Memory for the header of the frame that is being put.
    head: Vec<u8>,
    after: After,
}

impl Out {
    fn put(&mut self, header: Header, content: &[u8]) {
        self.head.clear();
        Header { len: content.len() as u64, ..header }.encode(&mut self.head);
        let out = if header.mask.is_some() { &mut self.target } else { &mut self.client };
        out.reserve(self.head.len() + content.len());
        out.extend_from_slice(&self.head);
        let start = out.len();
        out.extend_from_slice(content);
        if let (Some(key), Some(content)) = (header.mask, out.get_mut(start..)) {
            frame::apply_mask(content, key, 0);
        }
    }

    /// A frame for the client.
    pub(crate) fn client_frame(&mut self, opcode: Opcode, fin: bool, content: &[u8]) {
        self.put(Header { fin, rsv1: false, opcode, mask: None, len: 0 }, content);
    }

    /// Frames for the client that were made before.
    pub(crate) fn client_bytes(&mut self, frames: &[u8]) {
        self.client.extend_from_slice(frames);
    }

    /// Ends the connection in good order, behind what was put up before.
    pub(crate) fn close(&mut self, shard: &Rc<Shard>, key: Key, close: &Close) {
        fail(shard, key, close, self);
    }

    /// A whole message for the client, compressed where that was agreed on.
    fn message(&mut self, shard: &Shard, deflate: Option<&Params>, opcode: Opcode, content: &[u8]) {
        if deflate.is_none() || opcode.is_control() {
            return self.client_frame(opcode, true, content);
        }
        let message = Message::new(opcode, content);
        self.client.extend_from_slice(message.frame_for(deflate, &mut shard.ws.compressors.borrow_mut()));
    }

    /// Has the session looked at once everything before has gone out.
    fn pump(&mut self) {
        if self.after == After::Nothing {
            self.after = After::Pump;
        }
    }

    /// A frame for the target, masked as clients have to.
    fn target_frame(&mut self, opcode: Opcode, fin: bool, content: &[u8]) {
        let mask = Some(fastrand::u32(..).to_ne_bytes());
        self.put(Header { fin, rsv1: false, opcode, mask, len: 0 }, content);
    }

    /// Writes what was gathered for the client `key` and its target, and does what comes after.
    pub(crate) fn flush(self, shard: &Rc<Shard>, key: Key) {
        let Self { client, target, after, .. } = self;
        let target_key = match shard.held.borrow().get(key) {
            Some(Hold::Ws(hold)) => hold.target.key(),
            _ => return,
        };
        if let Some(target_key) = target_key
            && !target.is_empty()
        {
            write(shard, target_key, &target.freeze());
        }
        if !client.is_empty() && write(shard, key, &client.freeze()) {
            put_off_keep_alive(shard, key);
        }
        match after {
            After::Nothing => {}
            After::Pump => over_http::pump(shard, key),
            After::Finish | After::Cut => finish(shard, key),
        }
    }
}

impl WsHold {
    /// What it is to a realm, if it is a client of one.
    pub(crate) fn realm_socket(&mut self) -> Option<&mut RealmSocket> {
        match &mut self.target {
            ToTarget::Realm(socket) => Some(socket),
            ToTarget::Direct(_) | ToTarget::Echo | ToTarget::Nowhere | ToTarget::OverHttp(_) | ToTarget::Worker(_) => {
                None
            }
        }
    }

    /// Its channels.
    pub(crate) fn subs(&self) -> &[Sub] {
        &self.subs
    }

    /// One channel more.
    pub(crate) fn add_sub(&mut self, sub: Sub) {
        self.subs.reserve_exact(1);
        self.subs.push(sub);
    }

    /// One channel less.
    pub(crate) fn remove_sub(&mut self, place: usize) -> Sub {
        self.subs.swap_remove(place)
    }

    /// Sets when a connect of a Bayeux client has to be answered.
    pub(crate) fn set_connect_due(&mut self, due: Option<Instant>) {
        if due.is_some() || self.schedule.is_some() {
            self.schedule.get_or_insert_default().connect = due;
        }
    }
}

impl ToTarget {
    /// The target's side, if it is a WebSocket too.
    const fn key(&self) -> Option<Key> {
        match self {
            Self::Direct(key) => Some(*key),
            Self::Echo | Self::Nowhere | Self::OverHttp(_) | Self::Realm(_) | Self::Worker(_) => None,
        }
    }
}

/// Writes what has to arrive, whatever already waits. Whoever calls this has seen to it that not too much does.
fn write(shard: &Rc<Shard>, key: Key, data: &Bytes) -> bool {
    let wrote = shard.held.borrow_mut().write_last(key, data);
    match wrote {
        Wrote::Sent => {}
        Wrote::Queued | Wrote::Full => {
            shard.slow.borrow_mut().insert(key);
        }
        Wrote::Failed => {
            hold::end(shard, key);
            return false;
        }
    }
    shard.metrics.bytes_sent.add(data.len() as u64);
    true
}

/// Reads what a connection has sent; `ended` says that its end may be behind that.
pub(crate) fn read(shard: &Rc<Shard>, key: Key, ended: bool, scratch: &mut [u8]) {
    for _ in 0..READS_AT_ONCE {
        if is_full(shard, key) {
            return;
        }
        let read = shard.held.borrow_mut().read(key, scratch);
        match read {
            Ok(0) => return lost(shard, key),
            Ok(count) => {
                shard.metrics.bytes_received.add(count as u64);
                feed(shard, key, scratch.get(..count).unwrap_or_default());
                // A short read has emptied the socket; what comes later is announced anew.
                if count < scratch.len() && !ended && !shard.held.borrow().has_unread(key) {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => return hold::end(shard, key),
        }
    }
    let shard = Rc::clone(shard);
    spawn_local(async move {
        tokio::task::yield_now().await;
        read_on(&shard, key);
    });
}

/// Reads a connection that was left with something unread.
fn read_on(shard: &Rc<Shard>, key: Key) {
    let mut scratch = std::mem::take(&mut *shard.ws.scratch.borrow_mut());
    scratch.resize(SCRATCH, 0);
    read(shard, key, true, &mut scratch);
    *shard.ws.scratch.borrow_mut() = scratch;
}

/// Whether the side that a connection's messages go to takes no more now; if so, that is noted.
fn is_full(shard: &Shard, key: Key) -> bool {
    let held = shard.held.borrow();
    let full = match held.get(key) {
        // Answers to its pings wait for the client itself.
        Some(Hold::Ws(_)) if held.waiting_bytes(key) > WINDOW => true,
        Some(Hold::Ws(hold)) => match &hold.target {
            ToTarget::OverHttp(link) => !hold.close_received && link.session.borrow().client_room() == 0,
            ToTarget::Direct(target) => held.waiting_bytes(*target) > WINDOW,
            ToTarget::Worker(side) => side.is_full(),
            ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) => false,
        },
        Some(Hold::WsTarget(side)) => held.waiting_bytes(side.client) > WINDOW,
        _ => return true,
    };
    drop(held);
    if full {
        set_paused(shard, key, true);
    }
    full
}

/// Sets whether reading has stopped; returns how it was.
fn set_paused(shard: &Shard, key: Key, paused: bool) -> bool {
    match shard.held.borrow_mut().get_mut(key) {
        Some(Hold::Ws(hold)) => std::mem::replace(&mut hold.paused, paused),
        Some(Hold::WsTarget(side)) => std::mem::replace(&mut side.paused, paused),
        _ => false,
    }
}

/// Reads again what was left unread while the other side took no more.
fn resume(shard: &Rc<Shard>, key: Key) {
    if set_paused(shard, key, false) {
        read_on(shard, key);
    }
}

/// Everything that waited for a connection has been written.
pub(crate) fn on_drained(shard: &Rc<Shard>, key: Key) {
    let (own, other) = match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => (true, hold.target.key()),
        Some(Hold::WsTarget(side)) => (false, Some(side.client)),
        _ => return,
    };
    if let Some(other) = other {
        resume(shard, other);
    }
    if own {
        resume(shard, key);
        over_http::pump(shard, key);
        worker::on_drained(shard, key);
    }
}

/// Takes in bytes of either side.
fn feed(shard: &Rc<Shard>, key: Key, data: &[u8]) {
    let mut input = std::mem::take(&mut *shard.ws.input.borrow_mut());
    input.extend_from_slice(data);
    let mut out = Out::default();
    let mut client = key;
    loop {
        let mut held = shard.held.borrow_mut();
        let (event, from_client) = match held.get_mut(key) {
            Some(Hold::Ws(hold)) => (hold.receiver.receive(&mut input), true),
            Some(Hold::WsTarget(side)) => {
                client = side.client;
                (side.receiver.receive(&mut input), false)
            }
            _ => break,
        };
        drop(held);
        match event {
            Ok(None) => break,
            Ok(Some(event)) if from_client => on_client_event(shard, key, event, &mut out),
            Ok(Some(event)) => direct::on_target_event(shard, client, event, &mut out),
            Err(error) if from_client => {
                debug!(%error, "A client broke the WebSocket protocol.");
                fail(shard, key, &error.to_close(), &mut out);
                break;
            }
            Err(error) => {
                debug!(%error, "A target broke the WebSocket protocol.");
                out.after = After::Cut;
                break;
            }
        }
        if !matches!(out.after, After::Nothing | After::Pump) {
            break;
        }
    }
    input.clear();
    if input.capacity() <= 2 * SCRATCH {
        *shard.ws.input.borrow_mut() = input;
    }
    out.flush(shard, client);
    if client == key && !heard(shard, key) {
        over_http::pump(shard, key);
    }
}

/// Notes that a client shows signs of life. True if that was all there is to do.
fn heard(shard: &Shard, key: Key) -> bool {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return true };
    hold.heard = Instant::now();
    hold.pings_unanswered = 0;
    if hold.close_received {
        let due = hold.due();
        held.set_deadline(key, due);
        return false;
    }
    !matches!(hold.target, ToTarget::OverHttp(_))
}

/// Does what something that a client sent asks for.
fn on_client_event(shard: &Rc<Shard>, key: Key, event: Event, out: &mut Out) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return };
    if let Event::Close(close) = event {
        return on_client_close(hold, close, out);
    }
    if let Event::Ping(content) = &event
        && (hold.route.options.websocket.answer_pings
            || matches!(hold.target, ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_)))
    {
        if !hold.close_sent {
            out.client_frame(Opcode::Pong, true, content);
        }
        return;
    }
    if matches!(&event, Event::Pong(content) if *content == PING_CONTENT) {
        return;
    }
    tally_client_event(shard, hold, &event);
    match &hold.target {
        ToTarget::Direct(_) => match event {
            Event::Binary(content) => out.target_frame(Opcode::Binary, true, &content),
            Event::Fragment(piece) => out.target_frame(piece.frame_opcode(), piece.fin, &piece.content),
            Event::Ping(content) => out.target_frame(Opcode::Ping, true, &content),
            Event::Pong(content) => out.target_frame(Opcode::Pong, true, &content),
            Event::Text(content) => out.target_frame(Opcode::Text, true, &content),
            Event::Close(_) => {}
        },
        ToTarget::Echo if !hold.close_sent => match event {
            Event::Binary(content) => out.message(shard, hold.deflate.as_ref(), Opcode::Binary, &content),
            Event::Text(content) => out.message(shard, hold.deflate.as_ref(), Opcode::Text, &content),
            Event::Close(_) | Event::Fragment(_) | Event::Ping(_) | Event::Pong(_) => {}
        },
        ToTarget::Worker(side) => side.send(ToWorker::from(event)),
        ToTarget::Echo | ToTarget::Nowhere => {}
        ToTarget::Realm(_) => {
            drop(held);
            realm::on_socket_event(shard, key, &event, out);
        }
        ToTarget::OverHttp(link) => {
            let (kind, content) = match event {
                Event::Binary(content) => (Kind::Binary, content),
                Event::Ping(content) => (Kind::Ping, content),
                Event::Pong(content) => (Kind::Pong, content),
                Event::Text(content) => (Kind::Text, content),
                Event::Close(_) | Event::Fragment(_) => return,
            };
            link.session.borrow_mut().handle_client(Client::Sent(kind, content));
        }
    }
}

/// Counts a message of a client, which goes on to its target.
fn tally_client_event(shard: &Shard, hold: &WsHold, event: &Event) {
    let (content, last) = match event {
        Event::Binary(content) | Event::Text(content) => (content.len(), true),
        Event::Fragment(piece) => (piece.content.len(), piece.fin),
        Event::Close(_) | Event::Ping(_) | Event::Pong(_) => return,
    };
    shard.tally(&hold.route, |traffic| {
        traffic.client_received.piece(content, last);
        match hold.target {
            ToTarget::Direct(_) | ToTarget::Worker(_) => traffic.target_sent.piece(content, last),
            // The content is counted with the request that it goes into.
            ToTarget::OverHttp(_) => traffic.target_sent.messages += u64::from(last),
            ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) => {}
        }
        if matches!(hold.target, ToTarget::Echo) && !hold.close_sent {
            traffic.client_sent.piece(content, last);
        }
    });
}

/// Counts a message of a target, or a piece of one, which goes on to the client if it is `relayed`.
fn tally_from_target(shard: &Shard, hold: &WsHold, content: usize, last: bool, relayed: bool) {
    shard.tally(&hold.route, |traffic| {
        match hold.target {
            // The content was counted with the answer that it came in.
            ToTarget::OverHttp(_) => traffic.target_received.messages += u64::from(last),
            ToTarget::Direct(_) | ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) | ToTarget::Worker(_) => {
                traffic.target_received.piece(content, last);
            }
        }
        if relayed {
            traffic.client_sent.piece(content, last);
        }
    });
}

/// A client has sent its close frame: nothing more comes from it.
fn on_client_close(hold: &mut WsHold, close: Option<Close>, out: &mut Out) {
    hold.close_received = true;
    match &hold.target {
        ToTarget::OverHttp(link) if !link.session.borrow().is_detached() => {
            link.session.borrow_mut().handle_client(Client::Closed(close));
        }
        ToTarget::Direct(_) | ToTarget::Worker(_) => {
            if let ToTarget::Worker(side) = &hold.target {
                side.send(ToWorker::Close(close));
            } else {
                let content = close.map(|close| close.to_content()).unwrap_or_default();
                out.target_frame(Opcode::Close, true, &content);
            }
            if hold.close_sent {
                out.after = After::Finish;
            } else {
                hold.schedule.get_or_insert_default().close_by = Some(Instant::now() + CLOSE_LIMIT);
            }
        }
        ToTarget::Echo | ToTarget::Nowhere | ToTarget::OverHttp(_) | ToTarget::Realm(_) => {
            if !hold.close_sent {
                let content = close.map(|close| close.to_content()).unwrap_or_default();
                out.client_frame(Opcode::Close, true, &content);
                hold.close_sent = true;
            }
            if let Some(socket) = hold.realm_socket() {
                socket.guest().set_reason(Reason::Closed);
            }
            out.after = After::Finish;
        }
    }
}

/// Puts a message of the target up for its client: past the control layer, if there is one.
fn from_target(shard: &Rc<Shard>, key: Key, kind: Kind, content: Bytes, out: &mut Out) {
    use waft_websocket::control::FromTarget;
    let held = shard.held.borrow();
    let Some(Hold::Ws(hold)) = held.get(key) else { return };
    let opcode = match kind {
        Kind::Binary => Opcode::Binary,
        Kind::Ping => Opcode::Ping,
        Kind::Pong => Opcode::Pong,
        Kind::Text => Opcode::Text,
    };
    let size = content.len();
    let sorted = match &hold.grip {
        Some(grip) if !opcode.is_control() => grip.classify(kind == Kind::Text, &content),
        _ => FromTarget::Relay(content),
    };
    let closed = hold.close_sent;
    if !opcode.is_control() {
        let relayed = matches!(&sorted, FromTarget::Relay(_)) && !closed;
        tally_from_target(shard, hold, size, true, relayed);
    }
    match sorted {
        FromTarget::Relay(content) if !closed => out.message(shard, hold.deflate.as_ref(), opcode, &content),
        FromTarget::Relay(_) => {}
        FromTarget::Drop => debug!("A message of a target has neither the message prefix nor `c:` and was dropped."),
        FromTarget::Control(Ok(message)) => {
            drop(held);
            control::obey(shard, key, message, out);
        }
        FromTarget::Control(Err(error)) => {
            drop(held);
            debug!(%error, "A control message was ignored.");
            if error.closes() {
                fail(shard, key, &Close::new(close::INTERNAL_ERROR, &error.to_string()), out);
            }
        }
    }
}

/// Closes a connection whose client sends binary messages where only text is understood.
pub(crate) fn refuse_binary(shard: &Rc<Shard>, key: Key, out: &mut Out) {
    fail(shard, key, &Close::new(close::UNSUPPORTED, "only text is understood here"), out);
}

/// Closes a connection that cannot go on: a close frame, then its end.
fn fail(shard: &Rc<Shard>, key: Key, close: &Close, out: &mut Out) {
    note_close(shard, key, close);
    if mark_closed(shard, key) {
        out.client_frame(Opcode::Close, true, &close.to_content());
    }
    out.after = After::Finish;
}

/// Notes why the WebSocket of a realm's client is closed.
fn note_close(shard: &Shard, key: Key, close: &Close) {
    if let Some(hold) = shard.held.borrow_mut().get_mut(key) {
        hold.set_reason(realm::reason_of(close));
    }
}

/// Notes that a close frame goes to the client: nothing may follow it. False if one went before.
fn mark_closed(shard: &Rc<Shard>, key: Key) -> bool {
    let subs = match shard.held.borrow_mut().get_mut(key) {
        Some(Hold::Ws(hold)) if !hold.close_sent => {
            hold.close_sent = true;
            let schedule = hold.schedule.get_or_insert_default();
            **schedule = Schedule { close_by: Some(Instant::now() + CLOSE_LIMIT), ..Schedule::default() };
            std::mem::take(&mut hold.subs)
        }
        _ => return false,
    };
    if let Some(Hold::Ws(hold)) = shard.held.borrow().get(key)
        && let ToTarget::Realm(socket) = &hold.target
    {
        realm::socket_ended(shard, socket, &subs);
    }
    subscribe::leave(shard, Mode::Ws, &subs);
    rearm(shard, key);
    true
}

/// Closes a WebSocket from our side: the client gets the close frame, the target hears of it.
fn close(shard: &Rc<Shard>, key: Key, close: &Close) {
    let mut out = Out::default();
    close_after(shard, key, close, &mut out);
    out.flush(shard, key);
}

/// Closes a WebSocket from our side once what was gathered for it has gone out.
fn close_after(shard: &Rc<Shard>, key: Key, close: &Close, out: &mut Out) {
    let link = match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) if !hold.close_sent => match &hold.target {
            ToTarget::OverHttp(link) => Some(Rc::clone(link)),
            ToTarget::Direct(_) | ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) | ToTarget::Worker(_) => None,
        },
        _ => return,
    };
    if let Some(link) = link.filter(|link| !link.session.borrow().is_detached()) {
        link.session.borrow_mut().close(close.clone());
        return out.pump();
    }
    direct::detach(shard, key, close);
    worker::detach(shard, key, close);
    note_close(shard, key, close);
    let received = matches!(shard.held.borrow().get(key), Some(Hold::Ws(hold)) if hold.close_received);
    if mark_closed(shard, key) {
        out.client_frame(Opcode::Close, true, &close.to_content());
    }
    if received {
        out.after = After::Finish;
    }
}

/// Closes a WebSocket because this process is to end.
pub(crate) fn go_away(shard: &Rc<Shard>, key: Key) {
    close(shard, key, &Close::new(close::GOING_AWAY, ""));
}

/// The queue of a client is full. It would miss what was published and not know it, so it is told to come back.
fn on_full(shard: &Rc<Shard>, key: Key) {
    shard.metrics.dropped_slow.add(1);
    shard.metrics.slow_disconnects.add(1);
    realm::too_slow(shard, key);
    debug!("A WebSocket client reads too slowly and is closed with 1013.");
    close(shard, key, &Close::new(TRY_AGAIN_LATER, "client reads too slowly"));
}

/// The close code that sends a client back later: its queue was full, or its target cannot be reached.
pub(crate) const TRY_AGAIN_LATER: u16 = 1013;

/// A connection has ended without a close frame.
fn lost(shard: &Rc<Shard>, key: Key) {
    let client = match shard.held.borrow().get(key) {
        Some(Hold::WsTarget(side)) => Some(side.client),
        _ => None,
    };
    match client {
        Some(client) => direct::target_lost(shard, key, client),
        None => hold::end(shard, key),
    }
}

/// Ends a connection after everything that waits for the client was written.
fn finish(shard: &Rc<Shard>, key: Key) {
    let mut held = shard.held.borrow_mut();
    let Some(hold) = held.get_mut(key) else { return };
    if !matches!(hold, Hold::Ws(_)) {
        return;
    }
    let Hold::Ws(hold) = std::mem::replace(hold, Hold::Changing) else { return };
    held.set_deadline(key, None);
    drop(held);
    let_go(shard, &hold);
    let WsHold { peer, presence, secure, .. } = *hold;
    let version = Version::Http11;
    let seat = Seat::default();
    let line = Line {
        peer,
        presence,
        secure,
        version,
        keep_alive: false,
        half_closed: false,
        leftover: None,
        seat,
        guest: None,
    };
    hold::finish(shard, key, line, &Bytes::new());
}

/// Ends what a WebSocket has beyond its connection.
pub(crate) fn let_go(shard: &Rc<Shard>, hold: &WsHold) {
    shard.unplace(&hold.seat);
    if let ToTarget::Realm(socket) = &hold.target {
        realm::socket_ended(shard, socket, &hold.subs);
    }
    subscribe::leave(shard, Mode::Ws, &hold.subs);
    count(shard, Mode::Ws, -1);
    match &hold.target {
        ToTarget::Direct(target) => hold::end(shard, *target),
        ToTarget::OverHttp(link) => over_http::client_gone(shard, link),
        // Its exchange ends with it.
        ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) | ToTarget::Worker(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_one_turn_stand_one_behind_the_other() {
        let mut out = Out::default();
        out.client_frame(Opcode::Text, true, b"a");
        out.client_frame(Opcode::Continuation, false, &[7; 126]);
        assert_eq!(out.client.get(..7), Some(&b"\x81\x01a\x00\x7e\x00\x7e"[..]));
        assert_eq!(out.client.len(), 3 + 4 + 126);
        assert!(out.target.is_empty());
    }

    #[test]
    fn frames_for_a_target_are_masked() {
        let mut out = Out::default();
        out.target_frame(Opcode::Binary, true, b"hello");
        let (head, masked) = out.target.split_at(6);
        assert_eq!(head.get(..2), Some(&[0x82, 0x85][..]));
        let plain: Vec<u8> = masked.iter().zip(head.iter().skip(2).cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(plain, b"hello");
    }

    #[test]
    fn equal_values_are_kept_once_and_not_for_ever() {
        let known = RefCell::default();
        let first = shared(&known, 1);
        assert!(Arc::ptr_eq(&first, &shared(&known, 1)));
        for other in 2..40 {
            shared(&known, other);
        }
        assert!(!Arc::ptr_eq(&first, &shared(&known, 1)));
    }
}
