//! The task of a WebSocket exchange.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use waft_websocket::close::{Close, REASON_MAX, may_be_sent};
use waft_websocket::connection::{Event, Fragment};
use waft_websocket::frame::{CONTROL_MAX, Opcode};
use waft_zhttp::{Condition, Kind, Packet};

use super::call::condition;
use super::door::Door;
use super::exchange::Exchange;
use super::http::log_failure;
use crate::{Answer, Call, CallError, Response, WebSocket};

/// Bytes of a response that refuses the upgrade, as in Zurl.
const REJECTION_SIZE_MAX: usize = 100_000;

/// Opens the WebSocket and carries frames both ways until both sides have closed.
pub(crate) async fn run(door: Rc<Door>, exchange: Rc<Exchange>, call: Call) {
    let outcome = match door.client.websocket(call).await {
        Err(error) => Err(error),
        Ok(Answer::Refused(response)) => return reject(&door, &exchange, response).await,
        Ok(Answer::Open(socket)) => {
            let credits = exchange.state.borrow_mut().grant().unwrap_or_default();
            let packet = Packet {
                code: Some(101),
                reason: Some(socket.reason.clone()),
                headers: socket.headers.clone(),
                credits,
                ..Packet::default()
            };
            door.emit(&exchange, packet);
            Relay { door: &door, exchange: &exchange, socket, state: Session::default() }.run().await
        }
    };
    match outcome {
        Ok(()) => door.remove(&exchange),
        Err(error) => {
            log_failure(&exchange, &error);
            door.fail(&exchange, condition(&error));
        }
    }
}

/// The server answered with an ordinary response.
async fn reject(door: &Rc<Door>, exchange: &Exchange, mut response: Response) {
    let mut body = BytesMut::new();
    while body.len() < REJECTION_SIZE_MAX {
        match response.body.piece().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) | Err(_) => break,
        }
    }
    if body.len() > REJECTION_SIZE_MAX {
        body.truncate(REJECTION_SIZE_MAX);
        for (name, value) in &mut response.headers {
            if name.eq_ignore_ascii_case(b"content-length") {
                *value = REJECTION_SIZE_MAX.to_string().into();
            }
        }
    }
    let packet = Packet {
        condition: Some(Condition::Rejected),
        code: Some(response.status),
        reason: Some(response.reason),
        headers: response.headers,
        body: body.freeze(),
        ..Packet::default()
    };
    door.fail_with(exchange, packet);
}

struct Relay<'a> {
    door: &'a Rc<Door>,
    exchange: &'a Rc<Exchange>,
    socket: Box<WebSocket>,
    state: Session,
}

#[derive(Default)]
struct Session {
    /// A piece of a message for the client that waits for credits.
    waiting: Option<Fragment>,
    /// Bytes of the client whose credits go back once they are written.
    unreturned: usize,
    /// The client is inside a message.
    in_message: bool,
    closed_by_client: bool,
    closed_by_peer: bool,
}

