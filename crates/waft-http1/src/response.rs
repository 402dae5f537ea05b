//! Heads of responses.

use std::fmt;

use crate::error::HeadError;
use crate::head::{Block, Framing, Lines, Parsed, Signals, Span, Version, parse_fields, parse_version};
use crate::hop::{connection_options, end_to_end};
use crate::limits::HeadLimits;

/// Looks for the head of a response at the start of `input` (RFC 9112 sections 2, 4 and 5).
///
/// Interim responses (1xx) are returned like any other; the final one follows them. Nothing may stand before the status
/// line, not even a blank line: it would be the rest of an earlier message.
pub fn parse_response(input: &[u8], limits: &HeadLimits) -> Result<Parsed<ResponseHead>, HeadError> {
    let mut lines = Lines::new(input, limits);
    let Some(line) = lines.next()? else {
        return match lines.limit_reached() {
            true => Err(HeadError::HeadTooLong { limit: limits.bytes_max }),
            false => Ok(Parsed::Partial),
        };
    };
    let (version, status, reason) = parse_status_line(line)?;
    let Some((fields, signals)) = parse_fields(&mut lines, input, limits)? else {
        return Ok(Parsed::Partial);
    };
    let consumed = lines.position();
    let block = Block::new(input.get(..consumed).unwrap_or_default(), &[], fields);
    Ok(Parsed::Complete { head: ResponseHead { version, status, reason, signals, block }, consumed })
}

/// The head of a response: one copy of its bytes and the places of its parts.
#[derive(Clone)]
pub struct ResponseHead {
    version: Version,
    status: u16,
    reason: Span,
    signals: Signals,
    block: Block,
}

impl ResponseHead {
    /// The status, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as sent; empty if there is none or it is not UTF-8.
    pub fn reason(&self) -> &str {
        self.block.text(self.reason)
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The fields in the order sent, values without white space around them.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.block.fields()
    }

    /// The fields which an intermediary passes on: without the hop-by-hop ones and those that Connection names.
    pub fn end_to_end_fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        end_to_end(self.block.fields(), self.signals.names_fields)
    }

    /// The value of the first field with this name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.block.fields_named(name).next()
    }

    /// The values of all fields with this name, in any case.
    pub fn fields_named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.block.fields_named(name)
    }

    /// The options of all Connection fields.
    pub fn connection_options(&self) -> impl Iterator<Item = &str> + Clone {
        connection_options(self.block.fields())
    }

    /// How the body's end is found, given the method of the request that is answered (RFC 9112 section 6.3).
    ///
    /// Contradictory or malformed lengths are an error even where there is no body: the sender is not to be trusted with
    /// the bytes that follow.
    pub fn framing(&self, request_method: &str) -> Result<Framing, HeadError> {
        let declared = self.signals.framing(self.version, Framing::UntilClose)?;
        let bodiless = request_method == "HEAD"
            || matches!(self.status, 100..=199 | 204 | 304)
            || (request_method == "CONNECT" && matches!(self.status, 200..=299));
        Ok(if bodiless { Framing::None } else { declared })
    }

    /// True if the target lets the connection serve another request. A body that runs until the close rules that out too.
    pub fn keep_alive(&self) -> bool {
        self.signals.persists(self.version)
    }

    /// The Upgrade field's value, if Connection lists `upgrade` too.
    pub fn upgrade(&self) -> Option<&str> {
        let span = self.signals.upgrade.filter(|_| self.signals.upgrade_listed)?;
        Some(self.block.text(span)).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("reason", &self.reason())
            .field("version", &self.version)
            .field("fields", &self.block)
            .finish()
    }
}

/// Equal when status, reason, version and fields are.
impl PartialEq for ResponseHead {
    fn eq(&self, other: &Self) -> bool {
        self.status == other.status
            && self.reason() == other.reason()
            && self.version == other.version
            && self.block == other.block
    }
}

impl Eq for ResponseHead {}

/// `HTTP/1.1 200 OK`; the reason and even the space before it may be missing, as many servers do.
fn parse_status_line(line: &[u8]) -> Result<(Version, u16, Span), HeadError> {
    let (version, rest) = line.split_at_checked(VERSION_LEN).ok_or(HeadError::InvalidVersion)?;
    let version = parse_version(version)?;
    let (status, reason_start) = match rest {
        [b' ', a, b, c] => ([a, b, c], line.len()),
        [b' ', a, b, c, b' ', ..] => ([a, b, c], VERSION_LEN + 5),
        _ => return Err(HeadError::InvalidStatus),
    };
    let mut code = 0;
    for digit in status {
        if !digit.is_ascii_digit() {
            return Err(HeadError::InvalidStatus);
        }
        code = code * 10 + u16::from(digit - b'0');
    }
    if code < 100 {
        return Err(HeadError::InvalidStatus);
    }
    Ok((version, code, Span::new(reason_start, line.len())))
}

const VERSION_LEN: usize = b"HTTP/1.1".len();
