//! Heads of requests, and one hop of a call.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use waft_http1::{HeadWriter, is_hop_by_hop};

use super::body::RequestBody;
use super::http1::Http1;
use super::http2;
use super::pool::{Place, Shared};
use super::response::Response;
use super::stream::Stream;
use super::{Call, Inner};
use crate::CallError;

/// What is offered to servers.
const ACCEPT_ENCODING: &str = "gzip, deflate";

impl Inner {
    /// Sends the request once, on a pooled connection if there is one, and reads the response's head.
    pub(super) async fn hop(self: &Rc<Self>, call: &Call) -> Result<Response, CallError> {
        let place = self.place(call, false)?;
        let now = Instant::now();
        if place.tls.is_some() {
            let shared = self.pool.borrow_mut().shared(&place, &self.limits, now);
            if let Some(shared) = shared.filter(|shared| Self::may_reuse(call, &place, shared.address)) {
                self.metrics.reused();
                return Box::pin(self.hop_http2(call, shared)).await;
            }
        }
        let resting = self.pool.borrow_mut().take(&place, &self.limits, now);
        if let Some(resting) = resting.filter(|resting| Self::may_reuse(call, &place, resting.address)) {
            self.metrics.reused();
            let mut exchange = self.start(call, resting.stream, &call.body)?;
            match std::future::poll_fn(|cx| exchange.poll_head(cx)).await {
                Ok(head) => {
                    return Ok(Response::http1(self, call, place, resting.address, resting.opened, head, exchange));
                }
                Err(error) if exchange.was_stale(&error) && again(&call.body).is_some() => {}
                Err(error) => return Err(error),
            }
        }
        let (stream, address) = Box::pin(self.connect(call, &place)).await?;
        if stream.is_http2() {
            let sender = Box::pin(http2::start(stream, self.limits.head_size_max)).await?;
            let shared = Shared { sender, address, opened: now };
            self.pool.borrow_mut().share(*place, shared.clone());
            return Box::pin(self.hop_http2(call, shared)).await;
        }
        self.hop_http1(call, place, stream, address).await
    }

    async fn hop_http1(
        self: &Rc<Self>,
        call: &Call,
        place: Box<Place>,
        stream: Stream,
        address: SocketAddr,
    ) -> Result<Response, CallError> {
        let opened = Instant::now();
        let body = again(&call.body).ok_or(CallError::Replay)?;
        let mut exchange = self.start(call, stream, &body)?;
        let head = std::future::poll_fn(|cx| exchange.poll_head(cx)).await?;
        Ok(Response::http1(self, call, place, address, opened, head, exchange))
    }

    fn start(&self, call: &Call, stream: Stream, body: &RequestBody) -> Result<Box<Http1>, CallError> {
        let head = write_head(call, body, &[])?;
        Ok(Box::new(Http1::new(stream, &call.method, head, body.clone(), &self.limits)))
    }

    async fn hop_http2(self: &Rc<Self>, call: &Call, shared: Shared) -> Result<Response, CallError> {
        let body = again(&call.body).ok_or(CallError::Replay)?;
        let uri = format!("https://{}{}", call.target.authority(), call.target.path);
        let mut request = http::Request::builder().method(call.method.as_str()).uri(uri);
        for (name, value) in fields(call) {
            request = request.header(name, value);
        }
        for (name, value) in added_fields(call) {
            request = request.header(name, value);
        }
        if let Some(length) = content_length(&call.method, &body) {
            request = request.header("content-length", length);
        }
        let request = request.body(http2::Upload(body)).map_err(|_cause| CallError::Request)?;
        let mut sender = shared.sender;
        sender.ready().await.map_err(CallError::Http2)?;
        let response = sender.send_request(request).await.map_err(CallError::Http2)?;
        Ok(Response::http2(self, call, response))
    }
}

/// The body to be sent once more; none if its beginning is no longer there.
fn again(body: &RequestBody) -> Option<RequestBody> {
    match body {
        RequestBody::Whole(body) => Some(RequestBody::Whole(body.clone())),
        RequestBody::Stream(replay, length) => Some(RequestBody::Stream(replay.rewound()?, *length)),
    }
}

/// The head of an HTTP/1.1 request, with `upgrade` fields for a WebSocket.
pub(super) fn write_head(call: &Call, body: &RequestBody, upgrade: &[(&str, &str)]) -> Result<Vec<u8>, CallError> {
    if call.method.is_empty() || !call.method.bytes().all(is_token_byte) {
        return Err(CallError::Request);
    }
    let mut head = Vec::with_capacity(512);
    let mut writer = HeadWriter::new(&mut head);
    writer.request_line(&call.method, &call.target.path).field("Host", call.target.authority()).fields(fields(call));
    for (name, value) in added_fields(call) {
        writer.field(name, value);
    }
    if upgrade.is_empty() {
        match content_length(&call.method, body) {
            Some(length) => writer.content_length(length),
            None if matches!(body, RequestBody::Stream(..)) => writer.field("Transfer-Encoding", "chunked"),
            None => &mut writer,
        };
    }
    for (name, value) in upgrade {
        writer.field(name, value);
    }
    writer.finish();
    Ok(head)
}

/// The caller's fields, without those that are the client's business.
fn fields(call: &Call) -> impl Iterator<Item = (&str, &[u8])> {
    let ours = |name: &str| {
        is_hop_by_hop(name)
            || ["host", "content-length", "expect"].iter().any(|own| name.eq_ignore_ascii_case(own))
            || (call.decode && name.eq_ignore_ascii_case("accept-encoding"))
    };
    let texts = call.headers.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value.as_ref())));
    texts.filter(move |(name, _)| !ours(name))
}

fn added_fields(call: &Call) -> impl Iterator<Item = (&'static str, String)> {
    let has = |wanted: &str| call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
    let accept = (!has("accept") && !call.target.scheme.is_websocket()).then(|| ("Accept", "*/*".to_owned()));
    let encoding = call.decode.then(|| ("Accept-Encoding", ACCEPT_ENCODING.to_owned()));
    let userinfo = call.target.userinfo.as_ref().filter(|_| !has("authorization"));
    let authorization = userinfo.map(|userinfo| {
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(userinfo).collect();
        ("Authorization", format!("Basic {}", STANDARD.encode(decoded)))
    });
    accept.into_iter().chain(encoding).chain(authorization)
}

/// The length to announce. Methods that usually have a body say that there is none.
fn content_length(method: &str, body: &RequestBody) -> Option<u64> {
    match body {
        RequestBody::Whole(body) if body.is_empty() => {
            (!matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS" | "TRACE")).then_some(0)
        }
        RequestBody::Whole(body) => Some(body.len() as u64),
        RequestBody::Stream(_, length) => *length,
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
