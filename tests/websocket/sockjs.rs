//! SockJS endpoints: what a client library asks for, and what the backend sees of it.

use std::time::Duration;

use serde_json::{Value, json};
use waft_testkit::{
    Connection, Opcode, Reply, Response, Server, Setup, Subject, Target, WebSocket, differs, subject, waft_only,
};

/// A server whose path `/s` is for SockJS, in front of the test handler.
fn serve() -> Server {
    Server::start(Setup::new().route("*,sockjs=/s,sockjs_as_path=/ws test"))
}

fn request(method: &str, path: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n{more}\r\n{body}")
}

fn post(server: &Server, path: &str, body: &str) -> Response {
    server.fetch(request("POST", path, "", body))
}

/// Sends a poll and leaves it waiting.
fn poll(server: &Server, path: &str) -> Connection {
    let mut client = server.connect();
    client.send(request("POST", path, "", ""));
    client
}

fn open(server: &Server, id: &str) {
    assert_eq!(post(server, &format!("/s/0/{id}/xhr"), "").body_text(), "o\n");
}

fn expect(answer: &Response, status: u16, body: &str) {
    assert_eq!((answer.status(), answer.body_text().as_str()), (status, body));
    assert_eq!(answer.head.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(answer.head.header("Access-Control-Allow-Credentials"), Some("true"));
    assert_eq!(answer.head.header("Cache-Control"), Some("no-store, no-cache, must-revalidate, max-age=0"));
}

#[test]
fn the_endpoint_tells_what_it_can_do() {
    let server = serve();
    let answer = server.fetch(request("GET", "/s/info", "Origin: https://app.example\r\n", ""));
    assert_eq!(answer.head.header("Access-Control-Allow-Origin"), Some("https://app.example"));
    let info: Value = serde_json::from_str(&answer.body_text()).unwrap();
    assert_eq!(
        (&info["websocket"], &info["cookie_needed"], &info["origins"]),
        (&json!(true), &json!(false), &json!(["*:*"]))
    );
    assert!(info["entropy"].is_u64());
    let preflight = server.fetch(request("OPTIONS", "/s/0/a/xhr", "Origin: https://app.example\r\n", ""));
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.head.header("Access-Control-Allow-Origin"), Some("https://app.example"));
}

#[test]
fn the_page_for_frames_loads_the_library_and_is_not_sent_twice() {
    let setup = Setup::new().route("*,sockjs=/s test").proxy("sockjs_url=https://cdn.example/sockjs.js");
    let server = Server::start(setup);
    let page = server.fetch(request("GET", "/s/iframe-1.6.1.html", "", ""));
    assert_eq!((page.status(), page.head.header("Content-Type")), (200, Some("text/html; charset=UTF-8")));
    assert!(page.body_text().contains("<script src=\"https://cdn.example/sockjs.js\">"), "{}", page.body_text());
    assert!(page.head.headers("Cache-Control").any(|value| value.contains("max-age=31536000")));
    let tag = page.head.header("ETag").unwrap();
    let again = server.fetch(request("GET", "/s/iframe.html", &format!("If-None-Match: {tag}\r\n"), ""));
    assert_eq!((again.status(), again.body_text().as_str()), (304, ""));
}

#[test]
fn other_paths_are_not_there() {
    let server = serve();
    for path in ["/s", "/s/", "/s/other", "/s/0/a/xhr_streaming", "/s/0/a/eventsource", "/s/0/a/htmlfile"] {
        expect(&post(&server, path, ""), 404, "Not Found\n");
    }
    expect(&server.fetch(request("GET", "/s/0/a/xhr", "", "")), 404, "Not Found\n");
    let beside = server.fetch(request("GET", "/sx", "", "")).body_text();
    assert_eq!(beside, differs("Pushpin takes any path that begins so", "Not Found\n", "no such test resource\n"));
}

