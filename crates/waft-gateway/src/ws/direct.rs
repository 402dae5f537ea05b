//! A WebSocket to the target for a WebSocket of a client: frames go from one to the other.

use std::rc::Rc;
use std::time::Duration;

use tracing::debug;
use waft_http1::{Fields, Framing, HeadWriter, ResponseHead};
use waft_net::{Key, Stream};
use waft_route::Target;
use waft_websocket::close::Close;
use waft_websocket::connection::{Delivery, Event, Fragment, Limits, Receiver, Role};
use waft_websocket::control::parse_grip_extension;
use waft_websocket::extension::tokens;
use waft_websocket::frame::Opcode;
use waft_websocket::handshake::{check_answer, client_key};
use waft_websocket::negotiate::{self, Offer, Params};
use waft_websocket::over_http::Kind;

use super::handshake::{Acceptance, Opened, Way, offers_grip, relayed_extensions};
use super::over_http::{Reply, is_dropped};
use super::{After, Out, ToTarget, finish, from_target, mark_closed, shared, tally_from_target};
use crate::begin::attach;
use crate::exchange::Exchange;
use crate::forward::proved_name;
use crate::hold::{self, Hold};
use crate::pool;
use crate::record::response_head_size;
use crate::relay::ResponseBody;
use crate::respond::Failure;
use crate::shard::Shard;

/// The target's side of a client's WebSocket, in the held set.
#[derive(Debug)]
pub(crate) struct TargetSide {
    pub(super) client: Key,
    pub(super) receiver: Receiver,
    /// Reading stopped because the client takes no more.
    pub(super) paused: bool,
}

/// A target that has accepted.
#[derive(Debug)]
pub(super) struct Connected {
    stream: Stream,
    peer_limits: Limits,
    deflate: Option<Params>,
    /// What came right behind the head.
    pub(super) unread: Vec<u8>,
}

/// The most bytes of a rejection that reach the client.
const REJECT_MAX: usize = 100_000;
/// How long a target may take to answer a handshake where the route sets no limit.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

fn is_dropped_here(name: &str) -> bool {
    is_dropped(name)
        || name.eq_ignore_ascii_case("sec-websocket-key")
        || name.eq_ignore_ascii_case("sec-websocket-version")
}

/// Asks a target for a WebSocket.
pub(super) async fn open(shard: &Rc<Shard>, exchange: &Exchange, target: &Target) -> Opened {
    let timeouts = &exchange.route.options.timeouts;
    shard.metrics.target_requests.add(1);
    let name = proved_name(target, &exchange.route, &exchange.head);
    let connecting = shard.pool.connect_alone(shard, target, name.as_deref(), timeouts.connect);
    let mut connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => return Opened::NotReached(error.to_string()),
    };
    let key = client_key(fastrand::u128(..).to_ne_bytes());
    let request = request(shard, exchange, target, &key);
    shard.tally(&exchange.route, |traffic| traffic.target_sent.written(&request));
    if let Err(error) = connection.stream.write_all(&request).await {
        return Opened::Failed(Failure::target(502, format!("Sending the request failed: {error}")));
    }
    let limit = timeouts.response_head.unwrap_or(ANSWER_LIMIT);
    let limits = &exchange.settings.limits.head;
    let answer = read_answer(shard, &mut connection, limits, limit).await;
    if let Ok(head) = &answer {
        shard.tally(&exchange.route, |traffic| traffic.target_received.header_bytes += response_head_size(head));
    }
    match answer {
        Ok(head) if head.status() == 101 => upgraded(shard, exchange, target, &head, &key, connection),
        Ok(head) => reject(shard, &head, connection).await,
        Err(why) => Opened::Failed(Failure::target(502, format!("The target did not answer: {why}"))),
    }
}

