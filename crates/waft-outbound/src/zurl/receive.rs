//! What comes in from the clients: first packets, later packets, and what is neither.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waft_websocket::frame::CONTROL_MAX;
use waft_zhttp::{Condition, Encoding, Id, Ids, Kind, Packet, PacketError, Violation};
use waft_zmq::Message;

use super::call::{call_of, condition};
use super::door::{Door, count};
use super::durable::Kept;
use super::exchange::Exchange;
use super::{durable, http, websocket};
use crate::Call;

/// A message of the PULL socket.
pub(crate) fn first(door: &Rc<Door>, message: &Message) {
    let [payload] = message.frames.as_slice() else { return malformed(door, "a first packet has one frame") };
    match Packet::decode(payload) {
        Ok((packet, encoding)) => begin(door, packet, encoding, None),
        Err(error) => unreadable(door, &error, None),
    }
}

/// A message of the ROUTER socket for request/reply.
pub(crate) fn request(door: &Rc<Door>, message: &Message) {
    let delimiter = message.frames.iter().position(Bytes::is_empty);
    let (Some(delimiter), Some((payload, _))) = (delimiter, message.frames.split_last()) else {
        return malformed(door, "a request has an empty frame before its payload");
    };
    let envelope: Vec<Bytes> = message.frames.iter().take(delimiter + 1).cloned().collect();
    if message.frames.len() != envelope.len() + 1 {
        return malformed(door, "a request has one frame of payload");
    }
    match Packet::decode(payload) {
        Ok((packet, encoding)) => begin(door, packet, encoding, Some(envelope)),
        Err(error) => unreadable(door, &error, Some(envelope)),
    }
}

/// A message of the DEALER socket.
pub(crate) fn later(door: &Rc<Door>, message: &Message) {
    let payload = match message.frames.as_slice() {
        [payload] => payload,
        [empty, payload] if empty.is_empty() => payload,
        _ => return malformed(door, "a later packet has an empty frame and its payload"),
    };
    let packet = match Packet::decode(payload) {
        Ok((packet, _)) => packet,
        Err(error) => return unreadable(door, &error, None),
    };
    let Some(from) = packet.from.clone() else { return malformed(door, "a later packet names its sender") };
    for id in packet.ids.as_slice() {
        let found = door.find(&from, &id.id).or_else(|| take_over(door, &from, id));
        match found {
            Some(exchange) => proceed(door, &exchange, id, &packet, payload.len()),
            None => stranger(door, &from, id, packet.kind),
        }
    }
}

fn malformed(door: &Door, rule: &str) {
    count(&door.counters.malformed);
    tracing::warn!(rule, "Dropped a message that is not right.");
}

/// A payload that is no packet: answered where it says whom to answer, and always in request/reply, where
/// silence would leave the client hanging.
fn unreadable(door: &Door, error: &PacketError, envelope: Option<Vec<Bytes>>) {
    count(&door.counters.malformed);
    tracing::warn!(%error, "Dropped a packet that is not right.");
    let salvage = match error {
        PacketError::Field { salvage, .. } => Some(salvage),
        _ => None,
    };
    if salvage.is_some_and(|salvage| salvage.is_end) {
        return;
    }
    let id = salvage.and_then(|salvage| salvage.id.clone());
    if let Some(mut frames) = envelope {
        frames.push(Packet::bad_request(id).encode(Encoding::Tnetstring, None));
        door.reply(Message { frames });
    } else if let (Some(from), Some(id)) = (salvage.and_then(|salvage| salvage.from.as_ref()), id) {
        door.answer_stranger(from, &Packet::bad_request(Some(id)));
    }
}

fn stranger(door: &Door, from: &Bytes, id: &Id, kind: Kind) {
    count(&door.counters.unknown);
    tracing::debug!(id = %id.id.escape_ascii(), "A packet is for an exchange that is not open.");
    if !kind.is_end() {
        door.answer_stranger(from, &Packet::cancel_unknown(id.id.clone()));
    }
}