#[test]
fn messages_go_and_come_by_polls() {
    let server = serve();
    open(&server, "abc");
    expect(&post(&server, "/s/0/abc/xhr_send", "[\"q\\\"\"]"), 200, "ok");
    expect(&poll(&server, "/s/0/abc/xhr").response(), 200, "a[\"q\\\"\"]\n");
    expect(&post(&server, "/s/0/abc/xhr_send", "[\"one\",\"two\"]"), 200, "ok");
    // They may come with one poll or with two.
    let mut got = post(&server, "/s/0/abc/xhr", "").body_text();
    if !got.contains("two") {
        got += &post(&server, "/s/0/abc/xhr", "").body_text();
    }
    assert!(got == "a[\"one\",\"two\"]\n" || got == "a[\"one\"]\na[\"two\"]\n", "{got}");
}

#[test]
fn a_poll_waits_for_what_is_published() {
    let server = serve();
    open(&server, "abc");
    let mut waiting = poll(&server, "/s/0/abc/xhr");
    server.wait_for_holds(1);
    server.publish_text("test", "news");
    expect(&waiting.response(), 200, "a[\"news\"]\n");
}

#[test]
fn scripts_poll_and_forms_send() {
    let server = serve();
    let script = |path: &str| server.fetch(request("GET", path, "", ""));
    let opened = script("/s/0/abc/jsonp?c=cb.x");
    expect(&opened, 200, "/**/cb.x(\"o\");\n");
    assert_eq!(opened.head.header("Content-Type"), Some("application/javascript"));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let sent = server.fetch(request("POST", "/s/0/abc/jsonp_send", form, "d=%5B%22hi%20%5C%22q%22%5D"));
    expect(&sent, 200, "ok");
    expect(&script("/s/0/abc/jsonp?c=g"), 200, "/**/g(\"a[\\\"hi \\\\\\\"q\\\"]\");\n");
    assert_eq!(script("/s/0/fresh/jsonp").status(), 400);
}

#[test]
fn what_is_no_array_of_texts_is_refused() {
    let server = serve();
    open(&server, "abc");
    for body in ["", "x", "{\"a\":1}"] {
        expect(&post(&server, "/s/0/abc/xhr_send", body), 400, "Payload expected\n");
    }
    expect(&post(&server, "/s/0/other/xhr_send", "[\"a\"]"), 404, "Not Found\n");
}

#[test]
fn messages_that_are_too_large_are_refused() {
    waft_only!("an assertion of Pushpin fails, which ends it");
    let server = serve();
    open(&server, "abc");
    let large = format!("[\"{}\"]", "x".repeat(110_000));
    expect(&post(&server, "/s/0/abc/xhr_send", &large), 400, "Request too large.\n");
}

#[test]
fn a_second_poll_beside_the_first_is_sent_away() {
    let server = serve();
    open(&server, "abc");
    let mut first = poll(&server, "/s/0/abc/xhr");
    // Polls on different connections have no order; the one that is answered came second.
    let mut second = poll(&server, "/s/0/abc/xhr");
    let told = waft_testkit::eventually("one poll is sent away", || {
        let patience = Duration::from_millis(20);
        let readable = |client: &mut Connection| client.is_readable_within(patience).then(|| client.response());
        readable(&mut first).or_else(|| readable(&mut second))
    });
    expect(&told, 200, "c[2010,\"Another connection still open\"]\n");
}

#[test]
fn a_client_that_leaves_its_poll_can_poll_again() {
    waft_only!("Pushpin keeps a poll whose client has gone");
    let server = serve();
    open(&server, "abc");
    drop(poll(&server, "/s/0/abc/xhr"));
    let mut waiting = waft_testkit::eventually("a poll that is not sent away", || {
        let mut again = poll(&server, "/s/0/abc/xhr");
        (!again.is_readable_within(Duration::from_millis(100))).then_some(again)
    });
    expect(&post(&server, "/s/0/abc/xhr_send", "[\"hi\"]"), 200, "ok");
    expect(&waiting.response(), 200, "a[\"hi\"]\n");
}

#[test]
fn a_framed_websocket_carries_arrays() {
    let server = serve();
    let mut client = WebSocket::open(server.connect(), "/s/0/abc/websocket", "");
    client.expect_text("o");
    client.send_text("[\"a\",\"b\"]");
    client.expect_text("a[\"a\"]");
    client.expect_text("a[\"b\"]");
    server.wait_for_holds(1);
    server.publish_text("test", "news");
    client.expect_text("a[\"news\"]");
    client.send(Opcode::Close, &1000_u16.to_be_bytes());
    assert_eq!(client.expect_close().0, Some(1000));
}

