//! A WebSocket that a ZHTTP worker serves: messages go to it as packets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tracing::debug;
use waft_http1::Fields;
use waft_net::Key;
use waft_route::Target;
use waft_websocket::close::{self, Close, may_be_sent};
use waft_websocket::connection::Event;
use waft_websocket::control::parse_grip_extension;
use waft_websocket::frame::Opcode;
use waft_websocket::over_http::Kind;
use waft_zhttp::{Failure as WorkerFailure, FrontEvent, Interface, Kind as PacketKind, Rejection};

use super::handshake::{Acceptance, Opened, Way, offers_grip, relayed_extensions};
use super::over_http::Reply;
use super::{After, Out, ToTarget, WINDOW, fail, finish, from_target, mark_closed, resume, tally_from_target};
use crate::exchange::{AttemptError, Exchange, sign};
use crate::hold::Hold;
use crate::respond::Failure;
use crate::settings::WorkerRole;
use crate::shard::Shard;
use crate::worker::{self, AnswerHead, Call, Unanswered};

/// How long a worker may take to answer a handshake where the route sets no limit.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// The longest content of a control frame.
const CONTROL_MAX: usize = 125;

/// The way from a client's WebSocket to its worker.
#[derive(Debug)]
pub(super) struct Side {
    call: Call,
    /// What the worker has no room for yet.
    waiting: RefCell<VecDeque<ToWorker>>,
    waiting_bytes: Cell<usize>,
    /// Bytes of the worker that the client has not taken yet.
    unconfirmed: Cell<usize>,
    /// Messages are needed whole, up to this many bytes.
    whole: Option<usize>,
    /// The message whose pieces are coming: whether it is binary, and what is kept of it.
    message: RefCell<Option<(bool, BytesMut)>>,
}

/// Something for a worker.
#[derive(Debug)]
pub(super) enum ToWorker {
    Close(Option<Close>),
    Message { binary: bool, body: Bytes, more: bool },
    Ping(Bytes),
    Pong(Bytes),
}

impl ToWorker {
    /// What goes to the worker for something that the client sent.
    pub(super) fn from(event: Event) -> Self {
        match event {
            Event::Binary(body) => Self::Message { binary: true, body, more: false },
            Event::Text(body) => Self::Message { binary: false, body, more: false },
            Event::Fragment(piece) => {
                Self::Message { binary: piece.opcode == Opcode::Binary, body: piece.content, more: !piece.fin }
            }
            Event::Ping(body) => Self::Ping(body),
            Event::Pong(body) => Self::Pong(body),
            Event::Close(close) => Self::Close(close),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Close(_) => 0,
            Self::Message { body, .. } | Self::Ping(body) | Self::Pong(body) => body.len(),
        }
    }
}

/// Asks the workers of a target for a WebSocket.
pub(super) async fn open(shard: &Rc<Shard>, exchange: &Exchange, target: &Target) -> Opened {
    let Some(service) = shard.gateway.workers.service(target) else {
        return Opened::NotReached("its sockets are not open".to_owned());
    };
    if service.is_request() {
        return match exchange.settings.workers.role {
            WorkerRole::Front => {
                Opened::Failed(Failure::request(400, "WebSockets not supported on req mode interface."))
            }
            WorkerRole::Gateway => {
                Opened::Failed(Failure::target(502, "WebSockets cannot be used with zhttpreq target"))
            }
        };
    }
    let outgoing = exchange.outgoing(target);
    let mut fields = Vec::new();
    if outgoing.is_grip() || (exchange.trusted && offers_grip(&exchange.head)) {
        fields.push(("Sec-WebSocket-Extensions", "grip".to_owned()));
    }
    if outgoing.is_grip() {
        fields.extend(sign(shard, exchange).map(|signature| ("Grip-Sig", signature.to_string())));
        fields.push(("Grip-Feature", waft_grip::feature::FEATURES.to_owned()));
    }
    let request = worker::websocket_of(exchange, &outgoing, &fields);
    shard.metrics.target_requests.add(1);
    let call = match Call::start(shard, &service, Interface::WebSocket, request) {
        Ok(call) => call,
        Err(error) => return Opened::NotReached(error.to_string()),
    };
    let timeouts = &exchange.route.options.timeouts;
    let limits = (timeouts.connect, timeouts.response_head.or(Some(ANSWER_LIMIT)));
    match worker::answer(shard, &call, None, limits).await {
        Ok(head) => accepted(exchange, target, head, call),
        Err(Unanswered::Failed(WorkerFailure::Rejected(rejection))) => Opened::Rejected(reply(&rejection)),
        Err(unanswered) => match unanswered.of_attempt(target, true) {
            AttemptError::NotReached(why) | AttemptError::Stale(why) => Opened::NotReached(why),
            AttemptError::Broken(failure) => Opened::Failed(failure),
            AttemptError::Malformed(text) => Opened::Failed(Failure::target(502, text)),
            AttemptError::ClientGone => Opened::ClientGone,
        },
    }
}

