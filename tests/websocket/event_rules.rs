//! What targets may ask for with their answers to events, and how much may wait on either side.

use std::time::{Duration, Instant};

use serde_json::json;
use waft_testkit::{Gate, Opcode, Reply, Request, Server, Setup, Target, WebSocket, waft_only};

use super::events::{events, text};

fn accept(request: &Request) -> Option<Reply> {
    (request.body == b"OPEN\r\n").then(|| events("OPEN\r\n").header("Sec-WebSocket-Extensions", "grip"))
}

/// A server whose target accepts, and answers what follows with `answer`; `more` goes into the route.
fn serve(more: &str, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Target, Server) {
    let target = Target::start(move |request| accept(request).unwrap_or_else(|| answer(request)));
    let server = Server::start(Setup::new().route(format!("* {},over_http{more}", target.address())));
    target_is_fresh(&target);
    (target, server)
}

fn target_is_fresh(target: &Target) {
    assert_eq!(target.request_count(), 0);
}

fn open(target: &Target, server: &Server) -> WebSocket {
    let socket = WebSocket::open(server.connect(), "/ws", "");
    assert_eq!(target.next_request().body_text(), "OPEN\r\n");
    socket
}

#[test]
fn messages_have_the_prefix_that_the_target_chose() {
    for (extension, sent, expected) in [
        ("grip; message-prefix=\"\"", ["c:{}", "plain", "m:kept"], ["plain", "m:kept"]),
        ("grip; message-prefix=\"x-\"", ["x-one", "m:dropped", "x-two"], ["one", "two"]),
        ("grip", ["m:one", "dropped", "m:two"], ["one", "two"]),
    ] {
        let target = Target::start(move |_| {
            let body = sent.iter().fold("OPEN\r\n".to_owned(), |body, message| body + &text(message));
            events(body).header("Sec-WebSocket-Extensions", extension)
        });
        let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
        let mut socket = WebSocket::open(server.connect(), "/ws", "");
        expected.iter().for_each(|message| socket.expect_text(message));
    }
}

#[test]
fn scheduled_messages_are_of_the_type_asked_for() {
    for (kind, opcode) in
        [("text", Opcode::Text), ("binary", Opcode::Binary), ("ping", Opcode::Ping), ("pong", Opcode::Pong)]
    {
        let keep_alive = json!({ "type": "keep-alive", "content": "k", "message-type": kind, "timeout": 1 });
        let delayed = json!({ "type": "send-delayed", "content-bin": "ZA==", "message-type": kind, "timeout": 60 });
        let flush = json!({ "type": "flush-delayed" });
        let (target, server) = serve("", move |_| {
            events([&delayed, &flush, &keep_alive].map(|control| text(&format!("c:{control}"))).concat())
        });
        let mut socket = open(&target, &server);
        socket.send_text("go");
        for content in [b"d", b"k", b"k"] {
            let frame = socket.frame();
            assert_eq!((frame.opcode, frame.payload.as_slice()), (opcode, content.as_slice()), "{kind}");
        }
    }
}

#[test]
fn a_keep_alive_for_silence_waits_until_nothing_is_said() {
    for mode in ["idle", "interval"] {
        let keep_alive = json!({ "type": "keep-alive", "content": "alive", "timeout": 2, "mode": mode });
        let (target, server) = serve("", move |request| {
            let first = request.body_text().contains("begin");
            events(if first { text(&format!("c:{keep_alive}")) + &text("m:begun") } else { text("m:said") })
        });
        let mut socket = open(&target, &server);
        socket.send_text("begin");
        socket.expect_text("begun");
        // For longer than the pause something is said again and again.
        let begun = Instant::now();
        let mut alive = 0;
        while begun.elapsed() < Duration::from_millis(2500) {
            socket.send_text("say");
            while socket.message().1 == b"alive" {
                alive += 1;
            }
        }
        assert_eq!(alive > 0, mode == "interval", "{alive} with mode {mode}");
        socket.expect_text("alive");
    }
}

#[test]
fn a_close_of_the_backend_reaches_the_client_with_code_and_reason() {
    let (target, server) = serve("", |request| {
        events(if request.body_text().starts_with("CLOSE") { "" } else { "CLOSE 6\r\n\x0f\x22bye!\r\n" })
    });
    let mut socket = open(&target, &server);
    socket.send_text("end");
    assert_eq!(socket.expect_close(), (Some(0x0f22), "bye!".to_owned()));
    assert_eq!(target.next_request().body_text(), text("end"));
    socket.send(Opcode::Close, b"\x0f\x22");
    assert_eq!(target.next_request().body, b"CLOSE 2\r\n\x0f\x22\r\n");
    assert_eq!(socket.into_connection().rest(), b"");
}

#[test]
fn a_backend_can_cut_a_client_off() {
    let (target, server) = serve("", |_| events("DISCONNECT\r\n"));
    let mut socket = open(&target, &server);
    socket.send_text("end");
    assert_eq!(socket.into_connection().rest(), b"");
}

#[test]
fn pings_and_pongs_pass_where_the_backend_answers_them() {
    waft_only!("the setting is for waft; Pushpin always does so");
    let target = Target::start(|request| {
        let body = request.body_text();
        accept(request).unwrap_or_else(|| events(body.replace("PING", "PONG") + "PING 1\r\nb\r\n"))
    });
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[[route]]\nping_mode = \"forward\"\n\
         targets = [\"{},over_http\"]\n",
        target.address()
    );
    let server = Server::start(Setup::native(config));
    let mut socket = open(&target, &server);
    socket.send(Opcode::Ping, b"mine");
    assert_eq!(target.next_request().body_text(), "PING 4\r\nmine\r\n");
    for (opcode, payload) in [(Opcode::Pong, b"mine".as_slice()), (Opcode::Ping, b"b")] {
        let frame = socket.frame();
        assert_eq!((frame.opcode, frame.payload.as_slice()), (opcode, payload));
    }
    socket.send(Opcode::Pong, b"b");
    assert_eq!(target.next_request().body_text(), "PONG 1\r\nb\r\n");
}

