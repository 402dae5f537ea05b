//! A backend that goes away in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use waft_testkit::{Connection, Reply, Server, Setup, Target, WebSocket};

use super::events::{events, text};

/// Answers one request of WebSocket events, echoing its texts; false at the end of the connection.
fn echo_once(backend: &mut Connection) -> bool {
    let Some(head) = backend.head_or_end() else { return false };
    let body = String::from_utf8(backend.body(&head)).unwrap();
    let mut answer = String::new();
    for line in body.lines().filter(|line| !line.is_empty() && !line.starts_with("TEXT")) {
        answer.push_str(&if line == "OPEN" { "OPEN\r\n".to_owned() } else { text(&format!("m:{line}")) });
    }
    let reply = events(answer).header("Sec-WebSocket-Extensions", "grip");
    backend.send(reply.to_bytes("POST"));
    true
}

#[test]
fn messages_of_an_outage_arrive_afterwards_in_order() {
    let down = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&down);
    // Down means: connections end without a word, kept ones at once and new ones after their request was begun.
    let target =
        Target::raw(move |mut backend, _arrivals| while !seen.load(Ordering::SeqCst) && echo_once(&mut backend) {});
    let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
    let mut sockets: Vec<WebSocket> = (0..20).map(|_| WebSocket::open(server.connect(), "/ws", "")).collect();
    for socket in &mut sockets {
        socket.send_text("before");
        socket.expect_text("before");
    }
    let address = target.address();
    drop(target);
    down.store(true, Ordering::SeqCst);
    for socket in &mut sockets {
        for text in ["one", "two", "three"] {
            socket.send_text(text);
        }
    }
    let _again = Target::start_on(address, |request| {
        let lines = String::from_utf8(request.body.clone()).unwrap();
        let texts = lines.lines().filter(|line| !line.is_empty() && !line.starts_with("TEXT"));
        let answer: String = texts.map(|line| text(&format!("m:{line}"))).collect();
        events(answer)
    });
    for socket in &mut sockets {
        for text in ["one", "two", "three"] {
            socket.expect_text(text);
        }
    }
}

#[test]
fn the_next_target_is_asked_where_the_first_is_not_there() {
    let target = Target::raw(|mut backend, _arrivals| while echo_once(&mut backend) {});
    let free = waft_testkit::free_port();
    let route = format!("* 127.0.0.1:{free},over_http {},over_http", target.address());
    let server = Server::start(Setup::new().route(route));
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send_text("hello");
    socket.expect_text("hello");
}

#[test]
fn an_error_answer_after_the_opening_ends_the_connection_without_a_close_frame() {
    let target = Target::start(|request| match request.body_text().as_str() {
        "OPEN\r\n" => events("OPEN\r\n"),
        _ => Reply::status("500 Internal Server Error"),
    });
    let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send_text("hello");
    assert_eq!(socket.into_connection().rest(), b"");
}
