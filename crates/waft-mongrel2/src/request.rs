//! What is sent to a handler: `SEND_IDENT SP ID SP PATH SP HEADERS BODY`.

use bytes::{BufMut, Bytes, BytesMut};

/// How headers are written for a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A JSON object in a netstring.
    #[default]
    Json,
    /// A TNetString map.
    TNetString,
}

/// A request for a handler, header by header.
///
/// Names in upper case are the server's; those of a client are written in lower case, so that no client can forge one.
/// A header that a client sent several times becomes a list, of all its values.
#[derive(Debug)]
pub struct Request<'a> {
    protocol: Protocol,
    start: BytesMut,
    headers: Vec<Header<'a>>,
}

#[derive(Debug)]
struct Header<'a> {
    name: &'a str,
    value: &'a [u8],
    is_client: bool,
}

impl<'a> Request<'a> {
    /// A request from connection `id`, whose header PATH is `path`.
    pub fn new(ident: &[u8], id: u64, path: &'a [u8], protocol: Protocol) -> Self {
        let mut start = BytesMut::with_capacity(ident.len() + path.len() + 640);
        start.put_slice(ident);
        start.put_u8(b' ');
        start.put_slice(itoa::Buffer::new().format(id).as_bytes());
        start.put_u8(b' ');
        start.put_slice(path);
        start.put_u8(b' ');
        let mut headers = Vec::with_capacity(24);
        headers.push(Header { name: "PATH", value: path, is_client: false });
        Self { protocol, start, headers }
    }

    /// A message about a connection, which is no request: its path is `@*`, and no header says so.
    pub(crate) fn notice(ident: &[u8], id: u64, protocol: Protocol) -> Self {
        let mut request = Self::new(ident, id, b"@*", protocol);
        request.headers.clear();
        request
    }

    /// Adds a header of the server's own, whose name is in upper case.
    pub fn server_header(&mut self, name: &'a str, value: &'a [u8]) -> &mut Self {
        self.headers.push(Header { name, value, is_client: false });
        self
    }

    /// Adds a header of the client.
    pub fn client_header(&mut self, name: &'a str, value: &'a [u8]) -> &mut Self {
        self.headers.push(Header { name, value, is_client: true });
        self
    }

    /// The message with this body.
    pub fn finish(self, body: &[u8]) -> Bytes {
        let Self { protocol, mut start, headers } = self;
        let mut block = Vec::with_capacity(512);
        match protocol {
            Protocol::Json => write_json(&headers, &mut block),
            Protocol::TNetString => write_map(&headers, &mut block),
        }
        put_netstring(&mut start, &block, if protocol == Protocol::Json { b',' } else { b'}' });
        put_netstring(&mut start, body, b',');
        start.freeze()
    }
}

/// Appends `LENGTH ':' DATA TYPE`.
pub(crate) fn put_netstring(out: &mut impl BufMut, data: &[u8], kind: u8) {
    out.put_slice(itoa::Buffer::new().format(data.len()).as_bytes());
    out.put_u8(b':');
    out.put_slice(data);
    out.put_u8(kind);
}

/// Calls `write` with each header and whether it is the first one of its name, in which case the values of all are in
/// the iterator that it gets.
fn each_name(headers: &[Header<'_>], mut write: impl FnMut(&Header<'_>, &[&Header<'_>])) {
    let mut others = Vec::new();
    for (number, header) in headers.iter().enumerate() {
        let same =
            |other: &&Header<'_>| header.is_client && other.is_client && other.name.eq_ignore_ascii_case(header.name);
        if headers.iter().take(number).any(|before| same(&before)) {
            continue;
        }
        others.clear();
        others.extend(headers.iter().skip(number + 1).filter(same));
        write(header, &others);
    }
}

fn write_json(headers: &[Header<'_>], out: &mut Vec<u8>) {
    out.push(b'{');
    each_name(headers, |header, others| {
        if out.len() > 1 {
            out.push(b',');
        }
        put_json_text(out, header.name.as_bytes(), header.is_client);
        out.push(b':');
        if others.is_empty() {
            put_json_text(out, header.value, false);
        } else {
            out.push(b'[');
            put_json_text(out, header.value, false);
            for other in others {
                out.push(b',');
                put_json_text(out, other.value, false);
            }
            out.push(b']');
        }
    });
    out.push(b'}');
}

/// Writes a JSON text. A byte that is no part of UTF-8 is written as the character of its number.
fn put_json_text(out: &mut Vec<u8>, text: &[u8], lower: bool) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..=0x1f | 0x7f => put_escape(out, byte),
                byte if lower => out.push(byte.to_ascii_lowercase()),
                byte => out.push(byte),
            }
        }
        chunk.invalid().iter().for_each(|byte| put_escape(out, *byte));
    }
    out.push(b'"');
}

fn put_escape(out: &mut Vec<u8>, byte: u8) {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).map_or(b'0', |digit| digit as u8);
    out.extend_from_slice(b"\\u00");
    out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
}

