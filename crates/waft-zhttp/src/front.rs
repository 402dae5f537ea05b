//! The client's side of an exchange, as a gateway has it towards its workers.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::{Condition, Due, Exchange, Id, Ids, Kind, Pace, Packet, Violation};

/// What the peer of a [`Front`] is asked by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interface {
    /// One packet there, one packet back (ZHTTP section 10).
    Request,
    /// An HTTP exchange piece by piece (section 8).
    Stream,
    /// A WebSocket (section 9).
    WebSocket,
}

/// One exchange with a worker, seen from the side that wants it performed (ZHTTP sections 5 to 12).
///
/// [`Front::start`] makes the first packet. Give each packet that the worker sends to [`Front::receive`], then call
/// [`Front::poll_event`] and [`Front::poll_output`] until they are empty. Body bytes may be sent as far as
/// [`Front::room`] says; what came and was passed on is reported to [`Front::consumed`]. After a
/// [`FrontEvent::Failed`] or [`FrontEvent::End`] the exchange is over and there is nothing more to send.
#[derive(Clone, Debug)]
pub struct Front {
    exchange: Exchange,
    interface: Interface,
    from: Bytes,
    id: Bytes,
    /// Bytes that a WebSocket worker which grants nothing is taken to grant.
    window: u64,
    /// Where the worker is, once it has said so.
    worker: Option<Bytes>,
    /// The worker is about to be replaced by another one.
    handing_off: bool,
    /// The worker understands lists of ids.
    multi: bool,
    head_seen: bool,
    body_sent: bool,
    /// A close frame went to the worker.
    close_sent: bool,
    /// A close frame came from it.
    close_received: bool,
    over: bool,
    /// The whole response has come.
    complete: bool,
    events: VecDeque<FrontEvent>,
    output: VecDeque<(Bytes, Packet)>,
}

/// What happened in an exchange.
#[derive(Clone, Debug, PartialEq)]
pub enum FrontEvent {
    /// A piece of the response body; never empty.
    Body(Bytes),
    /// A close frame.
    Close {
        /// Its code; none for a frame without content.
        code: Option<u16>,
        /// Its text.
        reason: Bytes,
    },
    /// The response is complete.
    End,
    /// The exchange is over and was not completed.
    Failed(Failure),
    /// The head of the response, or the acceptance of a WebSocket with code 101.
    Head {
        /// The status.
        code: u16,
        /// The reason phrase.
        reason: Bytes,
        /// The header lines, in their order.
        headers: Vec<(Bytes, Bytes)>,
        /// The body ends with what came in the same packet.
        complete: bool,
    },
    /// A piece of a WebSocket message.
    Message {
        /// Whether it is `binary`; text otherwise. What the first piece says counts for the message.
        binary: bool,
        /// The content.
        body: Bytes,
        /// More pieces follow.
        more: bool,
    },
    /// A ping frame.
    Ping(Bytes),
    /// A pong frame.
    Pong(Bytes),
    /// More may be sent.
    Room,
}

/// Why an exchange failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The worker gave it up.
    #[error("the worker cancelled the exchange")]
    Cancelled,
    /// The worker says why.
    #[error("the worker failed: {0}")]
    Condition(Condition),
    /// Nothing was heard of the worker for too long.
    #[error("nothing was heard of the worker in time")]
    Expired {
        /// Whether it had been heard of at all.
        heard: bool,
    },
    /// The worker has sent what has no place here.
    #[error("the worker broke the protocol: {0}")]
    Protocol(&'static str),
    /// A WebSocket was refused by a response.
    #[error("the worker refused the websocket with status {}", .0.code)]
    Rejected(Box<Rejection>),
    /// The worker has gone.
    #[error("the worker has gone")]
    Unreachable,
    /// A packet could not be read.
    #[error("a packet of the worker cannot be read")]
    Unreadable,
    /// The worker broke the rules of an exchange.
    #[error("the worker broke the protocol: {0}")]
    Violation(#[from] Violation),
}

/// The response that refuses a WebSocket.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The status.
    pub code: u16,
    /// The reason phrase.
    pub reason: Bytes,
    /// The header lines.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The body.
    pub body: Bytes,
}

