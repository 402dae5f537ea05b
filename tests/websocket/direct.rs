use serde_json::json;
use waft_testkit::{Authority, Connection, Opcode, Reply, Server, Setup, Target, TlsRelay, WebSocket, waft_only};

/// The answer that belongs to a key: the server sends its own key, so the target must compute.
fn accept(key: &str) -> String {
    let digest = sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    base64(&digest)
}

/// SHA-1 of FIPS 180-4, which the handshake wants.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words: Vec<u32> =
            block.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for at in 16..80 {
            words.push((words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mix, constant) = match at {
                0..=19 => ((b & c) | (!b & d), 0x5a82_7999_u32),
                20..=39 => (b ^ c ^ d, 0x6ed9_eba1),
                40..=59 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (place, word) in digest.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { letter as char } else { '=' });
        }
    }
    text
}

/// Makes the handshake from the side of a target, with further header lines.
fn answer_handshake(backend: &mut Connection, more: &str) -> Option<waft_testkit::Head> {
    let head = backend.head_or_end()?;
    let accept = accept(head.header("Sec-WebSocket-Key")?);
    backend.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    ));
    Some(head)
}

/// Reads a masked frame and returns its first byte and payload.
fn read_frame(backend: &mut Connection) -> (u8, Vec<u8>) {
    let start = backend.exactly(2);
    assert_eq!(start[1] & 0x80, 0x80, "a client must mask");
    let length = match start[1] & 0x7f {
        126 => usize::from(u16::from_be_bytes(backend.exactly(2).try_into().unwrap())),
        127 => u64::from_be_bytes(backend.exactly(8).try_into().unwrap()) as usize,
        short => usize::from(short),
    };
    let mask = backend.exactly(4);
    let masked = backend.exactly(length);
    (start[0], masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

/// A frame as a server sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=65_535 => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// Echoes frames; a text message that asks for it is answered with a close.
pub(crate) fn echo_target(extension: &'static str) -> Target {
    Target::raw(move |mut backend, arrivals| {
        let Some(head) = answer_handshake(&mut backend, extension) else { return };
        arrivals.record(&head, b"");
        if extension.contains("grip") {
            backend.send(frame(0x81, b"c:{\"type\":\"subscribe\",\"channel\":\"c\"}"));
            backend.send(frame(0x81, b"m:hello"));
            backend.send(frame(0x81, b"without prefix"));
        }
        while backend.has_more() {
            let (first, payload) = read_frame(&mut backend);
            let prefix: &[u8] = if extension.contains("grip") && first & 0x0f < 8 { b"m:" } else { b"" };
            backend.send(frame(first, &[prefix, &payload].concat()));
            if first == 0x88 {
                return;
            }
        }
    })
}

/// Accepts with the control layer, sends these messages, and then waits for the end.
pub(crate) fn grip_target(messages: Vec<String>) -> Target {
    Target::raw(move |mut backend, _arrivals| {
        if answer_handshake(&mut backend, "Sec-WebSocket-Extensions: grip\r\n").is_some() {
            for message in &messages {
                backend.send(frame(0x81, message.as_bytes()));
            }
            backend.rest();
        }
    })
}

fn serve(target: &Target) -> Server {
    Server::start(Setup::to(target))
}

#[test]
fn the_helpers_compute_what_the_rfc_says() {
    assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn messages_pass_both_ways() {
    let target = echo_target("");
    let server = serve(&target);
    let mut socket = WebSocket::open(server.connect(), "/ws?a=b", "X-Mine: 1\r\n");
    let head = target.next_request().head;
    assert_eq!((head.path(), head.header("X-Mine")), ("/ws?a=b", Some("1")));
    assert_eq!((head.method(), head.header("Sec-WebSocket-Version")), ("GET", Some("13")));
    for text in ["hi", &"long".repeat(500)] {
        socket.send_text(text);
        socket.expect_text(text);
    }
    socket.send(Opcode::Binary, &[0, 255]);
    assert_eq!(socket.message(), (Opcode::Binary, vec![0, 255]));
}

#[test]
fn empty_and_large_messages_pass_too() {
    waft_only!("Pushpin stalls on direct sockets");
    let target = echo_target("");
    let server = serve(&target);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    for text in ["", &"long".repeat(10_000), ""] {
        socket.send_text(text);
        socket.expect_text(text);
    }
}

#[test]
fn a_close_passes_with_its_code_and_reason() {
    let target = echo_target("");
    let server = serve(&target);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send(Opcode::Close, b"\x0f\xa1because");
    assert_eq!(socket.expect_close(), (Some(4001), "because".to_owned()));
}

#[test]
fn a_grip_backend_subscribes_its_client() {
    let target = echo_target("Sec-WebSocket-Extensions: grip\r\n");
    let server = serve(&target);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    assert_eq!(socket.head.header("Sec-WebSocket-Extensions"), None);
    // Control messages and those without the prefix stay inside.
    socket.expect_text("hello");
    assert_eq!(target.next_request().header("Sec-WebSocket-Extensions"), Some("grip"));
    server.wait_for_holds(1);
    server.publish(json!([{ "channel": "c", "ws-message": { "content": "published" } }]));
    socket.expect_text("published");
    socket.send_text("echo");
    socket.expect_text("echo");
}

#[test]
fn pings_of_a_client_pass_with_their_payload() {
    waft_only!("Pushpin loses the payload of pings on direct sockets");
    let target = echo_target("");
    let server = serve(&target);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send(Opcode::Ping, b"there?");
    let answer = socket.frame();
    assert_eq!(answer.payload, b"there?");
}

#[test]
fn an_unmasked_frame_of_a_client_ends_the_connection() {
    waft_only!("Pushpin accepts it");
    let target = echo_target("");
    let server = serve(&target);
    let socket = WebSocket::open(server.connect(), "/ws", "");
    let mut connection = socket.into_connection();
    connection.send(frame(0x81, b"bare"));
    let rest = connection.rest();
    assert!(!String::from_utf8_lossy(&rest).contains("bare"));
}

#[test]
fn a_target_without_sockets_answers_for_itself() {
    let target = Target::start(|_| Reply::text("no sockets here"));
    let server = serve(&target);
    let answer = server.fetch(WebSocket::request("/ws", ""));
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "no sockets here"));
}

#[test]
fn a_wrong_accept_of_a_target_is_refused() {
    waft_only!("Pushpin does not look at it");
    let target = Target::raw(|mut backend, _| {
        if backend.head_or_end().is_some() {
            backend.send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n",
            );
        }
    });
    let server = serve(&target);
    assert_eq!(server.fetch(WebSocket::request("/ws", "")).status(), 502);
}

