//! WebSockets towards the outside. Frames and handshake are those of `waft-websocket`.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use waft_websocket::close::Close;
use waft_websocket::connection::{Delivery, Event, Limits, Receiver, Role};
use waft_websocket::frame::{self, Opcode};
use waft_websocket::handshake::{check_answer, client_key};

use super::body::RequestBody;
use super::http1::Http1;
use super::request::write_head;
use super::response::Response;
use super::stream::Stream;
use super::{Call, Inner};
use crate::CallError;

/// What became of the wish for a WebSocket.
#[derive(Debug)]
pub enum Answer {
    /// It is open.
    Open(Box<WebSocket>),
    /// The server gave an ordinary response.
    Refused(Response),
}

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    /// The reason phrase of the 101 response.
    pub reason: Bytes,
    /// Its header lines, without those that concern the connection.
    pub headers: Vec<(Bytes, Bytes)>,
    inner: Rc<Inner>,
    stream: Stream,
    input: BytesMut,
    receiver: Receiver,
    output: VecDeque<Bytes>,
}

impl Inner {
    /// Asks for a WebSocket once, always on a connection of its own.
    pub(super) async fn open(self: &Rc<Self>, call: &Call) -> Result<Answer, CallError> {
        let place = self.place(call, true)?;
        let opened = Instant::now();
        let (stream, address) = Box::pin(self.connect(call, &place)).await?;
        let key = client_key(self.tls.random().map_err(CallError::Io)?);
        let key_text = String::from_utf8_lossy(&key).into_owned();
        let upgrade = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", key_text.as_str()),
            ("Sec-WebSocket-Version", "13"),
        ];
        let mut get = call.clone();
        "GET".clone_into(&mut get.method);
        // Extensions change the frames, and who asked for them could not tell.
        let ours =
            [&b"sec-websocket-key"[..], b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-accept"];
        get.headers.retain(|(name, _)| !ours.iter().any(|own| name.eq_ignore_ascii_case(own)));
        let body = RequestBody::Whole(Bytes::new());
        let head = write_head(&get, &body, &upgrade)?;
        let mut exchange = Box::new(Http1::new(stream, "GET", head, body, &self.limits));
        let head = std::future::poll_fn(|cx| exchange.poll_head(cx)).await?;
        let protocols: Vec<&str> = get
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"sec-websocket-protocol"))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(',').map(str::trim))
            .collect();
        if head.status() == 101 {
            check_answer(head.status(), head.fields(), &key, &protocols, &[])?;
        }
        let status = head.status();
        let response = Response::http1(self, &get, place, address, opened, head, exchange);
        if status != 101 {
            return Ok(Answer::Refused(response));
        }
        let Response { reason, headers, body, .. } = response;
        let (stream, input) = body.into_http1().ok_or(CallError::Closed)?.into_upgraded();
        let limits = Limits { delivery: Delivery::Relay, frame_max: self.limits.frame_size_max, message_max: u64::MAX };
        let receiver = Receiver::new(Role::Client, Arc::new(limits), None);
        let inner = Rc::clone(self);
        Ok(Answer::Open(Box::new(WebSocket { reason, headers, inner, stream, input, receiver, output: [].into() })))
    }
}

impl WebSocket {
    /// The next event; `None` when the connection has ended.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, CallError>> {
        loop {
            if let Some(event) = self.receiver.receive(&mut self.input)? {
                return Poll::Ready(Ok(Some(event)));
            }
            // Gives the memory back before the wait.
            self.input = BytesMut::new();
            if ready!(self.stream.poll_fill(cx, &mut self.input)).map_err(CallError::Io)? == 0 {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Queues a frame.
    pub fn queue(&mut self, opcode: Opcode, fin: bool, content: &[u8]) -> Result<(), CallError> {
        let mask = self.inner.tls.random().map_err(CallError::Io)?;
        self.output.push_back(frame::encode(opcode, fin, content, Some(mask)));
        Ok(())
    }

    /// Queues a close frame; without a code it is empty.
    pub fn queue_close(&mut self, close: Option<&Close>) -> Result<(), CallError> {
        let mask = self.inner.tls.random().map_err(CallError::Io)?;
        self.output.push_back(frame::encode_close(close, Some(mask)));
        Ok(())
    }

    /// Writes what is queued; ready when all of it is written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        while let Some(first) = self.output.front_mut() {
            ready!(self.stream.poll_drain(cx, first)).map_err(CallError::Io)?;
            self.output.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }
}