impl Relay<'_> {
    async fn run(mut self) -> Result<(), CallError> {
        poll_fn(|cx| {
            loop {
                let written = self.poll_client(cx)?;
                let read = self.poll_peer(cx)?;
                if self.state.closed_by_client && self.state.closed_by_peer && self.socket.is_flushed() {
                    return Poll::Ready(Ok(()));
                }
                if !written && !read {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Carries packets of the client to the peer, one at a time. True if something was done.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Result<bool, CallError> {
        match self.socket.poll_flush(cx)? {
            Poll::Pending => return Ok(false),
            Poll::Ready(()) => {
                let written = std::mem::take(&mut self.state.unreturned);
                if written > 0 {
                    self.door.consumed(self.exchange, written);
                }
            }
        }
        if self.state.closed_by_client {
            return Ok(false);
        }
        let Poll::Ready(packet) = self.exchange.poll_packet(cx) else { return Ok(false) };
        match packet.kind {
            Kind::Data => {
                let binary = packet.content_type.as_deref() == Some(b"binary");
                let opcode = match (self.state.in_message, binary) {
                    (true, _) => Opcode::Continuation,
                    (false, true) => Opcode::Binary,
                    (false, false) => Opcode::Text,
                };
                self.state.in_message = packet.more;
                self.socket.queue(opcode, !packet.more, &packet.body)?;
                self.state.unreturned = packet.body.len();
            }
            Kind::Ping => self.socket.queue(Opcode::Ping, true, control(&packet.body))?,
            Kind::Pong => self.socket.queue(Opcode::Pong, true, control(&packet.body))?,
            Kind::Close => {
                self.state.closed_by_client = true;
                let reason = packet.body.get(..REASON_MAX.min(packet.body.len())).unwrap_or_default();
                let close = packet
                    .code
                    .filter(|code| may_be_sent(*code))
                    .map(|code| Close { code, reason: Bytes::copy_from_slice(reason) });
                self.socket.queue_close(close.as_ref())?;
            }
            _ => {}
        }
        Ok(true)
    }

    /// Carries events of the peer to the client, as far as its credits go. True if something was done.
    fn poll_peer(&mut self, cx: &mut Context<'_>) -> Result<bool, CallError> {
        if let Some(fragment) = self.state.waiting.take() {
            return Ok(self.forward(cx, fragment));
        }
        if self.state.closed_by_peer {
            return Ok(false);
        }
        let event = match self.socket.poll_event(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(Some(event))) => event,
            // The peer may simply hang up once it has read our close.
            Poll::Ready(Ok(None)) if self.state.closed_by_client => {
                self.state.closed_by_peer = true;
                return Ok(true);
            }
            Poll::Ready(Ok(None)) => return Err(CallError::Closed),
            Poll::Ready(Err(error)) => {
                self.tell_peer(cx, &error);
                return Err(error);
            }
        };
        match event {
            Event::Fragment(fragment) => return Ok(self.forward(cx, fragment)),
            Event::Text(body) | Event::Binary(body) => {
                tracing::debug!(size = body.len(), "A whole message where pieces are relayed.");
            }
            Event::Ping(body) => self.control(Kind::Ping, body),
            Event::Pong(body) => self.control(Kind::Pong, body),
            Event::Close(close) => {
                self.state.closed_by_peer = true;
                let (code, body) = close.map_or((None, Bytes::new()), |close| (Some(close.code), close.reason));
                self.door.emit(self.exchange, Packet { kind: Kind::Close, code, body, ..Packet::default() });
            }
        }
        Ok(true)
    }

    /// Sends a piece to the client, split to its credits. An empty one needs none.
    fn forward(&mut self, cx: &mut Context<'_>, mut fragment: Fragment) -> bool {
        let Poll::Ready(allowed) = self.exchange.poll_credits(cx, fragment.content.len()) else {
            self.state.waiting = Some(fragment);
            return false;
        };
        let body = fragment.content.split_to(allowed);
        let rest = !fragment.content.is_empty();
        let binary = fragment.opcode == Opcode::Binary;
        let packet = Packet {
            content_type: Some(Bytes::from_static(if binary { b"binary" } else { b"text" })),
            more: rest || !fragment.fin,
            body,
            ..Packet::default()
        };
        self.door.emit(self.exchange, packet);
        if rest {
            self.state.waiting = Some(fragment);
        }
        true
    }

    fn control(&self, kind: Kind, body: Bytes) {
        // Control frames are small: they are counted against the credits as far as there are any.
        self.exchange.state.borrow_mut().spend(body.len());
        self.door.emit(self.exchange, Packet { kind, body, ..Packet::default() });
    }

    /// A peer that breaks the protocol is told so, if it still reads.
    fn tell_peer(&mut self, cx: &mut Context<'_>, error: &CallError) {
        if let CallError::Frame(error) = error
            && self.socket.queue_close(Some(&error.to_close())).is_ok()
            && let Poll::Ready(Err(error)) = self.socket.poll_flush(cx)
        {
            tracing::debug!(%error, "A peer could not be told that it broke the protocol.");
        }
    }
}

fn control(body: &[u8]) -> &[u8] {
    body.get(..CONTROL_MAX.min(body.len())).unwrap_or_default()
}