#[test]
fn the_name_of_the_upgrade_may_be_in_any_case() {
    waft_only!("Pushpin takes such a request for plain HTTP");
    let target = echo_target("");
    let server = serve(&target);
    let mut client = server.connect();
    client.send(WebSocket::request("/ws", "").replace("Upgrade: websocket", "Upgrade: WebSocket"));
    client.expect_head(101);
}

#[test]
fn a_subprotocol_passes_both_ways() {
    let target = echo_target("Sec-WebSocket-Protocol: chat\r\n");
    let server = serve(&target);
    let socket = WebSocket::open(server.connect(), "/ws", "Sec-WebSocket-Protocol: chat, other\r\n");
    assert_eq!(socket.head.header("Sec-WebSocket-Protocol"), Some("chat"));
    assert_eq!(target.next_request().header("Sec-WebSocket-Protocol"), Some("chat, other"));
}

#[test]
fn the_end_of_a_target_ends_its_client() {
    let target = Target::raw(|mut backend, _| {
        answer_handshake(&mut backend, "");
    });
    let server = serve(&target);
    let mut connection = WebSocket::open(server.connect(), "/ws", "").into_connection();
    connection.rest();
}

#[test]
fn a_frame_is_read_however_it_is_cut() {
    let target = echo_target("");
    let server = serve(&target);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send_text("warm");
    socket.expect_text("warm");
    let mut connection = socket.into_connection();
    for byte in [0x81, 0x82, 1, 2, 3, 4, b'o' ^ 1, b'k' ^ 2] {
        connection.send([byte]);
    }
    // It may go on in pieces, but as one message.
    let mut message = Vec::new();
    loop {
        let head = connection.exactly(2);
        message.extend(connection.exactly(usize::from(head[1])));
        if head[0] & 0x80 != 0 {
            break;
        }
    }
    assert_eq!(message, b"ok");
}

#[test]
fn messages_pass_both_ways_to_an_encrypted_target() {
    let authority = Authority::new();
    let target = echo_target("");
    let relay = TlsRelay::before(&target, &authority.issue(&["app.example"]));
    let route = format!("* 127.0.0.1:{},ssl,host=app.example", relay.port());
    let server = Server::start(Setup::new().route(route).trusting(&authority));
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    for length in [2, 500, 30_000] {
        let text = "x".repeat(length);
        socket.send_text(&text);
        socket.expect_text(&text);
    }
    // Many at once: what is decrypted together is passed on together.
    for number in 0..200 {
        socket.send_text(&number.to_string());
    }
    for number in 0..200 {
        socket.expect_text(&number.to_string());
    }
    socket.send(Opcode::Close, &1000_u16.to_be_bytes());
    assert_eq!(socket.expect_close().0, Some(1000));
}

#[test]
fn an_encrypted_target_that_takes_no_more_slows_its_client_down() {
    waft_only!("direct sockets of Pushpin can stall for good");
    let authority = Authority::new();
    let gate = waft_testkit::Gate::new();
    let opened = gate.clone();
    let target = Target::raw(move |mut backend, _| {
        if answer_handshake(&mut backend, "").is_none() {
            return;
        }
        opened.wait();
        loop {
            let (first, payload) = read_frame(&mut backend);
            backend.send(frame(first, &payload));
            if first == 0x88 {
                return;
            }
        }
    });
    let relay = TlsRelay::before(&target, &authority.issue(&["app.example"]));
    let route = format!("* 127.0.0.1:{},ssl,host=app.example", relay.port());
    let server = Server::start(Setup::new().route(route).trusting(&authority));
    let socket = WebSocket::open(server.connect(), "/ws", "");
    // One frame that no buffer on the way takes whole; the mask is zero.
    let length = 60_000_000_u64;
    let mut connection = socket.into_connection();
    connection.send([&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat());
    let filler = vec![0; 1 << 20];
    let mut sent = 0;
    loop {
        let taken = connection.send_until_full(&filler, std::time::Duration::from_millis(500));
        sent += taken as u64;
        if taken < filler.len() {
            break;
        }
        assert!(sent < length, "everything was taken although the target reads nothing");
    }
    gate.open();
}
