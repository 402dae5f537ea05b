//! The rules of the protocol, from the client's side.

use std::time::Duration;

use serde_json::json;
use waft_testkit::{Opcode, Server, Setup, WebSocket, waft_only};

/// A server with the built-in echo at `/ws`, and further settings.
fn serve(settings: &str) -> Server {
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\n\n{settings}\n[[route]]\ntargets = [\"test\"]\n"
    );
    Server::start(Setup::native(config))
}

/// A masked frame, its first byte chosen freely. The mask is zero, so the payload stands as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Opens a socket to the echo and returns its connection, for bytes of one's own.
fn open(server: &Server, more: &str) -> waft_testkit::Connection {
    WebSocket::open(server.connect(), "/ws", more).into_connection()
}

#[test]
fn broken_frames_are_answered_with_the_code_that_names_the_fault() {
    waft_only!("Pushpin ends such connections without a close frame, or lets them pass");
    let server = serve("");
    let check = |bytes: Vec<u8>, code: u16| {
        let mut client = open(&server, "");
        client.send(&bytes);
        let start = client.exactly(4);
        assert_eq!((start[0], u16::from_be_bytes([start[2], start[3]])), (0x88, code), "{}", bytes.escape_ascii());
        client.rest();
    };
    check(frame(0x81, b"\xff"), 1007);
    check(b"\x81\x01a".to_vec(), 1002);
    check(frame(0xc1, b"a"), 1002);
    check(frame(0x80, b"a"), 1002);
    check(frame(0x83, b""), 1002);
    check(frame(0x89, &[b'x'; 126]), 1002);
    check(frame(0x09, b""), 1002);
    check(frame(0x88, b"\x03\xed"), 1002);
    check(frame(0x88, b"\x03"), 1002);
    check([frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002);
}

#[test]
fn a_ping_may_come_between_the_pieces_of_a_message() {
    waft_only!("Pushpin takes it for a fault");
    let server = serve("");
    let mut client = open(&server, "");
    client.send([frame(0x01, b"he"), frame(0x89, b"p"), frame(0x80, b"llo")].concat());
    assert_eq!(client.exactly(3 + 7), b"\x8a\x01p\x81\x05hello");
}

#[test]
fn a_message_beyond_the_limit_closes_with_1009() {
    waft_only!("Pushpin has no such limit here");
    let server = serve("[websocket]\nmessage_max = 1000\n");
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send(Opcode::Binary, &[7; 1000]);
    assert_eq!(socket.message().1, [7; 1000]);
    socket.send(Opcode::Binary, &[7; 1001]);
    assert_eq!(socket.expect_close().0, Some(1009));
}

#[test]
fn a_handshake_that_is_none_is_refused_with_400() {
    waft_only!("Pushpin closes without a word");
    let server = serve("");
    let good = WebSocket::request("/ws", "");
    let changes = [
        ("Version: 13", "Version: 8"),
        ("Sec-WebSocket-Key", "X-Key"),
        ("GET ", "POST "),
        ("13\r\n", "13\r\nContent-Length: 1\r\n"),
    ];
    for (from, to) in changes {
        let response = server.fetch(good.replacen(from, to, 1));
        assert_eq!(response.status(), 400, "{to}");
    }
}

#[test]
fn a_client_is_pinged_and_given_up_when_it_never_answers() {
    waft_only!("Pushpin sends no pings of its own");
    let server = serve("[websocket]\nping_interval = \"1s\"\n");
    let mut client = open(&server, "");
    client.set_deadline(Duration::from_secs(20));
    assert_eq!(client.exactly(6), b"\x89\x04waft");
    // An answer is a sign of life, and is not echoed.
    client.send(frame(0x8a, b"waft"));
    assert_eq!(client.exactly(6), b"\x89\x04waft");
    let rest = client.rest();
    assert!(rest.chunks(6).all(|ping| ping == b"\x89\x04waft"), "{}", rest.escape_ascii());
}

#[test]
fn a_client_that_does_not_read_is_closed_with_1013_and_not_left_with_a_gap() {
    waft_only!("Pushpin drops without telling");
    let server = serve("[limits]\nqueue_items = 10\n");
    let mut client = open(&server, "");
    client.set_receive_buffer(65_536);
    for number in 0..200 {
        server.publish(json!([{ "channel": "test", "ws-message": { "content": format!("{number:060000}") } }]));
    }
    let mut numbers = Vec::new();
    loop {
        let start = client.exactly(2);
        if start[0] == 0x88 {
            let close = client.exactly(usize::from(start[1]));
            assert_eq!(close, b"\x03\xf5client reads too slowly");
            break;
        }
        let length = u16::from_be_bytes(client.exactly(2).try_into().unwrap());
        let content = String::from_utf8(client.exactly(length.into())).unwrap();
        numbers.push(content.parse::<usize>().unwrap());
    }
    assert!(numbers.len() < 200, "the queue was never full");
    assert!(numbers.iter().copied().eq(0..numbers.len()), "there is a gap before the close: {numbers:?}");
}

#[test]
fn compression_is_used_where_both_want_it() {
    waft_only!("the setting has another place there");
    let server = serve("[websocket]\ncompression = true\n");
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let content = "again and ".repeat(100);
    let publish = json!([{ "channel": "test", "ws-message": { "content": content } }]);
    let mut plain = open(&server, "");
    let mut packed = open(&server, offer);
    server.publish(publish);
    assert_eq!(plain.exactly(2), [0x81, 126]);
    let start = packed.exactly(2);
    assert_eq!(start[0], 0xc1, "a compressed text message");
    assert!(usize::from(start[1]) < 100, "smaller than its {} bytes", content.len());
    // "Hello", compressed, is the example of RFC 7692, section 7.2.3.1.
    packed.exactly(usize::from(start[1]));
    packed.send(frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
    assert_eq!(packed.exactly(7), b"\x81\x05Hello");
}
