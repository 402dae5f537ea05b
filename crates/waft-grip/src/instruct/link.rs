//! The `Grip-Link` header (GRIP sections 4 and 9).

use std::fmt::Write as _;
use std::time::Duration;

use crate::header::{parse_params, split_links};
use crate::keepalive::parse_seconds;

/// How long a stream may be without activity before its next link is fetched, if the link gives no timeout.
pub const DEFAULT_LINK_TIMEOUT: Duration = Duration::from_secs(120);

/// A link to another resource of the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The URI reference as given, absolute or relative to the request's URI. Visible ASCII.
    pub uri: String,
    /// How long to wait without activity before the link is fetched.
    pub timeout: Duration,
}

/// Why a `Grip-Link` header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The value is not `<URI>`.
    #[error("failed to parse Grip-Link value")]
    Value,
    /// What stands in `<>` is not a URI.
    #[error("Grip-Link contains invalid link")]
    Uri,
    /// `timeout` is not a whole number.
    #[error("failed to parse Grip-Link timeout value")]
    Timeout,
    /// `timeout` is negative.
    #[error("Grip-Link timeout has invalid value")]
    TimeoutValue,
}

/// The links of one header that mean something to GRIP.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) next: Option<Link>,
    pub(super) gone: Option<Link>,
}

/// Reads a header value. Commas and semicolons inside of `<>` belong to the URI.
pub(super) fn parse(value: &[u8]) -> Result<Links, LinkError> {
    let mut links = Links::default();
    for piece in split_links(value) {
        let end = match piece.first() {
            Some(b'<') => memchr::memchr(b'>', piece).map_or(piece.len(), |at| at + 1),
            _ => 0,
        };
        let after = piece.get(end..).unwrap_or_default();
        let Some(semicolon) = memchr::memchr(b';', after) else { continue };
        let target = piece.get(..end + semicolon).unwrap_or_default().trim_ascii();
        let Some(params) = parse_params(after.get(semicolon + 1..).unwrap_or_default()) else { continue };
        if params.is_empty() {
            continue;
        }
        let param = |name: &str| {
            params.iter().find(|p| p.name.eq_ignore_ascii_case(name.as_bytes())).map(|p| p.value.as_slice())
        };
        let uri = match target {
            [b'<', uri @ .., b'>'] if !uri.is_empty() => clean_uri(uri).ok_or(LinkError::Uri)?,
            _ => return Err(LinkError::Value),
        };
        let slot = match param("rel") {
            Some(b"next") => &mut links.next,
            Some(b"gone") => &mut links.gone,
            _ => continue,
        };
        let timeout = match param("timeout") {
            None => DEFAULT_LINK_TIMEOUT,
            Some(text) => {
                let seconds = parse_seconds(text).ok_or(LinkError::Timeout)?;
                Duration::from_secs(u64::try_from(seconds).ok().ok_or(LinkError::TimeoutValue)?)
            }
        };
        *slot = Some(Link { uri, timeout });
    }
    Ok(links)
}

/// The URI with bytes above ASCII percent-encoded. `None` if it has bytes that no URI may have, so that it could not be
/// written to a request line.
fn clean_uri(uri: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(uri.len());
    for &byte in uri {
        match byte {
            b'<' | b'>' | b'"' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => return None,
            0x21..=0x7e => out.push(char::from(byte)),
            0x80.. => write!(out, "%{byte:02X}").ok()?,
            _ => return None,
        }
    }
    Some(out)
}
