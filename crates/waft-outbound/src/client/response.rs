//! Responses, whatever version of HTTP they came over.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use waft_http1::ResponseHead;

use super::http1::Http1;
use super::http2;
use super::inflate::{Format, Inflate};
use super::pool::{Place, Resting};
use super::{Call, Inner};
use crate::CallError;
use crate::target::Target;

/// Bytes of a redirect's body that are read to keep its connection.
const DISCARD_SIZE_MAX: usize = 65_536;

/// A response, its body still to be read.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The reason phrase as received; that of the standard over HTTP/2.
    pub reason: Bytes,
    /// Header lines in their order, without those that concern the connection, and without Content-Length
    /// and Content-Encoding where the body is decoded.
    pub headers: Vec<(Bytes, Bytes)>,
    /// Who answered, after redirects.
    pub target: Target,
    /// The body.
    pub body: ResponseBody,
}

/// The body of a response. When it was read to its end, the connection goes back to the pool.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    inflate: Option<Box<Inflate>>,
    home: Option<Box<Home>>,
}

#[derive(Debug)]
enum Source {
    Ended,
    Http1(Box<Http1>),
    Http2(Incoming),
}

/// Where the connection belongs.
#[derive(Debug)]
struct Home {
    inner: Rc<Inner>,
    place: Box<Place>,
    address: SocketAddr,
    opened: Instant,
}

impl Response {
    pub(super) fn http1(
        inner: &Rc<Inner>,
        call: &Call,
        place: Box<Place>,
        address: SocketAddr,
        opened: Instant,
        head: ResponseHead,
        exchange: Box<Http1>,
    ) -> Self {
        let copy =
            |(name, value): (&str, &[u8])| (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value));
        let home = Home { inner: Rc::clone(inner), place, address, opened };
        Self {
            status: head.status(),
            reason: Bytes::copy_from_slice(head.reason().as_bytes()),
            headers: head.end_to_end_fields().map(copy).collect(),
            target: call.target.clone(),
            body: ResponseBody { source: Source::Http1(exchange), inflate: None, home: Some(Box::new(home)) },
        }
        .decoding(call, inner)
    }

    pub(super) fn http2(inner: &Rc<Inner>, call: &Call, response: http::Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let copy = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
        };
        Self {
            status: parts.status.as_u16(),
            reason: Bytes::from_static(parts.status.canonical_reason().unwrap_or_default().as_bytes()),
            headers: parts.headers.iter().map(copy).collect(),
            target: call.target.clone(),
            body: ResponseBody { source: Source::Http2(body), inflate: None, home: None },
        }
        .decoding(call, inner)
    }

    fn decoding(mut self, call: &Call, inner: &Inner) -> Self {
        let bodiless = call.method == "HEAD" || matches!(self.status, 204 | 304);
        let mut encodings = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-encoding"));
        let only = encodings.next().filter(|_| encodings.next().is_none());
        if let Some(format) = only.and_then(|(_, value)| Format::parse(value)).filter(|_| call.decode && !bodiless) {
            self.headers.retain(|(name, _)| {
                !name.eq_ignore_ascii_case(b"content-encoding") && !name.eq_ignore_ascii_case(b"content-length")
            });
            self.body.inflate = Some(Box::new(Inflate::new(format, inner.limits.inflate_ratio_max)));
        }
        self
    }

    /// The value of the first header line of a name.
    pub fn header(&self, wanted: &str) -> Option<&Bytes> {
        let mut headers = self.headers.iter();
        headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes())).map(|(_, value)| value)
    }

    /// Where a redirect leads, if the response is one.
    pub(super) fn location(&self) -> Option<Bytes> {
        matches!(self.status, 301 | 302 | 303 | 307 | 308).then(|| self.header("location").cloned())?
    }
}

impl ResponseBody {
    /// The next piece, `None` at the end. A piece is at most as large as what one read brought.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, CallError>> {
        loop {
            if let Some(inflate) = &mut self.inflate
                && let Some(piece) = inflate.next()?
            {
                return Poll::Ready(Ok(Some(piece)));
            }
            let piece = match &mut self.source {
                Source::Ended => None,
                Source::Http1(exchange) => ready!(exchange.poll_piece(cx))?,
                Source::Http2(body) => ready!(http2::poll_piece(body, cx))?,
            };
            match (piece, &mut self.inflate) {
                (Some(piece), Some(inflate)) => inflate.push(piece),
                (Some(piece), None) => return Poll::Ready(Ok(Some(piece))),
                (None, inflate) => {
                    let whole = inflate.as_ref().is_none_or(|inflate| inflate.is_complete());
                    self.inflate = None;
                    self.go_home();
                    return Poll::Ready(if whole { Ok(None) } else { Err(CallError::Encoding) });
                }
            }
        }
    }

    /// The next piece, `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, CallError> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// Keeps the upload going while the response is not read. Failures show when it is.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Source::Http1(exchange) = &mut self.source
            && let Poll::Ready(Err(error)) = exchange.poll_upload(cx)
        {
            tracing::debug!(%error, "A request body was not taken to its end.");
        }
    }

    /// Reads a body that nobody wants, if it is short, so that its connection can be used again.
    pub(super) async fn finish(mut self) {
        // An HTTP/2 connection outlives its streams anyway.
        if matches!(self.source, Source::Http2(_)) {
            return;
        }
        self.inflate = None;
        let mut left = DISCARD_SIZE_MAX;
        while let Ok(Some(piece)) = self.piece().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                break;
            }
        }
    }

    fn go_home(&mut self) {
        let source = std::mem::replace(&mut self.source, Source::Ended);
        let (Source::Http1(exchange), Some(home)) = (source, self.home.take()) else { return };
        if let Some(stream) = exchange.into_reusable() {
            let resting = Resting { stream, address: home.address, opened: home.opened, since: Instant::now() };
            home.inner.pool.borrow_mut().put(*home.place, resting, &home.inner.limits);
        }
    }

    /// The exchange of a head that switches protocols.
    pub(super) fn into_http1(self) -> Option<Box<Http1>> {
        match self.source {
            Source::Http1(exchange) => Some(exchange),
            Source::Ended | Source::Http2(_) => None,
        }
    }
}
