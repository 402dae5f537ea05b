//! The task of an HTTP exchange.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use waft_zhttp::{Condition, Packet};

use super::call::condition;
use super::door::Door;
use super::exchange::Exchange;
use crate::{BodySource, Call, CallError, Redirects, Replay, RequestBody, Response};

/// Bytes of an upload that can be sent again when a pooled connection turns out to be closed.
const RETRY_SIZE_MAX: usize = 16_384;

/// Makes a call and sends its response in packets: as it comes if it is to be streamed, or whole if it is
/// no larger than `max_size`.
///
/// Thousands of calls may wait for slow receivers, so the future holds no more than it must.
pub(crate) async fn run(door: Rc<Door>, exchange: Rc<Exchange>, call: Box<Call>, stream: bool, max_size: u64) {
    let outcome = match door.client.call(call).await {
        Err(error) => Err(error),
        Ok(response) => {
            exchange.active_at.set(Instant::now());
            if exchange.is_silent() {
                Box::pin(discard(&exchange, response)).await
            } else if stream {
                Box::pin(send_streamed(&door, &exchange, response)).await
            } else {
                match Box::pin(collect(&exchange, response, max_size)).await {
                    Ok(Some(packet)) => {
                        log_out(&exchange, &packet);
                        door.emit(&exchange, packet);
                        Ok(())
                    }
                    Ok(None) => return door.fail(&exchange, Condition::MaxSizeExceeded),
                    Err(error) => Err(error),
                }
            }
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

/// Why a call failed, with all causes: the packet carries one word alone.
pub(crate) fn log_failure(exchange: &Exchange, error: &CallError) {
    let id = exchange.id.as_deref().unwrap_or_default().escape_ascii();
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::debug!(%id, %error, cause, "A call failed.");
}

/// The body that a first packet begins.
pub(crate) fn request_body(door: &Rc<Door>, exchange: &Rc<Exchange>, call: &Call, first: &Packet) -> RequestBody {
    if !first.more {
        return RequestBody::Whole(first.body.clone());
    }
    let length = call.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
    let length = length.and_then(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse().ok());
    exchange.push(Packet { body: first.body.clone(), more: true, ..Packet::default() });
    let room =
        if call.redirects == Redirects::Show { RETRY_SIZE_MAX } else { crate::Limits::default().replay_size_max };
    let source = Upload { door: Rc::clone(door), exchange: Rc::clone(exchange), written: 0, ended: false };
    RequestBody::Stream(Replay::new(Box::new(source), room), length)
}

/// The body that the client sends in packets. Credits go back when a piece was written.
struct Upload {
    door: Rc<Door>,
    exchange: Rc<Exchange>,
    written: usize,
    ended: bool,
}

impl BodySource for Upload {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let written = std::mem::take(&mut self.written);
        if written > 0 {
            self.exchange.active_at.set(Instant::now());
            self.door.consumed(&self.exchange, written);
        }
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let packet = ready!(self.exchange.poll_packet(cx));
            if packet.kind != waft_zhttp::Kind::Data {
                continue;
            }
            self.ended = !packet.more;
            if !packet.body.is_empty() {
                self.written = packet.body.len();
                return Poll::Ready(Some(packet.body));
            }
        }
    }
}

fn head(response: &mut Response) -> Packet {
    Packet {
        code: Some(response.status),
        reason: Some(std::mem::take(&mut response.reason)),
        headers: std::mem::take(&mut response.headers),
        ..Packet::default()
    }
}

/// Reads a response that nobody wants.
async fn discard(exchange: &Exchange, mut response: Response) -> Result<(), CallError> {
    let mut size = 0;
    while let Some(piece) = response.body.piece().await? {
        exchange.active_at.set(Instant::now());
        size += piece.len();
    }
    log_size(exchange, response.status, size, false);
    Ok(())
}

/// The whole response in one packet; none if it is larger than wanted.
async fn collect(exchange: &Exchange, mut response: Response, max_size: u64) -> Result<Option<Packet>, CallError> {
    let too_large = |size: u64| size > max_size;
    let announced = response.header("content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    if announced.is_some_and(too_large) {
        return Ok(None);
    }
    let mut packet = head(&mut response);
    // One piece, the usual case, is not copied.
    let mut only = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(piece) = response.body.piece().await? {
        exchange.active_at.set(Instant::now());
        if too_large((only.len() + joined.len() + piece.len()) as u64) {
            return Ok(None);
        }
        if only.is_empty() && joined.is_empty() {
            only = piece;
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&std::mem::take(&mut only));
        }
        joined.extend_from_slice(&piece);
    }
    packet.body = if joined.is_empty() { only } else { joined.freeze() };
    Ok(Some(packet))
}