impl Front {
    /// Starts an exchange by `interface` under the id `id`, from the address `from`; `window` is how many bytes of a
    /// body this side is ready to hold. `request` has method, URI, headers, and the first part of the body; it is
    /// completed and has to be sent.
    pub fn start(
        now: Instant,
        interface: Interface,
        (from, id): (Bytes, Bytes),
        (window, pace): (u64, Pace),
        mut request: Packet,
    ) -> (Self, Packet) {
        let websocket = interface == Interface::WebSocket;
        let mut exchange = Exchange::start(now, window, websocket).paced(pace);
        request.ext_multi = true;
        let seq = if interface == Interface::Request {
            request.more = false;
            None
        } else {
            request.from = Some(from.clone());
            request.credits = exchange.grant().unwrap_or(0);
            request.stream = !websocket;
            Some(exchange.stamp(now))
        };
        request.ids = Ids::One(Id { id: id.clone(), seq });
        let front = Self {
            exchange,
            interface,
            from,
            id,
            window,
            worker: None,
            handing_off: false,
            multi: false,
            head_seen: false,
            body_sent: !websocket && !request.more,
            close_sent: false,
            close_received: false,
            over: false,
            complete: false,
            events: VecDeque::new(),
            output: VecDeque::new(),
        };
        (front, request)
    }

    /// Takes in a packet of the worker that is numbered `seq` in this exchange. False if it is none of its worker's.
    pub fn receive(&mut self, now: Instant, seq: Option<u64>, packet: Packet) -> bool {
        if self.over {
            return true;
        }
        if self.interface == Interface::Request {
            self.receive_reply(packet);
            return true;
        }
        if let Some(from) = &packet.from
            && self.worker.as_ref() != Some(from)
        {
            if self.worker.is_some() && !self.handing_off {
                return false;
            }
            self.worker = Some(from.clone());
            self.handing_off = false;
        }
        self.multi |= packet.ext_multi;
        match packet.kind {
            Kind::Cancel => self.end(FrontEvent::Failed(Failure::Cancelled)),
            Kind::Error => self.end(FrontEvent::Failed(failure(packet))),
            _ => match self.exchange.receive(now, seq, &packet) {
                Ok(()) => self.in_order(now, packet),
                Err(violation) => self.fail(now, violation.into()),
            },
        }
        true
    }

    /// A packet of the worker for this exchange could not be read: the next one would be out of order.
    pub fn unreadable(&mut self, now: Instant) {
        self.fail(now, Failure::Unreadable);
    }

    /// A packet for `worker` could not be delivered.
    pub fn undeliverable(&mut self, worker: &Bytes) {
        if !self.over && self.worker.as_ref() == Some(worker) {
            self.end(FrontEvent::Failed(Failure::Unreachable));
        }
    }

    fn in_order(&mut self, now: Instant, packet: Packet) {
        let granted = packet.credits > 0;
        match packet.kind {
            Kind::Data => self.data(now, packet),
            Kind::HandoffStart => {
                self.put(now, Packet { kind: Kind::HandoffProceed, ..Packet::default() });
                self.handing_off = true;
            }
            Kind::Ping if self.is_open_socket() => self.events.push_back(FrontEvent::Ping(packet.body)),
            Kind::Pong if self.is_open_socket() => self.events.push_back(FrontEvent::Pong(packet.body)),
            Kind::Close if self.is_open_socket() => {
                self.close_received = true;
                self.events.push_back(FrontEvent::Close { code: packet.code, reason: packet.body });
            }
            _ => {}
        }
        if granted && !self.over {
            self.events.push_back(FrontEvent::Room);
        }
        // What could not be given back while no worker was known.
        self.consumed(now, 0);
    }

