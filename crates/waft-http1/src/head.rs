//! What request and response heads share: lines, field spans, and the fields that decide about the connection.

use std::fmt;

use memchr::memchr;

use crate::error::HeadError;
use crate::limits::HeadLimits;
use crate::octets::{has_control, is_token, list_members, token_len, trim};

/// The outcome of looking for a head at the start of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// A whole head.
    Complete {
        /// The head.
        head: T,
        /// How many bytes of the input it took, blank lines before it included. The body starts there.
        consumed: usize,
    },
    /// The bytes so far are fine but the head has not ended: call again with the same bytes and more.
    Partial,
}

/// The version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the end of a message's body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body comes in chunks.
    Chunked,
    /// The body ends when the peer closes. Responses only.
    UntilClose,
}

/// A range of bytes within a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Positions are held in 32 bits; `Lines` never shows more bytes than that.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    pub(crate) fn end(self) -> usize {
        self.end as usize
    }

    /// The span of `part` within `whole`, of which it must be a subslice.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Self::new(start, start.wrapping_add(part.len()))
    }
}

/// Where one field's name and value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldSpan {
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// The bytes of a head and the places of its fields.
#[derive(Clone)]
pub(crate) struct Block {
    text: Text,
    fields: Vec<FieldSpan>,
}

/// Nearly every head is UTF-8, and then names are found in it without being checked again at each look.
#[derive(Clone)]
enum Text {
    Raw(Vec<u8>),
    Utf8(String),
}

impl Block {
    /// Copies `head` once; `suffix` is appended for derived text that has no place in the original.
    pub(crate) fn new(head: &[u8], suffix: &[&[u8]], fields: Vec<FieldSpan>) -> Self {
        let extra: usize = suffix.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(head.len() + extra);
        bytes.extend_from_slice(head);
        for part in suffix {
            bytes.extend_from_slice(part);
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => Text::Utf8(text),
            Err(error) => Text::Raw(error.into_bytes()),
        };
        Self { text, fields }
    }

    #[inline]
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        let bytes = match &self.text {
            Text::Raw(bytes) => bytes.as_slice(),
            Text::Utf8(text) => text.as_bytes(),
        };
        bytes.get(span.start()..span.end()).unwrap_or_default()
    }

    /// The text at `span`, empty if it is not UTF-8 (which names, methods and targets always are).
    #[inline]
    pub(crate) fn text(&self, span: Span) -> &str {
        match &self.text {
            Text::Raw(_) => str::from_utf8(self.bytes(span)).unwrap_or_default(),
            Text::Utf8(text) => text.get(span.start()..span.end()).unwrap_or_default(),
        }
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.fields.iter().map(|field| (self.text(field.name), self.bytes(field.value)))
    }

    pub(crate) fn fields_named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.fields
            .iter()
            .filter(move |field| self.bytes(field.name).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| self.bytes(field.value))
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.fields().map(|(name, value)| (name, String::from_utf8_lossy(value)));
        f.debug_map().entries(shown).finish()
    }
}

/// Equal when names (in any case) and values are the same in the same order.
impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.fields().zip(other.fields()).all(|(a, b)| a.0.eq_ignore_ascii_case(b.0) && a.1 == b.1)
    }
}

impl Eq for Block {}

/// Walks over the lines of a head, strictly ended by CR LF.
///
/// Errors are found from left to right and even in a line that has not ended, so the outcome does not depend on how the
/// bytes were split, and garbage is refused at once rather than awaited.
pub(crate) struct Lines<'a> {
    input: &'a [u8],
    at: usize,
    limit_reached: bool,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(input: &'a [u8], limits: &HeadLimits) -> Self {
        let limit = limits.bytes_max.min(u32::MAX as usize / 2);
        let limit_reached = input.len() >= limit;
        Self { input: input.get(..limit).unwrap_or(input), at: 0, limit_reached }
    }

    /// How many bytes the lines so far took.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// True when no more bytes may come, so that a missing line end is an error.
    pub(crate) fn limit_reached(&self) -> bool {
        self.limit_reached
    }

    /// The next line without its end, or `None` if it has not arrived whole.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<&'a [u8]>, HeadError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else {
            // A carriage return at the very end may yet be followed by its line feed.
            let open = rest.strip_suffix(b"\r").unwrap_or(rest);
            return if has_control(open) { Err(bad_byte(open)) } else { Ok(None) };
        };
        let ended = rest.get(..end).unwrap_or_default();
        let line = ended.strip_suffix(b"\r").unwrap_or(ended);
        if has_control(line) {
            return Err(bad_byte(line));
        }
        if line.len() == ended.len() {
            return Err(HeadError::BareLineFeed);
        }
        self.at += end + 1;
        Ok(Some(line))
    }
}

/// Names the first control byte of a line that has one.
#[cold]
fn bad_byte(line: &[u8]) -> HeadError {
    match line.iter().find(|&&byte| crate::octets::is_control(byte)) {
        Some(b'\r') => HeadError::BareCarriageReturn,
        _ => HeadError::ControlByte,
    }
}

/// The field lines of a head up to the blank line that ends it; `None` if that has not arrived.
///
/// `head` is the input from the head's first byte: spans count from there.
pub(crate) fn parse_fields(
    lines: &mut Lines<'_>,
    head: &[u8],
    limits: &HeadLimits,
) -> Result<Option<(Vec<FieldSpan>, Signals)>, HeadError> {
    let mut fields = Vec::new();
    let mut signals = Signals::default();
    while let Some(line) = lines.next()? {
        if line.is_empty() {
            return Ok(Some((fields, signals)));
        }
        if fields.is_empty() {
            fields.reserve(FIELDS_EXPECTED.min(limits.fields_max));
        }
        if fields.len() >= limits.fields_max {
            return Err(HeadError::TooManyFields { limit: limits.fields_max });
        }
        let (name, raw_value) = split_field(line)?;
        let value = trim(raw_value);
        let field = FieldSpan { name: Span::of(name, head), value: Span::of(value, head) };
        signals.observe(name, raw_value, field.value);
        fields.push(field);
    }
    if lines.limit_reached() {
        return Err(HeadError::HeadTooLong { limit: limits.bytes_max });
    }
    Ok(None)
}

