//! Heads of requests.

use std::fmt;

use memchr::memchr;

use crate::error::HeadError;
use crate::head::{Block, Framing, Lines, Parsed, Signals, Span, Version, parse_fields, parse_version};
use crate::hop::{connection_options, end_to_end};
use crate::limits::{HeadLimits, LEADING_BLANK_LINES_MAX};
use crate::octets::is_token;

/// Looks for the head of a request at the start of `input` (RFC 9112 sections 2 to 6).
///
/// The outcome depends on the bytes alone, not on how they were split between calls.
pub fn parse_request(input: &[u8], limits: &HeadLimits) -> Result<Parsed<RequestHead>, HeadError> {
    let mut lines = Lines::new(input, limits);
    let mut blank_lines = 0;
    let (start, line) = loop {
        let start = lines.position();
        match lines.next()? {
            None if lines.limit_reached() => return Err(HeadError::TargetTooLong { limit: limits.target_max }),
            None => return Ok(Parsed::Partial),
            Some([]) if blank_lines == LEADING_BLANK_LINES_MAX => return Err(HeadError::BlankLines),
            Some([]) => blank_lines += 1,
            Some(line) => break (start, line),
        }
    };
    let request_line = parse_request_line(line, limits)?;
    let head = input.get(start..).unwrap_or_default();
    let Some((fields, signals)) = parse_fields(&mut lines, head, limits)? else {
        return Ok(Parsed::Partial);
    };
    let consumed = lines.position();
    let head = input.get(start..consumed).unwrap_or_default();

    let framing = signals.framing(request_line.version, Framing::None)?;
    let authority = effective_authority(&request_line, &signals, head)?;
    let empty_path = request_line.path_and_query.is_none();
    let path_and_query = request_line.path_and_query.unwrap_or_else(|| {
        // `http://host?query` has no path; the one it means is appended to the copy.
        Span::new(head.len(), head.len() + 1 + request_line.bare_query.len())
    });
    let suffix: &[&[u8]] = if empty_path { &[b"/", request_line.bare_query] } else { &[] };
    let block = Block::new(head, suffix, fields);
    let path_len = memchr(b'?', block.bytes(path_and_query));
    let head = RequestHead {
        path_end: path_and_query.start() + path_len.unwrap_or(path_and_query.end() - path_and_query.start()),
        method: request_line.method,
        target: request_line.target,
        path_and_query,
        authority,
        version: request_line.version,
        framing,
        signals,
        block,
    };
    Ok(Parsed::Complete { head, consumed })
}

/// The head of a request: one copy of its bytes and the places of its parts.
#[derive(Clone)]
pub struct RequestHead {
    method: Span,
    target: Span,
    path_and_query: Span,
    path_end: usize,
    authority: Option<Span>,
    version: Version,
    framing: Framing,
    signals: Signals,
    block: Block,
}

impl RequestHead {
    /// The method as sent; methods are case-sensitive.
    pub fn method(&self) -> &str {
        self.block.text(self.method)
    }

    /// True if the method is HEAD, whose responses have no body.
    pub fn is_head(&self) -> bool {
        self.block.bytes(self.method) == b"HEAD"
    }

    /// The request target as sent, in whichever form.
    ///
    /// It may hold bytes beyond ASCII, always as valid UTF-8; `HeadWriter` percent-encodes them.
    pub fn target(&self) -> &str {
        self.block.text(self.target)
    }

    /// The path without the query. `*` for `OPTIONS *`, empty for CONNECT, `/` for an absolute target without a path.
    pub fn path(&self) -> &str {
        self.block.text(Span::new(self.path_and_query.start(), self.path_end))
    }

    /// What follows the question mark, if there is one.
    pub fn query(&self) -> Option<&str> {
        let start = self.path_end + 1;
        (start <= self.path_and_query.end()).then(|| self.block.text(Span::new(start, self.path_and_query.end())))
    }

    /// Path and query as sent, without scheme and authority.
    pub fn path_and_query(&self) -> &str {
        self.block.text(self.path_and_query)
    }

    /// The host with its port if one was sent: that of the target if it has one, else the Host field.
    ///
    /// `None` if there is neither or the field is empty.
    pub fn authority(&self) -> Option<&str> {
        self.authority.map(|span| self.block.text(span))
    }