    fn is_open_socket(&self) -> bool {
        self.interface == Interface::WebSocket && self.head_seen
    }

    fn data(&mut self, now: Instant, packet: Packet) {
        if self.is_open_socket() {
            let binary = packet.content_type.as_deref() == Some(b"binary");
            let more = packet.more;
            return self.events.push_back(FrontEvent::Message { binary, body: packet.body, more });
        }
        let complete = !packet.more;
        if !self.head_seen {
            let Some(code) = packet.code else {
                return self.fail(now, Failure::Protocol("the first data has no status code"));
            };
            if self.interface == Interface::WebSocket && code != 101 {
                // What is no acceptance is a refusal, however it is packed.
                let event = FrontEvent::Failed(Failure::Rejected(Box::new(rejection(code, packet))));
                return self.fail_with(now, event);
            }
            if self.interface == Interface::Stream && !(200..=999).contains(&code) {
                return self.fail(now, Failure::Protocol("a status code that no response has"));
            }
            self.head_seen = true;
            let Packet { reason, headers, body, .. } = packet;
            let reason = reason.unwrap_or_default();
            self.events.push_back(FrontEvent::Head { code, reason, headers, complete });
            if self.interface == Interface::WebSocket {
                if self.exchange.credits() == 0 {
                    self.exchange.assume(self.window);
                }
                return;
            }
            self.body(body, complete);
        } else {
            self.body(packet.body, complete);
        }
    }

    fn body(&mut self, body: Bytes, complete: bool) {
        if !body.is_empty() {
            self.events.push_back(FrontEvent::Body(body));
        }
        if complete {
            self.complete = true;
            self.end(FrontEvent::End);
        }
    }

    fn receive_reply(&mut self, packet: Packet) {
        let failed = match (packet.kind, packet.code) {
            (Kind::Error, _) => Some(failure(packet)),
            (Kind::Data, Some(code)) if !packet.more && (200..=999).contains(&code) => {
                let Packet { reason, headers, body, .. } = packet;
                let reason = reason.unwrap_or_default();
                self.events.push_back(FrontEvent::Head { code, reason, headers, complete: true });
                return self.body(body, true);
            }
            (Kind::Cancel, _) => Some(Failure::Cancelled),
            _ => Some(Failure::Protocol("the reply is not one whole response")),
        };
        if let Some(failed) = failed {
            self.end(FrontEvent::Failed(failed));
        }
    }

    fn end(&mut self, event: FrontEvent) {
        self.over = true;
        self.events.push_back(event);
    }

    fn fail(&mut self, now: Instant, failure: Failure) {
        self.fail_with(now, FrontEvent::Failed(failure));
    }

    /// Ends the exchange from this side.
    fn fail_with(&mut self, now: Instant, event: FrontEvent) {
        // Nothing is told behind the end.
        if !self.over {
            self.cancel(now);
            self.events.push_back(event);
        }
    }

    /// Puts a packet up for the worker, if it is known where that is.
    fn put(&mut self, now: Instant, mut packet: Packet) {
        let Some(worker) = self.worker.clone().filter(|_| !self.handing_off) else { return };
        packet.from = Some(self.from.clone());
        packet.ids = Ids::One(Id { id: self.id.clone(), seq: Some(self.exchange.stamp(now)) });
        self.output.push_back((worker, packet));
    }

    /// Gives the exchange up; the worker hears of it, if it is known and there was no orderly end before.
    pub fn cancel(&mut self, now: Instant) {
        self.over |= self.close_sent && self.close_received;
        if !self.over {
            self.put(now, Packet { kind: Kind::Cancel, ..Packet::default() });
            self.over = true;
        }
    }

    /// Body bytes that may be sent now.
    pub fn room(&self) -> u64 {
        let silent = self.over || self.worker.is_none() || self.handing_off;
        if silent { 0 } else { self.exchange.credits() }
    }

