//! Keep-alive of streams (GRIP section 7): what is sent to a client that has been quiet, and how often.

use std::time::Duration;

use bytes::Bytes;

use crate::header::parse_piece;
use crate::lenient;

/// Seconds between keep-alives when the origin names none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(55);

/// The shortest time between keep-alives; a smaller value is raised to it.
pub const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What to send to keep a stream alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// The bytes appended to the stream.
    pub data: Bytes,
    /// How long to wait, at least [`MIN_TIMEOUT`].
    pub timeout: Duration,
    /// What restarts the wait.
    pub mode: Mode,
}

/// What restarts the wait for the next keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every sent item.
    Idle,
    /// Nothing: the period is fixed.
    Interval,
}

/// Why a `Grip-Keep-Alive` header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepAliveError {
    /// There is no data before the first `;`.
    #[error("Grip-Keep-Alive cannot be empty")]
    Empty,
    /// A backslash stands at the end, or `\x` is not followed by two hex digits.
    #[error("failed to parse Grip-Keep-Alive cstring format")]
    CString,
    /// `format` is none of raw, cstring, base64.
    #[error("no such Grip-Keep-Alive format '{0}'")]
    Format(String),
    /// `timeout` is not a whole number.
    #[error("failed to parse Grip-Keep-Alive timeout value")]
    Timeout,
    /// `timeout` is negative.
    #[error("Grip-Keep-Alive timeout has invalid value")]
    TimeoutValue,
    /// `mode` is neither idle nor interval.
    #[error("no such Grip-Keep-Alive mode '{0}'")]
    Mode(String),
}

impl KeepAlive {
    /// Reads the value of a `Grip-Keep-Alive` header, in which commas are data. `None` if a quote in a parameter is
    /// not closed, which GRIP treats as if the header were absent.
    ///
    /// # Errors
    /// Whatever [`KeepAliveError`] tells; the whole instruct is then refused.
    pub fn parse(value: &[u8]) -> Result<Option<Self>, KeepAliveError> {
        let Some(piece) = parse_piece(value) else { return Ok(None) };
        if piece.value.is_empty() {
            return Err(KeepAliveError::Empty);
        }
        let data = match piece.param("format") {
            None | Some(b"raw") => piece.value.clone(),
            Some(b"cstring") => decode_cstring(&piece.value).ok_or(KeepAliveError::CString)?,
            Some(b"base64") => lenient::base64(&piece.value),
            Some(other) => return Err(KeepAliveError::Format(String::from_utf8_lossy(other).into_owned())),
        };
        let timeout = match piece.param("timeout") {
            None => DEFAULT_TIMEOUT,
            Some(text) => {
                let seconds = parse_seconds(text).ok_or(KeepAliveError::Timeout)?;
                let seconds = u64::try_from(seconds).ok().ok_or(KeepAliveError::TimeoutValue)?;
                Duration::from_secs(seconds).max(MIN_TIMEOUT)
            }
        };
        let mode = match piece.param("mode") {
            None | Some(b"idle") => Mode::Idle,
            Some(b"interval") => Mode::Interval,
            Some(other) => return Err(KeepAliveError::Mode(String::from_utf8_lossy(other).into_owned())),
        };
        Ok(Some(Self { data: data.into(), timeout, mode }))
    }
}

/// Reads a count of seconds. The range is that of 32 bits, as in every GRIP proxy.
pub(crate) fn parse_seconds(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// Resolves `\\`, `\r`, `\n` and `\xHH`. Any other escape stands for nothing. `None` if an escape is cut short.
#[must_use]
pub fn decode_cstring(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next()? {
            b'\\' => out.push(b'\\'),
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b'x' => {
                let high = hex_digit(bytes.next()?)?;
                let low = hex_digit(bytes.next()?)?;
                out.push(high << 4 | low);
            }
            _ => {}
        }
    }
    Some(out)
}

/// The value of one hex digit of either case.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data, seconds and mode, or the text of the error.
    type Expected = Result<(&'static str, u64, Mode), &'static str>;

    #[test]
    fn keep_alive_headers_are_read_or_refused_with_the_known_text() {
        let cases: &[(&str, Expected)] = &[
            ("x", Ok(("x", 55, Mode::Idle))),
            ("a, b", Ok(("a, b", 55, Mode::Idle))),
            (r"\n; format=cstring; timeout=20", Ok(("\n", 20, Mode::Idle))),
            (r"event: keep-alive\ndata:\n\n; format=cstring", Ok(("event: keep-alive\ndata:\n\n", 55, Mode::Idle))),
            (r"a\x41\\\r\qz; format=cstring", Ok(("aA\\\rz", 55, Mode::Idle))),
            (r"\n; format=raw; mode=interval", Ok((r"\n", 55, Mode::Interval))),
            ("aGk; format=base64; timeout=0", Ok(("hi", 1, Mode::Idle))),
            (r#""quo;ted""#, Ok(("\"quo", 55, Mode::Idle))),
            ("", Err("Grip-Keep-Alive cannot be empty")),
            ("; timeout=3", Err("Grip-Keep-Alive cannot be empty")),
            (r"a\; format=cstring", Err("failed to parse Grip-Keep-Alive cstring format")),
            (r"a\x4; format=cstring", Err("failed to parse Grip-Keep-Alive cstring format")),
            (r"a\xzz; format=cstring", Err("failed to parse Grip-Keep-Alive cstring format")),
            ("a; format=json", Err("no such Grip-Keep-Alive format 'json'")),
            ("a; timeout=soon", Err("failed to parse Grip-Keep-Alive timeout value")),
            ("a; timeout=-1", Err("Grip-Keep-Alive timeout has invalid value")),
            ("a; mode=never", Err("no such Grip-Keep-Alive mode 'never'")),
        ];
        for (input, expected) in cases {
            let found = KeepAlive::parse(input.as_bytes()).map(Option::unwrap);
            match (found, expected) {
                (Ok(found), Ok((data, seconds, mode))) => {
                    let wanted = KeepAlive {
                        data: Bytes::from_static(data.as_bytes()),
                        timeout: Duration::from_secs(*seconds),
                        mode: *mode,
                    };
                    assert_eq!(found, wanted, "{input}");
                }
                (Err(found), Err(text)) => assert_eq!(found.to_string(), *text, "{input}"),
                (found, expected) => panic!("{input}: {found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn an_unclosed_quote_makes_the_header_absent() {
        assert_eq!(KeepAlive::parse(b"a; format=\"raw"), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(value: Vec<u8>) {
            prop_assert!(decode_cstring(&value).is_none_or(|text| text.len() <= value.len()));
            KeepAlive::parse(&value).ok();
        }

        #[test]
        fn hex_escapes_decode_to_every_byte(data: Vec<u8>) {
            let text: String = data.iter().map(|b| format!("\\x{b:02X}")).collect();
            prop_assert_eq!(decode_cstring(text.as_bytes()), Some(data));
        }
    }
}