fn reply(rejection: &Rejection) -> Reply {
    let AnswerHead { status, reason, fields, .. } = AnswerHead::of_rejection(rejection);
    Reply { status, reason, fields, body: rejection.body.clone() }
}

fn accepted(exchange: &Exchange, target: &Target, head: AnswerHead, call: Call) -> Opened {
    let grip_spoken = !exchange.trusted && !exchange.route.options.no_grip;
    let grip = parse_grip_extension(head.fields.iter()).filter(|_| grip_spoken);
    let made_here = ["sec-websocket-accept", "sec-websocket-extensions"];
    let mut fields = Fields::new();
    for (name, value) in head.fields.iter() {
        if !made_here.iter().any(|made| name.eq_ignore_ascii_case(made)) {
            fields.push(name, value);
        }
    }
    // What is published must not come between the pieces of a message, and control messages are needed whole.
    let whole = grip.is_some() || !target.subs.is_empty();
    let message_max = usize::try_from(exchange.settings.websocket.message_max).unwrap_or(usize::MAX);
    let side = Side {
        call,
        waiting: RefCell::default(),
        waiting_bytes: Cell::new(0),
        unconfirmed: Cell::new(0),
        whole: whole.then_some(message_max),
        message: RefCell::default(),
    };
    let extensions = relayed_extensions(head.fields.iter());
    Opened::Accepted(Acceptance { fields, grip, extensions, way: Way::Worker(Rc::new(side)) })
}

impl Side {
    /// What happens from now on is told to the WebSocket `key`.
    pub(super) fn hold(&self, key: Key) {
        self.call.hand_to(key);
    }

    /// Whether the client is to wait until the worker has taken more.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes.get() > WINDOW
    }

    /// Sends something to the worker, as soon as it has room.
    pub(super) fn send(&self, what: ToWorker) {
        self.waiting_bytes.set(self.waiting_bytes.get() + what.len());
        self.waiting.borrow_mut().push_back(what);
        self.flush();
    }

    /// Sends what the worker has room for.
    fn flush(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(mut next) = waiting.pop_front() {
            let (length, room) = (next.len(), self.call.room_now());
            if length > room
                && let ToWorker::Message { binary, body, .. } = &mut next
                && room > 0
            {
                // As much of the message as there is room for.
                let piece = body.split_to(room);
                self.call.with(|front, now| front.send_message(now, *binary, piece, true));
                self.waiting_bytes.set(self.waiting_bytes.get().saturating_sub(room));
            }
            if length > room {
                waiting.push_front(next);
                return;
            }
            self.waiting_bytes.set(self.waiting_bytes.get().saturating_sub(length));
            self.call.with(|front, now| match next {
                ToWorker::Close(None) => front.send_close(now, None, Bytes::new()),
                ToWorker::Close(Some(close)) => front.send_close(now, Some(close.code), close.reason),
                ToWorker::Message { binary, body, more } => front.send_message(now, binary, body, more),
                ToWorker::Ping(body) => front.send_control(now, PacketKind::Ping, body),
                ToWorker::Pong(body) => front.send_control(now, PacketKind::Pong, body),
            });
        }
    }

    /// The client has taken everything; the worker may send as much again.
    fn confirm(&self) {
        let taken = self.unconfirmed.take();
        if taken > 0 {
            self.call.with(|front, now| front.consumed(now, taken));
        }
    }

    /// A piece of a message came: the whole message if it is complete, or what of it can go on.
    fn collect(&self, binary: bool, body: &Bytes, more: bool, limit: usize) -> Result<Option<(bool, Bytes)>, ()> {
        let mut message = self.message.borrow_mut();
        if message.is_none() && !more {
            return if body.len() > limit { Err(()) } else { Ok(Some((binary, body.clone()))) };
        }
        let (_, kept) = message.get_or_insert_with(|| (binary, BytesMut::new()));
        if kept.len() + body.len() > limit {
            return Err(());
        }
        kept.extend_from_slice(body);
        if more {
            return Ok(None);
        }
        Ok(message.take().map(|(binary, kept)| (binary, kept.freeze())))
    }
}

fn side_of(shard: &Shard, key: Key) -> Option<Rc<Side>> {
    match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => match &hold.target {
            ToTarget::Worker(side) => Some(Rc::clone(side)),
            _ => None,
        },
        _ => None,
    }
}

