//! A client's request to a worker, and the answer back.

use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use waft_grip::instruct::{Instruct, is_instruct};
use waft_http1::{HeadWriter, LAST_CHUNK, Version};
use waft_net::Stream;
use waft_route::Target;
use waft_zhttp::{Condition, Failure, FrontEvent, Interface, Packet};

use super::call::{Call, CallBody, told};
use super::packet::{AnswerHead, of_exchange};
use crate::body::{BODY_BUFFER, Piece, RequestBody, read_into};
use crate::buffer::ReadBuffer;
use crate::client::Client;
use crate::dress::Dress;
use crate::exchange::{Attempt, AttemptError, Exchange, bad_instruct, sign};
use crate::forward::Outgoing;
use crate::relay::{Relayed, ResponseBody, put_piece};
use crate::respond::{self, Failure as Answered, Frame};
use crate::settings::WorkerRole;
use crate::shard::Shard;

/// The largest body on the request/reply interface, in bytes.
const REQUEST_BODY_MAX: usize = 1_000_000;
/// Pause of a worker after which a client that has ended its side counts as gone.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// Bytes gathered into one write to a client.
const GATHERED: usize = 64 << 10;

/// Takes the request of an exchange to a worker of `target`.
pub(crate) async fn ask(
    shard: &Rc<Shard>,
    client: &mut Client,
    exchange: &mut Exchange,
    target: &Target,
) -> Result<Attempt, AttemptError> {
    let Some(service) = shard.gateway.workers.service(target) else {
        return Err(AttemptError::NotReached(format!("{}: its sockets are not open", target.address)));
    };
    let first = first_body(shard, client, exchange, service.is_request()).await?;
    let (request, grip) = request(shard, exchange, target, first);
    shard.metrics.target_requests.add(1);
    let interface = if service.is_request() { Interface::Request } else { Interface::Stream };
    let call = Call::start(shard, &service, interface, request)
        .map_err(|error| AttemptError::NotReached(format!("{}: {error}", target.address)))?;
    let call = Rc::new(call);
    let to_head = exchange.is_to_head();
    let Client { stream, buffer, .. } = client;
    let stream = &*stream;
    let done = exchange.body.is_done();
    let replayable = exchange.body.is_replayable();
    let timeouts = &exchange.route.options.timeouts;
    let limits = (timeouts.connect, timeouts.response_head.or(timeouts.response_idle));
    let mut uploading = !done;
    let mut sending = pin!(upload(shard, Rc::clone(&call), stream, buffer, &mut exchange.body));
    let answered = {
        let mut reading = pin!(answer(shard, &call, Some(stream), limits));
        loop {
            tokio::select! {
                biased;
                answered = &mut reading => break answered,
                sent = &mut sending, if uploading => {
                    uploading = false;
                    sent?;
                }
            }
        }
    };
    let head = answered.map_err(|error| error.of_attempt(target, replayable))?;
    shard.tally(&exchange.route, |traffic| traffic.target_received.header_bytes += size_of_head(&head));
    if grip && is_instruct(head.fields.iter()) {
        if uploading {
            // What follows may need the whole request again.
            sending.await?;
        }
        let instruct = Instruct::from_head(head.status, &head.reason, head.fields.iter()).map_err(bad_instruct)?;
        return Ok(Attempt::Instruct(Box::new(instruct), ResponseBody::Worker(Box::new(CallBody::new(call)))));
    }
    if exchange.dress.as_ref().is_some_and(|dress| dress.call.is_some()) {
        return Ok(Attempt::Wrap(head.into_parts(), ResponseBody::Worker(Box::new(CallBody::new(call)))));
    }
    let version = exchange.head.version();
    let keep = exchange.head.keep_alive() && !shard.is_draining() && !uploading;
    let frame = Framed::of(&head, &call, to_head, version);
    let out = write_head(&head, exchange.dress.as_deref(), frame, (version, keep));
    shard.tally(&exchange.route, |traffic| traffic.client_sent.written(&out));
    let status = head.status;
    let mut bytes = 0;
    let complete = {
        let to = Relaying { shard, call: &call, to: stream, idle_limit: timeouts.response_idle, frame };
        let mut relaying = pin!(to.run(out, &mut bytes));
        loop {
            tokio::select! {
                biased;
                complete = &mut relaying => break complete,
                sent = &mut sending, if uploading => {
                    uploading = false;
                    sent?;
                }
            }
        }
    };
    shard.metrics.bytes_sent.add(bytes);
    Ok(Attempt::Relayed(Relayed {
        status,
        bytes,
        client_reusable: keep && complete && !uploading && frame != Framed::UntilClose,
        target_reusable: true,
        cut_short: !complete,
    }))
}

