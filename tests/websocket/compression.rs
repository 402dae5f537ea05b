//! permessage-deflate (RFC 7692): what is agreed on, what is sent then, and what is refused.

use serde_json::json;
use waft_testkit::{Connection, Opcode, Reply, Server, Setup, Target, WebSocket, waft_only};

use super::events::{events, text};

/// A server with the built-in echo at `/ws`, which compresses, and a route `plain.example.com` that does not.
fn serve(settings: &str) -> Server {
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[websocket]\ncompression = true\n{settings}\n\
         [[route]]\nhost = \"plain.example.com\"\ncompression = false\ntargets = [\"test\"]\n\
         [[route]]\ntargets = [\"test\"]\n"
    );
    Server::start(Setup::native(config))
}

fn offering(server: &Server, offer: &str) -> WebSocket {
    WebSocket::open(server.connect(), "/ws", &format!("Sec-WebSocket-Extensions: {offer}\r\n"))
}

/// A masked frame whose mask is zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// The first byte of a frame, and its payload.
fn read(client: &mut Connection) -> (u8, Vec<u8>) {
    let start = client.exactly(2);
    let length = match start[1] {
        126 => usize::from(u16::from_be_bytes(client.exactly(2).try_into().unwrap())),
        short => usize::from(short),
    };
    (start[0], client.exactly(length))
}

#[test]
fn windows_and_contexts_are_agreed_on() {
    waft_only!("it agrees on no windows");
    let server = serve("");
    let check = |offer: &str, expected: Option<&str>| {
        let socket = offering(&server, offer);
        assert_eq!(socket.head.header("Sec-WebSocket-Extensions"), expected, "{offer}");
    };
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    check("permessage-deflate", Some(both));
    check("permessage-deflate; client_max_window_bits", Some(both));
    check("permessage-deflate; client_no_context_takeover; server_no_context_takeover", Some(both));
    check("permessage-deflate; server_max_window_bits=10", Some(&format!("{both}; server_max_window_bits=10")));
    check("permessage-deflate; client_max_window_bits=9", Some(&format!("{both}; client_max_window_bits=9")));
    check("permessage-deflate; server_max_window_bits=\"12\"", Some(&format!("{both}; server_max_window_bits=12")));
    // Nothing compresses with this window; the next offer counts.
    check("permessage-deflate; server_max_window_bits=8", None);
    check("permessage-deflate; server_max_window_bits=8, permessage-deflate", Some(both));
    check("permessage-deflate; server_max_window_bits=16", None);
    check("permessage-deflate; unknown", None);
    check("permessage-deflate; client_max_window_bits; client_max_window_bits", None);
    check("x-webkit-deflate-frame", None);
}

#[test]
fn listeners_who_agreed_on_the_same_get_the_same_bytes() {
    waft_only!("it compresses for each");
    let target = Target::start(|request| {
        let filters = if request.path() == "/filtered" { json!(["skip-self"]) } else { json!([]) };
        let subscribe = json!({ "type": "subscribe", "channel": "c", "filters": filters });
        match request.body_text().as_str() {
            "OPEN\r\n" => events(format!("OPEN\r\n{}", text(&format!("c:{subscribe}"))))
                .header("Sec-WebSocket-Extensions", "grip"),
            _ => events(""),
        }
    });
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[[route]]\ncompression = true\n\
         targets = [\"{},over_http\"]\n",
        target.address()
    );
    let server = Server::start(Setup::native(config));
    let open = |path: &str, offer: &str| {
        let offer = format!("Sec-WebSocket-Extensions: permessage-deflate{offer}\r\n");
        WebSocket::open(server.connect(), path, &offer).into_connection()
    };
    let mut clients = [open("/", ""), open("/", ""), open("/filtered", ""), open("/", "; server_max_window_bits=9")];
    let mut plain = WebSocket::open(server.connect(), "/", "");
    server.wait_for_holds(5);
    // It repeats itself at a distance that the small window does not reach.
    let content = (0..40).map(|number| format!("{number:03} {}", "-".repeat(20))).collect::<String>().repeat(2);
    server.publish(json!([{ "channel": "c", "ws-message": { "content": content } }]));
    plain.expect_text(&content);
    let frames = clients.each_mut().map(read);
    assert!(frames.iter().all(|(first, _)| *first == 0xc1), "all are compressed");
    assert_eq!(frames[0], frames[1]);
    assert_eq!(frames[0], frames[2], "a filter that changes nothing makes no difference");
    assert!(frames[0].1.len() < frames[3].1.len() && frames[3].1.len() < content.len(), "the window counts");
}

