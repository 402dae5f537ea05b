//! Events in the bodies of requests and responses, media type `application/websocket-events`.
//!
//! An event is a type and a line end, or a type, a length in hexadecimal, a line end, the content and a line end.
//! Reading is as forgiving as targets have come to expect: unknown types are skipped, the line end behind content is
//! not looked at, and the last content may be cut short.

use std::io::Write as _;

use bytes::{Buf as _, Bytes};

use crate::close::{self, Close};

/// The media type; targets send it exactly so, without parameters.
pub const MEDIA_TYPE: &str = "application/websocket-events";
/// The most bytes of an event's first line; the longest known is `DISCONNECT` with a length.
pub const LINE_MAX: usize = 64;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A binary message.
    Binary(Bytes),
    /// A side closes; without a code the client sees 1000.
    Close(Option<Close>),
    /// The connection is lost, or shall be cut.
    Disconnect,
    /// The connection begins, or is accepted.
    Open,
    /// A ping.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A text message.
    Text(Bytes),
}

/// A body that is not a list of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A length that is not hexadecimal.
    #[error("event length is not a hexadecimal number")]
    BadLength,
    /// A line without an end, or longer than [`LINE_MAX`].
    #[error("event line has no end within {LINE_MAX} bytes")]
    UnendedLine,
}

impl Event {
    /// Appends the event. Empty pings and pongs go without content, empty messages with a length of 0.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Binary(content) => write_content("BINARY", content, out),
            Self::Close(None) => out.extend_from_slice(b"CLOSE\r\n"),
            Self::Close(Some(close)) => write_content("CLOSE", &close.to_content(), out),
            Self::Disconnect => out.extend_from_slice(b"DISCONNECT\r\n"),
            Self::Open => out.extend_from_slice(b"OPEN\r\n"),
            Self::Ping(content) if content.is_empty() => out.extend_from_slice(b"PING\r\n"),
            Self::Ping(content) => write_content("PING", content, out),
            Self::Pong(content) if content.is_empty() => out.extend_from_slice(b"PONG\r\n"),
            Self::Pong(content) => write_content("PONG", content, out),
            Self::Text(content) => write_content("TEXT", content, out),
        }
    }
}

/// Reads a body event by event. The contents share the body's memory.
#[derive(Clone, Debug)]
pub struct Decoder {
    rest: Bytes,
}

impl Decoder {
    /// A reader of `body`, whose size the caller has limited.
    #[must_use]
    pub const fn new(body: Bytes) -> Self {
        Self { rest: body }
    }

    /// The next known event; `None` at the end of the body, and after CLOSE or DISCONNECT.
    ///
    /// # Errors
    /// The body is malformed from here on.
    pub fn next_event(&mut self) -> Result<Option<Event>, DecodeError> {
        while !self.rest.is_empty() {
            let (kind, content) = self.next_raw()?;
            let data = content.clone().unwrap_or_default();
            let event = match &kind[..] {
                b"BINARY" => Event::Binary(data),
                b"CLOSE" => Event::Close(read_close(&data)),
                b"DISCONNECT" => Event::Disconnect,
                b"OPEN" => Event::Open,
                b"PING" => Event::Ping(data),
                b"PONG" => Event::Pong(data),
                b"TEXT" => Event::Text(data),
                _ => continue,
            };
            if matches!(event, Event::Close(_) | Event::Disconnect) {
                self.rest = Bytes::new();
            }
            return Ok(Some(event));
        }
        Ok(None)
    }

    fn next_raw(&mut self) -> Result<(Bytes, Option<Bytes>), DecodeError> {
        let window = self.rest.get(..self.rest.len().min(LINE_MAX)).unwrap_or_default();
        let end = window.windows(2).position(|pair| pair == b"\r\n").ok_or(DecodeError::UnendedLine)?;
        let line = self.rest.split_to(end);
        self.rest.advance(2);
        let Some(space) = line.iter().position(|&byte| byte == b' ') else { return Ok((line, None)) };
        let len = read_hex(line.get(space + 1..).unwrap_or_default()).ok_or(DecodeError::BadLength)?;
        let content = self.rest.split_to(len.min(self.rest.len()));
        self.rest.advance(self.rest.len().min(2));
        Ok((line.slice(..space), Some(content)))
    }
}

/// All events of a body, for callers that have few of them.
///
/// # Errors
/// The body is malformed.
pub fn decode(body: Bytes) -> Result<Vec<Event>, DecodeError> {
    let mut decoder = Decoder::new(body);
    let mut events = Vec::new();
    while let Some(event) = decoder.next_event()? {
        events.push(event);
    }
    Ok(events)
}

