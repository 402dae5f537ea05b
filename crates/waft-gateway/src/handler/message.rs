//! A request as a message for a handler.

use std::net::SocketAddr;

use bytes::Bytes;
use waft_http1::Version;
use waft_mongrel2::Request;
use waft_net::PeerAddr;

use super::book::Contact;
use crate::exchange::Exchange;

/// Bytes that a handler may send before it has heard of any being taken.
pub(super) const DOWNLOAD_CREDITS: usize = 102_400;

/// What is said of a request besides what its client sent.
#[derive(Debug, Default)]
pub(super) struct Extra<'a> {
    /// The method, if it is another one than the client's.
    pub(super) method: Option<&'a str>,
    pub(super) flags: Option<u8>,
    /// This is the first request of a connection whose handler counts bytes.
    pub(super) with_credits: bool,
    /// The file that the body goes to.
    pub(super) upload_file: Option<&'a str>,
    /// The body is in that file now.
    pub(super) is_stored: bool,
    /// The first piece of a body that comes in pieces.
    pub(super) starts_stream: bool,
    pub(super) signature: Option<&'a str>,
}

/// Headers by which uploads to files are told, which no client may send.
const UPLOAD: &str = "x-mongrel2-upload-";

/// The message.
pub(super) fn request(contact: &Contact, exchange: &Exchange, extra: &Extra<'_>, body: &[u8]) -> Bytes {
    let (head, link) = (&exchange.head, &contact.link);
    let address = address(&exchange.peer);
    let credits = DOWNLOAD_CREDITS.to_string();
    let pattern = pattern(exchange);
    let flags = extra.flags.map(|flags| format!("{flags:#04X}").replace("0X", "0x"));
    let is_grip = !exchange.trusted && !exchange.route.options.no_grip;
    let mut request = Request::new(&link.ident, contact.id, head.path().as_bytes(), link.protocol);
    let replaces_xff = exchange.settings.handlers.replace_forwarded_for;
    for (name, value) in head.fields() {
        let first = name.as_bytes().first().map_or(0, u8::to_ascii_lowercase);
        let is_dropped = match first {
            b'x' => {
                (replaces_xff && name.eq_ignore_ascii_case("x-forwarded-for"))
                    || crate::forward::begins_with(name, UPLOAD)
            }
            // What proves a GRIP proxy in front of a handler must not come from its clients.
            b'g' => is_grip && crate::forward::begins_with(name, "grip-"),
            _ => false,
        };
        if !is_dropped {
            request.client_header(name, value);
        }
    }
    if replaces_xff {
        request.client_header("x-forwarded-for", address.as_bytes());
    }
    if let Some(signature) = extra.signature {
        request.client_header("grip-sig", signature.as_bytes());
    }
    if let Some(file) = extra.upload_file {
        request.client_header("x-mongrel2-upload-start", file.as_bytes());
        if extra.is_stored {
            request.client_header("x-mongrel2-upload-done", file.as_bytes());
        }
    }
    request.server_header("METHOD", extra.method.unwrap_or(head.method()).as_bytes());
    request.server_header("VERSION", version(head.version()).as_bytes());
    request.server_header("URI", head.path_and_query().as_bytes());
    if let Some(query) = head.query() {
        request.server_header("QUERY", query.as_bytes());
    }
    request.server_header("PATTERN", pattern.as_bytes());
    request.server_header("URL_SCHEME", if exchange.secure { b"https" } else { b"http" });
    request.server_header("REMOTE_ADDR", address.as_bytes());
    if let Some(flags) = &flags {
        request.server_header("FLAGS", flags.as_bytes());
    }
    if extra.with_credits {
        request.server_header("DOWNLOAD_CREDITS", credits.as_bytes());
    }
    if extra.starts_stream {
        request.server_header("UPLOAD_STREAM", b"0");
    }
    request.finish(body)
}

/// A further piece of a body that comes in pieces.
pub(super) fn piece(contact: &Contact, exchange: &Exchange, offset: u64, is_last: bool, body: &[u8]) -> Bytes {
    let offset = offset.to_string();
    let path = exchange.head.path().as_bytes();
    let mut request = Request::new(&contact.link.ident, contact.id, path, contact.link.protocol);
    request.server_header("UPLOAD_STREAM", offset.as_bytes());
    if is_last {
        request.server_header("UPLOAD_STREAM_DONE", b"1");
    }
    request.finish(body)
}

/// The text of the route, whole.
fn pattern(exchange: &Exchange) -> String {
    let condition = &exchange.route.condition;
    let path = condition.path_beg.as_deref().unwrap_or_default();
    let rest = condition.path_pattern.as_ref().map_or("", |pattern| pattern.as_str());
    if path.is_empty() && rest.is_empty() { "/".to_owned() } else { format!("{path}{rest}") }
}

pub(crate) fn version(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}

/// The address of a client without its port.
pub(super) fn address(peer: &PeerAddr) -> String {
    match peer {
        PeerAddr::Tcp(address) => SocketAddr::ip(address).to_canonical().to_string(),
        PeerAddr::Unix => String::new(),
    }
}
