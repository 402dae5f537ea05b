//! WebSockets of plain clients.

use serde_json::{Value, json};
use waft_testkit::{Opcode, Server, WebSocket};

use crate::publish::signed;
use crate::{event, events, publish, serve, serve_with};

fn open(server: &Server, path: &str) -> WebSocket {
    WebSocket::open(server.connect(), path, "")
}

fn say(socket: &mut WebSocket, message: &Value) {
    socket.send_text(&message.to_string());
}

fn hear(socket: &mut WebSocket) -> Value {
    let (opcode, text) = socket.message();
    assert_eq!(opcode, Opcode::Text);
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn one_connection_carries_many_channels() {
    let server = serve();
    let mut socket = open(&server, "/");
    for (id, channel) in [(1, "open/a"), (2, "open/b")] {
        say(&mut socket, &json!({ "type": "subscribe", "id": id, "channel": channel }));
        let answer = hear(&mut socket);
        assert_eq!(
            (&answer["type"], &answer["id"], &answer["channel"]),
            (&json!("subscribed"), &json!(id), &json!(channel))
        );
    }
    publish(&server, "open/a", &json!({ "n": 1 }));
    let first = hear(&mut socket);
    assert_eq!(
        (&first["type"], &first["channel"], &first["data"]),
        (&json!("event"), &json!("open/a"), &json!({ "n": 1 }))
    );
    publish(&server, "open/b", &json!(2));
    assert_eq!(hear(&mut socket)["channel"], "open/b");
    say(&mut socket, &json!({ "type": "unsubscribe", "channel": "open/b" }));
    assert_eq!(hear(&mut socket), json!({ "type": "unsubscribed", "channel": "open/b" }));
    publish(&server, "open/b", &json!(3));
    say(&mut socket, &json!({ "type": "publish", "id": "p", "channel": "open/a", "data": [1, " "] }));
    let (mut said, mut told) = (hear(&mut socket), hear(&mut socket));
    if said["type"] == "event" {
        (said, told) = (told, said);
    }
    assert_eq!((&said["type"], &said["id"]), (&json!("published"), &json!("p")));
    assert_eq!((&told["data"], &told["id"]), (&json!([1, " "]), &said["position"]));
    say(&mut socket, &json!({ "type": "ping", "id": 9 }));
    assert_eq!(hear(&mut socket), json!({ "type": "pong", "id": 9 }));
}

#[test]
fn a_position_holds_on_another_transport() {
    let server = serve();
    let mut stream = events(&server, "/open/a", "");
    publish(&server, "open/a", &json!(1));
    let (id, _) = event(&mut stream);
    drop(stream);
    publish(&server, "open/a", &json!(2));
    let mut socket = open(&server, &format!("/open/a?since={id}"));
    assert_eq!(hear(&mut socket)["type"], "subscribed");
    let missed = hear(&mut socket);
    assert_eq!(missed["data"], json!(2));
    drop(socket);
    publish(&server, "open/a", &json!(3));
    let mut stream = events(&server, "/open/a", &format!("Last-Event-ID: {}\r\n", missed["id"].as_str().unwrap()));
    assert_eq!(event(&mut stream).1, json!(3));
    let mut socket = open(&server, "/");
    say(&mut socket, &json!({ "type": "subscribe", "channel": "open/a", "since": "1-1" }));
    assert_eq!(hear(&mut socket)["type"], "subscribed");
    assert_eq!(hear(&mut socket), json!({ "type": "gap", "channel": "open/a" }), "a position of another run");
    assert_eq!(hear(&mut socket)["data"], json!(1));
}

#[test]
fn what_is_wrong_is_told_in_the_protocol() {
    let server = serve_with("subscriptions_max = 2\npublish_rate = 1\nmessage_max = 100");
    let mut socket = open(&server, "/");
    let mut code = |message: &str| {
        socket.send_text(message);
        let answer = hear(&mut socket);
        let code = if answer["type"] == "error" { &answer["code"] } else { &answer["type"] };
        code.as_str().unwrap().to_owned()
    };
    assert_eq!(code("nonsense"), "malformed");
    assert_eq!(code(r#"{"type":"dance"}"#), "unknown-type");
    assert_eq!(code(r#"{"type":"subscribe","channel":"secret"}"#), "forbidden");
    assert_eq!(code(r#"{"type":"subscribe","channel":"open/1"}"#), "subscribed");
    assert_eq!(code(r#"{"type":"subscribe","channel":"open/1"}"#), "subscribed");
    assert_eq!(code(r#"{"type":"subscribe","channel":"open/2"}"#), "subscribed");
    assert_eq!(code(r#"{"type":"subscribe","channel":"open/3"}"#), "too-many-subscriptions");
    assert_eq!(code(r#"{"type":"unsubscribe","channel":"open/3"}"#), "not-subscribed");
    assert_eq!(code(r#"{"type":"publish","channel":"open/9"}"#), "malformed");
    let long = json!({ "type": "publish", "channel": "open/9", "data": "x".repeat(200) }).to_string();
    assert_eq!(code(&long), "too-large");
    let answers: Vec<String> = (0..3).map(|_| code(r#"{"type":"publish","channel":"open/9","data":1}"#)).collect();
    assert_eq!(answers, ["published", "too-fast", "too-fast"]);
    assert_eq!(code(r#"{"type":"auth","token":"x"}"#), "unauthorized");
    let unsigned = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQwMDAwMDAwMDAsImNoYW5uZWxzIjpbInNlY3JldCJdfQ.TOKEN";
    let auth = json!({ "type": "auth", "token": signed(unsigned) }).to_string();
    assert_eq!(code(&auth), "authenticated");
    assert_eq!(code(r#"{"type":"unsubscribe","channel":"open/2"}"#), "unsubscribed");
    assert_eq!(code(r#"{"type":"subscribe","channel":"secret"}"#), "subscribed");
    socket.send(Opcode::Binary, b"x");
    assert_eq!(socket.expect_close().0, Some(1003));
}

#[test]
fn a_crowd_of_sockets_gets_every_item_once() {
    let server = serve();
    let mut crowd: Vec<WebSocket> = (0..100).map(|_| open(&server, "/open/a")).collect();
    for socket in &mut crowd {
        assert_eq!(hear(socket)["type"], "subscribed");
    }
    for number in 0..20 {
        publish(&server, "open/a", &json!(number));
    }
    for socket in &mut crowd {
        for number in 0..20 {
            assert_eq!(hear(socket)["data"], json!(number));
        }
    }
}