/// Something happened in the exchange of the WebSocket `key`.
pub(crate) fn on_worker(shard: &Rc<Shard>, key: Key) {
    let Some(side) = side_of(shard, key) else { return };
    let mut out = Out::default();
    let mut lost = false;
    while out.after == After::Nothing
        && let Some(event) = side.call.poll()
    {
        match event {
            FrontEvent::Message { binary, body, more } => on_piece(shard, key, &side, (binary, body, more), &mut out),
            FrontEvent::Ping(body) => on_control(shard, key, Kind::Ping, body, &mut out),
            FrontEvent::Pong(body) => on_control(shard, key, Kind::Pong, body, &mut out),
            FrontEvent::Close { code, reason } => on_close(shard, key, code, &reason, &mut out),
            FrontEvent::Failed(failure) => {
                debug!(error = %failure, "The worker of a WebSocket is lost.");
                lost = true;
            }
            FrontEvent::Body(_) | FrontEvent::End | FrontEvent::Head { .. } | FrontEvent::Room => {}
        }
    }
    out.flush(shard, key);
    if lost {
        return on_lost(shard, key);
    }
    side.flush();
    drained(shard, key, &side);
    if !side.is_full() {
        resume(shard, key);
    }
}

/// Everything that waited for the client `key` has been written, perhaps.
pub(super) fn on_drained(shard: &Rc<Shard>, key: Key) {
    if let Some(side) = side_of(shard, key) {
        drained(shard, key, &side);
    }
}

fn drained(shard: &Rc<Shard>, key: Key, side: &Side) {
    if !shard.held.borrow().is_waiting(key) {
        side.confirm();
    }
}

fn on_piece(shard: &Rc<Shard>, key: Key, side: &Side, (binary, body, more): (bool, Bytes, bool), out: &mut Out) {
    side.unconfirmed.set(side.unconfirmed.get() + body.len());
    if let Some(limit) = side.whole {
        match side.collect(binary, &body, more, limit) {
            Ok(None) => {}
            Ok(Some((true, content))) => from_target(shard, key, Kind::Binary, content, out),
            Ok(Some((false, content))) => from_target(shard, key, Kind::Text, content, out),
            Err(()) => fail(shard, key, &Close::new(close::TOO_BIG, "message of the target is too large"), out),
        }
        return;
    }
    let held = shard.held.borrow();
    let Some(Hold::Ws(hold)) = held.get(key) else { return };
    if hold.close_sent {
        return;
    }
    tally_from_target(shard, hold, body.len(), !more, true);
    let mut message = side.message.borrow_mut();
    let opcode = if binary { Opcode::Binary } else { Opcode::Text };
    match (message.is_none(), more) {
        (true, false) => out.message(shard, hold.deflate.as_ref(), opcode, &body),
        (first, more) => {
            out.client_frame(if first { opcode } else { Opcode::Continuation }, !more, &body);
            *message = more.then(|| (binary, BytesMut::new()));
        }
    }
}

fn on_control(shard: &Rc<Shard>, key: Key, kind: Kind, body: Bytes, out: &mut Out) {
    if body.len() > CONTROL_MAX {
        return debug!("A worker sent a control frame that is too long; it was dropped.");
    }
    from_target(shard, key, kind, body, out);
}

fn on_close(shard: &Rc<Shard>, key: Key, code: Option<u16>, reason: &Bytes, out: &mut Out) {
    let content = match code {
        Some(code) if may_be_sent(code) => Close::new(code, &String::from_utf8_lossy(reason)).to_content(),
        _ => Vec::new(),
    };
    if mark_closed(shard, key) {
        out.client_frame(Opcode::Close, true, &content);
    }
    if matches!(shard.held.borrow().get(key), Some(Hold::Ws(hold)) if hold.close_received) {
        out.after = After::Finish;
    }
}

/// The worker is lost; its client cannot go on without it.
fn on_lost(shard: &Rc<Shard>, key: Key) {
    let waits = match shard.held.borrow_mut().get_mut(key) {
        Some(Hold::Ws(hold)) => {
            hold.target = ToTarget::Nowhere;
            // After the close frames the client ends the connection in its own time.
            hold.close_sent && !hold.close_received
        }
        _ => return,
    };
    if !waits {
        finish(shard, key);
    }
}

/// Parts a client from its worker: the worker is told, the client stays.
pub(super) fn detach(shard: &Rc<Shard>, key: Key, close: &Close) {
    if let Some(side) = side_of(shard, key) {
        side.call.with(|front, now| front.send_close(now, Some(close.code), close.reason.clone()));
        if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
            hold.target = ToTarget::Nowhere;
        }
    }
}
