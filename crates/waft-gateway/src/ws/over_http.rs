//! WebSocket-over-HTTP: the requests of a session, and what their answers bring.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;
use tracing::{debug, warn};
use waft_grip::feature;
use waft_http1::{Fields, HeadLimits, HeadWriter, Parsed, ResponseHead, parse_request, parse_response};
use waft_net::Key;
use waft_route::{Route, Target, TargetAddress};
use waft_websocket::close::Close;
use waft_websocket::frame::Opcode;
use waft_websocket::over_http::{Client, DropReason, Failure, Options, RequestPlan, Session, ToClient, codec};

use super::{After, Out, TRY_AGAIN_LATER, ToTarget, fail, from_target, mark_closed, rearm, resume};
use crate::exchange::Exchange;
use crate::forward::{begins_with, proved_host};
use crate::hold::Hold;
use crate::pool::{ConnectError, TargetConnection};
use crate::record::{response_head_size, shown_id};
use crate::relay::{BodyError, ResponseBody};
use crate::service::Request;
use crate::shard::Shard;
use crate::worker::{self, Unanswered};

/// The way from one client to its target: the session, and what every request of it repeats.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: RefCell<Session>,
    /// What the heads of all requests begin with.
    head: Box<[u8]>,
    id: u128,
    pub(super) route: Arc<Route>,
    target: usize,
    grip: bool,
    secure: bool,
    body_max: usize,
    /// Channels and ids after which something is missing, to be told with the next request.
    gaps: RefCell<Vec<(String, String)>>,
}

const _: () = assert!(size_of::<Link>() <= 168, "an idle WebSocket is kept as a small record");

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) fields: Fields,
    pub(super) body: Bytes,
}

/// Fields of a client's handshake that its requests do not repeat, by what they mean.
pub(super) fn is_dropped(name: &str) -> bool {
    const DROPPED: [&str; 10] = [
        "accept",
        "accept-encoding",
        "connection-id",
        "content-bytes-replayed",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "sec-websocket-extensions",
    ];
    begins_with(name, "meta-") || DROPPED.iter().any(|dropped| dropped.eq_ignore_ascii_case(name))
}

impl Link {
    /// The way to target number `target` of the route, for the client of `exchange`.
    pub(super) fn new(shard: &Shard, exchange: &Exchange, number: usize, target: &Target) -> Self {
        // An echo of the largest message, and of what was bundled with it, has to fit an answer.
        let message_max = usize::try_from(exchange.settings.websocket.message_max).unwrap_or(usize::MAX);
        let body_max = Options::default().body_max.saturating_add(message_max);
        let options = Options { one_event: target.one_event, body_max, ..Options::default() };
        let outgoing = exchange.outgoing(target);
        let grip = outgoing.is_grip();
        let mut head = Vec::with_capacity(512);
        let mut writer = HeadWriter::new(&mut head);
        writer.request_line("POST", &outgoing.path());
        outgoing.write_fields(&mut writer, is_dropped);
        if !grip && exchange.trusted && super::handshake::offers_grip(&exchange.head) {
            writer.field("Sec-WebSocket-Extensions", "grip");
        }
        Self {
            session: RefCell::new(Session::new(super::shared(&shard.ws.options, options))),
            head: head.into(),
            id: exchange.seat.random().unwrap_or_else(|| fastrand::u128(..)),
            route: Arc::clone(&exchange.route),
            target: number,
            grip,
            secure: exchange.secure,
            body_max,
            gaps: RefCell::default(),
        }
    }

    /// Whether the control layer may be switched on by the target.
    pub(super) const fn is_grip(&self) -> bool {
        self.grip
    }

    /// The Host header of all requests, which is their first field.
    fn host(&self) -> &str {
        let mut lines = self.head.split(|byte| *byte == b'\n');
        let host = lines.nth(1).and_then(|line| line.strip_prefix(b"Host: "));
        host.and_then(|host| str::from_utf8(host.trim_ascii_end()).ok()).unwrap_or_default()
    }

    fn target(&self) -> Option<&Target> {
        self.route.targets.get(self.target)
    }