    /// `authority` without the port. The brackets of an IPv6 address stay.
    pub fn host(&self) -> Option<&str> {
        let authority = self.authority()?;
        let port = match authority.rfind(']') {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        authority.get(..port)
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

    /// How the body's end is found; never `UntilClose`.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// True if there is no Host field although the version asks for one: a server answers
    /// [`HeadError::MissingHost`] (RFC 9112 section 3.2). The parser leaves that to those who serve hosts.
    pub fn lacks_host(&self) -> bool {
        self.version == Version::Http11 && self.signals.host.is_none()
    }

    /// True if the client lets the connection serve another request after this one.
    pub fn keep_alive(&self) -> bool {
        self.signals.persists(self.version)
    }

    /// True if the client waits for `100 Continue` before it sends the body. False if there is no body to send.
    pub fn expects_continue(&self) -> bool {
        self.signals.expect_continue
            && self.version == Version::Http11
            && !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// The Upgrade field's value, if Connection lists `upgrade` too and the version is 1.1.
    ///
    /// Protocol names are compared in any case.
    pub fn upgrade(&self) -> Option<&str> {
        let span = self.signals.upgrade?;
        let asked = self.signals.upgrade_listed && self.version == Version::Http11;
        Some(self.block.text(span)).filter(|value| asked && !value.is_empty())
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method())
            .field("target", &self.target())
            .field("version", &self.version)
            .field("framing", &self.framing)
            .field("fields", &self.block)
            .finish()
    }
}

/// Equal when method, target, version and fields are.
impl PartialEq for RequestHead {
    fn eq(&self, other: &Self) -> bool {
        self.method() == other.method()
            && self.target() == other.target()
            && self.version == other.version
            && self.block == other.block
    }
}

impl Eq for RequestHead {}

struct RequestLine<'a> {
    method: Span,
    target: Span,
    /// `None` if an absolute target has no path.
    path_and_query: Option<Span>,
    /// The query, with its question mark, of an absolute target without a path.
    bare_query: &'a [u8],
    /// From an absolute target or that of CONNECT.
    authority: Option<Span>,
    version: Version,
}

fn parse_request_line<'a>(line: &'a [u8], limits: &HeadLimits) -> Result<RequestLine<'a>, HeadError> {
    let method_end = memchr(b' ', line).ok_or(HeadError::MalformedRequestLine)?;
    let (method, rest) = line.split_at_checked(method_end).ok_or(HeadError::MalformedRequestLine)?;
    if !is_token(method) {
        return Err(HeadError::InvalidMethod);
    }
    let rest = rest.get(1..).unwrap_or_default();
    let target_len = memchr(b' ', rest).ok_or(HeadError::MalformedRequestLine)?;
    let (target, version) = rest.split_at_checked(target_len).ok_or(HeadError::MalformedRequestLine)?;
    if target.len() > limits.target_max {
        return Err(HeadError::TargetTooLong { limit: limits.target_max });
    }
    if !is_target_text(target) {
        return Err(HeadError::InvalidTarget);
    }
    let version = parse_version(version.get(1..).unwrap_or_default())?;
    let target_start = method_end + 1;
    let span = Span::new(target_start, target_start + target.len());
    let mut parsed = RequestLine {
        method: Span::new(0, method_end),
        target: span,
        path_and_query: Some(span),
        bare_query: b"",
        authority: None,
        version,
    };
    match (method, target) {
        (b"CONNECT", _) => {
            if !is_authority(target) || !target.contains(&b':') {
                return Err(HeadError::InvalidTarget);
            }
            parsed.authority = Some(span);
            parsed.path_and_query = Some(Span::new(span.end(), span.end()));
        }
        (_, [b'/', ..]) | (b"OPTIONS", b"*") => {}
        _ => parse_absolute(target, target_start, &mut parsed)?,
    }
    Ok(parsed)
}

/// Splits `scheme://authority/path?query` (RFC 9112 section 3.2.2).
fn parse_absolute<'a>(target: &'a [u8], offset: usize, parsed: &mut RequestLine<'a>) -> Result<(), HeadError> {
    let colon = memchr(b':', target).ok_or(HeadError::InvalidTarget)?;
    let (scheme, rest) = target.split_at_checked(colon).ok_or(HeadError::InvalidTarget)?;
    let after = rest.strip_prefix(b"://").ok_or(HeadError::InvalidTarget)?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes())) {
        return Err(HeadError::InvalidTarget);
    }
    let authority_len = after.iter().position(|&byte| byte == b'/' || byte == b'?').unwrap_or(after.len());
    let (authority, path_and_query) = after.split_at_checked(authority_len).ok_or(HeadError::InvalidTarget)?;
    if !is_authority(authority) {
        return Err(HeadError::InvalidTarget);
    }
    let start = offset + colon + 3;
    parsed.authority = Some(Span::new(start, start + authority_len));
    parsed.path_and_query = None;
    match path_and_query {
        [b'/', ..] => parsed.path_and_query = Some(Span::new(start + authority_len, offset + target.len())),
        query => parsed.bare_query = query,
    }
    Ok(())
}

/// Visible ASCII without `#`, or valid UTF-8 beyond ASCII, which some clients send instead of percent-encoding it.
fn is_target_text(target: &[u8]) -> bool {
    let bad = target.iter().fold(false, |seen, &byte| seen | (byte <= b' ') | (byte == 0x7f) | (byte == b'#'));
    !target.is_empty() && !bad && str::from_utf8(target).is_ok()
}

fn effective_authority(line: &RequestLine<'_>, signals: &Signals, head: &[u8]) -> Result<Option<Span>, HeadError> {
    if signals.host_repeated {
        return Err(HeadError::DuplicateHost);
    }
    let host = signals.host.filter(|span| span.start() < span.end());
    if let Some(span) = host
        && !is_authority(head.get(span.start()..span.end()).unwrap_or_default())
    {
        return Err(HeadError::InvalidHost);
    }
    Ok(line.authority.or(host))
}

/// `host [":" port]` without user information (RFC 9110 section 4.2.4 asks to treat that as an error).
///
/// The comma, legal in a host by the grammar, is refused: it is what two joined Host fields look like.
fn is_authority(authority: &[u8]) -> bool {
    let (host_ok, rest) = match authority {
        [b'[', inner @ ..] => {
            let Some(end) = memchr(b']', inner) else { return false };
            let literal = inner.get(..end).unwrap_or_default();
            let legal = |&byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            (literal.contains(&b':') && literal.iter().all(legal), inner.get(end + 1..).unwrap_or_default())
        }
        _ => {
            let end = memchr(b':', authority).unwrap_or(authority.len());
            let (host, rest) = authority.split_at_checked(end).unwrap_or_default();
            (!host.is_empty() && host.iter().all(|&byte| is_host_byte(byte)), rest)
        }
    };
    let port_ok = match rest {
        [] => true,
        [b':', port @ ..] => {
            port.len() <= 5
                && port.iter().all(u8::is_ascii_digit)
                && port.iter().fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0')) <= 65_535
        }
        _ => false,
    };
    host_ok && port_ok
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'')
        || matches!(byte, b'(' | b')' | b'*' | b'+' | b';' | b'=')
}
