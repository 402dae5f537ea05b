//! Who is in a channel, who listens to it, and what is told of that.

use serde_json::{Value, json};
use waft_testkit::{Opcode, Server, WebSocket};

use crate::{event, events, get, publish, serve_with};

/// Shorter than anybody likes to wait, longer than it takes to come back.
const GRACE: &str = "presence_grace = \"3s\"";

fn open(server: &Server, path: &str) -> WebSocket {
    WebSocket::open(server.connect(), path, "")
}

fn ask(socket: &mut WebSocket, message: &Value) -> Value {
    socket.send_text(&message.to_string());
    hear(socket)
}

fn hear(socket: &mut WebSocket) -> Value {
    serde_json::from_slice(&socket.message().1).unwrap()
}

fn presence(action: &str, more: &Value) -> Value {
    let mut message = json!({ "type": "presence", "action": action, "channel": "open/a" });
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    message
}

/// The list of members, and the position to go on from.
fn members(server: &Server) -> (Value, String) {
    let answer = get(server, "/open/a/@presence", "").response();
    assert_eq!(answer.status(), 200, "{}", answer.body_text());
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    (body["members"].clone(), body["position"].as_str().unwrap().to_owned())
}

fn control(server: &Server, path: &str) -> Value {
    let answer = server.control(format!("GET {path} HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer opaque\r\n\r\n"));
    assert_eq!(answer.status(), 200, "{}", answer.body_text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn members_come_and_go_and_everybody_hears_of_it() {
    let server = serve_with(GRACE);
    let mut watcher = events(&server, "/open/a/@presence", "");
    let mut ann = open(&server, "/");
    let entered = ask(&mut ann, &presence("enter", &json!({ "id": 1, "member": "ann", "data": { "n": 1 } })));
    assert_eq!(
        (&entered["action"], &entered["member"], &entered["id"]),
        (&json!("entered"), &json!("~ann"), &json!(1))
    );
    let (id, joined) = event(&mut watcher);
    assert_eq!(joined, json!({ "event": "join", "id": "~ann", "data": { "n": 1 } }));
    assert_eq!(entered["position"], json!(id));
    ask(&mut ann, &presence("enter", &json!({ "member": "ann", "data": 2 })));
    assert_eq!(event(&mut watcher).1, json!({ "event": "update", "id": "~ann", "data": 2 }));
    let mut bob = open(&server, "/open/a?member=bob&data=%5B1%5D");
    assert_eq!(hear(&mut bob)["type"], "subscribed");
    assert_eq!(hear(&mut bob)["member"], "~bob");
    assert_eq!(event(&mut watcher).1, json!({ "event": "join", "id": "~bob", "data": [1] }));
    let list = ask(&mut bob, &presence("members", &json!({ "id": "m" })));
    let all = json!([{ "id": "~ann", "data": 2 }, { "id": "~bob", "data": [1] }]);
    assert_eq!((&list["members"], &list["listeners"], &list["id"]), (&all, &json!(1), &json!("m")));
    let (listed, position) = members(&server);
    assert_eq!((&listed, &list["position"]), (&all, &json!(position)));
    assert_eq!(ask(&mut ann, &presence("leave", &json!({})))["action"], "left");
    assert_eq!(event(&mut watcher).1, json!({ "event": "leave", "id": "~ann", "reason": "left" }));
    // What is cut off has not said that it leaves.
    drop(bob);
    assert_eq!(event(&mut watcher).1, json!({ "event": "leave", "id": "~bob", "reason": "lost" }));
    // The list and what comes after its position have no gap between them.
    let changes = get(&server, &format!("/open/a/@presence?since={position}"), "").response();
    let changes: Value = serde_json::from_slice(&changes.body).unwrap();
    let gone: Vec<&Value> = changes["items"].as_array().unwrap().iter().map(|item| &item["data"]["id"]).collect();
    assert_eq!(gone, ["~ann", "~bob"]);
    assert_eq!(members(&server).0, json!([]));
}

#[test]
fn who_comes_back_in_time_by_whatever_transport_was_never_away() {
    let server = serve_with("presence_grace = \"60s\"");
    let mut watcher = events(&server, "/open/a/@presence", "");
    let mut socket = open(&server, "/open/a?member=ann");
    assert_eq!(
        (hear(&mut socket)["type"].clone(), hear(&mut socket)["action"].clone()),
        (json!("subscribed"), json!("entered"))
    );
    assert_eq!(event(&mut watcher).1, json!({ "event": "join", "id": "~ann" }));
    // Several connections of one member, so that both shards have some.
    for _ in 0..4 {
        drop(socket);
        let stream = events(&server, "/open/a?member=ann", "");
        drop(stream);
        let mut poll = get(&server, "/open/a?member=ann", "Wait: 30\r\n");
        publish(&server, "open/a", &json!("news"));
        assert_eq!(poll.response().status(), 200);
        socket = open(&server, "/open/a?member=ann");
        assert_eq!(hear(&mut socket)["type"], "subscribed");
        assert_eq!(hear(&mut socket)["action"], "entered");
    }
    let mut other = open(&server, "/open/a?member=zoe");
    assert_eq!(hear(&mut other)["type"], "subscribed");
    assert_eq!(event(&mut watcher).1, json!({ "event": "join", "id": "~zoe" }), "nothing was told in between");
    assert_eq!(members(&server).0, json!([{ "id": "~ann" }, { "id": "~zoe" }]));
    assert_eq!(server.metric("waft_realm_members"), Some(2.0));
}

#[test]
fn a_bayeux_client_is_a_member_as_long_as_it_listens() {
    let server = serve_with(GRACE);
    let mut watcher = events(&server, "/open/a/@presence", "");
    let call = |batch: &Value| -> Value {
        let body = batch.to_string();
        let answer = server.fetch(format!(
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        serde_json::from_slice(&answer.body).unwrap()
    };
    let shake =
        json!([{ "channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"] }]);
    let id = call(&shake)[0]["clientId"].clone();
    let subscribe = |name: &str| {
        call(&json!([{
            "channel": "/meta/subscribe", "clientId": id, "subscription": name,
            "ext": { "presence": { "member": "ann", "data": 1 } },
        }]))
    };
    assert_eq!(subscribe("/open/*")[0]["successful"], false, "nobody is in all channels");
    assert_eq!(subscribe("/open/a")[0]["successful"], true);
    assert_eq!(event(&mut watcher).1, json!({ "event": "join", "id": "~ann", "data": 1 }));
    call(&json!([{ "channel": "/meta/unsubscribe", "clientId": id, "subscription": "/open/a" }]));
    assert_eq!(event(&mut watcher).1, json!({ "event": "leave", "id": "~ann", "reason": "left" }));
    subscribe("/open/a");
    assert_eq!(event(&mut watcher).1["event"], "join");
    call(&json!([{ "channel": "/meta/disconnect", "clientId": id }]));
    assert_eq!(event(&mut watcher).1, json!({ "event": "leave", "id": "~ann", "reason": "left" }));
}

#[test]
fn limits_and_rules_are_told() {
    let server = serve_with("members_max = 1\nmember_data_max = 4");
    let status = |path: &str| get(&server, path, "").response().status();
    assert_eq!(status("/open/a?member=ann&data=nonsense"), 400);
    assert_eq!(status("/open/a?member="), 400);
    assert_eq!(status("/open/a?member=ann&data=12345"), 413);
    assert_eq!(status("/open/a?member=ann&data=1"), 404, "it has entered, and there is no value");
    assert_eq!(status("/open/a?member=bob"), 503);
    assert_eq!(status("/secret/@presence"), 401);
    let mut socket = open(&server, "/");
    let mut code = |message: &Value| ask(&mut socket, message)["code"].as_str().unwrap_or_default().to_owned();
    assert_eq!(code(&presence("dance", &json!({}))), "malformed");
    assert_eq!(code(&presence("enter", &json!({}))), "malformed");
    assert_eq!(code(&presence("enter", &json!({ "member": "bob" }))), "full");
    assert_eq!(code(&presence("enter", &json!({ "member": "ann", "data": "long" }))), "too-large");
    assert_eq!(code(&presence("leave", &json!({}))), "not-member");
    assert_eq!(
        code(&json!({ "type": "presence", "action": "enter", "channel": "secret", "member": "a" })),
        "forbidden"
    );
    assert_eq!(code(&json!({ "type": "publish", "channel": "open/a/@presence", "data": 1 })), "forbidden");
    assert_eq!(code(&json!({ "type": "subscribe", "channel": "@lifecycle" })), "forbidden");
    let body = json!({ "items": [{ "channel": "open/a/@presence", "json-object": 1 }] }).to_string();
    let answer = server.control(format!(
        "POST /realm/demo/publish/ HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer opaque\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.status(), 400);
}

#[test]
fn listeners_of_every_kind_are_counted() {
    let server = serve_with("");
    let _stream = events(&server, "/open/a", "");
    let mut socket = open(&server, "/open/a?member=ann");
    assert_eq!(hear(&mut socket)["type"], "subscribed");
    assert_eq!(hear(&mut socket)["action"], "entered");
    let _poll = get(&server, "/open/a", "Wait: 40\r\n");
    server.wait_for_holds(3);
    let expected = json!({ "name": "open/a", "listeners": 3, "response": 1, "stream": 1, "ws": 1, "members": 1 });
    assert_eq!(control(&server, "/realm/demo/channels/open/a"), expected);
    assert_eq!(control(&server, "/realm/demo/channels"), json!({ "total": 1, "channels": [expected] }));
}

#[test]
fn the_life_of_a_realm_is_told_where_it_is_wanted() {
    let server = serve_with("presence_grace = \"1s\"\nlifecycle = [\"channels\", \"connections\"]");
    // `{"exp": 4000000000, "sub": "ops", "channels": ["@lifecycle"]}`, signed with the first key.
    let token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQwMDAwMDAwMDAsInN1YiI6Im9wcyIsImNoYW5uZWxzIjpbIkBsaWZlY3ljbGUiXX0.FZpCp6AYHHCjYQX4gsmyuxWH1SjsXpCIdm39AZBkl6E";
    let mut watcher = events(&server, &format!("/@lifecycle?token={token}"), "");
    let own = event(&mut watcher).1;
    assert_eq!((&own["event"], &own["transport"], &own["user"]), (&json!("connect"), &json!("sse"), &json!("ops")));
    let mut socket = open(&server, "/open/a");
    assert_eq!(hear(&mut socket)["type"], "subscribed");
    let mut seen: Vec<Value> = (0..2).map(|_| event(&mut watcher).1).collect();
    seen.sort_by_key(|event| event["event"].as_str().unwrap().to_owned());
    assert_eq!((&seen[0]["event"], &seen[0]["transport"]), (&json!("connect"), &json!("websocket")));
    assert_eq!(seen[1], json!({ "event": "occupied", "channel": "open/a" }));
    socket.send(Opcode::Close, &1000_u16.to_be_bytes());
    let mut gone: Vec<Value> = (0..2).map(|_| event(&mut watcher).1).collect();
    gone.sort_by_key(|event| event["event"].as_str().unwrap().to_owned());
    assert_eq!((&gone[0]["event"], &gone[0]["reason"]), (&json!("disconnect"), &json!("closed")));
    assert_eq!(gone[0]["connection"], seen[0]["connection"]);
    assert_eq!(gone[1], json!({ "event": "vacated", "channel": "open/a" }));
    open(&server, "/").into_connection().reset();
    assert_eq!(event(&mut watcher).1["event"], "connect");
    let lost = event(&mut watcher).1;
    assert_eq!((&lost["event"], &lost["reason"]), (&json!("disconnect"), &json!("lost")));
}
