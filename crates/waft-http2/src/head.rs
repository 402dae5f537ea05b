//! Heads, from HTTP/2 to HTTP/1.1 and back.

use h2::ext::Protocol;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use waft_http1::{Framing, HeadWriter, RequestHead, ResponseHead, is_hop_by_hop};

/// How the body of a message is written into a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none.
    None,
    /// As it comes: its length stands in the head.
    Plain,
    /// In chunks.
    Chunked,
    /// As it comes, in both directions, once the answer has agreed to it.
    Tunnel,
}

/// A request that cannot be written as HTTP/1.1, and the status that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsupported(pub(crate) StatusCode);

/// The key of a WebSocket handshake that nobody checks: HTTP/2 has none (RFC 8441 section 5), and the answer's is not
/// passed on.
const WEBSOCKET_KEY: &str = "d2FmdCBvdmVyIEhUVFAvMg==";

/// Writes the head of `request` as HTTP/1.1. `ended` says that no body follows.
pub(crate) fn write_request<B>(request: &Request<B>, ended: bool, out: &mut Vec<u8>) -> Result<Body, Unsupported> {
    let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
    let websocket = match (request.method() == Method::CONNECT, protocol) {
        (false, _) => false,
        (true, Some(protocol)) if protocol.eq_ignore_ascii_case("websocket") => true,
        (true, _) => return Err(Unsupported(StatusCode::NOT_IMPLEMENTED)),
    };
    let uri = request.uri();
    let method = if websocket { "GET" } else { request.method().as_str() };
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut writer = HeadWriter::new(out);
    writer.request_line(method, target);
    // The authority stands for the Host field (RFC 9113 section 8.3.1).
    let fields = request.headers();
    if let Some(authority) = uri.authority() {
        writer.field("Host", authority.as_str());
    } else if let Some(host) = fields.get(http::header::HOST) {
        writer.field("Host", host.as_bytes());
    }
    let mut has_length = false;
    for (name, value) in fields {
        if is_own(name.as_str()) || *name == http::header::COOKIE {
            continue;
        }
        has_length |= *name == http::header::CONTENT_LENGTH;
        writer.field(name.as_str(), value.as_bytes());
    }
    write_cookies(fields, &mut writer);
    let body = if websocket {
        writer.field("Upgrade", "websocket").field("Connection", "Upgrade");
        writer.field("Sec-WebSocket-Key", WEBSOCKET_KEY);
        Body::Tunnel
    } else {
        // One stream carries one exchange.
        writer.field("Connection", "close");
        match (ended, has_length) {
            (true, _) => Body::None,
            (false, true) => Body::Plain,
            (false, false) => {
                writer.field("Transfer-Encoding", "chunked");
                Body::Chunked
            }
        }
    };
    writer.finish();
    Ok(body)
}

/// Whether a field is not passed on as it is: those that concern the connection, and those that are written anew.
fn is_own(name: &str) -> bool {
    is_hop_by_hop(name) || name == "host" || name == "sec-websocket-key"
}

/// Cookies may come in many fields over HTTP/2 and are one in HTTP/1.1 (RFC 9113 section 8.2.3).
fn write_cookies(fields: &HeaderMap, writer: &mut HeadWriter<'_>) {
    let mut crumbs = fields.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes);
    let Some(first) = crumbs.next() else { return };
    let mut all = first.to_vec();
    for crumb in crumbs {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(crumb);
    }
    writer.field("Cookie", &all);
}

/// The answer to a stream, from the head of an HTTP/1.1 response.
pub(crate) fn response_from(head: &ResponseHead, tunnel: bool) -> Response<()> {
    let mut response = Response::new(());
    // RFC 8441 section 5: what is 101 in HTTP/1.1 is 200.
    let status = if tunnel { 200 } else { head.status() };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let fields =
        head.end_to_end_fields().filter(|(name, _)| !tunnel || !name.eq_ignore_ascii_case("sec-websocket-accept"));
    append(response.headers_mut(), fields);
    response
}

/// The request of a stream, from the head of an HTTP/1.1 request. `secure` chooses the scheme.
///
/// # Errors
/// `None` for a request target that HTTP/2 has no form for.
pub(crate) fn request_from(head: &RequestHead, secure: bool) -> Option<Request<()>> {
    let mut uri = Uri::builder().scheme(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    if let Some(authority) = head.authority() {
        uri = uri.authority(Authority::try_from(authority).ok()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).ok()?;
    *request.uri_mut() = uri.path_and_query(PathAndQuery::try_from(head.path_and_query()).ok()?).build().ok()?;
    let fields = head.end_to_end_fields().filter(|(name, _)| !name.eq_ignore_ascii_case("host"));
    append(request.headers_mut(), fields);
    Some(request)
}

fn append<'a>(into: &mut HeaderMap, fields: impl Iterator<Item = (&'a str, &'a [u8])>) {
    for (name, value) in fields {
        // The parser has seen to it that both are what they may be; a field that the library knows better is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            into.append(name, value);
        }
    }
}

/// Writes the head of `response` as HTTP/1.1. `ended` says that no body follows; `method` is that of the request.
pub(crate) fn write_response<B>(response: &Response<B>, method: &str, ended: bool, out: &mut Vec<u8>) -> Body {
    let status = response.status();
    let mut writer = HeadWriter::new(out);
    writer.status_line(status.as_u16(), status.canonical_reason().unwrap_or_default());
    let fields = response.headers();
    for (name, value) in fields {
        if !is_hop_by_hop(name.as_str()) {
            writer.field(name.as_str(), value.as_bytes());
        }
    }
    // One stream carries one exchange.
    writer.field("Connection", "close");
    let bodiless = method == "HEAD" || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    let has_length = fields.contains_key(http::header::CONTENT_LENGTH);
    let body = match (bodiless || ended, has_length) {
        (true, false) if !bodiless => {
            writer.content_length(0);
            Body::None
        }
        (true, _) => Body::None,
        (false, true) => Body::Plain,
        (false, false) => {
            writer.field("Transfer-Encoding", "chunked");
            Body::Chunked
        }
    };
    writer.finish();
    body
}

/// How the body that follows the head of an HTTP/1.1 request is to be read; none if there is no body.
pub(crate) fn has_body(head: &RequestHead) -> bool {
    !matches!(head.framing(), Framing::None | Framing::Length(0))
}
