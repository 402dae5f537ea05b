//! One HTTP/1.1 exchange on a connection: writes the request, reads the response, both at once.
//!
//! The codec is `waft-http1`. An exchange that waits holds no buffer, so that thousands of slow receivers
//! cost little more than their sockets.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use waft_http1::{BodyDecoder, Framing, HeadLimits, LAST_CHUNK, Parsed, ResponseHead, chunk_header, parse_response};

use super::body::{Replay, RequestBody};
use super::stream::Stream;
use crate::CallError;

/// Request bodies up to this size leave in one write with the head.
const JOINED_SIZE_MAX: usize = 16_384;

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Http1 {
    stream: Stream,
    method: Box<str>,
    limits: HeadLimits,
    interim_left: usize,
    output: VecDeque<Bytes>,
    upload: Upload,
    input: BytesMut,
    state: State,
    /// Anything at all came back.
    heard: bool,
    keep_alive: bool,
}

#[derive(Debug)]
enum Upload {
    Done,
    /// `left` is none if the body is chunked.
    Stream {
        source: Replay,
        left: Option<u64>,
    },
}

#[derive(Debug)]
enum State {
    Head,
    Body(BodyDecoder),
    Done,
}

impl Http1 {
    /// Starts an exchange with a head that ends with its blank line.
    pub(crate) fn new(stream: Stream, method: &str, head: Vec<u8>, body: RequestBody, limits: &crate::Limits) -> Self {
        let mut output = VecDeque::with_capacity(2);
        let mut head = head;
        let upload = match body {
            RequestBody::Whole(body) if body.len() <= JOINED_SIZE_MAX => {
                head.extend_from_slice(&body);
                output.push_back(head.into());
                Upload::Done
            }
            RequestBody::Whole(body) => {
                output.extend([head.into(), body]);
                Upload::Done
            }
            RequestBody::Stream(source, left) => {
                output.push_back(head.into());
                Upload::Stream { source, left }
            }
        };
        let head_limits = HeadLimits {
            bytes_max: limits.head_size_max,
            fields_max: limits.header_count_max,
            ..HeadLimits::default()
        };
        Self {
            stream,
            method: method.into(),
            limits: head_limits,
            interim_left: limits.interim_max,
            output,
            upload,
            input: BytesMut::new(),
            state: State::Head,
            heard: false,
            keep_alive: true,
        }
    }

    /// Whether the failure of this exchange says nothing about the receiver: it had closed an idle
    /// connection while the request was on its way.
    pub(crate) fn was_stale(&self, error: &CallError) -> bool {
        !self.heard && matches!(error, CallError::Closed | CallError::Io(_))
    }

    /// The head of the final response.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, CallError>> {
        loop {
            let failed = match self.poll_upload(cx) {
                // The source is at fault, not the connection: waiting for an answer would be in vain.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Poll::Ready(Err(CallError::Io(error)));
                }
                Poll::Ready(Err(error)) => Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => None,
            };
            if !self.input.is_empty()
                && let Some(head) = self.parse_head()?
            {
                return Poll::Ready(Ok(head));
            }
            match ready!(self.stream.poll_fill(cx, &mut self.input)) {
                Ok(0) => return Poll::Ready(Err(CallError::Closed)),
                Ok(_) => self.heard = true,
                // The reason why the request could not be written is better than what reading says.
                Err(error) => return Poll::Ready(Err(CallError::Io(failed.unwrap_or(error)))),
            }
        }
    }

    fn parse_head(&mut self) -> Result<Option<ResponseHead>, CallError> {
        while let Parsed::Complete { head, consumed } = parse_response(&self.input, &self.limits)? {
            self.input.advance(consumed);
            if matches!(head.status(), 100..=199) && head.status() != 101 {
                self.interim_left = self.interim_left.checked_sub(1).ok_or(CallError::Closed)?;
                continue;
            }
            let framing = head.framing(&self.method)?;
            self.keep_alive = head.keep_alive() && framing != Framing::UntilClose && head.status() != 101;
            self.state = State::Body(BodyDecoder::new(framing));
            return Ok(Some(head));
        }
        Ok(None)
    }

    /// The next piece of the response body, `None` at its end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, CallError>> {
        loop {
            // An upload that fails does not hide the response.
            if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
                tracing::debug!(%error, "A request body was not taken to its end.");
            }
            let State::Body(decoder) = &mut self.state else { return Poll::Ready(Ok(None)) };
            if decoder.is_done() {
                self.state = State::Done;
                return Poll::Ready(Ok(None));
            }
            if !self.input.is_empty() {
                let decoded = decoder.decode(&self.input)?;
                let (length, consumed) = (decoded.data.len(), decoded.consumed);
                if length > 0 {
                    let start = (decoded.data.as_ptr() as usize).wrapping_sub(self.input.as_ptr() as usize);
                    let mut piece = self.input.split_to(consumed);
                    piece.advance(start.min(piece.len()));
                    piece.truncate(length);
                    return Poll::Ready(Ok(Some(piece.freeze())));
                }
                self.input.advance(consumed);
                if decoder.is_done() {
                    continue;
                }
            }
            // Gives the memory back before the wait.
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            match ready!(self.stream.poll_fill(cx, &mut self.input)) {
                Ok(0) => decoder.finish()?,
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(CallError::Io(error))),
            }
        }
    }

    /// Writes what can be written; ready when the whole request has been.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(first) = self.output.front_mut() {
                if let Err(error) = ready!(self.stream.poll_drain(cx, first)) {
                    self.output.clear();
                    self.upload = Upload::Done;
                    self.keep_alive = false;
                    return Poll::Ready(Err(error));
                }
                self.output.pop_front();
            }
            let Upload::Stream { source, left } = &mut self.upload else { return Poll::Ready(Ok(())) };
            match (ready!(source.poll_piece(cx)), left) {
                (Some(piece), Some(left)) if piece.len() as u64 <= *left => {
                    *left -= piece.len() as u64;
                    self.output.push_back(piece);
                }
                (Some(piece), None) if piece.is_empty() => {}
                (Some(piece), None) => {
                    let header = Bytes::copy_from_slice(chunk_header(piece.len()).as_bytes());
                    self.output.extend([header, piece, Bytes::from_static(b"\r\n")]);
                }
                (None, None) => {
                    self.output.push_back(Bytes::from_static(LAST_CHUNK));
                    self.upload = Upload::Done;
                }
                (None, Some(0)) => self.upload = Upload::Done,
                // The body is not as long as was said.
                (Some(_) | None, Some(_)) => {
                    self.upload = Upload::Done;
                    self.keep_alive = false;
                    return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
                }
            }
        }
    }

    /// The connection, if it can serve another call.
    pub(crate) fn into_reusable(self) -> Option<Stream> {
        let done = matches!(self.state, State::Done) && matches!(self.upload, Upload::Done) && self.output.is_empty();
        (done && self.keep_alive && self.input.is_empty()).then_some(self.stream)
    }

    /// The connection and the bytes behind the head, after a switch of protocols.
    pub(crate) fn into_upgraded(self) -> (Stream, BytesMut) {
        (self.stream, self.input)
    }
}
