//! Bodies between a stream and a pipe: as DATA frames on one side, framed as in HTTP/1.1 on the other.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use waft_http1::{BodyDecoder, LAST_CHUNK, chunk};
use waft_net::Pipe;

use crate::head::Body;

/// A body on its way from a stream into a pipe.
#[derive(Debug)]
pub(crate) struct Receiving {
    stream: RecvStream,
    body: Body,
}

/// Why a body came no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The stream was broken off.
    Stream,
    /// The other end of the pipe has gone.
    Pipe,
    /// What came out of the pipe was no whole message.
    Message,
}

impl Receiving {
    pub(crate) fn new(stream: RecvStream, body: Body) -> Self {
        Self { stream, body }
    }

    /// Moves what there is, as far as the pipe has room; ready when the body is over. The peer may send more as the pipe
    /// takes what it sent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, pipe: &Pipe) -> Poll<Result<(), Stopped>> {
        loop {
            ready!(pipe.poll_room(cx)).map_err(|_gone| Stopped::Pipe)?;
            let data = match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => data,
                Some(Err(_)) => return Poll::Ready(Err(Stopped::Stream)),
                None => return Poll::Ready(self.end(pipe)),
            };
            // Fails only for more than was received.
            let _released = self.stream.flow_control().release_capacity(data.len());
            if data.is_empty() {
                continue;
            }
            let data = if self.body == Body::Chunked { chunk(&data) } else { data };
            pipe.send(&data).map_err(|_gone| Stopped::Pipe)?;
        }
    }

    fn end(&self, pipe: &Pipe) -> Result<(), Stopped> {
        match self.body {
            Body::Chunked => {
                pipe.send(&Bytes::from_static(LAST_CHUNK)).map_err(|_gone| Stopped::Pipe)?;
            }
            Body::Tunnel => pipe.end(),
            Body::None | Body::Plain => {}
        }
        Ok(())
    }
}

/// A body on its way from a pipe into a stream.
#[derive(Debug)]
pub(crate) struct Sending {
    stream: SendStream<Bytes>,
    /// None for a tunnel, whose bytes are passed as they are.
    decoder: Option<BodyDecoder>,
    /// What was taken out of the pipe and not decoded yet.
    raw: Bytes,
    /// What is to be sent.
    data: Bytes,
    /// The end of the stream was sent.
    ended: bool,
}

impl Sending {
    /// `raw` is what was taken out of the pipe behind the head.
    pub(crate) fn new(stream: SendStream<Bytes>, decoder: Option<BodyDecoder>, raw: Bytes) -> Self {
        Self { stream, decoder, raw, data: Bytes::new(), ended: false }
    }

    /// The stream, to break it off.
    pub(crate) fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.stream
    }

    /// Whether the peer has broken the stream off; else it is told when that happens.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_reason| ())
    }

    /// Sends what there is, as far as the peer's window goes; ready when the body is over and its end was sent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, pipe: &Pipe) -> Poll<Result<(), Stopped>> {
        loop {
            ready!(self.poll_send(cx))?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if self.decoder.as_ref().is_some_and(BodyDecoder::is_done) {
                return Poll::Ready(self.send(Bytes::new(), true));
            }
            if self.raw.is_empty() {
                match ready!(pipe.poll_receive(cx)).map_err(|_reset| Stopped::Pipe)? {
                    Some(raw) => self.raw = raw,
                    None => return Poll::Ready(self.finish()),
                }
            }
            self.decode()?;
        }
    }

    fn decode(&mut self) -> Result<(), Stopped> {
        let Some(decoder) = &mut self.decoder else {
            self.data = std::mem::take(&mut self.raw);
            return Ok(());
        };
        let decoded = decoder.decode(&self.raw).map_err(|_malformed| Stopped::Message)?;
        let consumed = decoded.consumed;
        self.data = self.raw.slice_ref(decoded.data);
        self.raw.advance(consumed);
        if consumed == 0 {
            // Nothing waits undecoded: the decoder takes all it is given until the body ends.
            return Err(Stopped::Message);
        }
        Ok(())
    }

    /// The pipe has ended.
    fn finish(&mut self) -> Result<(), Stopped> {
        if let Some(decoder) = &mut self.decoder {
            decoder.finish().map_err(|_cut_short| Stopped::Message)?;
        }
        self.send(Bytes::new(), true)
    }

    /// Hands over what waits as the window allows.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        while !self.data.is_empty() {
            self.stream.reserve_capacity(self.data.len());
            let room = self.stream.capacity();
            if room == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(Err(Stopped::Stream)),
                }
            }
            let piece = self.data.split_to(room.min(self.data.len()));
            let last = self.data.is_empty() && self.decoder.as_ref().is_some_and(BodyDecoder::is_done);
            self.send(piece, last)?;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), Stopped> {
        self.ended = last;
        self.stream.send_data(data, last).map_err(|_gone| Stopped::Stream)
    }
}