fn write_map(headers: &[Header<'_>], out: &mut Vec<u8>) {
    let mut list = Vec::new();
    each_name(headers, |header, others| {
        if header.is_client {
            put_netstring(out, header.name.to_ascii_lowercase().as_bytes(), b',');
        } else {
            put_netstring(out, header.name.as_bytes(), b',');
        }
        if others.is_empty() {
            put_netstring(out, header.value, b',');
        } else {
            list.clear();
            put_netstring(&mut list, header.value, b',');
            others.iter().for_each(|other| put_netstring(&mut list, other.value, b','));
            put_netstring(out, &list, b']');
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use waft_zhttp::Value;

    use super::*;

    fn check(protocol: Protocol, fill: impl FnOnce(&mut Request<'_>), body: &str, expected: &str) {
        let mut request = Request::new(b"hand-1", 7, b"/chat/room", protocol);
        fill(&mut request);
        let message = request.finish(body.as_bytes());
        assert_eq!(String::from_utf8_lossy(&message), expected);
    }

    #[test]
    fn headers_are_json_in_a_netstring() {
        check(
            Protocol::Json,
            |request| {
                request.client_header("Host", b"ex.test");
                request.server_header("METHOD", b"POST");
            },
            "hello",
            r#"hand-1 7 /chat/room 54:{"PATH":"/chat/room","host":"ex.test","METHOD":"POST"},5:hello,"#,
        );
    }

    #[test]
    fn headers_are_a_map_for_handlers_that_want_one() {
        check(
            Protocol::TNetString,
            |request| {
                request.server_header("METHOD", b"GET");
                request.client_header("X-A", b"1");
                request.client_header("x-a", b"2");
            },
            "",
            "hand-1 7 /chat/room 53:4:PATH,10:/chat/room,6:METHOD,3:GET,3:x-a,8:1:1,1:2,]}0:,",
        );
    }

    #[test]
    fn repeated_headers_are_a_list_of_all_values() {
        check(
            Protocol::Json,
            |request| {
                for value in [b"1", b"2", b"3", b"4", b"5", b"6"] {
                    request.client_header("X", value);
                }
            },
            "",
            r#"hand-1 7 /chat/room 51:{"PATH":"/chat/room","x":["1","2","3","4","5","6"]},0:,"#,
        );
    }

    #[test]
    fn the_json_is_valid_whatever_a_client_sends() {
        check(
            Protocol::Json,
            |request| {
                request.client_header("a", b"q\"\\\x01\xff\xc3\xa9");
            },
            "",
            "hand-1 7 /chat/room 47:{\"PATH\":\"/chat/room\",\"a\":\"q\\\"\\\\\\u0001\\u00ff\u{e9}\"},0:,",
        );
    }

    #[test]
    fn a_client_cannot_forge_what_the_server_says() {
        check(
            Protocol::Json,
            |request| {
                request.server_header("METHOD", b"GET");
                request.client_header("METHOD", b"evil");
                request.client_header("PATH", b"evil");
            },
            "",
            r#"hand-1 7 /chat/room 66:{"PATH":"/chat/room","METHOD":"GET","method":"evil","path":"evil"},0:,"#,
        );
    }

    /// Reads a message as a handler does: ident, id, path, headers, body.
    fn read(message: &Bytes) -> (Vec<u8>, u64, Vec<u8>, Value, Bytes) {
        let mut parts = message.splitn(4, |byte| *byte == b' ');
        let ident = parts.next().unwrap().to_vec();
        let id = std::str::from_utf8(parts.next().unwrap()).unwrap().parse().unwrap();
        let path = parts.next().unwrap().to_vec();
        let rest = message.slice_ref(parts.next().unwrap());
        let colon = rest.iter().position(|byte| *byte == b':').unwrap();
        let length: usize = std::str::from_utf8(&rest[..colon]).unwrap().parse().unwrap();
        let headers = Value::decode(&rest.slice(..colon + length + 2)).unwrap();
        let Value::Bytes(body) = Value::decode(&rest.slice(colon + length + 2..)).unwrap() else { panic!("no body") };
        (ident, id, path, headers, body)
    }

    proptest! {
        #[test]
        fn a_handler_reads_what_was_written(
            id in any::<u64>(),
            path in "/[!-~]{0,20}",
            names in proptest::collection::vec("[a-z][a-z-]{0,8}", 0..6),
            value in any::<Vec<u8>>(),
            body in any::<Vec<u8>>(),
        ) {
            for protocol in [Protocol::Json, Protocol::TNetString] {
                let mut request = Request::new(b"ident", id, path.as_bytes(), protocol);
                names.iter().for_each(|name| { request.client_header(name, &value); });
                let (ident, read_id, read_path, headers, read_body) = read(&request.finish(&body));
                prop_assert_eq!((&ident[..], read_id, &read_path[..]), (&b"ident"[..], id, path.as_bytes()));
                prop_assert_eq!(&read_body[..], &body[..]);
                match (protocol, headers) {
                    (Protocol::Json, Value::Bytes(json)) => {
                        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
                        prop_assert_eq!(json["PATH"].as_str(), Some(path.as_str()));
                        names.iter().for_each(|name| assert!(json.get(name).is_some()));
                    }
                    (Protocol::TNetString, map) => {
                        for name in &names {
                            let found = match map.field(name) {
                                Some(Value::List(list)) => list[0].clone(),
                                Some(other) => other.clone(),
                                None => Value::Null,
                            };
                            prop_assert_eq!(found, Value::Bytes(value.clone().into()));
                        }
                    }
                    (_, other) => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
