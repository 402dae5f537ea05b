//! The WebSocket of a session: a client of the gateway within the process.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use waft_http1::{HeadLimits, HeadWriter, Parsed, parse_response};
use waft_net::{PeerAddr, Stream};
use waft_websocket::close::{Close, may_be_sent};
use waft_websocket::connection::{Event, Limits, Receiver, Role};
use waft_websocket::frame::{self, Opcode};
use waft_websocket::handshake::{Request, Response, accept_key};

use super::session::FromTarget;
use super::wire::{self, Frame};
use super::{HEARTBEAT, SessionKey, Shared, answer, lock};
use crate::client::Client;
use crate::exchange::Exchange;
use crate::service::{Answer, Door};
use crate::shard::Shard;
use crate::ws;

/// Bytes of an answer that accepts no WebSocket.
const REFUSAL_MAX: usize = 100_000;
/// Bytes read at once.
const PIECE: usize = 16 << 10;

/// One end of a WebSocket that a task works on.
struct Peer {
    stream: Stream,
    buffer: BytesMut,
    receiver: Receiver,
    /// We are its client: what we send is masked.
    masks: bool,
}

/// Why there is no WebSocket: what the target answered instead.
struct Refusal {
    status: u16,
    body: Vec<u8>,
}

impl Peer {
    fn new(stream: Stream, buffer: BytesMut, role: Role) -> Self {
        let receiver = Receiver::new(role, Arc::new(Limits::default()), None);
        Self { stream, buffer, receiver, masks: role == Role::Client }
    }

    /// Opens a WebSocket through the gateway.
    async fn open(shard: &Rc<Shard>, exchange: Exchange) -> Result<Self, Refusal> {
        let broken = |_error: io::Error| Refusal { status: 502, body: b"Error while proxying to origin.\n".to_vec() };
        let (ours, theirs) = UnixStream::pair().map_err(broken)?;
        let mut client = Client::new(theirs.into(), PeerAddr::Unix, Door::Front, shard.presence());
        client.secure = exchange.secure;
        let serving = Rc::clone(shard);
        spawn_local(async move {
            if let Some(client) = ws::serve(&serving, client, exchange).await {
                client.close(&serving).await;
            }
        });
        let stream = Stream::from(ours);
        let mut buffer = BytesMut::new();
        loop {
            match parse_response(&buffer, &HeadLimits::default()) {
                Ok(Parsed::Complete { head, consumed }) => {
                    let rest = buffer.split_off(consumed);
                    if head.status() == 101 {
                        return Ok(Self::new(stream, rest, Role::Client));
                    }
                    return Err(refusal(&stream, rest, head.status()).await);
                }
                Ok(Parsed::Partial) => match read(&stream, &mut buffer).await {
                    Ok(1..) => {}
                    Ok(0) => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                    Err(error) => return Err(broken(error)),
                },
                Err(error) => return Err(broken(io::Error::other(error))),
            }
        }
    }

    /// The next event but pings, which are answered. None at the end. Nothing is lost if it is dropped.
    async fn event(&mut self) -> Option<Event> {
        loop {
            match self.receiver.receive(&mut self.buffer) {
                Ok(Some(Event::Ping(content))) => self.send(Opcode::Pong, &content).await.ok()?,
                Ok(Some(event)) => return Some(event),
                Ok(None) => {
                    if !matches!(read(&self.stream, &mut self.buffer).await, Ok(1..)) {
                        return None;
                    }
                }
                Err(error) => {
                    let _told = self.send(Opcode::Close, &error.to_close().to_content()).await;
                    return None;
                }
            }
        }
    }

    async fn send(&self, opcode: Opcode, content: &[u8]) -> io::Result<()> {
        let mask = self.masks.then(|| fastrand::u32(..).to_ne_bytes());
        self.stream.write_all(&frame::encode(opcode, true, content, mask)).await
    }
}

async fn read(stream: &Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    let mut piece = vec![0; PIECE];
    let count = stream.read(&mut piece).await?;
    buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
    Ok(count)
}

/// Reads the rest of an answer that accepts no WebSocket. The gateway closes after it.
async fn refusal(stream: &Stream, mut body: BytesMut, status: u16) -> Refusal {
    while body.len() < REFUSAL_MAX && matches!(read(stream, &mut body).await, Ok(1..)) {}
    Refusal { status, body: body.to_vec() }
}

/// How a target closed, as SockJS tells it.
fn closed(close: Option<Close>) -> (u16, String) {
    match close {
        Some(close) => (close.code, String::from_utf8_lossy(&close.reason).into_owned()),
        None => (1000, String::new()),
    }
}

/// The close of a target that broke off.
fn interrupted() -> (u16, String) {
    (1002, "Connection interrupted".to_owned())
}

