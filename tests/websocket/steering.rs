//! What a backend can have done with the socket of a client, by messages that the client never sees.

use std::time::{Duration, Instant};

use serde_json::json;
use waft_testkit::{Opcode, Reply, Request, Server, Setup, Target, WebSocket, waft_only};

use super::events::{events, text};

/// A backend that obeys its clients: what looks like JSON comes back as a control message, other text as text.
fn obedient(request: &Request) -> Reply {
    let body = request.body_text();
    let mut answer = String::new();
    if body == "OPEN\r\n" {
        answer.push_str("OPEN\r\n");
    }
    for line in body.lines() {
        if line.starts_with('{') {
            answer.push_str(&text(&format!("c:{line}")));
        } else if !line.is_empty() && !["TEXT", "OPEN", "CLOSE", "PONG"].iter().any(|kind| line.starts_with(kind)) {
            answer.push_str(&text(&format!("m:{line}")));
        }
    }
    if body.contains("CLOSE") {
        answer.push_str("CLOSE\r\n");
    }
    events(answer).header("Sec-WebSocket-Extensions", "grip")
}

fn serve() -> (Target, Server, WebSocket) {
    let target = Target::start(obedient);
    let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
    let socket = WebSocket::open(server.connect(), "/ws", "");
    (target, server, socket)
}

/// Has a control message sent, and waits until everything up to it is in force.
fn steer(socket: &mut WebSocket, message: &serde_json::Value) {
    socket.send_text(&message.to_string());
    socket.send_text("done");
    socket.expect_text("done");
}

fn publish(server: &Server, channel: &str, content: &str) {
    server.publish(json!([{ "channel": channel, "ws-message": { "content": content } }]));
}

#[test]
fn a_keep_alive_comes_again_and_again_until_it_is_turned_off() {
    let (_target, server, mut socket) = serve();
    steer(&mut socket, &json!({ "type": "subscribe", "channel": "c" }));
    steer(&mut socket, &json!({ "type": "keep-alive", "content": "alive", "timeout": 1, "mode": "interval" }));
    socket.expect_text("alive");
    socket.expect_text("alive");
    socket.send_text(&json!({ "type": "keep-alive" }).to_string());
    socket.send_text("off");
    // One more may have been on its way.
    let mut answer = socket.message();
    while answer.1 == b"alive" {
        answer = socket.message();
    }
    assert_eq!(answer.1, b"off");
    publish(&server, "c", "news");
    socket.expect_text("news");
}

#[test]
fn a_delayed_message_comes_later_or_when_it_is_called_for() {
    let (_target, _server, mut socket) = serve();
    let begun = Instant::now();
    socket.send_text(&json!({ "type": "send-delayed", "content": "late", "timeout": 1 }).to_string());
    socket.expect_text("late");
    assert!(begun.elapsed() >= Duration::from_secs(1), "it came after {:?}", begun.elapsed());
    for content in ["first", "second"] {
        socket.send_text(&json!({ "type": "send-delayed", "content": content, "timeout": 50 }).to_string());
    }
    // A second one sends the first on its way.
    socket.expect_text("first");
    socket.send_text(&json!({ "type": "flush-delayed" }).to_string());
    socket.expect_text("second");
}

#[test]
fn a_channel_beyond_the_limit_is_not_subscribed_to() {
    let (_target, server, mut socket) = serve();
    for number in 0..21 {
        steer(&mut socket, &json!({ "type": "subscribe", "channel": format!("c{number}") }));
    }
    publish(&server, "c20", "too much");
    publish(&server, "c19", "fits");
    socket.expect_text("fits");
}

#[test]
fn too_many_filters_close_the_socket() {
    let (_target, _server, mut socket) = serve();
    let filters = vec!["skip-self"; 6];
    socket.send_text(&json!({ "type": "subscribe", "channel": "c", "filters": filters }).to_string());
    assert_eq!(socket.expect_close().0, Some(1011));
}

#[test]
fn a_refresh_has_the_backend_asked_at_once() {
    let (target, server, mut socket) = serve();
    steer(&mut socket, &json!({ "type": "subscribe", "channel": "c" }));
    assert!(target.requests().iter().all(|request| !request.body.is_empty()));
    server.publish(json!([{ "channel": "c", "ws-message": { "action": "refresh" } }]));
    assert_eq!(target.next_request().body_text(), "");
}

#[test]
fn subscribing_again_changes_the_filters() {
    let (_target, server, mut socket) = serve();
    steer(&mut socket, &json!({ "type": "set-meta", "name": "user", "value": "alice" }));
    let own = json!([{ "channel": "c", "meta": { "sender": "alice" }, "ws-message": { "content": "own" } }]);
    steer(&mut socket, &json!({ "type": "subscribe", "channel": "c", "filters": ["skip-self"] }));
    server.publish(own.clone());
    publish(&server, "c", "of others");
    socket.expect_text("of others");
    steer(&mut socket, &json!({ "type": "subscribe", "channel": "c" }));
    server.publish(own);
    socket.expect_text("own");
}

#[test]
fn who_comes_back_gets_what_it_missed_and_the_backend_hears_of_a_gap() {
    waft_only!("Pushpin keeps no log");
    let target = Target::start(obedient);
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\n\n[[route]]\ntargets = [\"{},over_http\"]\n",
        target.address()
    );
    let server = Server::start(Setup::native(config));
    let mut first = WebSocket::open(server.connect(), "/ws", "");
    steer(&mut first, &json!({ "type": "subscribe", "channel": "c" }));
    for id in 1..=4 {
        let item = json!({
            "channel": "c", "id": id.to_string(), "prev-id": (id - 1).to_string(),
            "formats": { "ws-message": { "content": format!("item {id}") } },
        });
        server.publish(json!([item]));
        first.expect_text(&format!("item {id}"));
    }
    let mut back = WebSocket::open(server.connect(), "/ws", "");
    back.send_text(&json!({ "type": "subscribe", "channel": "c", "last-id": "2" }).to_string());
    back.expect_text("item 3");
    back.expect_text("item 4");
    publish(&server, "c", "new");
    back.expect_text("new");
    let mut lost = WebSocket::open(server.connect(), "/ws", "");
    steer(&mut lost, &json!({ "type": "subscribe", "channel": "c", "last-id": "unknown" }));
    lost.send_text("next");
    lost.expect_text("next");
    let told = target.requests().iter().any(|request| request.header("Waft-Gap") == Some("c; last-id=unknown"));
    assert!(told, "no request told of the gap");
}

#[test]
fn pings_are_answered_here_or_by_the_backend() {
    waft_only!("Pushpin leaves pings to the backend");
    let (target, _server, mut socket) = serve();
    let before = target.request_count();
    socket.send(Opcode::Ping, b"mine");
    let answer = socket.frame();
    assert_eq!((answer.opcode, answer.payload), (Opcode::Pong, b"mine".to_vec()));
    assert_eq!(target.request_count(), before, "the backend was not troubled");
}