    /// Sends a piece of the request's body, which has to fit into [`Front::room`].
    pub fn send_body(&mut self, now: Instant, body: Bytes, more: bool) {
        if !self.over && !self.body_sent {
            self.exchange.spend(body.len());
            self.body_sent = !more;
            self.put(now, Packet { body, more, ..Packet::default() });
        }
    }

    /// Sends a piece of a WebSocket message, which has to fit into [`Front::room`].
    pub fn send_message(&mut self, now: Instant, binary: bool, body: Bytes, more: bool) {
        if !self.over {
            self.exchange.spend(body.len());
            let content_type = Some(Bytes::from_static(if binary { b"binary" } else { b"text" }));
            self.put(now, Packet { content_type, body, more, ..Packet::default() });
        }
    }

    /// Sends a ping or pong frame, which has to fit into [`Front::room`].
    pub fn send_control(&mut self, now: Instant, kind: Kind, body: Bytes) {
        if !self.over {
            self.exchange.spend(body.len());
            self.put(now, Packet { kind, body, ..Packet::default() });
        }
    }

    /// Sends a close frame. Nothing may follow it.
    pub fn send_close(&mut self, now: Instant, code: Option<u16>, reason: Bytes) {
        if !self.over && !std::mem::replace(&mut self.close_sent, true) {
            self.put(now, Packet { kind: Kind::Close, code, body: reason, ..Packet::default() });
        }
    }

    /// Body bytes of the worker have been passed on; it gets them back as credits.
    pub fn consumed(&mut self, now: Instant, length: usize) {
        self.exchange.consumed(length);
        // Credits that find no worker stay outstanding until there is one again.
        let silent = self.over || self.worker.is_none() || self.handing_off;
        if !silent && let Some(credits) = self.exchange.grant() {
            self.put(now, Packet { kind: Kind::Credit, credits, ..Packet::default() });
        }
    }

    /// The worker's address, once it is known.
    pub fn worker(&self) -> Option<&Bytes> {
        self.worker.as_ref()
    }

    /// Whether the worker understands lists of ids.
    pub fn is_multi(&self) -> bool {
        self.multi
    }

    /// Whether the exchange is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the whole response has come, though its events may still wait.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The event that [`Front::poll_event`] gives next.
    pub fn peek_event(&self) -> Option<&FrontEvent> {
        self.events.front()
    }

    /// When [`Front::handle_timeout`] is to be called, while the exchange is not over.
    pub fn poll_timeout(&self) -> Instant {
        self.exchange.poll_timeout(true)
    }

    /// Ends the exchange if its worker was silent for too long. Otherwise the id for a keep-alive that is due, for a
    /// packet of its own or a list of many.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Id> {
        if self.over {
            return None;
        }
        let due = self.exchange.handle_timeout(now, true)?;
        if due == Due::Expired {
            let heard = self.worker.is_some();
            self.fail(now, Failure::Expired { heard });
            return None;
        }
        let silent = self.interface == Interface::Request || self.worker.is_none() || self.handing_off;
        (!silent).then(|| Id { id: self.id.clone(), seq: Some(self.exchange.stamp(now)) })
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<FrontEvent> {
        self.events.pop_front()
    }

    /// The next packet to be sent, and to which worker.
    pub fn poll_output(&mut self) -> Option<(Bytes, Packet)> {
        self.output.pop_front()
    }
}

fn failure(packet: Packet) -> Failure {
    match packet.condition.unwrap_or(Condition::Undefined) {
        Condition::Rejected => Failure::Rejected(Box::new(rejection(packet.code.unwrap_or(502), packet))),
        condition => Failure::Condition(condition),
    }
}

fn rejection(code: u16, packet: Packet) -> Rejection {
    let Packet { reason, headers, body, .. } = packet;
    Rejection { code, reason: reason.unwrap_or_default(), headers, body }
}

#[cfg(test)]
mod tests;