/// What has been read of a streamed response.
struct Pending {
    response: Response,
    /// A piece, and whether the body ended with it.
    piece: Option<Bytes>,
    ended: bool,
}

impl Pending {
    /// Reads until there is a piece; looks whether it was the last one.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        while self.piece.is_none() && !self.ended {
            match ready!(self.response.body.poll_piece(cx))? {
                None => self.ended = true,
                Some(piece) if piece.is_empty() => {}
                Some(piece) => self.piece = Some(piece),
            }
        }
        Poll::Ready(Ok(()))
    }
}

async fn send_streamed(door: &Rc<Door>, exchange: &Rc<Exchange>, response: Response) -> Result<(), CallError> {
    let mut pending = Pending { response, piece: None, ended: false };
    let mut next = head(&mut pending.response);
    // A head that comes alone is sent alone, without credits.
    let arrived = poll_fn(|cx| Poll::Ready(pending.poll_read(cx).map(Some))).await;
    match arrived {
        Poll::Ready(Some(Err(error))) => return Err(error),
        Poll::Ready(_) => {}
        Poll::Pending => send(door, exchange, std::mem::take(&mut next), true),
    }
    loop {
        poll_fn(|cx| pending.poll_read(cx)).await?;
        exchange.active_at.set(Instant::now());
        let Some(mut piece) = pending.piece.take() else {
            send(door, exchange, next, false);
            return Ok(());
        };
        // The end is known at once where the body's length is, and then no packet is needed for it.
        let ahead = poll_fn(|cx| Poll::Ready(pending.poll_read(cx))).await;
        if let Poll::Ready(Err(error)) = ahead {
            return Err(error);
        }
        while !piece.is_empty() {
            if next.code.is_some() && exchange.state.borrow().credits() == 0 {
                send(door, exchange, std::mem::take(&mut next), true);
            }
            let allowed = poll_fn(|cx| {
                // Client and receiver may both send at once: the upload goes on while the response waits.
                pending.response.body.poll_upload(cx);
                exchange.poll_credits(cx, piece.len())
            })
            .await;
            next.body = piece.split_to(allowed);
            let more = !(piece.is_empty() && pending.ended && pending.piece.is_none());
            send(door, exchange, std::mem::take(&mut next), more);
            exchange.active_at.set(Instant::now());
            if !more {
                return Ok(());
            }
        }
    }
}

fn send(door: &Door, exchange: &Exchange, packet: Packet, more: bool) {
    let packet = Packet { more, ..packet };
    log_out(exchange, &packet);
    door.emit(exchange, packet);
}

fn log_out(exchange: &Exchange, packet: &Packet) {
    log_size(exchange, packet.code.unwrap_or_default(), packet.body.len(), packet.more);
}

fn log_size(exchange: &Exchange, code: u16, size: usize, more: bool) {
    let id = exchange.id.as_deref().unwrap_or_default().escape_ascii();
    let more = if more { " M" } else { "" };
    if exchange.quiet || code == 0 {
        tracing::debug!("OUT id={id} code={code} {size}{more}");
    } else {
        tracing::info!("OUT id={id} code={code} {size}{more}");
    }
}