    /// The bytes of a request.
    pub(super) fn request(&self, shard: &Shard, plan: &RequestPlan) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.head.len() + plan.body.len() + 1024);
        out.extend_from_slice(&self.head);
        let mut writer = HeadWriter::new(&mut out);
        if self.grip {
            writer.field("Sec-WebSocket-Extensions", "grip");
            if let Some(signature) = shard.signatures.sign(&shard.gateway.settings(), &self.route) {
                writer.field("Grip-Sig", signature.as_bytes());
            }
            writer.field("Grip-Feature", feature::FEATURES);
        }
        writer.field("Accept", codec::MEDIA_TYPE).field("Connection-Id", shown_id(self.id));
        writer.field("Content-Type", codec::MEDIA_TYPE);
        for (name, value) in self.session.borrow().meta() {
            writer.field(format!("Meta-{name}"), value);
        }
        for (channel, id) in &*self.gaps.borrow() {
            if let Some(gap) = feature::last(channel, id) {
                writer.field("Waft-Gap", gap);
            }
        }
        if let Some(replayed) = plan.replayed {
            writer.field("Content-Bytes-Replayed", replayed.to_string());
        }
        writer.content_length(plan.body.len() as u64).finish();
        out.extend_from_slice(&plan.body);
        out
    }

    /// Notes that items of a channel after the one with this id are missing.
    pub(super) fn note_gap(&self, channel: &str, id: &str) {
        /// More are not told one by one: the target asks for everything then.
        const GAPS_MAX: usize = 64;
        let mut gaps = self.gaps.borrow_mut();
        gaps.retain(|(name, _)| name != channel);
        if gaps.len() < GAPS_MAX {
            gaps.push((channel.to_owned(), id.to_owned()));
        }
    }

    /// Takes in how a request ended.
    pub(super) fn take(&self, outcome: Result<Reply, Failure>) {
        let now = Instant::now();
        match outcome {
            Ok(reply) => {
                self.gaps.borrow_mut().clear();
                self.session.borrow_mut().handle_response(now, reply.status, reply.fields.iter(), reply.body);
            }
            Err(failure) => self.session.borrow_mut().handle_failure(now, failure, fastrand::u16(0..1000)),
        }
    }

    /// Makes one request; says what came of it.
    pub(super) async fn perform(&self, shard: &Rc<Shard>, request: &[u8]) -> Result<Reply, Failure> {
        let Some(target) = self.target() else { return Err(Failure::Refused) };
        shard.metrics.target_requests.add(1);
        if target.address == TargetAddress::Demo {
            return self.own(shard, request);
        }
        shard.tally(&self.route, |traffic| traffic.target_sent.written(request));
        if worker::is_worker(target) {
            return self.by_worker(shard, target, request).await;
        }
        let settings = shard.gateway.settings();
        let timeouts = &self.route.options.timeouts;
        let mut fresh = false;
        let name = target.ssl.then(|| proved_host(target, self.host()));
        loop {
            let open_max = settings.limits.target_connections_max;
            let connecting = shard.pool.connect(shard, target, name.as_deref(), fresh, timeouts.connect, open_max);
            let mut connection = connecting.await.map_err(|error| {
                if let ConnectError::Tls { .. } | ConnectError::TlsSetUp { .. } = error {
                    warn!(route = %self.route.id, %error, "A target could not be reached.");
                }
                debug!(route = %self.route.id, %error, "A target could not be reached with WebSocket events.");
                shard.metrics.target_failures.add(1);
                Failure::NotReached
            })?;
            let again = connection.reused && !fresh;
            if let Err(error) = connection.stream.write_all(request).await {
                connection.abandon(shard);
                if again {
                    fresh = true;
                    continue;
                }
                debug!(%error, "Sending WebSocket events failed.");
                return Err(Failure::Broken { body_sent: false });
            }
            let limit = timeouts.response_head.or(timeouts.response_idle);
            match read_head(shard, &mut connection, &settings.limits.head, limit).await {
                Ok(head) => return self.read_reply(shard, connection, &head).await,
                // A kept connection that its target had closed: nothing of the request was seen.
                Err(_closed) if again && connection.buffer.is_empty() => {
                    shard.metrics.target_retries.add(1);
                    connection.abandon(shard);
                    fresh = true;
                }
                Err(error) => {
                    debug!(route = %self.route.id, %error, "A target did not answer WebSocket events.");
                    // A system resets a connection whose bytes its program has not read, as when that ended or never
                    // accepted it. Where the program did read, its end is an orderly one.
                    let unread = error.kind() == io::ErrorKind::ConnectionReset && connection.buffer.is_empty();
                    connection.abandon(shard);
                    return Err(Failure::Broken { body_sent: !unread });
                }
            }
        }
    }

    async fn read_reply(
        &self,
        shard: &Rc<Shard>,
        connection: TargetConnection,
        head: &ResponseHead,
    ) -> Result<Reply, Failure> {
        let Ok(framing) = head.framing("POST") else { return Err(Failure::Refused) };
        let mut body = ResponseBody::wire(connection, framing, head.keep_alive());
        let read = read_body(shard, &mut body, self.body_max).await;
        body.release(shard);
        let body = read.map_err(|error| {
            debug!(%error, "The answer to WebSocket events was cut short.");
            Failure::Broken { body_sent: true }
        })?;
        shard.tally(&self.route, |traffic| {
            traffic.target_received.header_bytes += response_head_size(head);
            traffic.target_received.content_bytes += body.len() as u64;
        });
        let mut fields = Fields::new();
        for (name, value) in head.end_to_end_fields() {
            fields.push(name, value);
        }
        Ok(Reply { status: head.status(), reason: head.reason().to_owned(), fields, body })
    }

    /// Makes one request of a ZHTTP worker.
    async fn by_worker(&self, shard: &Rc<Shard>, target: &Target, request: &[u8]) -> Result<Reply, Failure> {
        let scheme = if self.secure { "https" } else { "http" };
        let packet = worker::request_of(Bytes::copy_from_slice(request), scheme);
        let timeouts = &self.route.options.timeouts;
        let limits = (timeouts.connect, timeouts.response_head.or(timeouts.response_idle));
        let (head, mut body) = worker::fetch(shard, target, packet, limits).await.map_err(|error| {
            debug!(route = %self.route.id, ?error, "A worker did not answer WebSocket events.");
            match error {
                Unanswered::NotTaken(_) => Failure::NotReached,
                _ => Failure::Broken { body_sent: true },
            }
        })?;
        let read = read_body(shard, &mut body, self.body_max).await;
        let body = read.map_err(|_cut_short| Failure::Broken { body_sent: true })?;
        shard.tally(&self.route, |traffic| {
            traffic.target_received.header_bytes += worker::size_of_head(&head);
            traffic.target_received.content_bytes += body.len() as u64;
        });
        Ok(Reply { status: head.status, reason: head.reason, fields: head.fields, body })
    }

    /// Asks the demo, which is part of waft.
    fn own(&self, shard: &Rc<Shard>, request: &[u8]) -> Result<Reply, Failure> {
        let Ok(Parsed::Complete { head, consumed }) = parse_request(request, &HeadLimits::default()) else {
            return Err(Failure::Refused);
        };
        let body = request.get(consumed..).unwrap_or_default();
        let request = Request { head: &head, body, now: Instant::now(), secure: self.secure };
        let answer = shard.gateway.demo.answer(&shard.gateway, &request);
        let reason = waft_http1::reason_phrase(answer.status).to_owned();
        Ok(Reply { status: answer.status, reason, fields: answer.fields, body: answer.body })
    }
}

