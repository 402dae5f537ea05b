use serde_json::{Value, json};
use waft_testkit::{Reply, Server, Setup, Target, WebSocket, differs, eventually, python};

/// The answers to requests, with success, condition and value.
fn answers(server: &Server, kind: &str, requests: &[String]) -> Vec<Value> {
    let said = python("tests/zmq/command.py").args([&server.command_address(), kind]).args(requests).succeed();
    said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into())).collect()
}

fn ask(server: &Server, requests: &[Value]) -> Vec<Value> {
    answers(server, "REQ", &requests.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn done(value: Value) -> Value {
    json!({ "success": true, "value": value })
}

fn refused(condition: &str) -> Value {
    json!({ "success": false, "condition": condition })
}

#[test]
fn every_command_has_its_answer() {
    let server = Server::start(Setup::new());
    let bad = |text: &str| json!({ "success": false, "condition": "bad-request", "value": text });
    let cases = [
        (json!({ "method": "nonsense" }), refused("method-not-found")),
        (json!({ "method": "report" }), refused("method-not-found")),
        (json!({ "method": "recover" }), done(Value::Null)),
        (json!({ "method": "publish" }), bad("Invalid format: object does not contain 'items'")),
        (
            json!({ "method": "publish", "args": { "items": 1 } }),
            bad("Invalid format: object contains 'items' with wrong type"),
        ),
        (
            json!({ "method": "publish", "args": { "items": [{ "channel": "c" }] } }),
            bad("Invalid format: no formats specified"),
        ),
        (json!({ "method": "publish", "args": { "items": [] } }), done(Value::Null)),
        (json!({ "method": "conncheck" }), refused("bad-request")),
        (json!({ "method": "conncheck", "args": { "ids": [] } }), done(json!([]))),
        (json!({ "method": "conncheck", "args": { "ids": ["nobody"] } }), done(json!([]))),
        (json!({ "method": "refresh" }), refused("bad-request")),
        (json!({ "method": "refresh", "args": { "cid": "nobody" } }), refused("item-not-found")),
        (json!({ "method": "refresh", "args": { "channel": "empty" } }), done(Value::Null)),
    ];
    let (requests, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    assert_eq!(ask(&server, &requests), expected);
}

#[test]
fn an_answer_bears_the_id_of_its_request() {
    let server = Server::start(Setup::new());
    let request = json!({ "id": "7", "method": "recover" }).to_string();
    for kind in ["REQ", "DEALER"] {
        let expected = json!({ "id": "7", "success": true, "value": null });
        assert_eq!(answers(&server, kind, std::slice::from_ref(&request)), [expected]);
    }
}

#[test]
fn a_malformed_request_is_told_so() {
    let server = Server::start(Setup::new());
    for raw in ["raw:", "raw:nonsense", "raw:2:ab,", "raw:0:}", "raw:13:6:method,1:1#}"] {
        let [answer] = &answers(&server, "REQ", &[raw.to_owned()])[..] else { panic!("one answer to {raw}") };
        let expected =
            differs("a socket that waits for its answer must get one", json!("nothing"), json!("bad-request"));
        let seen = if answer.is_string() { answer } else { &answer["condition"] };
        assert_eq!(*seen, expected, "{raw}");
    }
}

#[test]
fn the_addresses_of_publishing_sockets_are_told_as_they_were_configured() {
    let port = waft_testkit::free_port();
    let setup = Setup::new().handler(format!("push_in_sub_spec=tcp://127.0.0.1:{port}"));
    let server = Server::start(setup);
    let expected = json!({
        "command": server.command_address(),
        "publish-pull": server.pull_address(),
        "publish-sub": format!("tcp://127.0.0.1:{port}"),
    });
    assert_eq!(ask(&server, &[json!({ "method": "get-zmq-uris" })]), [done(expected)]);
}

#[test]
fn items_are_published_by_command() {
    let target = Target::start(|_| Reply::hold("stream", "c"));
    let server = Server::start(Setup::to(&target));
    let mut stream = server.get("/");
    stream.expect_head(200);
    server.wait_for_holds(1);
    let items = json!([{ "channel": "c", "formats": { "http-stream": { "content": "by command" } } }]);
    assert_eq!(ask(&server, &[json!({ "method": "publish", "args": { "items": items } })]), [done(Value::Null)]);
    stream.expect_stream("by command");
}

/// A WebSocket over HTTP on channel `c`, and its name.
fn open_websocket() -> (Target, Server, WebSocket, String) {
    let target = Target::start(|request| {
        let reply = Reply::status("200 OK").header("Content-Type", "application/websocket-events");
        if request.body == b"OPEN\r\n" {
            let control = "c:{\"type\":\"subscribe\",\"channel\":\"c\"}";
            reply
                .header("Sec-WebSocket-Extensions", "grip")
                .body(format!("OPEN\r\nTEXT {:X}\r\n{control}\r\nTEXT 7\r\nm:hello\r\n", control.len()))
        } else {
            reply.body("")
        }
    });
    let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
    let mut socket = WebSocket::open(server.connect(), "/", "");
    socket.expect_text("hello");
    let id = target.next_request().header("Connection-Id").unwrap().to_owned();
    (target, server, socket, id)
}

#[test]
fn a_connection_is_found_by_its_name_for_as_long_as_it_lasts() {
    let (_target, server, socket, id) = open_websocket();
    let check = json!({ "method": "conncheck", "args": { "ids": [id, "nobody"] } });
    assert_eq!(ask(&server, std::slice::from_ref(&check)), [done(json!([id]))]);
    drop(socket);
    eventually("the end of the connection", || {
        (ask(&server, std::slice::from_ref(&check)) == [done(json!([]))]).then_some(())
    });
}

#[test]
fn a_websocket_over_http_asks_its_backend_when_it_is_refreshed() {
    let (target, server, _socket, id) = open_websocket();
    let refreshes: [fn(&str) -> Value; 2] = [|id| json!({ "cid": id }), |_| json!({ "channel": "c" })];
    for args in refreshes {
        let request = json!({ "method": "refresh", "args": args(&id) });
        assert_eq!(ask(&server, &[request]), [done(Value::Null)]);
        let asked = target.next_request();
        assert_eq!((asked.header("Connection-Id"), asked.body_text().as_str()), (Some(id.as_str()), ""));
    }
}
