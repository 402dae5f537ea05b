//! LiveResource: clients that follow links, and many channels at once by one poll or one WebSocket.

use serde_json::{Value, json};
use waft_testkit::{Connection, Response, WebSocket};

use crate::{get, publish, serve, serve_with};

/// Where a link of a response leads.
fn link(response: &Response, relation: &str) -> String {
    let text = response.head.header("Link").unwrap();
    let of_link = |link: &str| {
        let (address, rest) = link.split_once('>')?;
        let relations = rest.split('"').nth(1)?;
        relations.split(' ').any(|one| one == relation).then(|| address.to_owned())
    };
    text.split('<').find_map(of_link).unwrap_or_else(|| panic!("no {relation} in {text}"))
}

fn body(client: &mut Connection) -> Value {
    let response = client.response();
    assert_eq!(response.head.header("Content-Type"), Some("application/liveresource-multiplex"));
    serde_json::from_slice(&response.body).unwrap()
}

#[test]
fn a_client_finds_every_way_by_links_alone() {
    let server = serve();
    publish(&server, "open/a", &json!({ "n": 1 }));
    let first = get(&server, "/open/a", "").response();
    let tag = first.head.header("ETag").unwrap();
    let mut wait = get(&server, &link(&first, "value-wait"), &format!("If-None-Match: {tag}\r\nWait: 30\r\n"));
    let mut stream = get(&server, &link(&first, "value-stream"), "Accept: text/event-stream\r\n");
    stream.expect_head(200);
    let mut changes = get(&server, &link(&first, "changes-wait"), "Wait: 30\r\n");
    let many = link(&first, "multiplex-wait");
    let mut poll = get(&server, &format!("{many}?u=%2Fopen%2Fa&inm={}", tag.replace('"', "%22")), "Wait: 30\r\n");
    server.wait_for_holds(4);
    let mut socket = WebSocket::open(server.connect(), &link(&first, "multiplex-ws"), "");
    socket.send_text(&json!({ "id": "1", "type": "subscribe", "mode": "value", "uri": "/open/a" }).to_string());
    socket.expect_text(r#"{"id":"1","type":"subscribed"}"#);
    let event = |socket: &mut WebSocket| -> Value { serde_json::from_slice(&socket.message().1).unwrap() };
    assert_eq!(event(&mut socket)["body"], json!({ "n": 1 }), "it may have changed since it was read");
    publish(&server, "open/a", &json!({ "n": 2 }));
    assert_eq!(wait.response().body_text(), r#"{"n":2}"#);
    assert!(stream.stream_until("\"n\":2}\n\n").contains("data: "));
    let answer = changes.response();
    assert_eq!(answer.body_text(), r#"[{"n":2}]"#);
    let news = body(&mut poll);
    assert_eq!((&news["/open/a"]["code"], &news["/open/a"]["body"]), (&json!(200), &json!({ "n": 2 })));
    let told = event(&mut socket);
    assert_eq!((&told["type"], &told["uri"], &told["body"]), (&json!("event"), &json!("/open/a"), &json!({ "n": 2 })));
    assert_eq!(
        (&told["headers"]["Previous-ETag"], &told["headers"]["ETag"]),
        (&json!(tag), &news["/open/a"]["headers"]["ETag"])
    );
    // The answer says how to go on, and so do answers that have no value.
    let next = get(&server, &link(&answer, "changes"), "").response();
    assert_eq!(next.body_text(), "[]");
    assert_eq!(link(&get(&server, "/open/none", "").response(), "multiplex-wait"), "/");
    assert_eq!(link(&get(&server, "/open/a?after=1-1", "").response(), "value-wait"), "/open/a");
}

#[test]
fn one_poll_waits_for_whichever_has_news() {
    let server = serve();
    publish(&server, "open/a", &json!(1));
    let mut first = get(&server, "/?u=http%3A%2F%2Fa%2Fopen%2Fa&u=%2Fopen%2Fb", "Wait: 30\r\n");
    let news = body(&mut first);
    assert_eq!(news.as_object().unwrap().keys().collect::<Vec<_>>(), ["http://a/open/a"], "only what is new");
    let tag = news["http://a/open/a"]["headers"]["ETag"].as_str().unwrap().trim_matches('"').to_owned();
    let uris = format!("Uri: </open/a>; If-None-Match=\"{tag}\", </open/b>\r\n");
    let mut over = get(&server, "/", &format!("{uris}Wait: 1\r\n"));
    let unchanged = body(&mut over);
    assert_eq!((&unchanged["/open/a"]["code"], &unchanged["/open/b"]["code"]), (&json!(304), &json!(304)));
    let mut wait = get(&server, "/", &format!("{uris}Prefer: wait=30\r\n"));
    server.wait_for_holds(1);
    publish(&server, "open/b", &json!({ "x": 2 }));
    let news = body(&mut wait);
    assert_eq!(news.as_object().unwrap().len(), 1);
    assert_eq!(news["/open/b"]["body"], json!("{\"x\":2}"), "a text for who names resources in a header");
    let changes = body(&mut get(&server, "/?u=%2Fopen%2Fb%3Fafter%3Dnonsense", ""));
    assert_eq!(changes["/open/b?after=nonsense"]["code"], json!(404));
}

#[test]
fn what_cannot_be_followed_is_told() {
    let server = serve_with("subscriptions_max = 2");
    let status = |path: &str| get(&server, path, "").response().status();
    assert_eq!(status("/"), 400);
    assert_eq!(status("/?u=%2Fopen%2Fa&u=%2Fopen%2Fa"), 400);
    assert_eq!(status("/?u=%2Fopen%2Fa&u=%2Fopen%2Fb&u=%2Fopen%2Fc"), 400);
    assert_eq!(status("/?u=%2Fsecret"), 401);
    let mut socket = WebSocket::open(server.connect(), "/", "Sec-WebSocket-Protocol: x, liveresource\r\n");
    let mut check = |said: &str, answer: &str| {
        socket.send_text(said);
        socket.expect_text(answer);
    };
    check("GET /open/a", "OK /open/a");
    check("GET /open/a", "ERROR /open/a 400\nAlready listening.");
    check("GET /open/b", "OK /open/b");
    check("GET /open/c", "ERROR /open/c 403\nToo many resources.");
    check("CANCEL /open/b", "OK /open/b");
    check("CANCEL /open/b", "ERROR /open/b 400\nNot listening.");
    check("GET /secret", "ERROR /secret 403\nForbidden");
    check("GET /", "ERROR / 404\nNot found");
    check("PUT /open/a", "ERROR /open/a 405\nMethod not allowed.");
    check("nonsense", "ERROR * 400\nBad format.");
    publish(&server, "open/a", &json!([1]));
    let (_, text) = socket.message();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("* /open/a {\"Content-Type\":\"application/json\",\"ETag\":") && text.ends_with("}\n[1]"),
        "{text}"
    );
    socket.send_text(&json!({ "id": 1, "type": "subscribe", "uri": "http://a/" }).to_string());
    let refused: Value = serde_json::from_slice(&socket.message().1).unwrap();
    assert_eq!((&refused["type"], &refused["condition"]), (&json!("error"), &json!("item-not-found")));
}
