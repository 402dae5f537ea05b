//! A connection whose requests go to handlers.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;
use tracing::debug;
use waft_grip::instruct::{Instruct, is_instruct};
use waft_http1::{BodyDecoder, Framing, Parsed, parse_request, parse_response};
use waft_mongrel2::{Command, Ctl};
use waft_route::{Handler, TargetAddress};
use waft_websocket::close::Close;
use waft_websocket::connection::{Event, Limits, Receiver, Role};
use waft_websocket::handshake;

use super::book::{Contact, Order};
use super::message::{self, DOWNLOAD_CREDITS, Extra};
use super::upload;
use crate::body::{BODY_BUFFER, BodyEnd, RequestBody};
use crate::client::Client;
use crate::exchange::{self, Exchange};
use crate::hold;
use crate::relay::ResponseBody;
use crate::respond::{self, CONTINUE, Failure};
use crate::service::Answer;
use crate::shard::Shard;

/// How long a wait without a limit may last.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// How long nothing may be sent on a connection before it ends, when the shard is to end.
const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// The close frame of a server that ends.
const GOING_AWAY: &[u8] = b"\x88\x02\x03\xe9";

/// A connection whose last request went to a handler.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) client: Client,
    pub(super) contact: Contact,
    /// The last request, until the beginning of its answer has been seen: that may be a GRIP instruct.
    awaited: Option<Box<Exchange>>,
    /// The beginning of an instruct whose body is still to come.
    gathered: BytesMut,
    websocket: Option<Box<WebSocket>>,
    /// Something was sent since the last request, so that the connection may be called idle.
    is_answered: bool,
    /// No request of this connection has gone to a handler yet.
    is_new: bool,
    pub(super) counts_credits: bool,
}

/// A connection on which frames are exchanged.
#[derive(Debug)]
struct WebSocket {
    exchange: Exchange,
    receiver: Receiver,
    input: BytesMut,
}

/// What becomes of a connection.
pub(super) enum Go {
    On,
    /// It has ended, or is to; its handler is told.
    End,
    /// It is to be closed as its handler wanted.
    Close,
    /// Its handler wanted it to be held.
    Hold(Box<(Exchange, Instruct, ResponseBody)>),
}

/// Gives a request to a handler. From now on the connection has a task of its own.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    mut client: Client,
    exchange: Exchange,
    handler: &Handler,
) -> Option<Client> {
    let Some(link) = shard.gateway.handlers.link(handler) else {
        let failure = Failure::target(503, "The sockets of this handler are not open; a restart opens them.");
        return exchange::fail(shard, client, &exchange, &failure).await;
    };
    let settings = &exchange.settings;
    let counts_credits = settings.handlers.download_credits;
    let limit = if counts_credits { DOWNLOAD_CREDITS } else { settings.limits.queue.bytes_max };
    let contact = match client.contact.take() {
        Some(mut contact) => {
            contact.link = link;
            *contact
        }
        None => shard.book.contact(link, limit),
    };
    let talk = Talk {
        client,
        contact,
        awaited: None,
        gathered: BytesMut::new(),
        websocket: None,
        is_answered: false,
        is_new: true,
        counts_credits,
    };
    spawn_local(talk.run(Rc::clone(shard), exchange));
    None
}

impl Talk {
    async fn run(mut self, shard: Rc<Shard>, first: Exchange) {
        let mut go = self.request(&shard, first).await;
        loop {
            match go {
                Go::On => {}
                Go::End => break,
                Go::Close => {
                    self.contact.be_quiet();
                    let Self { client, contact, .. } = self;
                    drop(contact);
                    return client.close(&shard).await;
                }
                Go::Hold(what) => return self.hold(&shard, *what).await,
            }
            go = self.orders(&shard).await;
            if !matches!(go, Go::On) {
                continue;
            }
            go = match self.input(&shard) {
                Input::Wait => self.wait(&shard).await,
                Input::Go(go) => go,
                Input::Refused(answer) => {
                    let out = respond::own(false, waft_http1::Version::Http11, &answer, false);
                    self.write(&shard, &out.into()).await;
                    // Its handler is told before the client has been waited for.
                    let Self { client, contact, .. } = self;
                    drop(contact);
                    return client.close(&shard).await;
                }
                Input::Head(head) => match exchange::prepare(&shard, self.client, *head).await {
                    Err(None) => return,
                    Err(Some(client)) => {
                        self.client = client;
                        Go::On
                    }
                    Ok((client, exchange)) => {
                        self.client = client;
                        match handler_of(&exchange).map(|handler| shard.gateway.handlers.link(handler)) {
                            Some(Some(link)) => {
                                self.contact.link = link;
                                self.request(&shard, exchange).await
                            }
                            // What handlers send while another target is at work waits in the inbox.
                            _ => {
                                self.client.contact = Some(Box::new(self.contact));
                                let served = Box::pin(exchange::handle(&shard, self.client, exchange)).await;
                                let Some(mut client) = served else { return };
                                let Some(contact) = client.contact.take() else { return shard.serve(client) };
                                self.contact = *contact;
                                self.client = client;
                                self.is_answered = true;
                                Go::On
                            }
                        }
                    }
                },
            };
        }
        self.client.abandon(&shard.buffers);
    }