/// The packet of a request, and whether GRIP is spoken with the worker.
fn request(shard: &Shard, exchange: &Exchange, target: &Target, first: Bytes) -> (Packet, bool) {
    let outgoing = Outgoing { signature: sign(shard, exchange), last: &exchange.last, ..exchange.outgoing(target) };
    let mut packet = of_exchange(exchange, &outgoing);
    shard.tally(&exchange.route, |traffic| {
        let fields = packet.headers.iter().map(|(name, value)| name.len() + value.len());
        let line = packet.method.as_ref().map_or(0, Bytes::len) + exchange.head.path_and_query().len();
        traffic.target_sent.header_bytes += (line + fields.sum::<usize>()) as u64;
    });
    packet.body = first;
    packet.more = !exchange.body.is_done();
    (packet, outgoing.is_grip())
}

/// Bytes of a head, by what they are counted as.
pub(crate) fn size_of_head(head: &AnswerHead) -> u64 {
    let fields: usize = head.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    (3 + head.reason.len() + fields) as u64
}

/// What of the body goes into the first packet: what is there, or all of it for workers that take no more.
async fn first_body(
    shard: &Shard,
    client: &mut Client,
    exchange: &mut Exchange,
    whole: bool,
) -> Result<Bytes, AttemptError> {
    let most = if whole { REQUEST_BODY_MAX } else { exchange.settings.workers.first_body_max };
    let mut first = BytesMut::from(exchange.body.saved());
    while whole || first.len() < most {
        match exchange.body.next(&mut client.buffer).map_err(AttemptError::Malformed)? {
            Piece::End => break,
            Piece::Data { skip, len, consumed } => {
                first.extend_from_slice(client.buffer.unread().get(skip..skip + len).unwrap_or_default());
                client.buffer.consume(consumed);
            }
            Piece::More if whole => match client.read_more(shard, BODY_BUFFER).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(AttemptError::ClientGone),
            },
            Piece::More => break,
        }
        if whole && first.len() > most {
            return Err(AttemptError::Broken(Answered::request(413, "Request too large for this target.")));
        }
    }
    Ok(first.freeze())
}

/// Sends the rest of the body as it arrives, no faster than the worker takes it. What a worker does not want any more is
/// read all the same.
async fn upload(
    shard: &Shard,
    call: Rc<Call>,
    from: &Stream,
    buffer: &mut ReadBuffer,
    body: &mut RequestBody,
) -> Result<(), AttemptError> {
    if body.is_done() {
        return Ok(());
    }
    loop {
        match body.next(buffer).map_err(AttemptError::Malformed)? {
            Piece::End => break,
            Piece::Data { skip, len, consumed } => {
                let data = Bytes::copy_from_slice(buffer.unread().get(skip..skip + len).unwrap_or_default());
                buffer.consume(consumed);
                let done = body.is_done();
                send(&call, data, done).await;
                if done {
                    return Ok(());
                }
            }
            Piece::More => match read_into(shard, from, buffer, BODY_BUFFER).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(AttemptError::ClientGone),
            },
        }
    }
    call.with(|front, now| front.send_body(now, Bytes::new(), false));
    Ok(())
}

/// Sends a piece of the body as its worker grants it.
async fn send(call: &Call, mut data: Bytes, done: bool) {
    while !data.is_empty() {
        let room = call.room().await;
        if room == 0 {
            // The exchange is over.
            return;
        }
        let piece = data.split_to(room.min(data.len()));
        let more = !done || !data.is_empty();
        call.with(|front, now| front.send_body(now, piece, more));
    }
}

/// What an answer is waited for with.
struct Waiting<'a> {
    shard: &'a Shard,
    client: Option<&'a Stream>,
    /// A client that has ended its side counts as gone, as it does for Condure.
    gives_up: bool,
    /// How long a worker may take to take the request.
    connect: Duration,
    /// How long the answer may take.
    answer: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    ClientGone,
    Failed(Failure),
    /// No worker has taken the request.
    NotTaken(Duration),
    /// No answer in time.
    Late(Duration),
}

