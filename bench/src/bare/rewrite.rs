//! What the bare loop writes in the place of what it read: requests, responses and events.

use std::io::Write;

/// A request that carries WebSocket events.
pub fn event_request(channel: &[u8], events: &[u8]) -> Vec<u8> {
    let mut out = b"POST /ws?channel=".to_vec();
    out.extend_from_slice(channel);
    let _ = write!(
        out,
        " HTTP/1.1\r\nHost: bench\r\nContent-Type: application/websocket-events\r\nContent-Length: {}\r\n\r\n",
        events.len()
    );
    out.extend_from_slice(events);
    out
}

/// The channel of a control message that subscribes.
pub fn subscription(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(br#"c:{"type":"subscribe","channel":""#)?.strip_suffix(br#""}"#)
}

/// What a response asks for.
pub struct Seen<'a> {
    /// Bytes of the body.
    pub length: usize,
    /// Whether it is to be held, as a long-poll or not, and on which channel.
    pub hold: Option<(bool, &'a [u8])>,
}

/// Writes the request for the target: hop-by-hop headers dropped, the client named.
pub fn rebuild_request(head: &[u8], out: &mut Vec<u8>) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
        return false;
    }
    out.clear();
    for part in [request.method.unwrap_or("GET"), " ", request.path.unwrap_or("/"), " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for header in request.headers.iter().filter(|header| !is_hop_by_hop(header.name)) {
        push_header(out, header);
    }
    out.extend_from_slice(b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\r\n");
    true
}

/// Writes the response for the client and reads the headers that matter.
pub fn rebuild_response<'a>(head: &'a [u8], close: bool, out: &mut Vec<u8>) -> Option<Seen<'a>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    if !matches!(response.parse(head), Ok(httparse::Status::Complete(_))) {
        return None;
    }
    out.clear();
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", response.code?, response.reason.unwrap_or_default());
    let (mut length, mut hold, mut channel) = (0, None, None);
    for header in response.headers.iter().filter(|header| !is_hop_by_hop(header.name)) {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value).ok()?.parse().ok()?;
        } else if header.name.eq_ignore_ascii_case("grip-hold") {
            hold = Some(header.value == b"response");
        } else if header.name.eq_ignore_ascii_case("grip-channel") {
            channel = Some(header.value);
        }
        push_header(out, header);
    }
    out.extend_from_slice(if close { b"Connection: close\r\n\r\n" } else { b"\r\n" });
    Some(Seen { length, hold: hold.zip(channel) })
}

fn push_header(out: &mut Vec<u8>, header: &httparse::Header<'_>) {
    out.extend_from_slice(header.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(header.value);
    out.extend_from_slice(b"\r\n");
}

fn is_hop_by_hop(name: &str) -> bool {
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
        .iter()
        .any(|hop| name.eq_ignore_ascii_case(hop))
}