/// A packet of `size` bytes for an open exchange.
fn proceed(door: &Rc<Door>, exchange: &Rc<Exchange>, id: &Id, packet: &Packet, size: usize) {
    if packet.kind.is_end() {
        return door.remove(exchange);
    }
    let verdict = exchange.state.borrow_mut().receive(Instant::now(), id.seq, packet);
    if let Err(violation) = verdict {
        count(&door.counters.violations);
        tracing::warn!(id = %id.id.escape_ascii(), %violation, "Ended an exchange that breaks the protocol.");
        return match violation {
            Violation::Sequence { .. } => {
                door.emit(exchange, Packet { kind: Kind::Cancel, ..Packet::default() });
                door.remove(exchange);
            }
            _ => door.fail(exchange, Condition::BadRequest),
        };
    }
    if let Some(user_data) = &packet.user_data {
        *exchange.user_data.borrow_mut() = Some(Arc::clone(user_data));
    }
    match packet.kind {
        Kind::HandoffStart => {
            door.emit(exchange, Packet { kind: Kind::HandoffProceed, ..Packet::default() });
            exchange.handoff.borrow_mut().get_or_insert_default();
            return;
        }
        Kind::Data | Kind::Close | Kind::Ping | Kind::Pong => {
            let taken = exchange.push(kept_part(packet, size));
            if !taken {
                count(&door.counters.violations);
                tracing::warn!(id = %id.id.escape_ascii(), "Ended an exchange whose client floods it.");
                return door.fail(exchange, Condition::BadRequest);
            }
        }
        _ => {}
    }
    if let Some(kept) = exchange.handoff.take() {
        kept.into_iter().for_each(|packet| door.emit(exchange, packet));
    }
    exchange.wake();
}

/// What of a packet waits for the task. A small body does not keep a large packet alive.
fn kept_part(packet: &Packet, size: usize) -> Packet {
    let most = if packet.kind == Kind::Data { usize::MAX } else { CONTROL_MAX };
    let body = packet.body.slice(..packet.body.len().min(most));
    Packet {
        kind: packet.kind,
        body: if body.len() < size / 2 { Bytes::copy_from_slice(&body) } else { body },
        content_type: packet
            .content_type
            .as_ref()
            .map(|kind| Bytes::from_static(if kind == "binary" { b"binary" } else { b"text" })),
        code: packet.code,
        more: packet.more,
        ..Packet::default()
    }
}

/// The first packet of a new owner after a hand-over: the exchange answers to it from now on.
fn take_over(door: &Rc<Door>, from: &Bytes, id: &Id) -> Option<Rc<Exchange>> {
    let exchange = door.find_handed_over(&id.id)?;
    // Only who was told the state of the exchange knows the number.
    if !exchange.state.borrow().expects(id.seq) {
        return None;
    }
    door.rename(&exchange, from);
    Some(exchange)
}

/// What a first packet asks for.
enum Work {
    /// A call, made once.
    Call(Box<Call>),
    /// A request to be kept until it is delivered.
    Keep(Box<Kept>),
}