impl Waiting<'_> {
    /// Waits for the head of the response.
    async fn head(&self, call: &Call) -> Result<AnswerHead, Unanswered> {
        let started = Instant::now();
        loop {
            let sweep = self.shard.sweep.notified();
            tokio::select! {
                biased;
                event = call.next() => match event {
                    FrontEvent::Head { code, reason, headers, complete } => {
                        return Ok(AnswerHead::new(code, &reason, &headers, complete));
                    }
                    FrontEvent::Failed(failure) => return Err(Unanswered::Failed(failure)),
                    _ => {}
                },
                () = sweep => {
                    if self.client.is_some_and(|client| client.is_broken() || (self.gives_up && client.is_ended())) {
                        return Err(Unanswered::ClientGone);
                    }
                    let waited = started.elapsed();
                    if waited > self.connect && call.withdraw() {
                        return Err(Unanswered::NotTaken(self.connect));
                    }
                    if let Some(limit) = self.answer.filter(|limit| waited > *limit) {
                        return Err(Unanswered::Late(limit));
                    }
                }
            }
        }
    }
}

impl Unanswered {
    pub(crate) fn of_attempt(self, target: &Target, replayable: bool) -> AttemptError {
        use Condition::{ConnectionTimeout, LengthRequired, PolicyViolation, RemoteConnectionFailed, TlsError};
        match self {
            Self::ClientGone => AttemptError::ClientGone,
            Self::Late(limit) => {
                AttemptError::Broken(Answered::target(504, format!("The target did not answer within {limit:?}.")))
            }
            Self::NotTaken(limit) => {
                let why = format!("{}: no worker took the request within {limit:?}", target.address);
                if replayable {
                    AttemptError::NotReached(why)
                } else {
                    AttemptError::Broken(Answered::target(502, why))
                }
            }
            Self::Failed(Failure::Condition(RemoteConnectionFailed | ConnectionTimeout | TlsError)) if replayable => {
                AttemptError::NotReached(format!("{}: the worker could not reach its own target", target.address))
            }
            Self::Failed(Failure::Condition(PolicyViolation)) => {
                AttemptError::Broken(Answered::target(502, "Error: Origin host/IP blocked."))
            }
            Self::Failed(Failure::Condition(LengthRequired)) => {
                AttemptError::Broken(Answered::request(411, "Must provide Content-Length header."))
            }
            Self::Failed(failure) => AttemptError::Broken(Answered::target(502, told(&failure))),
        }
    }
}

/// How the body of a response is framed for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framed {
    /// No body goes to the client; its length may be told all the same.
    Bodiless(Option<u64>),
    Chunked,
    /// This many bytes are still due.
    Length(u64),
    UntilClose,
}

impl Framed {
    fn of(head: &AnswerHead, call: &Call, to_head: bool, version: Version) -> Self {
        if to_head || matches!(head.status, 100..=199 | 204 | 304) {
            return Self::Bodiless(head.length.filter(|_| head.status != 204));
        }
        match if head.complete { Some(call.body_at_hand()) } else { head.length } {
            Some(length) => Self::Length(length),
            None if version == Version::Http11 => Self::Chunked,
            None => Self::UntilClose,
        }
    }
}

/// The head of a response for its client.
fn write_head(head: &AnswerHead, dress: Option<&Dress>, frame: Framed, (version, keep): (Version, bool)) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut writer = HeadWriter::new(&mut out);
    writer.status_line(head.status, &head.reason);
    match dress {
        None => {
            writer.fields(head.fields.iter());
        }
        Some(dress) => {
            let mut fields = head.fields.clone();
            dress.apply(&mut fields);
            writer.fields(fields.iter());
        }
    }
    if let Framed::Bodiless(Some(length)) | Framed::Length(length) = frame {
        writer.content_length(length);
    }
    let stream = matches!(frame, Framed::Chunked | Framed::UntilClose);
    respond::finish(&mut writer, if stream { Frame::Stream } else { Frame::None }, version, keep);
    writer.finish();
    out
}

/// A response on its way to its client, no faster than that takes it.
struct Relaying<'a> {
    shard: &'a Shard,
    call: &'a Call,
    to: &'a Stream,
    idle_limit: Option<Duration>,
    frame: Framed,
}

