//! Heads, from HTTP/2 to HTTP/1.1 and back.

use h2::ext::Protocol;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use waft_http1::{HeadWriter, ResponseHead, is_hop_by_hop};

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

fn append<'a>(into: &mut HeaderMap, fields: impl Iterator<Item = (&'a str, &'a [u8])>) {
    for (name, value) in fields {
        // The parser has seen to it that both are what they may be; a field that the library knows better is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            into.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: Request<()>, ended: bool, expected: Result<(Body, &str), u16>) {
        let mut out = Vec::new();
        let written = write_request(&request, ended, &mut out);
        let got = written.map(|body| (body, String::from_utf8(out).unwrap())).map_err(|error| error.0.as_u16());
        assert_eq!(got, expected.map(|(body, text)| (body, text.to_owned())));
    }

    fn request(method: &str, uri: &str) -> http::request::Builder {
        Request::builder().method(method).uri(uri)
    }

    #[test]
    fn requests_are_written_as_http1() {
        let get = request("GET", "https://example.com/a?b=1").header("x-a", "1").header("x-a", "2").body(()).unwrap();
        let text = "GET /a?b=1 HTTP/1.1\r\nHost: example.com\r\nx-a: 1\r\nx-a: 2\r\nConnection: close\r\n\r\n";
        check(get, true, Ok((Body::None, text)));
        let post = request("POST", "https://example.com/").header("content-length", "5").body(()).unwrap();
        let text = "POST / HTTP/1.1\r\nHost: example.com\r\ncontent-length: 5\r\nConnection: close\r\n\r\n";
        check(post, false, Ok((Body::Plain, text)));
        let post = request("POST", "https://example.com/").body(()).unwrap();
        let text = "POST / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(post, false, Ok((Body::Chunked, text)));
    }

    #[test]
    fn the_host_is_the_authority_and_nothing_of_the_connection_passes() {
        let get = request("GET", "https://example.com/").header("host", "other.example").header("te", "trailers");
        let get = get.header("cookie", "a=1").header("transfer-encoding", "chunked").header("cookie", "b=2");
        let text = "GET / HTTP/1.1\r\nHost: example.com\r\nCookie: a=1; b=2\r\nConnection: close\r\n\r\n";
        check(get.body(()).unwrap(), true, Ok((Body::None, text)));
    }

    #[test]
    fn only_websockets_are_tunnelled() {
        let mut connect = request("CONNECT", "https://example.com/ws").body(()).unwrap();
        check(connect.clone(), false, Err(501));
        connect.extensions_mut().insert(Protocol::from_static("websocket"));
        let text = "GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: d2FmdCBvdmVyIEhUVFAvMg==\r\n\r\n";
        check(connect.clone(), false, Ok((Body::Tunnel, text)));
        connect.extensions_mut().insert(Protocol::from_static("connect-udp"));
        check(connect, false, Err(501));
    }
}