/// Room made for fields at the first one, enough for most browsers' requests.
const FIELDS_EXPECTED: usize = 20;

#[inline]
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    if let [b' ' | b'\t', ..] = line {
        return Err(HeadError::FoldedField);
    }
    let (name, rest) = line.split_at_checked(token_len(line)).unwrap_or_default();
    match rest {
        [b':', value @ ..] if !name.is_empty() => Ok((name, value)),
        _ => Err(bad_name(line)),
    }
}

/// Names what is wrong with a field line that does not begin with a token and a colon.
#[cold]
fn bad_name(line: &[u8]) -> HeadError {
    match memchr(b':', line).and_then(|colon| line.get(..colon)) {
        None => HeadError::MissingColon,
        Some([.., b' ' | b'\t']) => HeadError::SpaceBeforeColon,
        Some(_) => HeadError::InvalidFieldName,
    }
}

/// What the fields say about the message's end and the connection's future, gathered while they are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    pub(crate) close: bool,
    pub(crate) expect_continue: bool,
    pub(crate) host: Option<Span>,
    pub(crate) host_repeated: bool,
    pub(crate) keep_alive: bool,
    pub(crate) names_fields: bool,
    pub(crate) upgrade: Option<Span>,
    pub(crate) upgrade_listed: bool,
    length: Length,
    transfer: Transfer,
}

#[derive(Clone, Copy, Debug, Default)]
enum Length {
    #[default]
    Absent,
    Invalid,
    Known(u64),
}

#[derive(Clone, Copy, Debug, Default)]
enum Transfer {
    #[default]
    Absent,
    Chunked,
    Invalid,
    Unsupported,
}

impl Signals {
    #[inline]
    fn observe(&mut self, name: &[u8], raw_value: &[u8], value: Span) {
        // The length is compared first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.host_repeated |= self.host.is_some();
                self.host = Some(value);
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expect_continue |= trim(raw_value).eq_ignore_ascii_case(b"100-continue");
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = self.upgrade.or(Some(value));
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.observe_connection(raw_value),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.length = match self.length {
                    Length::Absent => parse_length(raw_value).map_or(Length::Invalid, Length::Known),
                    Length::Invalid | Length::Known(_) => Length::Invalid,
                };
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer = match self.transfer {
                    Transfer::Absent => parse_transfer(raw_value),
                    Transfer::Chunked | Transfer::Invalid | Transfer::Unsupported => Transfer::Invalid,
                };
            }
            _ => {}
        }
    }

    fn observe_connection(&mut self, value: &[u8]) {
        for option in list_members(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade_listed = true;
            } else {
                self.names_fields = true;
            }
        }
    }

    /// True if the connection may serve another exchange after this message.
    pub(crate) fn persists(&self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        }
    }

    /// The framing that the fields declare; `absent` if they declare none.
    pub(crate) fn framing(&self, version: Version, absent: Framing) -> Result<Framing, HeadError> {
        match (self.transfer, self.length) {
            (Transfer::Absent, Length::Absent) => Ok(absent),
            (Transfer::Absent, Length::Known(length)) => Ok(Framing::Length(length)),
            (Transfer::Absent, Length::Invalid) => Err(HeadError::InvalidContentLength),
            (_, Length::Known(_) | Length::Invalid) => Err(HeadError::LengthAndTransferEncoding),
            (Transfer::Invalid, Length::Absent) => Err(HeadError::InvalidTransferEncoding),
            (_, Length::Absent) if version == Version::Http10 => Err(HeadError::TransferEncodingOnHttp10),
            (Transfer::Unsupported, Length::Absent) => Err(HeadError::UnsupportedTransferEncoding),
            (Transfer::Chunked, Length::Absent) => Ok(Framing::Chunked),
        }
    }
}

/// A plain decimal number. Tabs are refused although they count as white space elsewhere: a peer that does not trim
/// them would see another length, or none.
fn parse_length(raw_value: &[u8]) -> Option<u64> {
    let digits = raw_value.trim_ascii();
    if digits.is_empty() || digits.len() > LENGTH_DIGITS_MAX || raw_value.contains(&b'\t') {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Digits of the largest 64-bit number.
const LENGTH_DIGITS_MAX: usize = 20;

fn parse_transfer(raw_value: &[u8]) -> Transfer {
    let value = trim(raw_value);
    if raw_value.contains(&b'\t') {
        return Transfer::Invalid;
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Transfer::Chunked;
    }
    // What is left is refused in any case; the difference is only whether a well-behaved peer could have meant it.
    let mut chunked = 0;
    for coding in value.split(|&byte| byte == b',').map(trim) {
        if !is_token(coding) {
            return Transfer::Invalid;
        }
        chunked += u8::from(chunked < 2 && coding.eq_ignore_ascii_case(b"chunked"));
    }
    if chunked > 1 { Transfer::Invalid } else { Transfer::Unsupported }
}

/// Reads `HTTP/1.0` or `HTTP/1.1`.
pub(crate) fn parse_version(text: &[u8]) -> Result<Version, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(HeadError::UnsupportedVersion)
        }
        _ => Err(HeadError::InvalidVersion),
    }
}