/// The target's side of a session over polls, until the session is over.
pub(super) async fn polled(shard: Rc<Shard>, shared: Arc<Shared>, key: SessionKey, exchange: Exchange) {
    let tell = |event| {
        lock(&shared.session).handle_target(Instant::now(), event);
        shared.poll.notify_one();
    };
    let mut target = match Peer::open(&shard, exchange).await {
        Ok(target) => Some(target),
        Err(Refusal { status, body }) => {
            tell(FromTarget::Refused(status, body));
            // The next poll is a fresh try.
            return shard.gateway.sockjs.forget(&key);
        }
    };
    tell(FromTarget::Accepted);
    loop {
        let (outgoing, wants_more, timeout) = {
            let mut session = lock(&shared.session);
            if session.handle_timeout(Instant::now()) {
                break;
            }
            let outgoing: Vec<String> = std::iter::from_fn(|| session.poll_target()).collect();
            (outgoing, session.wants_more(), session.poll_timeout())
        };
        if let Some(open) = &target {
            for text in outgoing {
                if open.send(Opcode::Text, text.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
        let due = timeout.unwrap_or_else(|| Instant::now() + HEARTBEAT);
        let event = async {
            match target.as_mut().filter(|_| wants_more) {
                Some(target) => target.event().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = event => event,
            () = shared.bridge.notified() => continue,
            () = tokio::time::sleep_until(due.into()) => continue,
        };
        let (code, reason) = match event {
            Some(Event::Text(text)) => {
                tell(FromTarget::Message(String::from_utf8_lossy(&text).into_owned()));
                continue;
            }
            Some(Event::Close(close)) => closed(close),
            Some(_) => continue,
            None => interrupted(),
        };
        if let Some(target) = target.take() {
            let _told = target.send(Opcode::Close, &Close::new(1000, "").to_content()).await;
        }
        tell(FromTarget::Closed(code, reason));
    }
    shard.gateway.sockjs.forget(&key);
}

/// Serves a WebSocket whose messages are framed as SockJS does.
pub(super) async fn framed(
    shard: &Rc<Shard>,
    mut client: Client,
    exchange: Exchange,
    meant: Exchange,
) -> Option<Client> {
    let early = client.buffer.take_unread(&shard.buffers).unwrap_or_default();
    let mut target = match Peer::open(shard, meant).await {
        Ok(target) => target,
        Err(Refusal { status, body }) => return answer(shard, client, &exchange, Answer::text(status, body)).await,
    };
    let key = Request::read(exchange.head.method(), exchange.head.fields()).map(|request| request.key);
    let mut out = Vec::with_capacity(256);
    HeadWriter::new(&mut out).status_line(101, "Switching Protocols");
    Response { accept: accept_key(key.unwrap_or_default()), protocol: None, extensions: &[] }.write_fields(&mut out);
    out.extend_from_slice(b"\r\n");
    drop(exchange);
    let Client { stream, presence, .. } = client;
    let mut client = Peer::new(stream, BytesMut::from(&*early), Role::Server);
    if client.stream.write_all(&out).await.is_ok() && client.send(Opcode::Text, b"o").await.is_ok() {
        relay(&mut client, &mut target).await;
    }
    client.stream.close(std::time::Duration::from_secs(2)).await;
    drop(presence);
    None
}

/// Carries messages between the two until one side closes. An end without a close frame ends the other side so too.
async fn relay(client: &mut Peer, target: &mut Peer) -> Option<()> {
    let mut heartbeat = Instant::now() + HEARTBEAT;
    loop {
        tokio::select! {
            event = client.event() => match event? {
                Event::Text(text) => {
                    let Some(messages) = wire::sent_framed(&text) else {
                        let _told = client.send(Opcode::Close, &Close::new(1002, "broken JSON").to_content()).await;
                        return None;
                    };
                    for message in messages {
                        target.send(Opcode::Text, message.as_bytes()).await.ok()?;
                    }
                }
                Event::Close(close) => {
                    let content = close.map(|close| close.to_content()).unwrap_or_default();
                    client.send(Opcode::Close, &content).await.ok()?;
                    return target.send(Opcode::Close, &content).await.ok();
                }
                _ => {}
            },
            event = target.event() => match event {
                Some(Event::Text(text)) => {
                    let messages = vec![String::from_utf8_lossy(&text).into_owned()];
                    client.send(Opcode::Text, Frame::Messages(messages).text().as_bytes()).await.ok()?;
                    heartbeat = Instant::now() + HEARTBEAT;
                }
                Some(Event::Close(close)) => return end(client, closed(close)).await,
                Some(_) => {}
                None => return end(client, interrupted()).await,
            },
            () = tokio::time::sleep_until(heartbeat.into()) => {
                client.send(Opcode::Text, Frame::Heartbeat.text().as_bytes()).await.ok()?;
                heartbeat = Instant::now() + HEARTBEAT;
            }
        }
    }
}

/// Tells a client how its session ended.
async fn end(client: &Peer, (code, reason): (u16, String)) -> Option<()> {
    let close = Close::new(if may_be_sent(code) { code } else { 1000 }, &reason);
    client.send(Opcode::Text, Frame::Close(code, reason).text().as_bytes()).await.ok()?;
    client.send(Opcode::Close, &close.to_content()).await.ok()
}
