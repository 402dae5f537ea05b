//! `waft check --probe`: what a newcomer is told about a backend.

use waft_testkit::{Finished, Reply, Target, free_port, waft, waft_only};

use super::events::{events, text};

fn probe(url: &str, more: &[&str]) -> Finished {
    waft().args(["check", "--probe", url]).args(more).run()
}

/// Probes a backend that answers OPEN so, and checks the exit code and words that must be said.
fn check(reply: Reply, code: i32, words: &[&str]) {
    let target = Target::start(move |_request| reply.clone());
    let finished = probe(&format!("http://{}/ws", target.address()), &[]);
    let request = target.next_request();
    assert_eq!((request.head.method(), request.path(), request.body_text().as_str()), ("POST", "/ws", "OPEN\r\n"));
    expect(&finished, code, words);
}

fn expect(finished: &Finished, code: i32, words: &[&str]) {
    let said = &finished.output;
    assert_eq!(finished.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not said in:\n{said}");
    }
}

fn grip(body: &str) -> Reply {
    events(body).header("Sec-WebSocket-Extensions", "grip")
}

fn typed(kind: &str, body: &str) -> Reply {
    Reply::status("200 OK").header("Content-Type", kind).body(body)
}

#[test]
fn a_backend_that_accepts_is_told_so_and_left_alone_again() {
    waft_only!("it has no such command");
    let target = Target::start(|request| match request.body_text().as_str() {
        "OPEN\r\n" => grip(&format!("OPEN\r\n{}", text("c:{\"type\":\"subscribe\",\"channel\":\"c\"}"))),
        _ => events(""),
    });
    let finished = probe(&format!("ws://{}/ws?a=b", target.address()), &[]);
    expect(&finished, 0, &["accepts WebSockets over HTTP and takes the control layer", ",over_http`"]);
    let open = target.next_request();
    assert_eq!(open.path(), "/ws?a=b");
    for (name, value) in [
        ("Content-Type", "application/websocket-events"),
        ("Accept", "application/websocket-events"),
        ("Sec-WebSocket-Extensions", "grip"),
    ] {
        assert_eq!(open.header(name), Some(value), "{name}");
    }
    assert!(open.header("Grip-Sig").is_some());
    let last = target.next_request();
    assert_eq!(
        (last.body_text().as_str(), last.header("Connection-Id")),
        ("DISCONNECT\r\n", open.header("Connection-Id"))
    );
}

#[test]
fn answers_that_accept_nothing_are_explained() {
    waft_only!("it has no such command");
    let status = |line: &str, body: &str| Reply::status(line).header("Content-Type", "text/html").body(body);
    check(status("404 Not Found", "no"), 1, &["nothing at this path (404)", "it says: no"]);
    check(status("405 Method Not Allowed", ""), 1, &["takes no POST (405)"]);
    check(status("403 Forbidden", "<p>CSRF verification failed"), 1, &["no CSRF token", "@csrf_exempt"]);
    check(status("403 Forbidden", "bad signature"), 1, &["refuses (403)", "grip.sig_key"]);
    check(status("401 Unauthorized", ""), 1, &["wants a login (401)"]);
    check(status("400 Bad Request", "unknown media"), 1, &["does not take the request (400)", "raw body"]);
    check(status("426 Upgrade Required", ""), 1, &["wants a WebSocket", "remove over_http"]);
    check(status("500 Internal Server Error", "KeyError: 'x'"), 1, &["failed (500)", "KeyError", "its log"]);
    check(status("501 Not Implemented", ""), 1, &["cannot do this (501)"]);
    check(status("502 Bad Gateway", "nginx"), 1, &["a proxy before the backend"]);
    check(status("204 No Content", ""), 1, &["answered 204, and only 200"]);
    let moved = |to: &str| status("301 Moved Permanently", "").header("Location", to);
    check(moved("/ws/"), 1, &["redirects (301) to /ws/", "slash at its end"]);
    check(moved("https://example.com/ws"), 1, &["wants TLS"]);
    check(moved("/login"), 1, &["login page"]);
}

#[test]
fn wrong_content_types_are_explained() {
    waft_only!("it has no such command");
    check(typed("text/html", "<h1>Welcome</h1>"), 1, &["an ordinary page", "Welcome"]);
    check(typed("text/plain", "OPEN\r\n"), 1, &["the body has events, but the Content-Type is text/plain"]);
    check(typed("application/websocket-events; charset=utf-8", "OPEN\r\n"), 1, &["has parameters", "charset"]);
    check(typed("Application/WebSocket-Events", "OPEN\r\n"), 1, &["lower case"]);
    check(Reply::status("200 OK").body("x"), 1, &["no Content-Type"]);
    check(typed("application/json", "{}"), 1, &["is application/json, not application/websocket-events"]);
    check(Reply::hold("stream", "c"), 1, &["holds an HTTP request"]);
    check(grip("\x1f\x00").header("Content-Encoding", "gzip"), 1, &["compressed (gzip)"]);
}

