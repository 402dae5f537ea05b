//! Requests as packets, and packets as the heads of responses.

use bytes::Bytes;
use waft_grip::instruct::ResponseParts;
use waft_http1::{Fields, HeadWriter, connection_options, is_hop_by_hop};
use waft_net::PeerAddr;
use waft_zhttp::{Packet, Rejection};

use crate::exchange::Exchange;
use crate::forward::Outgoing;
use crate::settings::WorkerRole;

/// The head of a worker's response.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// Without those that frame the response or concern its connection.
    pub(crate) fields: Fields,
    /// What the worker says about the length of the body.
    pub(crate) length: Option<u64>,
    /// The whole response is there.
    pub(crate) complete: bool,
}

impl AnswerHead {
    pub(crate) fn new(status: u16, reason: &Bytes, headers: &[(Bytes, Bytes)], complete: bool) -> Self {
        let named: Vec<(&str, &[u8])> =
            headers.iter().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, &**value))).collect();
        let is_listed =
            |name: &str| connection_options(named.iter().copied()).any(|option| option.eq_ignore_ascii_case(name));
        let (mut fields, mut length) = (Fields::new(), None);
        for (name, value) in named.iter().copied() {
            if name.eq_ignore_ascii_case("content-length") {
                length = str::from_utf8(value).ok().and_then(|digits| digits.trim().parse().ok());
            } else if !is_hop_by_hop(name) && !is_listed(name) {
                fields.push(name, value);
            }
        }
        let reason = String::from_utf8_lossy(reason).into_owned();
        Self { status, reason, fields, length, complete }
    }

    pub(crate) fn of_rejection(rejection: &Rejection) -> Self {
        Self::new(rejection.code, &rejection.reason, &rejection.headers, true)
    }

    /// The head for whatever this gateway makes of the response.
    pub(crate) fn into_parts(self) -> ResponseParts {
        let headers = self.fields.iter().collect();
        ResponseParts { code: self.status, reason: self.reason, headers, body: None }
    }
}

/// The packet for a client's request, whose body is still to be put in.
pub(crate) fn of_exchange(exchange: &Exchange, outgoing: &Outgoing<'_>) -> Packet {
    let scheme = if exchange.secure { "https" } else { "http" };
    let mut packet = match exchange.settings.workers.role {
        WorkerRole::Gateway => {
            let mut out = Vec::with_capacity(1024);
            outgoing.write(&mut out);
            request_of(out.into(), scheme)
        }
        WorkerRole::Front => as_sent(exchange, scheme),
    };
    complete(exchange, &mut packet);
    packet
}

/// The packet for a client's request for a WebSocket.
pub(crate) fn websocket_of(exchange: &Exchange, outgoing: &Outgoing<'_>, more: &[(&str, String)]) -> Packet {
    let scheme = if exchange.secure { "wss" } else { "ws" };
    let mut packet = match exchange.settings.workers.role {
        WorkerRole::Gateway => {
            let mut out = Vec::with_capacity(1024);
            let mut writer = HeadWriter::new(&mut out);
            writer.request_line("GET", &outgoing.path());
            outgoing.write_fields(&mut writer, is_framing);
            writer.field("Upgrade", "websocket");
            for (name, value) in more {
                writer.field(name, value);
            }
            writer.finish();
            request_of(out.into(), scheme)
        }
        WorkerRole::Front => as_sent(exchange, scheme),
    };
    packet.method = None;
    complete(exchange, &mut packet);
    packet
}

fn is_framing(name: &str) -> bool {
    let dropped = ["host", "content-length", "sec-websocket-extensions"];
    is_hop_by_hop(name) || dropped.iter().any(|dropped| dropped.eq_ignore_ascii_case(name))
}

/// Puts in what does not stand in the head.
fn complete(exchange: &Exchange, packet: &mut Packet) {
    match exchange.settings.workers.role {
        WorkerRole::Gateway => packet.ignore_policies = true,
        WorkerRole::Front => {
            if let PeerAddr::Tcp(address) = &exchange.peer {
                packet.peer_address = Some(address.ip().to_canonical().to_string().into());
                packet.peer_port = Some(address.port());
            }
        }
    }
}

/// The packet for a request as the client has sent it.
fn as_sent(exchange: &Exchange, scheme: &str) -> Packet {
    let head = &exchange.head;
    let fields =
        head.fields().map(|(name, value)| (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value)));
    let host = head.authority().unwrap_or("localhost");
    Packet {
        method: Some(Bytes::copy_from_slice(head.method().as_bytes())),
        uri: Some(format!("{scheme}://{host}{}", head.path_and_query()).into()),
        headers: fields.collect(),
        ..Packet::default()
    }
}

/// The packet for a request that is written as for a target of HTTP, whose parts it shares.
pub(crate) fn request_of(wire: Bytes, scheme: &str) -> Packet {
    let mut packet = Packet::default();
    let mut host = Bytes::from_static(b"localhost");
    let mut path = Bytes::from_static(b"/");
    let mut start = 0;
    for end in memchr::memmem::find_iter(&wire, b"\r\n") {
        if end < start {
            continue;
        }
        let line = wire.slice(start..end);
        start = end + 2;
        if line.is_empty() {
            break;
        }
        if packet.method.is_none() {
            let mut words = line.split(|byte| *byte == b' ');
            packet.method = words.next().map(|method| line.slice_ref(method));
            path = words.next().map_or(path, |target| line.slice_ref(target));
            continue;
        }
        let Some(colon) = memchr::memchr(b':', &line) else { continue };
        let (name, value) =
            (line.slice(..colon), line.slice_ref(line.get(colon + 1..).unwrap_or_default().trim_ascii()));
        if name.eq_ignore_ascii_case(b"host") {
            host = value.clone();
        }
        if !name.eq_ignore_ascii_case(b"transfer-encoding") {
            packet.headers.push((name, value));
        }
    }
    packet.body = wire.slice(start..);
    let uri = [scheme.as_bytes(), b"://", &host, &path].concat();
    packet.uri = Some(uri.into());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_request_becomes_a_packet() {
        let wire =
            "POST /a?b HTTP/1.1\r\nHost: h:81\r\nX-A: 1\r\nX-Empty: \r\nTransfer-Encoding: chunked\r\n\r\nbo\r\ndy";
        let packet = request_of(Bytes::from(wire), "https");
        assert_eq!(packet.method.as_deref(), Some(&b"POST"[..]));
        assert_eq!(packet.uri.as_deref(), Some(&b"https://h:81/a?b"[..]));
        let header = |name: &'static str, value: &'static str| (Bytes::from(name), Bytes::from(value));
        assert_eq!(packet.headers, [header("Host", "h:81"), header("X-A", "1"), header("X-Empty", "")]);
        assert_eq!(&*packet.body, b"bo\r\ndy");
    }

    #[test]
    fn what_frames_a_response_goes_no_further() {
        let header = |name: &'static str, value: &'static str| (Bytes::from(name), Bytes::from(value));
        let headers = [
            header("Connection", "close, X-Hop"),
            header("Transfer-Encoding", "chunked"),
            header("x-hop", "1"),
            header("Content-Length", "12"),
            header("X-Kept", "2"),
        ];
        let head = AnswerHead::new(200, &Bytes::new(), &headers, false);
        assert_eq!(head.fields.iter().collect::<Vec<_>>(), [("X-Kept", &b"2"[..])]);
        assert_eq!(head.length, Some(12));
        let lying = AnswerHead::new(200, &Bytes::new(), &[header("Content-Length", "1, 2")], false);
        assert_eq!(lying.length, None);
    }
}