fn write_content(kind: &str, content: &[u8], out: &mut Vec<u8>) {
    out.reserve(kind.len() + content.len() + 22);
    // Writing to a Vec cannot fail.
    let _infallible = write!(out, "{kind} {:x}\r\n", content.len());
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

fn read_hex(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A close that could not be put into a frame, by its code or its reason, is read as one without content.
fn read_close(content: &Bytes) -> Option<Close> {
    let (code, reason) = content.split_first_chunk::<2>()?;
    let code = u16::from_be_bytes(*code);
    let reason = std::str::from_utf8(reason).ok()?;
    close::may_be_sent(code).then(|| Close::new(code, reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(events: &[Event]) -> Vec<u8> {
        let mut out = Vec::new();
        events.iter().for_each(|event| event.encode(&mut out));
        out
    }

    #[test]
    fn events_have_their_known_form() {
        let check = |event: Event, expected: &[u8]| {
            assert_eq!(encoded(std::slice::from_ref(&event)), expected);
            assert_eq!(decode(Bytes::copy_from_slice(expected)), Ok(vec![event]));
        };
        check(Event::Open, b"OPEN\r\n");
        check(Event::Text("hello".into()), b"TEXT 5\r\nhello\r\n");
        check(Event::Text("".into()), b"TEXT 0\r\n\r\n");
        check(Event::Ping("pp".into()), b"PING 2\r\npp\r\n");
        check(Event::Pong("".into()), b"PONG\r\n");
        check(Event::Close(Some(Close::new(1000, "done"))), b"CLOSE 6\r\n\x03\xe8done\r\n");
        check(Event::Close(None), b"CLOSE\r\n");
        check(Event::Disconnect, b"DISCONNECT\r\n");
        assert!(encoded(&[Event::Binary(vec![0; 300].into())]).starts_with(b"BINARY 12c\r\n"));
    }

    #[test]
    fn bodies_of_real_targets_are_read_with_forgiveness() {
        let check = |body: &'static [u8], expected: Result<&[Event], DecodeError>| {
            assert_eq!(decode(body.into()), expected.map(<[Event]>::to_vec), "{}", body.escape_ascii());
        };
        let text = |content: &'static str| Event::Text(content.into());
        check(
            b"OPEN\r\nTEXT 28\r\nc:{\"type\":\"subscribe\",\"channel\":\"wtest\"}\r\nTEXT 6\r\nm:hey!\r\n",
            Ok(&[Event::Open, text("c:{\"type\":\"subscribe\",\"channel\":\"wtest\"}"), text("m:hey!")]),
        );
        check(b"", Ok(&[]));
        check(b"TEXT\r\n", Ok(&[text("")]));
        check(b"NEWS 3\r\nabc\r\nTEXT 1\r\na\r\n", Ok(&[text("a")]));
        check(b"text 1\r\na\r\n", Ok(&[]));
        check(b"TEXT 1\r\na--TEXT 1\r\nb", Ok(&[text("a"), text("b")]));
        check(b"TEXT A\r\nshort", Ok(&[text("short")]));
        check(b"CLOSE\r\nTEXT 1\r\na\r\n", Ok(&[Event::Close(None)]));
        check(b"DISCONNECT\r\nbroken", Ok(&[Event::Disconnect]));
        check(b"CLOSE 1\r\n\x03\r\n", Ok(&[Event::Close(None)]));
        check(b"CLOSE 2\r\n\x03\xed\r\n", Ok(&[Event::Close(None)]));
        check(b"TEXT 1", Err(DecodeError::UnendedLine));
        check(b"TEXT x\r\n", Err(DecodeError::BadLength));
        check(b"TEXT +1\r\na\r\n", Err(DecodeError::BadLength));
        check(b"TEXT \r\n", Err(DecodeError::BadLength));
        check(b"TEXT fffffffffffffffff\r\n", Err(DecodeError::BadLength));
        check(b"OPEN\r\nTEXT 2\r\nab\r\n?", Err(DecodeError::UnendedLine));
    }

    fn event() -> impl Strategy<Value = Event> {
        let content = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop_oneof![
            Just(Event::Open),
            content().prop_map(Event::Text),
            content().prop_map(Event::Binary),
            content().prop_map(Event::Ping),
            content().prop_map(Event::Pong),
        ]
    }

    proptest! {
        #[test]
        fn events_come_back_as_they_were(mut events in prop::collection::vec(event(), 0..8),
            end in prop_oneof![Just(None), Just(Some(Event::Close(None))), Just(Some(Event::Disconnect)),
                (3000u16..5000, "\\PC{0,20}").prop_map(|(code, reason)| Some(Event::Close(Some(Close::new(code, &reason)))))]) {
            events.extend(end);
            prop_assert_eq!(decode(encoded(&events).into()), Ok(events));
        }

        #[test]
        fn any_body_is_read_or_refused(noise: Vec<u8>, text in "(TEXT|PING|CLOSE| |[0-9a-f]|\r\n){0,20}") {
            let _either = decode(noise.into());
            let _either = decode(text.into_bytes().into());
        }
    }
}