#[test]
fn a_message_that_grows_beyond_the_limit_is_refused() {
    waft_only!("it has no limit there");
    let server = serve("message_max = 1000");
    // 1000 and 5000 times the letter a.
    let fits = b"JL\x1c\x05\xa3`\x14\x0cw\x00\x00";
    let grows = b"\xec\xc11\x01\x00\x00\x00\xc2\xa0\xac\xeb_\xc2\x14~@\x01\x00\x00\x00\x00o\x03";
    let mut socket = offering(&server, "permessage-deflate");
    socket.send_bytes(frame(0xc1, fits));
    let mut connection = {
        socket.send_bytes(frame(0xc1, grows));
        socket.into_connection()
    };
    let (first, echo) = read(&mut connection);
    assert!(first == 0xc1 && echo.len() < 100, "the echo is compressed too");
    let (first, close) = read(&mut connection);
    assert_eq!((first, &close[..2]), (0x88, &b"\x03\xf1"[..]), "1009");
    // In pieces it is the same.
    let mut socket = offering(&server, "permessage-deflate");
    socket.send_bytes([frame(0x41, &grows[..10]), frame(0x80, &grows[10..])].concat());
    assert_eq!(socket.expect_close().0, Some(1009));
}

#[test]
fn broken_compression_is_refused() {
    waft_only!("it does not look");
    let server = serve("");
    let check = |bytes: Vec<u8>, code: u16| {
        let mut socket = offering(&server, "permessage-deflate");
        socket.send_bytes(&bytes);
        assert_eq!(socket.expect_close().0, Some(code), "{}", bytes.escape_ascii());
    };
    check(frame(0xc1, b"\xff\xff\xff"), 1007);
    // Compressed bytes of what is not UTF-8.
    check(frame(0xc1, b"\xfa\x0f\x00"), 1007);
    check([frame(0x41, b"\xf2\x48"), frame(0xc0, b"\xcd\xc9\xc9\x07\x00")].concat(), 1002);
    check(frame(0xc9, b""), 1002);
}

#[test]
fn every_message_of_a_client_stands_alone() {
    waft_only!("it keeps the window");
    let server = serve("");
    let mut socket = offering(&server, "permessage-deflate");
    // RFC 7692, section 7.2.3.2: the second message refers to the first, which was agreed not to happen.
    socket.send_bytes(frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
    socket.expect_text("Hello");
    socket.send_bytes(frame(0xc1, b"\xf2\x00\x11\x00\x00"));
    assert_eq!(socket.expect_close().0, Some(1007));
}

#[test]
fn a_route_decides_for_itself() {
    waft_only!("it has one setting for all routes");
    let server = serve("");
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut connection = server.connect();
    connection.send(WebSocket::request("/ws", offer).replace("example.com", "plain.example.com"));
    assert_eq!(connection.expect_head(101).header("Sec-WebSocket-Extensions"), None);
    connection.send(frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
    assert_eq!(&connection.exactly(4)[2..], b"\x03\xea", "1002");
    assert!(offering(&server, "permessage-deflate").head.header("Sec-WebSocket-Extensions").is_some());
}

#[test]
fn a_direct_target_is_offered_what_its_route_allows() {
    waft_only!("the setting has another place there");
    for (allowed, offered) in [("true", Some(true)), ("false", None)] {
        let target = Target::start(|_| Reply::status("403 Forbidden"));
        let config = format!(
            "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[[route]]\nno_grip = true\n\
             compression = {allowed}\ntargets = [\"{}\"]\n",
            target.address()
        );
        let server = Server::start(Setup::native(config));
        assert_eq!(server.fetch(WebSocket::request("/", "")).status(), 403);
        let extensions = target.next_request().header("Sec-WebSocket-Extensions").map(str::to_owned);
        assert_eq!(extensions.map(|list| list.starts_with("permessage-deflate")), offered, "compression = {allowed}");
    }
}

#[test]
fn small_messages_are_not_compressed() {
    waft_only!("it compresses all");
    let server = serve("");
    let mut socket = offering(&server, "permessage-deflate");
    socket.send(Opcode::Text, &[b'a'; 199]);
    let mut connection = socket.into_connection();
    assert_eq!(read(&mut connection), (0x81, vec![b'a'; 199]));
}
