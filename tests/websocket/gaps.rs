//! WebSockets that miss nothing, or are told.

use serde_json::{Value, json};
use waft_testkit::{Reply, Request, Server, Setup, Target, WebSocket, waft_only};

use super::direct::grip_target;
use super::events::{events, text};

/// Accepts, and obeys control messages that the client sends.
fn obedient(request: &Request) -> Reply {
    let body = request.body_text();
    let mut answer = String::new();
    for line in body.lines() {
        match line {
            "OPEN" | "CLOSE" => answer.push_str(&format!("{line}\r\n")),
            control if control.starts_with('{') => answer.push_str(&text(&format!("c:{control}"))),
            _ => {}
        }
    }
    events(answer).header("Sec-WebSocket-Extensions", "grip")
}

fn serve(target: &str, options: &str) -> Server {
    Server::start(Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[[route]]\n{options}\ntargets = [\"{target}\"]\n"
    )))
}

fn item(id: u32, prev_id: u32) -> Value {
    let formats = json!({ "ws-message": { "content": format!("item {id}") } });
    json!({ "channel": "c", "id": id.to_string(), "prev-id": prev_id.to_string(), "no-seq": true, "formats": formats })
}

const MESSAGE: &str = r#"gap_message = '{"gap": "{channel}", "after": "{last-id}"}'"#;

#[test]
fn a_client_that_cannot_catch_up_is_told_where_its_route_says_so() {
    waft_only!("it keeps no log");
    let target = Target::start(obedient);
    let server = serve(&format!("{},over_http", target.address()), MESSAGE);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send_text(&json!({ "type": "subscribe", "channel": "c", "last-id": "old" }).to_string());
    socket.expect_text(r#"{"gap": "c", "after": "old"}"#);
    server.publish(json!([item(1, 0)]));
    socket.expect_text("item 1");
    socket.send_text("more");
    while target.next_request().header("Waft-Gap") != Some("c; last-id=old") {}
}

#[test]
fn a_gap_between_items_is_told_before_the_item_behind_it() {
    waft_only!("it keeps no log");
    let target = Target::start(obedient);
    let server = serve(&format!("{},over_http", target.address()), &format!("log = false\n{MESSAGE}"));
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send_text(&json!({ "type": "subscribe", "channel": "c", "prev-id": "1" }).to_string());
    server.wait_for_listener("c", 1);
    server.publish(json!([item(2, 1), item(4, 3), item(5, 4)]));
    for expected in ["item 2", r#"{"gap": "c", "after": "2"}"#, "item 4", "item 5"] {
        socket.expect_text(expected);
    }
}

#[test]
fn a_client_may_be_closed_instead_so_that_it_begins_anew() {
    waft_only!("it keeps no log");
    let target = Target::start(obedient);
    let server = serve(&format!("{},over_http", target.address()), "log = false\ngap_close = 4010");
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send_text(&json!({ "type": "subscribe", "channel": "c", "prev-id": "1" }).to_string());
    server.wait_for_listener("c", 1);
    server.publish(json!([item(2, 1), item(4, 3), item(5, 4)]));
    socket.expect_text("item 2");
    assert_eq!(socket.expect_close(), (Some(4010), "items are missing".to_owned()));
    while target.next_request().body_text() != "CLOSE\r\n" {}
    // Right away, after the message, where nothing is known of what the client saw last.
    let server = serve(&format!("{},over_http", target.address()), "gap_close = 4011\ngap_message = \"lost\"");
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.send_text(&json!({ "type": "subscribe", "channel": "c", "last-id": "old" }).to_string());
    socket.expect_text("lost");
    assert_eq!(socket.expect_close().0, Some(4011));
}

#[test]
fn a_client_of_a_direct_target_is_told_as_well() {
    waft_only!("it keeps no log");
    let subscribe = json!({ "type": "subscribe", "channel": "c", "last-id": "old" });
    let target = grip_target(vec![format!("c:{subscribe}"), "m:hello".to_owned()]);
    let server = serve(&target.address().to_string(), MESSAGE);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text(r#"{"gap": "c", "after": "old"}"#);
    socket.expect_text("hello");
    let server = serve(&target.address().to_string(), "gap_close = 4010");
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    assert_eq!(socket.expect_close().0, Some(4010));
}

#[test]
fn a_client_of_a_direct_target_gets_what_it_missed() {
    waft_only!("it keeps no log");
    let subscribe = json!({ "type": "subscribe", "channel": "c", "last-id": "1" });
    let first = json!({ "type": "subscribe", "channel": "c" });
    let log = grip_target(vec![format!("c:{first}"), "m:hello".to_owned()]);
    let late = grip_target(vec![format!("c:{subscribe}"), "m:hello".to_owned()]);
    let server = Server::start(Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[[route]]\npath = \"/first\"\n\
         targets = [\"{}\"]\n[[route]]\n{MESSAGE}\ntargets = [\"{}\"]\n",
        log.address(),
        late.address()
    )));
    let mut first = WebSocket::open(server.connect(), "/first", "");
    first.expect_text("hello");
    server.publish(json!([item(1, 0), item(2, 1), item(3, 2)]));
    first.expect_text("item 1");
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    for expected in ["item 2", "item 3", "hello"] {
        socket.expect_text(expected);
    }
}

#[test]
fn a_refresh_or_close_that_was_missed_keeps_its_place() {
    waft_only!("it keeps no log");
    let target = Target::start(obedient);
    let server = serve(&format!("{},over_http", target.address()), "");
    let mut first = WebSocket::open(server.connect(), "/ws", "");
    first.send_text(&json!({ "type": "subscribe", "channel": "c" }).to_string());
    server.wait_for_listener("c", 1);
    let close = json!({ "channel": "c", "id": "3", "prev-id": "2",
                        "formats": { "ws-message": { "action": "close", "code": 4001 } } });
    server.publish(json!([item(1, 0), item(2, 1), close]));
    first.expect_text("item 1");
    let mut back = WebSocket::open(server.connect(), "/ws", "");
    back.send_text(&json!({ "type": "subscribe", "channel": "c", "last-id": "1" }).to_string());
    back.expect_text("item 2");
    assert_eq!(back.expect_close().0, Some(4001));
}
