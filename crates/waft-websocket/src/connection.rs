//! The receiving side of a connection: bytes in, messages out (RFC 6455 sections 5 to 8, RFC 7692 section 7.2).
//!
//! [`Receiver::receive`] takes bytes from the caller's read buffer and gives one event at a time, so that no queue
//! forms and the caller decides how much to read. A `None` means the buffer was used up: what an unfinished frame
//! needs to remember is boxed inside and freed when the frame or message ends. Between messages a receiver is a few
//! words, which lets an idle WebSocket be kept as a small record.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::close::{self, Close};
use crate::deflate::{Decompressor, InflateError};
use crate::frame::{Expected, FrameError, HEADER_MAX, Header, Opcode, apply_mask};
use crate::negotiate::Params;
use crate::utf8::Utf8;

/// Content below this many bytes is copied out of the read buffer; above, it keeps a share of it. A small message
/// that waits in a queue must not keep a whole read buffer alive.
const COPY_BELOW: usize = 4096;
/// Compressed bytes relayed at a time, because each may stand for a thousand.
const RELAYED_COMPRESSED_MAX: usize = 1024;

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer is a server: its frames are unmasked.
    Client,
    /// The peer is a client: its frames are masked.
    Server,
}

/// In which form messages are handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Fragments are joined: [`Event::Text`] and [`Event::Binary`].
    #[default]
    Messages,
    /// Content is handed on as it comes: [`Event::Fragment`].
    Relay,
}

/// What a receiver accepts. Shared by the connections of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whole messages or pieces.
    pub delivery: Delivery,
    /// The most content bytes of one data frame, as sent. Default 1 MiB, like a message; more fails with 1009.
    pub frame_max: u64,
    /// The most bytes of one message, decompressed. Default 1 MiB: thousands of chat messages; more fails with 1009.
    /// A relay that streams may set [`u64::MAX`], since it holds no message.
    pub message_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { delivery: Delivery::Messages, frame_max: 1024 * 1024, message_max: 1024 * 1024 }
    }
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole binary message.
    Binary(Bytes),
    /// The peer closes. Nothing after it is read; the answer repeats the code.
    Close(Option<Close>),
    /// A piece of a message, in [`Delivery::Relay`] only.
    Fragment(Fragment),
    /// A ping, to be answered with a pong of the same content.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A whole text message, checked to be UTF-8.
    Text(Bytes),
}

/// A piece of a message. Pieces follow arrival, not the frames of the peer. A character of a text may be split
/// between two pieces, never wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Text or binary, on every piece.
    pub opcode: Opcode,
    /// Whether this piece begins the message.
    pub first: bool,
    /// Whether this piece ends the message.
    pub fin: bool,
    /// The bytes, decompressed; empty on the last piece at most.
    pub content: Bytes,
}

impl Fragment {
    /// The opcode of the frame that carries this piece on.
    #[must_use]
    pub const fn frame_opcode(&self) -> Opcode {
        if self.first { self.opcode } else { Opcode::Continuation }
    }
}

/// Why the connection must fail; [`Error::close_code`] is what to tell the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A close code that must not be sent (section 7.4).
    #[error("close code {code} must not be sent")]
    CloseCode {
        /// The code received.
        code: u16,
    },
    /// The reason of a close frame is not UTF-8 (section 5.5.1).
    #[error("close reason is not UTF-8")]
    CloseReason,
    /// A close frame with a single byte (section 5.5.1).
    #[error("close frame has one byte where a code takes two")]
    CloseTooShort,
    /// A frame breaks the framing rules.
    #[error("frame breaks the framing rules")]
    Frame(#[from] FrameError),
    /// A data frame larger than allowed.
    #[error("frame of {seen} bytes exceeds the limit of {limit}; raise frame_max if such frames are wanted")]
    FrameTooLarge {
        /// The limit in bytes.
        limit: u64,
        /// The length announced.
        seen: u64,
    },
    /// A compressed message that is not DEFLATE.
    #[error("compressed message cannot be decompressed")]
    Inflate,
    /// A message larger than allowed.
    #[error("message exceeds the limit of {limit} bytes; raise message_max if such messages are wanted")]
    MessageTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A text message that is not UTF-8 (section 8.1).
    #[error("text message is not UTF-8")]
    Utf8,
}