/// Reads a response head, passing over interim ones.
pub(super) async fn read_head(
    shard: &Rc<Shard>,
    connection: &mut TargetConnection,
    limits: &HeadLimits,
    limit: Option<Duration>,
) -> io::Result<ResponseHead> {
    let reading = async {
        loop {
            match parse_response(connection.buffer.unread(), limits) {
                Ok(Parsed::Complete { head, consumed }) => {
                    connection.buffer.consume(consumed);
                    if head.status() >= 200 {
                        return Ok(head);
                    }
                }
                Ok(Parsed::Partial) => match connection.read_more(shard, limits.bytes_max).await {
                    Ok(1..) => {}
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    };
    match limit {
        None => reading.await,
        Some(limit) => {
            tokio::time::timeout(limit, reading).await.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()))
        }
    }
}

/// Reads a body up to a little more than `limit`, which tells that it is too long.
async fn read_body(shard: &Rc<Shard>, body: &mut ResponseBody, limit: usize) -> Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next(shard).await? {
        if whole.is_empty() && body.is_at_end() {
            return Ok(piece);
        }
        whole.extend_from_slice(&piece);
        if whole.len() > limit {
            break;
        }
    }
    Ok(whole.freeze())
}

/// Makes the request that is due for a client in the held set.
fn spawn(shard: &Rc<Shard>, key: Key, link: Rc<Link>, plan: &RequestPlan) {
    let request = link.request(shard, plan);
    let shard = Rc::clone(shard);
    spawn_local(async move {
        let outcome = link.perform(&shard, &request).await;
        drop(request);
        link.take(outcome);
        if link_of(&shard, key).is_some_and(|held| Rc::ptr_eq(&held, &link)) {
            return pump(&shard, key);
        }
        // The client has gone meanwhile; its target is to hear of it.
        conclude(&shard, &link).await;
    });
}

