use serde_json::json;
use waft_testkit::{Frame, Opcode, Reply, Request, Server, Setup, Target, WebSocket};

const EVENTS: &str = "application/websocket-events";

/// A response with events.
fn events(body: impl AsRef<[u8]>) -> Reply {
    Reply::status("200 OK").header("Content-Type", EVENTS).body(body)
}

/// The event of a text message.
fn text(content: &str) -> String {
    format!("TEXT {:X}\r\n{content}\r\n", content.len())
}

fn is_open(request: &Request) -> bool {
    request.body == b"OPEN\r\n"
}

/// Accepts a WebSocket with these control messages and answers further requests with `answer`.
fn serve(control: Vec<String>, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Target, Server) {
    let target = Target::start(move |request| {
        if is_open(request) {
            let control: String = control.iter().map(|message| text(&format!("c:{message}"))).collect();
            events(format!("OPEN\r\n{control}{}", text("m:hello"))).header("Sec-WebSocket-Extensions", "grip")
        } else {
            answer(request)
        }
    });
    let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
    (target, server)
}

fn subscribe(channel: &str) -> String {
    json!({ "type": "subscribe", "channel": channel }).to_string()
}

fn echo(request: &Request) -> Reply {
    let body = request.body_text();
    match body.split_once("\r\n") {
        Some((head, rest)) if head.starts_with("TEXT") => events(text(&format!("m:{}", rest.trim_end()))),
        _ => events(""),
    }
}

#[test]
fn opening_and_messages_become_requests() {
    let (target, server) = serve(vec![], echo);
    let mut socket = WebSocket::open(server.connect(), "/ws?a=b", "Cookie: c=d\r\nX-Mine: 1\r\n");
    socket.expect_text("hello");
    let open = target.next_request();
    assert_eq!((open.head.method(), open.path()), ("POST", "/ws?a=b"));
    assert_eq!((open.header("Content-Type"), open.header("Accept")), (Some(EVENTS), Some(EVENTS)));
    assert_eq!((open.header("Cookie"), open.header("X-Mine")), (Some("c=d"), Some("1")));
    assert_eq!(open.header("Sec-WebSocket-Extensions"), Some("grip"));
    assert!(open.header("Grip-Sig").is_some() && open.header("Connection-Id").is_some());
    socket.send_text("hi there");
    socket.expect_text("hi there");
    let message = target.next_request();
    assert_eq!(message.body_text(), "TEXT 8\r\nhi there\r\n");
    assert_eq!(message.header("Connection-Id"), open.header("Connection-Id"));
}

#[test]
fn a_subscribed_socket_gets_what_is_published() {
    let (_target, server) = serve(vec![subscribe("c")], echo);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    server.wait_for_holds(1);
    server.publish(json!([
        { "channel": "c", "ws-message": { "content": "text" } },
        { "channel": "c", "ws-message": { "content-bin": "AAE=" } },
        { "channel": "c", "ws-message": { "type": "text", "content-bin": "Yg==" } },
        { "channel": "other", "ws-message": { "content": "no" } },
        { "channel": "c", "ws-message": { "content": "last" } },
    ]));
    socket.expect_text("text");
    assert_eq!(socket.message(), (Opcode::Binary, vec![0, 1]));
    socket.expect_text("b");
    socket.expect_text("last");
}

#[test]
fn a_published_ping_is_a_ping() {
    let (_target, server) = serve(vec![subscribe("c")], echo);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    server.wait_for_holds(1);
    server.publish(json!([{ "channel": "c", "ws-message": { "type": "ping", "content": "p" } }]));
    assert_eq!(socket.frame(), Frame { is_final: true, opcode: Opcode::Ping, payload: b"p".to_vec() });
}

#[test]
fn a_published_close_closes_with_its_code() {
    for (close, code) in
        [(json!({ "action": "close", "code": 4001, "reason": "go" }), 4001), (json!({ "action": "close" }), 1000)]
    {
        let (_target, server) = serve(vec![subscribe("c")], echo);
        let mut socket = WebSocket::open(server.connect(), "/ws", "");
        socket.expect_text("hello");
        server.wait_for_holds(1);
        server.publish(json!([{ "channel": "c", "ws-message": close }]));
        assert_eq!(socket.expect_close().0, Some(code));
    }
}

#[test]
fn filters_and_meta_of_a_socket_count() {
    let control = vec![
        json!({ "type": "set-meta", "name": "user", "value": "alice" }).to_string(),
        json!({ "type": "subscribe", "channel": "c", "filters": ["skip-self"] }).to_string(),
    ];
    let (_target, server) = serve(control, echo);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    server.wait_for_holds(1);
    server.publish(json!([
        { "channel": "c", "meta": { "sender": "alice" }, "ws-message": { "content": "own" } },
        { "channel": "c", "meta": { "sender": "bob" }, "ws-message": { "content": "bob's" } },
    ]));
    socket.expect_text("bob's");
}