impl Error {
    /// The close code that names this error.
    #[must_use]
    pub const fn close_code(&self) -> u16 {
        match self {
            Self::CloseCode { .. } | Self::CloseTooShort | Self::Frame(_) => close::PROTOCOL_ERROR,
            Self::CloseReason | Self::Inflate | Self::Utf8 => close::INVALID_PAYLOAD,
            Self::FrameTooLarge { .. } | Self::MessageTooLarge { .. } => close::TOO_BIG,
        }
    }

    /// The close frame's content for this error.
    #[must_use]
    pub fn to_close(&self) -> Close {
        Close::new(self.close_code(), &self.to_string())
    }
}

/// Turns the bytes of one peer into events. Call [`Self::receive`] until it gives `None`, then read more.
#[derive(Debug)]
pub struct Receiver {
    limits: Arc<Limits>,
    partial: Option<Box<Partial>>,
    decompressor: Option<Box<Decompressor>>,
    /// Window of the peer's compressor; 0 when messages are not compressed.
    window_bits: u8,
    context_takeover: bool,
    masked: bool,
    ended: bool,
}

const _: () = assert!(size_of::<Receiver>() <= 32, "an idle WebSocket is kept as a small record");

impl Receiver {
    /// A receiver at the start of the connection, right after the handshake.
    #[must_use]
    pub fn new(role: Role, limits: Arc<Limits>, deflate: Option<&Params>) -> Self {
        let (window_bits, context_takeover) = match (deflate, role) {
            (None, _) => (0, false),
            (Some(params), Role::Client) => (params.server_max_window_bits, !params.server_no_context_takeover),
            (Some(params), Role::Server) => (params.client_max_window_bits, !params.client_no_context_takeover),
        };
        let masked = role == Role::Server;
        Self { limits, partial: None, decompressor: None, window_bits, context_takeover, masked, ended: false }
    }

    /// Takes the next event out of `input`, which loses the bytes used. After `None` the input is empty. After a
    /// close or an error everything is discarded.
    ///
    /// # Errors
    /// The peer broke a rule: send [`Error::to_close`] and end the connection.
    pub fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Error> {
        while !self.ended {
            match self.step(input) {
                Ok(Step::Again) => {}
                Ok(Step::Event(event)) => {
                    if matches!(event, Event::Close(_)) {
                        self.end();
                    }
                    return Ok(Some(event));
                }
                Ok(Step::Wait) => return Ok(None),
                Err(error) => {
                    self.end();
                    input.clear();
                    return Err(error);
                }
            }
        }
        input.clear();
        Ok(None)
    }