#[test]
fn a_raw_websocket_carries_messages_as_they_are() {
    let server = serve();
    let mut client = WebSocket::open(server.connect(), "/s/websocket", "");
    client.send_text("as it is");
    client.expect_text("as it is");
}

/// A backend that accepts every WebSocket over HTTP, echoes, and closes on `bye`.
fn events_target() -> Target {
    Target::start(|request| {
        let accept =
            |body: String| Reply::status("200 OK").body(body).header("Content-Type", "application/websocket-events");
        let body = request.body_text();
        if body.starts_with("OPEN") {
            return accept("OPEN\r\n".to_owned());
        }
        if body.contains("bye") {
            return accept("TEXT 4\r\nlast\r\nCLOSE 7\r\n\u{f}!enoug\r\n".to_owned());
        }
        accept(body)
    })
}

#[test]
fn the_backend_sees_a_websocket() {
    let target = events_target();
    let server = Server::start(
        Setup::new()
            .route(format!("*,sockjs=/s {},over_http", target.address()))
            .route(format!("other,sockjs=/s,sockjs_as_path=/chat {},over_http", target.address())),
    );
    let cookie = "Cookie: k=v\r\n";
    assert_eq!(server.fetch(request("POST", "/s/0/abc/xhr?t=1", cookie, "")).body_text(), "o\n");
    let opened = target.next_request();
    assert_eq!((opened.head.method(), opened.path()), ("POST", "/s?t=1"));
    assert_eq!((opened.header("Cookie"), opened.body_text().as_str()), (Some("k=v"), "OPEN\r\n"));
    expect(&post(&server, "/s/0/abc/xhr_send", "[\"hi\"]"), 200, "ok");
    assert_eq!(target.next_request().body_text(), "TEXT 2\r\nhi\r\n");
    let _raw = WebSocket::open(server.connect(), "/s/websocket", "");
    assert_eq!(target.next_request().path(), "/s/websocket");
    let mut other = server.connect();
    other.send("POST /s/0/x/xhr HTTP/1.1\r\nHost: other\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(other.response().body_text(), "o\n");
    assert_eq!(target.next_request().path(), "/chat");
}

#[test]
fn a_close_of_the_backend_is_told_after_its_last_message() {
    let target = events_target();
    let server = Server::start(Setup::new().route(format!("*,sockjs=/s {},over_http", target.address())));
    open(&server, "abc");
    expect(&post(&server, "/s/0/abc/xhr_send", "[\"bye\"]"), 200, "ok");
    expect(&post(&server, "/s/0/abc/xhr", ""), 200, "a[\"last\"]\n");
    expect(&post(&server, "/s/0/abc/xhr", ""), 200, "c[3873,\"enoug\"]\n");
    let mut framed = WebSocket::open(server.connect(), "/s/0/framed/websocket", "");
    framed.expect_text("o");
    framed.send_text("[\"bye\"]");
    framed.expect_text("a[\"last\"]");
    if subject() == Subject::Waft {
        // The protocol wants this frame; libraries do without it.
        framed.expect_text("c[3873,\"enoug\"]");
    }
    assert_eq!(framed.expect_close(), (Some(3873), "enoug".to_owned()));
}

#[test]
fn a_refusal_of_the_backend_is_the_answer() {
    let target =
        Target::start(|_| Reply::status("403 Forbidden").header("Content-Type", "text/plain").body("not you\n"));
    let server = Server::start(Setup::new().route(format!("*,sockjs=/s {},over_http", target.address())));
    expect(&post(&server, "/s/0/abc/xhr", ""), 403, "not you\n");
    let mut client = server.connect();
    client.send(WebSocket::request("/s/0/abc/websocket", ""));
    let answer = client.response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (403, "not you\n"));
}

#[test]
fn every_session_is_one_websocket_to_the_backend_and_ends_without_polls() {
    waft_only!("Pushpin has no metric of its holds");
    let server = serve();
    open(&server, "abc");
    assert_eq!(server.metric("waft_holds"), Some(1.0));
    waft_testkit::eventually("the session is over", || (server.metric("waft_holds") == Some(0.0)).then_some(()));
    expect(&post(&server, "/s/0/abc/xhr_send", "[\"a\"]"), 404, "Not Found\n");
}