fn link_of(shard: &Shard, key: Key) -> Option<Rc<Link>> {
    match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => match &hold.target {
            ToTarget::OverHttp(link) => Some(Rc::clone(link)),
            ToTarget::Direct(_) | ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) | ToTarget::Worker(_) => None,
        },
        _ => None,
    }
}

/// A client is no longer held. Its target hears of it in the background.
pub(super) fn client_gone(shard: &Rc<Shard>, link: &Rc<Link>) {
    link.session.borrow_mut().handle_client(Client::Gone);
    let now = Instant::now();
    let mut session = link.session.borrow_mut();
    // A request under way goes on by itself.
    let (plan, waits) = (session.poll_request(now), session.poll_timeout().is_some());
    drop(session);
    if plan.is_none() && !waits {
        return;
    }
    let background = &shard.ws.background;
    if background.get() >= shard.connections_max() {
        return debug!("A target was not told that a client has gone: too many are being told.");
    }
    background.set(background.get() + 1);
    let (shard, link) = (Rc::clone(shard), Rc::clone(link));
    spawn_local(async move {
        if let Some(plan) = plan {
            let request = link.request(&shard, &plan);
            let outcome = link.perform(&shard, &request).await;
            link.take(outcome);
        }
        conclude(&shard, &link).await;
        shard.ws.background.set(shard.ws.background.get().saturating_sub(1));
    });
}

/// Makes the last requests of a session without client.
pub(super) async fn conclude(shard: &Rc<Shard>, link: &Rc<Link>) {
    loop {
        while link.session.borrow_mut().poll_client().is_some() {}
        let plan = link.session.borrow_mut().poll_request(Instant::now());
        if let Some(plan) = plan {
            let request = link.request(shard, &plan);
            let outcome = link.perform(shard, &request).await;
            link.take(outcome);
            continue;
        }
        let timeout = link.session.borrow().poll_timeout();
        match timeout {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => return,
        }
    }
}

/// Moves a session on: what it has for the client goes out, and the request that is due is made.
pub(super) fn pump(shard: &Rc<Shard>, key: Key) {
    let Some(link) = link_of(shard, key) else { return };
    let mut out = Out::default();
    loop {
        let next = link.session.borrow_mut().poll_client();
        match next {
            None => break,
            Some(ToClient::Message(kind, content)) => from_target(shard, key, kind, content, &mut out),
            Some(ToClient::Close(close)) => {
                if mark_closed(shard, key) {
                    out.client_frame(Opcode::Close, true, &close.to_content());
                }
            }
            Some(ToClient::Drop(reason)) => dropped(shard, key, &link, reason, &mut out),
            Some(ToClient::Finish) => out.after = After::Finish,
            Some(ToClient::Accept { .. } | ToClient::BadGateway(_) | ToClient::Reject { .. }) => {}
        }
    }
    out.flush(shard, key);
    if link_of(shard, key).is_none() {
        return;
    }
    let waiting = shard.held.borrow().waiting_bytes(key) as u64;
    let plan = {
        let mut session = link.session.borrow_mut();
        session.handle_client_backlog(waiting);
        session.poll_request(Instant::now())
    };
    if let Some(plan) = plan {
        spawn(shard, key, Rc::clone(&link), &plan);
    }
    let (over, room) = {
        let session = link.session.borrow();
        (session.is_over() && session.is_detached(), session.client_room() > 0)
    };
    if over && let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.target = ToTarget::Nowhere;
    }
    rearm(shard, key);
    if room {
        resume(shard, key);
    }
}

/// A session has failed: its client is cut off, or sent away until the target is back.
fn dropped(shard: &Rc<Shard>, key: Key, link: &Link, reason: DropReason, out: &mut Out) {
    if reason == DropReason::RequestFailed {
        warn!(route = %link.route.id, "A WebSocket is closed with 1013: its target could not be reached.");
        return fail(shard, key, &Close::new(TRY_AGAIN_LATER, "target unavailable"), out);
    }
    debug!(route = %link.route.id, %reason, "A WebSocket is cut off.");
    out.after = After::Cut;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_random_uuids() {
        assert_eq!(shown_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(shown_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_a_client_might_forge_is_dropped() {
        for name in ["Meta-User", "META-", "connection-ID", "Content-Type", "Accept", "Sec-WebSocket-Extensions"] {
            assert!(is_dropped(name), "{name}");
        }
        for name in ["Metadata", "Cookie", "Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Authorization", "M\u{e9}ta"]
        {
            assert!(!is_dropped(name), "{name}");
        }
    }
}