    /// Whether nothing is half-way: no frame, no fragmented message. Pings between fragments do not count as idle.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes held for an unfinished frame or message, by capacity; a decompressor's window is not counted.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>()
                + partial.control.capacity()
                + partial.message.as_ref().map_or(0, |message| message.content.capacity())
        })
    }

    fn step(&mut self, input: &mut BytesMut) -> Result<Step, Error> {
        if self.partial.as_ref().is_none_or(|partial| partial.frame.is_none()) {
            let Some(header) = self.read_header(input)? else { return Ok(Step::Wait) };
            self.admit(&header)?;
            if let Some(event) = self.take_whole_frame(&header, input)? {
                self.forget_if_idle();
                return Ok(Step::Event(event));
            }
            self.begin_frame(header);
        }
        let step = self.continue_frame(input)?;
        self.forget_if_idle();
        Ok(step)
    }

    /// Reads a header, across calls if it comes in pieces.
    fn read_header(&mut self, input: &mut BytesMut) -> Result<Option<Header>, Error> {
        let expected = Expected {
            masked: self.masked,
            compression: self.window_bits > 0,
            in_message: self.partial.as_ref().is_some_and(|partial| partial.message.is_some()),
        };
        let stored = self.partial.as_ref().map_or(0, |partial| partial.header_len);
        if stored == 0 {
            if let Some((header, len)) = Header::decode(input, expected)? {
                input.advance(len);
                return Ok(Some(header));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let partial = self.partial.get_or_insert_default();
        for (slot, byte) in partial.header.iter_mut().skip(stored).zip(input.iter()) {
            *slot = *byte;
            partial.header_len += 1;
        }
        let gathered = partial.header.get(..partial.header_len).unwrap_or_default();
        let Some((header, len)) = Header::decode(gathered, expected)? else {
            input.clear();
            return Ok(None);
        };
        partial.header_len = 0;
        input.advance(len.saturating_sub(stored).min(input.len()));
        Ok(Some(header))
    }

    /// Refuses a frame by its announced length, before any of its content is kept.
    fn admit(&self, header: &Header) -> Result<(), Error> {
        if header.opcode.is_control() {
            return Ok(());
        }
        if header.len > self.limits.frame_max {
            return Err(Error::FrameTooLarge { limit: self.limits.frame_max, seen: header.len });
        }
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        // The size of a compressed message is known only once it is decompressed, and is limited there.
        let compressed = message.map_or(header.rsv1, |message| message.compressed);
        let size = message.map_or(0, |message| message.size).saturating_add(header.len);
        if !compressed && size > self.limits.message_max {
            return Err(Error::MessageTooLarge { limit: self.limits.message_max });
        }
        Ok(())
    }

    /// The common case: a frame that is a whole message or control frame and lies in the buffer from end to end.
    fn take_whole_frame(&self, header: &Header, input: &mut BytesMut) -> Result<Option<Event>, Error> {
        let plain = header.opcode.is_control() || (header.fin && !header.rsv1 && header.opcode != Opcode::Continuation);
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let (true, Some(content)) = (plain, input.get_mut(..len)) else { return Ok(None) };
        if let Some(key) = header.mask {
            apply_mask(content, key, 0);
        }
        if header.opcode.is_control() {
            let event = control_event(header.opcode, content)?;
            input.advance(len);
            return Ok(Some(event));
        }
        if header.opcode == Opcode::Text && std::str::from_utf8(content).is_err() {
            return Err(Error::Utf8);
        }
        let content = take(input, len);
        Ok(Some(match self.limits.delivery {
            Delivery::Messages => whole(header.opcode, content),
            Delivery::Relay => Event::Fragment(Fragment { opcode: header.opcode, first: true, fin: true, content }),
        }))
    }

    fn begin_frame(&mut self, header: Header) {
        let partial = self.partial.get_or_insert_default();
        if matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            partial.message = Some(Assembly {
                opcode: header.opcode,
                compressed: header.rsv1,
                begun: false,
                size: 0,
                content: Vec::new(),
                utf8: Utf8::default(),
            });
            if header.rsv1 && self.decompressor.is_none() {
                self.decompressor = Some(Box::new(Decompressor::new(self.window_bits)));
            }
        }
        partial.frame = Some(Frame { header, done: 0 });
    }

    /// Takes what there is of the frame under way.
    fn continue_frame(&mut self, input: &mut BytesMut) -> Result<Step, Error> {
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(Step::Wait) };
        let Some(frame) = &mut partial.frame else { return Ok(Step::Wait) };
        let left = usize::try_from(frame.header.len - frame.done).unwrap_or(usize::MAX);
        if left > 0 && input.is_empty() {
            return Ok(Step::Wait);
        }
        let relayed = self.limits.delivery == Delivery::Relay;
        let compressed = partial.message.as_ref().is_some_and(|message| message.compressed);
        let mut len = left.min(input.len());
        if relayed && compressed && !frame.header.opcode.is_control() {
            len = len.min(RELAYED_COMPRESSED_MAX);
        }
        let Some(piece) = input.get_mut(..len) else { return Ok(Step::Wait) };
        if let Some(key) = frame.header.mask {
            apply_mask(piece, key, frame.done);
        }
        frame.done += len as u64;
        let header = frame.header;
        let done = len == left;
        if done {
            partial.frame = None;
        }
        if header.opcode.is_control() {
            partial.control.extend_from_slice(piece);
            input.advance(len);
            if !done {
                return Ok(Step::Wait);
            }
            let content = std::mem::take(&mut partial.control);
            return Ok(Step::Event(control_event(header.opcode, &content)?));
        }
        let Some(message) = &mut partial.message else { return Ok(Step::Again) };
        let fin = done && header.fin;
        let content = if compressed {
            let Some(decompressor) = self.decompressor.as_deref_mut() else { return Err(Error::Inflate) };
            message.inflate(decompressor, piece, fin, self.limits.message_max)?;
            input.advance(len);
            if relayed { Bytes::from(std::mem::take(&mut message.content)) } else { Bytes::new() }
        } else {
            message.check_text(piece, fin)?;
            message.size = message.size.saturating_add(len as u64);
            if relayed {
                take(input, len)
            } else {
                message.content.extend_from_slice(piece);
                input.advance(len);
                Bytes::new()
            }
        };
        let event = message.event(content, fin, relayed);
        if fin {
            partial.message = None;
            if !self.context_takeover {
                self.decompressor = None;
            }
        }
        Ok(event.map_or(Step::Again, Step::Event))
    }

    fn forget_if_idle(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.is_idle()) {
            self.partial = None;
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.partial = None;
        self.decompressor = None;
    }
}