#[test]
fn a_socket_may_be_subscribed_and_unsubscribed_later() {
    let (_target, server) = serve(vec![], |request| {
        let body = request.body_text();
        let message = if body.contains("\r\nsub\r\n") {
            subscribe("c")
        } else {
            json!({ "type": "unsubscribe", "channel": "c" }).to_string()
        };
        events(text(&format!("c:{message}")) + &text("m:done"))
    });
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    server.publish(json!([{ "channel": "c", "ws-message": { "content": "too early" } }]));
    socket.send_text("sub");
    socket.expect_text("done");
    server.wait_for_holds(1);
    server.publish(json!([{ "channel": "c", "ws-message": { "content": "right" } }]));
    socket.expect_text("right");
    socket.send_text("unsub");
    socket.expect_text("done");
}

#[test]
fn a_refused_socket_gets_the_answer_of_the_backend() {
    let target = Target::start(|_| Reply::status("403 Forbidden").header("X-Why", "no").body("nope\n"));
    let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
    let answer = server.fetch(WebSocket::request("/ws", ""));
    assert_eq!((answer.status(), answer.body_text().as_str()), (403, "nope\n"));
    assert_eq!(answer.head.header("X-Why"), Some("no"));
}

#[test]
fn an_answer_that_is_none_gives_502() {
    for body in ["", "TEXT 1\r\na\r\n", "nonsense"] {
        let target = Target::start(move |_| events(body));
        let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
        assert_eq!(server.fetch(WebSocket::request("/ws", "")).status(), 502, "{body:?}");
    }
}

#[test]
fn the_close_of_a_client_reaches_the_backend_and_comes_back() {
    let (target, server) = serve(vec![], |request| events(&request.body));
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    target.next_request();
    socket.send(Opcode::Close, b"\x03\xe8done");
    assert_eq!(target.next_request().body, b"CLOSE 6\r\n\x03\xe8done\r\n");
    assert_eq!(socket.expect_close().0, Some(1000));
}

#[test]
fn a_client_that_vanishes_is_told_to_the_backend() {
    let (target, server) = serve(vec![], echo);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    target.next_request();
    socket.into_connection().reset();
    assert_eq!(target.next_request().body_text(), "DISCONNECT\r\n");
}

#[test]
fn what_the_backend_wants_remembered_comes_with_every_request() {
    let target = Target::start(|request| {
        if is_open(request) {
            events("OPEN\r\n").header("Sec-WebSocket-Extensions", "grip").header("Set-Meta-User", "bob")
        } else {
            events(text("m:ok"))
        }
    });
    let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
    let mut socket = WebSocket::open(server.connect(), "/ws", "Meta-User: forged\r\n");
    assert_eq!(socket.head.header("Set-Meta-User"), None);
    assert_eq!(target.next_request().header("Meta-User"), None);
    socket.send_text("x");
    socket.expect_text("ok");
    assert_eq!(target.next_request().header("Meta-User"), Some("bob"));
}

#[test]
fn messages_sent_while_a_request_is_under_way_go_together_in_the_next() {
    let gate = waft_testkit::Gate::new();
    let (target, server) = serve(vec![], {
        let gate = gate.clone();
        move |_| {
            gate.wait();
            events("")
        }
    });
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    target.next_request();
    socket.send_text("1");
    assert_eq!(target.next_request().body_text(), text("1"));
    socket.send_text("2");
    socket.send_text("3");
    gate.open();
    let mut rest = String::new();
    while rest.len() < (text("2") + &text("3")).len() {
        rest += &target.next_request().body_text();
    }
    assert_eq!(rest, text("2") + &text("3"));
}

#[test]
fn a_plain_client_cannot_forge_events() {
    let (target, server) = serve(vec![], echo);
    let answer = server
        .fetch(format!("POST /ws HTTP/1.1\r\nHost: a\r\nContent-Type: {EVENTS}\r\nContent-Length: 6\r\n\r\nOPEN\r\n"));
    assert_eq!(
        (answer.status(), answer.body_text().as_str()),
        (403, "Client not allowed to send WebSocket events directly.\n")
    );
    assert_eq!(target.request_count(), 0);
}

#[test]
fn a_detached_socket_needs_its_backend_no_more() {
    let control = vec![subscribe("c"), json!({ "type": "detach" }).to_string()];
    let (target, server) = serve(control, echo);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    server.wait_for_holds(1);
    drop(target);
    server.publish(json!([{ "channel": "c", "ws-message": { "content": "alone" } }]));
    socket.expect_text("alone");
}

#[test]
fn an_unknown_control_message_is_passed_over() {
    let control = vec!["not json".to_owned(), "{\"type\":\"unknown\"}".to_owned(), subscribe("c")];
    let (_target, server) = serve(control, echo);
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hello");
    server.wait_for_holds(1);
    server.publish(json!([{ "channel": "c", "ws-message": { "content": "fine" } }]));
    socket.expect_text("fine");
}