#[test]
fn wrong_events_are_explained() {
    waft_only!("it has no such command");
    check(grip(""), 1, &["no body", "OPEN\\r\\n"]);
    check(grip("").header("Keep-Alive-Interval", "5"), 0, &["undecided", "every 20 s"]);
    check(grip("OPEN\n"), 1, &["end with \\n"]);
    check(grip("OPEN"), 1, &["malformed"]);
    check(grip("TEXT 5\r\nhello\r\n"), 1, &["first event is not OPEN"]);
    check(grip("OPEN\r\nTEXT five\r\nhello\r\n"), 1, &["malformed", "hexadecimal"]);
    check(grip("OPEN\r\nTEXT 12\r\nm:hello world\r\n"), 1, &["does not fit"]);
    check(grip("OPEN\r\nTEXT 13\r\nm:hello world\r\n"), 1, &["this one is decimal"]);
    check(grip("OPEN\r\nOPEN\r\n"), 1, &["OPEN stands there twice"]);
    check(grip(&format!("OPEN\r\n{}", text("hello"))), 1, &["`hello` is dropped", "\"m:\""]);
    check(grip(&format!("OPEN\r\n{}", text("c:{\"type\":\"join\"}"))), 1, &["has no effect", "unknown"]);
    check(events("OPEN\r\n"), 0, &["note: the answer has no Sec-WebSocket-Extensions: grip"]);
    check(events("OPEN\r\n").header("Sec-WebSocket-Extensions", "GRIP"), 1, &["write it exactly"]);
    let steering = format!("OPEN\r\n{}", text("c:{\"type\":\"detach\"}"));
    check(events(steering), 1, &["goes to the client as it is", "Sec-WebSocket-Extensions: grip"]);
    check(grip("OPEN\r\nCLOSE\r\n"), 0, &["accepts and closes at once"]);
}

#[test]
fn backends_that_do_not_answer_are_explained() {
    waft_only!("it has no such command");
    let refused = probe(&format!("http://127.0.0.1:{}/", free_port()), &[]);
    expect(&refused, 3, &["the connection was refused", "start the backend"]);
    expect(&probe("http://name.invalid/", &[]), 3, &["has no address"]);
    let raw = |bytes: &'static [u8]| {
        Target::raw(move |mut backend, _arrivals| {
            backend.head();
            backend.send(bytes);
        })
    };
    let at = |target: &Target| format!("http://{}/", target.address());
    expect(&probe(&at(&raw(b"")), &[]), 3, &["closed the connection without an answer"]);
    expect(&probe(&at(&raw(b"220 mail.example.com\r\n\r\n")), &[]), 3, &["does not answer in HTTP/1"]);
    expect(&probe(&at(&raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nOPEN\r\n")), &[]), 3, &["cannot be read"]);
    let plain = Target::raw(|mut backend, _arrivals| {
        backend.read_more();
        backend.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    expect(&probe(&at(&plain).replace("http:", "https:"), &[]), 3, &["was not reached by TLS"]);
    expect(&probe("/ws", &[]), 1, &["cannot be asked"]);
}

#[test]
fn a_backend_that_waits_with_its_answer_is_given_up() {
    waft_only!("it has no such command");
    let target = Target::raw(|mut backend, _arrivals| {
        backend.head();
        backend.rest();
    });
    let finished = probe(&format!("http://{}/", target.address()), &[]);
    expect(&finished, 3, &["did not answer within 10 s", "at once"]);
}

#[test]
fn the_route_to_the_backend_is_judged_too() {
    waft_only!("it has no such command");
    let target = Target::start(|_| grip("OPEN\r\n"));
    let url = format!("http://{}/", target.address());
    let with = |route: &str| probe(&url, &["--route", &route.replace("TARGET", &target.address().to_string())]);
    expect(&with("* TARGET,over_http"), 0, &["accepts WebSockets"]);
    expect(&with("* TARGET"), 1, &["without over_http", ",over_http`"]);
    expect(&with("*,no_grip TARGET,over_http"), 1, &["no_grip"]);
    expect(&with("* 127.0.0.1:1,over_http"), 0, &["no route of this configuration leads to"]);
}