/// A first packet of either interface.
fn begin(door: &Rc<Door>, packet: Packet, encoding: Encoding, envelope: Option<Vec<Bytes>>) {
    let now = Instant::now();
    let is_reply = envelope.is_some();
    let seq = match &packet.ids {
        Ids::List(_) if !is_reply => return malformed(door, "a first packet has one id"),
        Ids::List(_) | Ids::None => None,
        Ids::One(id) => {
            if !is_reply && packet.from.as_ref().is_some_and(|from| door.find(from, &id.id).is_some()) {
                count(&door.counters.malformed);
                let id = id.id.escape_ascii();
                return tracing::warn!(%id, "Ignored a first packet for an exchange that is open already.");
            }
            id.seq
        }
    };
    if packet.kind.is_end() {
        return;
    }
    if !is_reply && packet.kind != Kind::Data && packet.uri.is_none() {
        if let (Some(from), Ids::One(id)) = (&packet.from, &packet.ids) {
            stranger(door, from, id, packet.kind);
        }
        return;
    }
    let work = match &packet.durable {
        Some(wishes) => durable::read(door, &packet, wishes).map(Work::Keep),
        None => call_of(&door.rules, &packet).map(|call| Work::Call(Box::new(call))),
    };
    let websocket = matches!(&work, Ok(Work::Call(call)) if call.target.scheme.is_websocket());
    let keep = packet.durable.is_some();
    let accepted = waft_zhttp::Exchange::accept(now, door.config.buffer_size, &packet, seq, websocket && !is_reply);
    let (state, violation) = match accepted {
        Ok(state) => (state, None),
        Err(violation) => {
            let plain = Packet::default();
            let Ok(state) = waft_zhttp::Exchange::accept(now, 0, &plain, None, false) else { return };
            (state, Some(violation))
        }
    };
    let mut exchange = Exchange::new(&packet, encoding, state, now);
    exchange.envelope = envelope;
    if !is_reply {
        exchange.from.get_mut().clone_from(&packet.from);
        exchange.expires = packet.stream || packet.more || websocket;
    }
    exchange.times_out = !websocket;
    exchange.ends_at = packet.timeout_ms.and_then(|timeout| now.checked_add(Duration::from_millis(timeout)));
    log_begin(&exchange, &packet);
    let exchange = door.insert(exchange);
    let broken = violation.is_some()
        || packet.kind != Kind::Data
        || (packet.more && (is_reply || keep))
        || (is_reply && websocket);
    let work = match work {
        Ok(_) if broken => Err(Condition::BadRequest),
        Ok(Work::Call(call)) => door.client.judge(&call).map_err(|error| condition(&error)).map(|()| Work::Call(call)),
        Ok(Work::Keep(kept)) => Ok(Work::Keep(kept)),
        Err(condition) => Err(condition),
    };
    match work {
        Err(condition) => door.fail(&exchange, condition),
        Ok(Work::Keep(kept)) => spawn(&exchange, durable::run(Rc::clone(door), Rc::clone(&exchange), kept)),
        Ok(Work::Call(call)) if websocket => {
            spawn(&exchange, websocket::run(Rc::clone(door), Rc::clone(&exchange), *call));
        }
        Ok(Work::Call(mut call)) => {
            if !is_reply {
                acknowledge(door, &exchange, packet.more);
            }
            call.body = http::request_body(door, &exchange, &call, &packet);
            let max_size = packet.max_size.unwrap_or(door.config.collected_size_max);
            let stream = packet.stream && !is_reply;
            let task = http::run(Rc::clone(door), Rc::clone(&exchange), call, stream, max_size);
            spawn(&exchange, task);
        }
    }
}

fn acknowledge(door: &Door, exchange: &Exchange, more: bool) {
    let credits = if more { exchange.state.borrow_mut().grant() } else { None };
    let packet = match credits {
        Some(credits) => Packet { kind: Kind::Credit, credits, ..Packet::default() },
        None => Packet { kind: Kind::KeepAlive, ..Packet::default() },
    };
    door.emit(exchange, packet);
}

fn spawn(exchange: &Exchange, task: impl Future<Output = ()> + 'static) {
    let handle = tokio::task::spawn_local(task);
    *exchange.abort.borrow_mut() = Some(handle.abort_handle());
}

fn log_begin(exchange: &Exchange, packet: &Packet) {
    let id = exchange.id.as_deref().unwrap_or_default().escape_ascii();
    let method = packet.method.as_deref().unwrap_or(b"GET").escape_ascii();
    let uri = packet.uri.as_deref().unwrap_or_default().escape_ascii();
    if exchange.quiet {
        tracing::debug!("IN id={id}, {method} {uri}");
    } else {
        tracing::info!("IN id={id}, {method} {uri}");
    }
}