fn request(shard: &Shard, exchange: &Exchange, target: &Target, key: &[u8]) -> Vec<u8> {
    let outgoing = exchange.outgoing(target);
    let mut out = Vec::with_capacity(1024);
    let mut writer = HeadWriter::new(&mut out);
    writer.request_line("GET", &outgoing.path());
    outgoing.write_fields(&mut writer, is_dropped_here);
    writer.field("Connection", "Upgrade").field("Upgrade", "websocket");
    writer.field("Sec-WebSocket-Key", key).field("Sec-WebSocket-Version", "13");
    let mut extensions = Vec::new();
    if outgoing.is_grip() || (exchange.trusted && offers_grip(&exchange.head)) {
        extensions.push("grip".to_owned());
    }
    if exchange.route.options.websocket.compression {
        extensions.push(Offer::default().to_element());
    }
    if !extensions.is_empty() {
        writer.field("Sec-WebSocket-Extensions", extensions.join(", "));
    }
    if outgoing.is_grip() {
        if let Some(signature) = shard.signatures.sign(&exchange.settings, &exchange.route) {
            writer.field("Grip-Sig", signature.as_bytes());
        }
        writer.field("Grip-Feature", waft_grip::feature::FEATURES);
    }
    writer.finish();
    out
}

/// Reads the answer's head; of interim ones only 101 is an answer.
async fn read_answer(
    shard: &Rc<Shard>,
    connection: &mut pool::TargetConnection,
    limits: &waft_http1::HeadLimits,
    limit: Duration,
) -> Result<ResponseHead, String> {
    use waft_http1::{Parsed, parse_response};
    let reading = async {
        loop {
            match parse_response(connection.buffer.unread(), limits) {
                Ok(Parsed::Complete { head, consumed }) => {
                    connection.buffer.consume(consumed);
                    if head.status() >= 200 || head.status() == 101 {
                        return Ok(head);
                    }
                }
                Ok(Parsed::Partial) => match connection.read_more(shard, limits.bytes_max).await {
                    Ok(1..) => {}
                    Ok(0) => return Err("it closed the connection".to_owned()),
                    Err(error) => return Err(error.to_string()),
                },
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_late| Err(format!("nothing within {limit:?}")))
}

fn upgraded(
    shard: &Rc<Shard>,
    exchange: &Exchange,
    target: &Target,
    head: &ResponseHead,
    key: &[u8],
    mut connection: pool::TargetConnection,
) -> Opened {
    let offered: Vec<&str> = exchange.head.fields_named("sec-websocket-protocol").flat_map(tokens).collect();
    let answer = match check_answer(101, head.fields(), key, &offered, &["grip", negotiate::NAME]) {
        Ok(answer) => answer,
        Err(error) => return Opened::Failed(Failure::target(502, format!("The handshake failed: {error}"))),
    };
    let compressed = answer.extensions.iter().find(|extension| extension.name == negotiate::NAME);
    let deflate = match compressed.map(|extension| Offer::default().check(extension)).transpose() {
        Ok(deflate) if deflate.is_none() || exchange.route.options.websocket.compression => deflate,
        Ok(_) => return Opened::Failed(Failure::target(502, "The target chose a compression that was not offered.")),
        Err(error) => return Opened::Failed(Failure::target(502, format!("The handshake failed: {error}"))),
    };
    let grip_spoken = !exchange.trusted && !exchange.route.options.no_grip;
    let grip = parse_grip_extension(head.fields()).filter(|_| grip_spoken);
    let mut fields = Fields::new();
    let made_here = ["sec-websocket-accept", "sec-websocket-extensions", "content-length"];
    for (name, value) in head.end_to_end_fields() {
        if !made_here.iter().any(|made| name.eq_ignore_ascii_case(made)) {
            fields.push(name, value);
        }
    }
    // What is published must not come between the pieces of a message, and control messages are needed whole.
    let whole = grip.is_some() || !target.subs.is_empty();
    let max = exchange.settings.websocket.message_max;
    let peer_limits = if whole {
        Limits { delivery: Delivery::Messages, frame_max: max, message_max: max }
    } else {
        Limits { delivery: Delivery::Relay, frame_max: u64::MAX, message_max: u64::MAX }
    };
    let unread = connection.buffer.take_unread(&shard.buffers).map_or_else(Vec::new, Vec::from);
    let connected = Connected { stream: connection.into_stream(), peer_limits, deflate, unread };
    let extensions = relayed_extensions(head.fields());
    Opened::Accepted(Acceptance { fields, grip, extensions, way: Way::Direct(Box::new(connected)) })
}

/// The answer of a target that wants no WebSocket.
async fn reject(shard: &Rc<Shard>, head: &ResponseHead, connection: pool::TargetConnection) -> Opened {
    let framing = head.framing("GET").unwrap_or(Framing::None);
    let mut body = ResponseBody::wire(connection, framing, false);
    let mut whole = Vec::new();
    while whole.len() < REJECT_MAX
        && let Ok(Some(piece)) = body.next(shard).await
    {
        whole.extend_from_slice(&piece);
    }
    whole.truncate(REJECT_MAX);
    body.release(shard);
    let mut fields = Fields::new();
    for (name, value) in head.end_to_end_fields() {
        fields.push(name, value);
    }
    let reason = head.reason().to_owned();
    Opened::Rejected(Reply { status: head.status(), reason, fields, body: whole.into() })
}

/// Puts the target's side of the client `key` into the held set.
pub(super) fn hold(shard: &Rc<Shard>, key: Key, connected: Connected) -> Option<Key> {
    let Connected { stream, peer_limits, deflate, .. } = connected;
    let limits = shared(&shard.ws.limits, peer_limits);
    let receiver = Receiver::new(Role::Client, limits, deflate.as_ref());
    let side = TargetSide { client: key, receiver, paused: false };
    let target = shard.held.borrow_mut().reserve(Hold::WsTarget(Box::new(side)));
    if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.target = ToTarget::Direct(target);
    }
    attach(shard, target, stream).then_some(target)
}

/// Passes something of the target on to its client.
pub(super) fn on_target_event(shard: &Rc<Shard>, client: Key, event: Event, out: &mut Out) {
    match event {
        Event::Binary(content) => from_target(shard, client, Kind::Binary, content, out),
        Event::Text(content) => from_target(shard, client, Kind::Text, content, out),
        Event::Ping(content) => from_target(shard, client, Kind::Ping, content, out),
        Event::Pong(content) => from_target(shard, client, Kind::Pong, content, out),
        Event::Fragment(piece) => on_piece(shard, client, &piece, out),
        Event::Close(close) => on_target_close(shard, client, close, out),
    }
}

fn on_piece(shard: &Rc<Shard>, client: Key, piece: &Fragment, out: &mut Out) {
    let held = shard.held.borrow();
    let Some(Hold::Ws(hold)) = held.get(client) else { return };
    if hold.close_sent {
        return;
    }
    tally_from_target(shard, hold, piece.content.len(), piece.fin, true);
    if piece.first && piece.fin {
        out.message(shard, hold.deflate.as_ref(), piece.opcode, &piece.content);
    } else {
        out.client_frame(piece.frame_opcode(), piece.fin, &piece.content);
    }
}

fn on_target_close(shard: &Rc<Shard>, client: Key, close: Option<Close>, out: &mut Out) {
    if mark_closed(shard, client) {
        let content = close.map(|close| close.to_content()).unwrap_or_default();
        out.client_frame(Opcode::Close, true, &content);
    }
    if matches!(shard.held.borrow().get(client), Some(Hold::Ws(hold)) if hold.close_received) {
        out.after = After::Finish;
    }
}

/// The target's connection has ended.
pub(super) fn target_lost(shard: &Rc<Shard>, key: Key, client: Key) {
    let waits = match shard.held.borrow_mut().get_mut(client) {
        Some(Hold::Ws(hold)) if hold.target.key() == Some(key) => {
            hold.target = ToTarget::Nowhere;
            // After the close frames the client ends the connection in its own time.
            hold.close_sent && !hold.close_received
        }
        _ => true,
    };
    hold::end(shard, key);
    if !waits {
        debug!("The target of a WebSocket is gone; its client is cut off.");
        finish(shard, client);
    }
}

/// The target's side was ended from within; its client cannot go on without it.
pub(crate) fn target_gone(shard: &Rc<Shard>, side: &TargetSide) {
    let alone = match shard.held.borrow_mut().get_mut(side.client) {
        Some(Hold::Ws(hold)) if matches!(hold.target, ToTarget::Direct(_)) => {
            hold.target = ToTarget::Nowhere;
            !hold.close_sent
        }
        _ => false,
    };
    if alone {
        finish(shard, side.client);
    }
}

/// Parts a client from its target: the target is closed, the client stays.
pub(super) fn detach(shard: &Rc<Shard>, client: Key, close: &Close) {
    let target = match shard.held.borrow_mut().get_mut(client) {
        Some(Hold::Ws(hold)) => hold.target.key().inspect(|_| hold.target = ToTarget::Nowhere),
        _ => None,
    };
    let Some(target) = target else { return };
    let mut out = Out::default();
    out.target_frame(Opcode::Close, true, &close.to_content());
    super::write(shard, target, &out.target.freeze());
    hold::end(shard, target);
}