#[test]
fn each_event_has_a_request_of_its_own_where_the_target_wants_that() {
    let gate = Gate::new();
    let (target, server) = serve(",one_event", {
        let gate = gate.clone();
        move |_| {
            gate.wait();
            events("")
        }
    });
    let mut socket = open(&target, &server);
    for message in ["one", "two", "three"] {
        socket.send_text(message);
    }
    assert_eq!(target.next_request().body_text(), text("one"));
    gate.open();
    assert_eq!(target.next_request().body_text(), text("two"));
    assert_eq!(target.next_request().body_text(), text("three"));
}

#[test]
fn what_a_backend_did_not_accept_is_offered_again() {
    waft_only!("it came with Pushpin 1.41");
    let (target, server) = serve("", |request| {
        let body = request.body_text();
        if body.contains("world]") { events(text("m:[ok]")) } else { events("").header("Content-Bytes-Accepted", "5") }
    });
    let mut socket = open(&target, &server);
    socket.send_text("[foo][hello");
    let first = target.next_request();
    assert_eq!((first.body_text(), first.header("Content-Bytes-Replayed")), (text("[foo][hello"), None));
    socket.send_text(" world]");
    let second = target.next_request();
    assert_eq!(second.header("Content-Bytes-Replayed"), Some("6"));
    assert_eq!(second.body_text(), text("[hello") + &text(" world]"));
    socket.expect_text("[ok]");
}

#[test]
fn meta_is_replaced_and_deleted() {
    let (target, server) = serve("", |request| {
        let answer = events(text("m:ok"));
        match request.body_text() {
            body if body.contains("set") => answer.header("Set-Meta-User", "bob").header("Set-Meta-Room", "1"),
            body if body.contains("change") => answer.header("set-meta-USER", "eve").header("Set-Meta-Room", ""),
            _ => answer,
        }
    });
    let mut socket = open(&target, &server);
    let mut say = |message: &str| {
        socket.send_text(message);
        socket.expect_text("ok");
        let request = target.next_request();
        ["Meta-User", "Meta-Room"].map(|name| request.header(name).map(str::to_owned))
    };
    let some = |value: &str| Some(value.to_owned());
    assert_eq!(say("set"), [None, None]);
    assert_eq!(say("change"), [some("bob"), some("1")]);
    assert_eq!(say("look"), [some("eve"), None]);
}

#[test]
fn a_session_is_asked_for_in_vain_and_does_no_harm() {
    let session = json!({ "type": "session", "id": "s" });
    let (target, server) = serve("", move |_| events(text(&format!("c:{session}")) + &text("m:after")));
    let mut socket = open(&target, &server);
    socket.send_text("go");
    socket.expect_text("after");
}

#[test]
fn a_client_is_not_read_while_its_backend_is_behind() {
    waft_only!("it has other buffers");
    let gate = Gate::new();
    let (target, server) = serve("", {
        let gate = gate.clone();
        move |request| {
            gate.wait();
            let last = request.body.windows(6).any(|window| window == b"\r\nlast");
            events(if last { text("m:all") } else { String::new() })
        }
    });
    let socket = open(&target, &server);
    let mut connection = socket.into_connection();
    let before = server.resident_bytes();
    // A message a frame, of 10,000 bytes, its mask zero.
    let frame = [b"\x81\xfe\x27\x10\0\0\0\0".as_slice(), &[b'x'; 10_000]].concat();
    let many = frame.repeat(2000);
    let taken = connection.send_until_full(&many, Duration::from_millis(700));
    assert!(taken < many.len(), "all of {} bytes were taken", many.len());
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 4_000_000, "{grown} bytes were kept of {taken}");
    gate.open();
    let rest = many[taken..].to_vec();
    let sender = std::thread::spawn(move || {
        connection.send(rest);
        connection.send(b"\x81\x84\0\0\0\0last");
        connection
    });
    let mut contents = 0;
    loop {
        let body = target.next_request().body;
        contents += body.iter().filter(|byte| **byte == b'x').count();
        if body.windows(6).any(|window| window == b"\r\nlast") {
            break;
        }
    }
    assert_eq!(contents, 2000 * 10_000);
    assert_eq!(sender.join().unwrap().exactly(5), b"\x81\x03all");
}

#[test]
fn a_backend_is_not_asked_while_its_client_is_behind() {
    waft_only!("it has other buffers");
    const ANSWER: usize = 100_000;
    const ASKED: usize = 200;
    let (target, server) = serve(",one_event", |_| events(text(&format!("m:{}", "y".repeat(ANSWER)))));
    let connection = server.connect();
    connection.set_receive_buffer(65_536);
    let mut socket = WebSocket::open(connection, "/ws", "");
    for _ in 0..ASKED {
        socket.send_text("more");
    }
    // Until nothing has changed for a while.
    let (mut count, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(700) {
        let now = target.request_count();
        if now != count {
            (count, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(count < ASKED * 3 / 4, "{count} requests were made for a client that reads nothing");
    for _ in 0..ASKED {
        assert_eq!(socket.message().1.len(), ANSWER);
    }
    assert_eq!(target.request_count(), 1 + ASKED);
}