impl Relaying<'_> {
    /// Sends `out` and the body; says whether all of it went.
    async fn run(self, mut out: Vec<u8>, bytes: &mut u64) -> bool {
        let (mut frame, mut unconfirmed) = (self.frame, 0);
        loop {
            let event = match self.call.poll() {
                Some(event) => event,
                None => {
                    if !self.write(&mut out, &mut unconfirmed).await {
                        return false;
                    }
                    match self.next().await {
                        Some(event) => event,
                        None => return false,
                    }
                }
            };
            match event {
                FrontEvent::Body(piece) => {
                    unconfirmed += piece.len();
                    if !put(&mut frame, &piece, &mut out) {
                        tracing::warn!("A response of a worker is longer than it said, and was cut.");
                        self.write(&mut out, &mut unconfirmed).await;
                        return false;
                    }
                    if !matches!(frame, Framed::Bodiless(_)) {
                        *bytes += piece.len() as u64;
                    }
                    if out.len() > GATHERED && !self.write(&mut out, &mut unconfirmed).await {
                        return false;
                    }
                }
                FrontEvent::End => {
                    if frame == Framed::Chunked {
                        out.extend_from_slice(LAST_CHUNK);
                    }
                    let whole = !matches!(frame, Framed::Length(1..));
                    return self.write(&mut out, &mut unconfirmed).await && whole;
                }
                FrontEvent::Failed(failure) => {
                    tracing::warn!(error = %failure, "A response of a worker broke off.");
                    self.write(&mut out, &mut unconfirmed).await;
                    return false;
                }
                _ => {}
            }
        }
    }

    async fn write(&self, out: &mut Vec<u8>, unconfirmed: &mut usize) -> bool {
        if !out.is_empty() && self.shard.write(self.to, &[out]).await.is_err() {
            return false;
        }
        out.clear();
        let passed_on = std::mem::take(unconfirmed);
        if passed_on > 0 {
            self.call.with(|front, now| front.consumed(now, passed_on));
        }
        true
    }

    /// What comes next; nothing if the worker pauses for too long or the client has gone.
    async fn next(&self) -> Option<FrontEvent> {
        let started = Instant::now();
        loop {
            let sweep = self.shard.sweep.notified();
            tokio::select! {
                biased;
                event = self.call.next() => return Some(event),
                () = sweep => {
                    let paused = started.elapsed();
                    // Nobody can say whether a client that has ended its side reads on; while something comes for
                    // it, that is tried.
                    let gone = self.to.is_broken() || (paused > GONE_AFTER && self.to.is_ended());
                    if gone || self.idle_limit.is_some_and(|limit| paused > limit) {
                        return None;
                    }
                }
            }
        }
    }
}

/// Puts a piece of body into what goes out. False if it is more than was announced.
fn put(frame: &mut Framed, piece: &[u8], out: &mut Vec<u8>) -> bool {
    match frame {
        Framed::Bodiless(_) => {}
        Framed::Chunked => put_piece(out, piece, true),
        Framed::Length(left) => {
            let Some(rest) = left.checked_sub(piece.len() as u64) else { return false };
            *left = rest;
            out.extend_from_slice(piece);
        }
        Framed::UntilClose => out.extend_from_slice(piece),
    }
    true
}

/// Waits for the head of the answer that `call` is to bring: the request has to be taken within the first limit, and
/// answered within the other one.
pub(crate) async fn answer(
    shard: &Shard,
    call: &Call,
    client: Option<&Stream>,
    (connect, answer): (Duration, Option<Duration>),
) -> Result<AnswerHead, Unanswered> {
    let gives_up = shard.gateway.settings().workers.role == WorkerRole::Front;
    Waiting { shard, client, gives_up, connect, answer }.head(call).await
}

/// Makes a request of this gateway's own, written as for a target of HTTP, and waits for the head of the response.
pub(crate) async fn fetch(
    shard: &Rc<Shard>,
    target: &Target,
    mut request: Packet,
    limits: (Duration, Option<Duration>),
) -> Result<(AnswerHead, ResponseBody), Unanswered> {
    let not_taken = || Unanswered::NotTaken(limits.0);
    let service = shard.gateway.workers.service(target).ok_or_else(not_taken)?;
    let interface = if service.is_request() { Interface::Request } else { Interface::Stream };
    shard.metrics.target_requests.add(1);
    request.ignore_policies = shard.gateway.settings().workers.role == WorkerRole::Gateway;
    let call = Call::start(shard, &service, interface, request).map_err(|_full| not_taken())?;
    let head = answer(shard, &call, None, limits).await?;
    Ok((head, ResponseBody::Worker(Box::new(CallBody::new(Rc::new(call))))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_body_goes_out_than_was_announced() {
        let mut out = Vec::new();
        let mut frame = Framed::Length(5);
        assert!(put(&mut frame, b"abc", &mut out));
        assert!(!put(&mut frame, b"def", &mut out));
        assert_eq!((out, frame), (b"abc".to_vec(), Framed::Length(2)));
        let mut out = Vec::new();
        assert!(put(&mut Framed::Chunked, b"abc", &mut out) && put(&mut Framed::Bodiless(None), b"x", &mut out));
        assert_eq!(out, b"3\r\nabc\r\n");
    }
}