    /// Sends a request to its handler.
    async fn request(&mut self, shard: &Rc<Shard>, mut exchange: Exchange) -> Go {
        let body_max = exchange.settings.handlers.body_max;
        let is_long = match exchange.head.framing() {
            Framing::Length(length) => length > body_max as u64,
            Framing::Chunked => true,
            Framing::None | Framing::UntilClose => false,
        };
        self.gathered.clear();
        self.is_answered = false;
        if is_long {
            // Boxed, so that connections whose bodies are short do not carry what an upload needs.
            return Box::pin(upload::run(self, shard, exchange)).await;
        }
        exchange.body = RequestBody::new(&exchange.head, body_max);
        if !exchange.body.is_done() {
            if exchange.head.expects_continue() && self.client.stream.write_all(CONTINUE).await.is_err() {
                return Go::End;
            }
            match exchange.body.read_all(shard, &mut self.client).await {
                BodyEnd::Complete => {}
                BodyEnd::Gone | BodyEnd::TooLong => return Go::End,
                BodyEnd::Malformed(text) => {
                    shard.metrics.requests_malformed.add(1);
                    debug!(client = %exchange.peer, text, "Refused a malformed request body.");
                    return Go::End;
                }
            }
        }
        if let Some(accept) = accept_of(&exchange) {
            let extra = Extra { method: Some("WEBSOCKET_HANDSHAKE"), ..self.extra() };
            let go = self.send(shard, message::request(&self.contact, &exchange, &extra, &accept)).await;
            let limits = Limits {
                frame_max: exchange.settings.websocket.message_max,
                message_max: exchange.settings.websocket.message_max,
                ..Limits::default()
            };
            let receiver = Receiver::new(Role::Server, limits.into(), None);
            self.logged(&exchange, 0);
            self.websocket = Some(Box::new(WebSocket { exchange, receiver, input: BytesMut::new() }));
            return go;
        }
        let signature = self.signature(shard, &exchange);
        let extra = Extra { signature: signature.as_deref(), ..self.extra() };
        let message = message::request(&self.contact, &exchange, &extra, exchange.body.saved());
        self.logged(&exchange, exchange.body.saved().len());
        let go = self.send(shard, message).await;
        self.expect_answer(exchange);
        go
    }