enum Step {
    /// Progress was made without an event.
    Again,
    Event(Event),
    /// The input is used up.
    Wait,
}

/// What is half-way.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; HEADER_MAX],
    header_len: usize,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: Option<Assembly>,
}

impl Partial {
    const fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }
}

/// The frame whose content is arriving.
#[derive(Debug)]
struct Frame {
    header: Header,
    done: u64,
}

/// The message whose frames are arriving.
#[derive(Debug)]
struct Assembly {
    opcode: Opcode,
    compressed: bool,
    /// A piece was handed over already.
    begun: bool,
    /// Content so far, decompressed.
    size: u64,
    content: Vec<u8>,
    utf8: Utf8,
}

impl Assembly {
    fn inflate(&mut self, by: &mut Decompressor, piece: &[u8], fin: bool, limit: u64) -> Result<(), Error> {
        let start = self.content.len();
        let room = limit.saturating_sub(self.size);
        let mut outcome = by.decompress(piece, room, limit, &mut self.content);
        if fin && outcome.is_ok() {
            let grown = (self.content.len() - start) as u64;
            outcome = by.finish(room.saturating_sub(grown), limit, &mut self.content);
        }
        self.size = self.size.saturating_add((self.content.len() - start) as u64);
        // What came out before a failure is judged first: so it would have been, had it arrived alone.
        let content = std::mem::take(&mut self.content);
        let text = self.check_text(content.get(start..).unwrap_or_default(), fin && outcome.is_ok());
        self.content = content;
        text?;
        outcome.map_err(|error| match error {
            InflateError::TooLarge { limit } => Error::MessageTooLarge { limit },
            InflateError::Corrupt => Error::Inflate,
        })
    }

    fn check_text(&mut self, piece: &[u8], fin: bool) -> Result<(), Error> {
        if self.opcode != Opcode::Text {
            return Ok(());
        }
        self.utf8.push(piece).map_err(|_not_utf8| Error::Utf8)?;
        if fin { self.utf8.finish().map_err(|_not_utf8| Error::Utf8) } else { Ok(()) }
    }

    /// The event that `content`, or the end of the message, makes.
    fn event(&mut self, content: Bytes, fin: bool, relayed: bool) -> Option<Event> {
        if !relayed {
            return fin.then(|| whole(self.opcode, Bytes::from(std::mem::take(&mut self.content))));
        }
        if content.is_empty() && !fin {
            return None;
        }
        let first = !std::mem::replace(&mut self.begun, true);
        Some(Event::Fragment(Fragment { opcode: self.opcode, first, fin, content }))
    }
}

fn whole(opcode: Opcode, content: Bytes) -> Event {
    if opcode == Opcode::Text { Event::Text(content) } else { Event::Binary(content) }
}

fn take(input: &mut BytesMut, len: usize) -> Bytes {
    if len >= COPY_BELOW {
        return input.split_to(len).freeze();
    }
    let copy = Bytes::copy_from_slice(input.get(..len).unwrap_or_default());
    input.advance(copy.len());
    copy
}

fn control_event(opcode: Opcode, content: &[u8]) -> Result<Event, Error> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(Bytes::copy_from_slice(content))),
        Opcode::Pong => Ok(Event::Pong(Bytes::copy_from_slice(content))),
        _ => close_event(content),
    }
}

fn close_event(content: &[u8]) -> Result<Event, Error> {
    let Some((code, reason)) = content.split_first_chunk::<2>() else {
        return if content.is_empty() { Ok(Event::Close(None)) } else { Err(Error::CloseTooShort) };
    };
    let code = u16::from_be_bytes(*code);
    if !close::may_be_sent(code) {
        return Err(Error::CloseCode { code });
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Error::CloseReason);
    }
    Ok(Event::Close(Some(Close { code, reason: Bytes::copy_from_slice(reason) })))
}

#[cfg(test)]
mod tests;