    /// What is said with every request.
    pub(super) fn extra(&mut self) -> Extra<'static> {
        let with_credits = std::mem::take(&mut self.is_new) && self.counts_credits;
        Extra { with_credits, ..Extra::default() }
    }

    pub(super) fn signature(&self, shard: &Shard, exchange: &Exchange) -> Option<std::sync::Arc<str>> {
        let is_grip = !exchange.trusted && !exchange.route.options.no_grip;
        is_grip.then(|| shard.signatures.sign(&exchange.settings, &exchange.route)).flatten()
    }

    pub(super) fn expect_answer(&mut self, exchange: Exchange) {
        let is_grip = !exchange.trusted && !exchange.route.options.no_grip;
        self.awaited = is_grip.then(|| Box::new(exchange));
    }

    pub(super) fn logged(&self, exchange: &Exchange, size: usize) {
        exchange::log(exchange, exchange.route.targets.first(), 200, size as u64, "handler");
    }

    /// Sends a message to the handler; a client whose request cannot be sent is told.
    pub(super) async fn send(&mut self, shard: &Shard, message: Bytes) -> Go {
        shard.metrics.handler_requests.add(1);
        if self.contact.link.send(message).is_ok() {
            return Go::On;
        }
        shard.metrics.requests_failed.add(1);
        debug!(client = %self.client.peer, "No handler takes requests, and the queue for them is full.");
        if self.websocket.is_none() {
            let failure = Failure::target(503, "no handler takes requests");
            let out = respond::own(false, waft_http1::Version::Http11, &failure.answer(false), false);
            self.write(shard, &out.into()).await;
        }
        Go::End
    }

    /// Does what handlers have sent.
    async fn orders(&mut self, shard: &Rc<Shard>) -> Go {
        loop {
            if self.contact.inbox.is_ended() {
                return self.ended(shard);
            }
            let Some(order) = self.contact.inbox.take() else { return Go::On };
            let go = self.order(shard, order).await;
            if !matches!(go, Go::On) {
                return go;
            }
        }
    }

    /// The end of a connection that is not to go on.
    fn ended(&self, shard: &Shard) -> Go {
        if self.contact.inbox.is_over() {
            shard.metrics.slow_disconnects.add(1);
            debug!(client = %self.client.peer, "A client reads too slowly what handlers send.");
        }
        Go::End
    }

    pub(super) async fn order(&mut self, shard: &Rc<Shard>, order: Order) -> Go {
        match order {
            Order::Write(bytes) => {
                if let Some(exchange) = self.awaited.take() {
                    return self.answer(shard, exchange, bytes).await;
                }
                self.deliver(shard, &bytes).await
            }
            Order::Close => Go::Close,
            Order::Command(Command::Ctl(ctl)) => self.ctl(ctl),
            Order::Command(Command::SendFile(path)) => Box::pin(self.send_file(shard, &path)).await,
            Order::Command(Command::Unknown) => {
                debug!(client = %self.client.peer, "A handler sent a command that is unknown; its connection ends.");
                Go::End
            }
        }
    }

    fn ctl(&mut self, ctl: Ctl) -> Go {
        if ctl.cancel {
            self.contact.inbox.kill();
            return Go::End;
        }
        if ctl.keep_alive {
            self.contact.inbox.last_ping.set(crate::sign::unix_seconds());
            self.is_answered = false;
        }
        Go::On
    }

    /// The beginning of an answer, which may be a GRIP instruct.
    async fn answer(&mut self, shard: &Rc<Shard>, exchange: Box<Exchange>, bytes: Bytes) -> Go {
        let limits = &exchange.settings.limits;
        let whole = if self.gathered.is_empty() {
            bytes.clone()
        } else {
            self.gathered.extend_from_slice(&bytes);
            self.gathered.clone().freeze()
        };
        match read_instruct(&whole, &exchange) {
            Read::Ordinary => self.deliver(shard, &whole).await,
            Read::Partial if whole.len() <= limits.hold_body_max + limits.head.bytes_max => {
                if self.gathered.is_empty() {
                    self.gathered.extend_from_slice(&bytes);
                }
                self.contact.inbox.written(bytes.len());
                self.awaited = Some(exchange);
                Go::On
            }
            Read::Partial => self.refuse_answer(shard, "GRIP instruct response too large").await,
            Read::Broken(why) => self.refuse_answer(shard, &why).await,
            Read::Instruct(instruct, body) => Go::Hold(Box::new((*exchange, *instruct, ResponseBody::Whole(body)))),
        }
    }

    async fn refuse_answer(&mut self, shard: &Shard, why: &str) -> Go {
        tracing::warn!(client = %self.client.peer, error = why, "The answer of a handler cannot be used.");
        shard.metrics.requests_failed.add(1);
        let answer = Failure::target(502, why).answer(false);
        let out = respond::own(false, waft_http1::Version::Http11, &answer, false);
        self.write(shard, &out.into()).await;
        Go::Close
    }

    /// Writes what a handler has sent.
    async fn deliver(&mut self, shard: &Shard, bytes: &Bytes) -> Go {
        self.is_answered = true;
        if !self.write(shard, bytes).await {
            return self.ended(shard);
        }
        self.contact.inbox.written(bytes.len());
        if self.counts_credits {
            self.contact.link.tell_credits(self.contact.id, bytes.len() as u64);
        }
        Go::On
    }

    /// Writes to the client, until it is broken, takes nothing for too long, or is to end.
    pub(super) async fn write(&self, shard: &Shard, bytes: &Bytes) -> bool {
        let ended = async {
            loop {
                self.contact.inbox.arrived().await;
                if self.contact.inbox.is_ended() {
                    return;
                }
            }
        };
        let parts = [&**bytes];
        let written = tokio::select! {
            biased;
            written = shard.write(&self.client.stream, &parts) => written,
            () = ended => return false,
        };
        if written.is_err() {
            return false;
        }
        shard.metrics.bytes_sent.add(bytes.len() as u64);
        true
    }

    /// Makes a hold of the connection.
    async fn hold(mut self, shard: &Rc<Shard>, (exchange, instruct, body): (Exchange, Instruct, ResponseBody)) {
        self.contact.be_quiet();
        let Self { client, contact, .. } = self;
        drop(contact);
        let route = std::sync::Arc::clone(&exchange.route);
        let Some(target) = route.targets.first() else { return };
        if let Some(client) = Box::pin(hold::begin(shard, client, exchange, target, instruct, body)).await {
            shard.serve(client);
        }
    }

    /// Takes the next request, or the next messages, out of what was read.
    fn input(&mut self, shard: &Rc<Shard>) -> Input {
        if let Some(websocket) = &mut self.websocket {
            let unread = self.client.buffer.unread();
            let count = unread.len();
            websocket.input.extend_from_slice(unread);
            self.client.buffer.consume(count);
            return match websocket.messages(&self.contact) {
                Ok(()) => Input::Wait,
                Err(()) => {
                    shard.metrics.requests_malformed.add(1);
                    Input::Go(Go::End)
                }
            };
        }
        if self.client.buffer.is_empty() {
            return Input::Wait;
        }
        let limits = &shard.gateway.settings().limits;
        match parse_request(self.client.buffer.unread(), &limits.head) {
            Ok(Parsed::Complete { head, consumed }) => {
                self.client.buffer.consume(consumed);
                shard.metrics.requests.add(1);
                Input::Head(Box::new(head))
            }
            Ok(Parsed::Partial) => Input::Wait,
            Err(error) => {
                shard.metrics.requests_malformed.add(1);
                Input::Refused(Answer::malformed(&error))
            }
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, shard: &Rc<Shard>) -> Go {
        let limits = shard.gateway.settings();
        let limits = &limits.limits;
        if self.websocket.is_some() && shard.is_draining() {
            self.write(shard, &Bytes::from_static(GOING_AWAY)).await;
            return Go::End;
        }
        let is_begun = self.websocket.is_none() && !self.client.buffer.is_empty();
        let limit = match (is_begun, self.is_answered && self.websocket.is_none()) {
            (true, _) => limits.head_timeout,
            (false, true) if shard.is_draining() => DRAIN_QUIET,
            (false, true) => limits.idle_timeout,
            (false, false) => FOR_EVER,
        };
        let max = if self.websocket.is_some() { BODY_BUFFER } else { limits.head.bytes_max };
        let inbox = Rc::clone(&self.contact.inbox);
        let waiting = async {
            tokio::select! {
                biased;
                () = inbox.arrived() => None,
                read = read(shard, &mut self.client, max) => Some(read),
                () = shard.drain_begun() => None,
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(None) => Go::On,
            Ok(Some(Ok(count @ 1..))) => {
                self.contact.inbox.read(count);
                Go::On
            }
            Ok(Some(Ok(0) | Err(_))) | Err(_) => Go::End,
        }
    }
}

/// What was found in the bytes of a client.
enum Input {
    Go(Go),
    Head(Box<waft_http1::RequestHead>),
    Refused(Answer),
    Wait,
}

impl WebSocket {
    /// Sends what has come to the handler.
    fn messages(&mut self, contact: &Contact) -> Result<(), ()> {
        loop {
            let (flags, body) = match self.receiver.receive(&mut self.input) {
                Ok(Some(Event::Text(body))) => (0x81, body),
                Ok(Some(Event::Binary(body))) => (0x82, body),
                Ok(Some(Event::Close(close))) => (0x88, close.as_ref().map(close_body).unwrap_or_default()),
                Ok(Some(Event::Ping(body))) => (0x89, body),
                Ok(Some(Event::Pong(body))) => (0x8a, body),
                Ok(Some(Event::Fragment(_))) => return Err(()),
                Ok(None) => return Ok(()),
                Err(error) => {
                    debug!(%error, "A client of a handler broke a rule of WebSocket.");
                    return Err(());
                }
            };
            let extra = Extra { method: Some("WEBSOCKET"), flags: Some(flags), ..Extra::default() };
            let message = message::request(contact, &self.exchange, &extra, &body);
            contact.link.send(message).map_err(|_full| ())?;
        }
    }
}

fn close_body(close: &Close) -> Bytes {
    let mut out = BytesMut::from(&close.code.to_be_bytes()[..]);
    out.extend_from_slice(&close.reason);
    out.freeze()
}

/// The handler that a request is for.
pub(crate) fn handler_of(exchange: &Exchange) -> Option<&Handler> {
    match &exchange.route.targets.first()?.address {
        TargetAddress::Handler(handler) => Some(handler),
        _ => None,
    }
}

/// The value for Sec-WebSocket-Accept, if a request is a WebSocket handshake in every respect.
fn accept_of(exchange: &Exchange) -> Option<[u8; 28]> {
    let head = &exchange.head;
    if !exchange::is_websocket(head) {
        return None;
    }
    let request = handshake::Request::read(head.method(), head.fields()).ok()?;
    Some(handshake::accept_key(request.key))
}

/// Reads from the client. While nothing comes, the connection has no buffer.
async fn read(shard: &Shard, client: &mut Client, max: usize) -> io::Result<usize> {
    let Client { stream, buffer, .. } = client;
    poll_fn(|cx| {
        let room = buffer.room(&shard.buffers, max);
        if room.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let polled = stream.poll_read(cx, room);
        match &polled {
            Poll::Ready(Ok(count)) => {
                buffer.filled(*count);
                shard.metrics.bytes_received.add(*count as u64);
            }
            Poll::Pending if buffer.is_empty() => buffer.release(&shard.buffers),
            Poll::Pending | Poll::Ready(Err(_)) => {}
        }
        polled
    })
    .await
}

/// What the beginning of an answer is.
enum Read {
    Broken(String),
    Instruct(Box<Instruct>, Bytes),
    /// Not GRIP's business.
    Ordinary,
    /// More has to come first.
    Partial,
}

/// Reads an instruct, if that is what it is.
fn read_instruct(bytes: &Bytes, exchange: &Exchange) -> Read {
    if !may_be_instruct(bytes) {
        return Read::Ordinary;
    }
    let (head, consumed) = match parse_response(bytes, &exchange.settings.limits.head) {
        Ok(Parsed::Complete { head, consumed }) => (head, consumed),
        Ok(Parsed::Partial) => return Read::Partial,
        Err(_) => return Read::Ordinary,
    };
    if !is_instruct(head.fields()) {
        return Read::Ordinary;
    }
    let framing = match head.framing(exchange.head.method()) {
        Ok(framing) => framing,
        Err(error) => return Read::Broken(format!("The response of the handler cannot be read: {error}")),
    };
    let mut rest = bytes.slice(consumed.min(bytes.len())..);
    let body = if framing == Framing::UntilClose {
        rest
    } else {
        let mut decoder = BodyDecoder::new(framing);
        let mut body = BytesMut::new();
        while !decoder.is_done() {
            match decoder.decode(&rest) {
                Ok(decoded) if decoded.consumed == 0 => return Read::Partial,
                Ok(decoded) => {
                    body.extend_from_slice(decoded.data);
                    let consumed = decoded.consumed;
                    rest = rest.slice(consumed..);
                }
                Err(error) => return Read::Broken(format!("The response of the handler cannot be read: {error}")),
            }
        }
        body.freeze()
    };
    match Instruct::from_head(head.status(), head.reason(), head.fields()) {
        Ok(instruct) => Read::Instruct(Box::new(instruct), body),
        Err(error) => Read::Broken(format!("Failed to parse accept instructions: {error}")),
    }
}

/// Whether the head of an answer holds a word of GRIP: most do not, and are not looked at any closer.
fn may_be_instruct(bytes: &[u8]) -> bool {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap_or(bytes.len());
    let head = bytes.get(..end).unwrap_or_default();
    head.starts_with(b"HTTP/1.")
        && memchr::memchr2_iter(b'g', b'G', head)
            .any(|at| head.get(at..at + 5).is_some_and(|word| word.eq_ignore_ascii_case(b"grip-")))
}
