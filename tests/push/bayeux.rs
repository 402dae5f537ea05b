//! Faye and CometD, whose clients are used as they are.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use waft_testkit::{Connection, Process, Server, WebSocket, node};

use crate::publish::signed;
use crate::{event, events, publish, serve, serve_with};

fn faye(server: &Server, transport: &str) -> Process {
    let endpoint = format!("http://{}/bayeux", server.address());
    node("tests/clients/faye.mjs").args([&endpoint, transport]).start_listening()
}

/// Says a command to a client and waits until it is done.
fn tell(client: &mut Process, line: &str) {
    client.say(line);
    client.wait_for_output(&format!("done {line}\n"), 1);
}

fn check_faye(transport: &str) {
    let server = serve();
    let mut client = faye(&server, transport);
    tell(&mut client, "subscribe /open/a");
    publish(&server, "open/a", &json!({ "n": 1 }));
    client.wait_for_output("message /open/a /open/a {\"n\":1}\n", 1);
    for number in 0..20 {
        publish(&server, "open/a", &json!(number));
    }
    for number in 0..20 {
        client.wait_for_output(&format!("message /open/a /open/a {number}\n"), 1);
    }
    // What it publishes reaches clients of other kinds, and itself.
    let mut stream = events(&server, "/open/a", "");
    tell(&mut client, "publish /open/a {\"from\":\"faye\"}");
    assert_eq!(event(&mut stream).1, json!({ "from": "faye" }));
    client.wait_for_output("message /open/a /open/a {\"from\":\"faye\"}\n", 1);
    tell(&mut client, "subscribe /open/b");
    publish(&server, "open/b", &json!("two"));
    client.wait_for_output("message /open/b /open/b \"two\"\n", 1);
    client.say("subscribe /secret");
    client.wait_for_output("failed subscribe /secret: 403:/secret:Forbidden channel\n", 1);
    client.say("publish /secret 1");
    client.wait_for_output("failed publish /secret 1: 403:/secret:Forbidden channel\n", 1);
    tell(&mut client, "unsubscribe /open/b");
    publish(&server, "open/b", &json!("three"));
    publish(&server, "open/a", &json!("last"));
    client.wait_for_output("\"last\"\n", 1);
    let said = client.output();
    assert!(!said.contains("three"), "{said}");
    for line in ["{\"n\":1}", " 7\n", "\"two\"", "{\"from\":\"faye\"}\n"] {
        let count = said.lines().filter(|said| said.starts_with("message") && said.ends_with(line.trim())).count();
        assert_eq!(count, 1 + usize::from(line == " 7\n"), "{line} in\n{said}");
    }
    client.say("quit");
    assert!(client.wait_for_exit().success());
}

#[test]
fn faye_talks_over_a_websocket() {
    check_faye("websocket");
}

#[test]
fn faye_talks_by_long_polls() {
    check_faye("long-polling");
}

#[test]
fn patterns_show_all_their_channels_and_no_message_comes_twice() {
    for transport in ["websocket", "long-polling"] {
        let server = serve();
        let mut client = faye(&server, transport);
        for line in ["subscribe /open/*", "subscribe /open/**", "subscribe /open/a"] {
            tell(&mut client, line);
        }
        publish(&server, "open/a", &json!("one"));
        publish(&server, "open/b", &json!("two"));
        publish(&server, "open/b/c", &json!("three"));
        publish(&server, "chat", &json!("none"));
        publish(&server, "open/a", &json!("four"));
        for text in ["one", "two", "three", "four"] {
            client.wait_for_output(&format!("\"{text}\"\n"), 1);
        }
        // Faye itself gives a message to each of its subscriptions that match.
        let said = client.output();
        let count = |text: &str| said.lines().filter(|line| line.contains(text)).count();
        assert_eq!((count("\"one\""), count("\"two\""), count("\"three\""), count("\"none\"")), (3, 2, 1, 0), "{said}");
        client.say("subscribe /**");
        client.wait_for_output("failed subscribe /**: 403:/**:Forbidden channel\n", 1);
    }
}

#[test]
fn a_token_in_an_extension_opens_what_it_names() {
    let server = serve();
    let mut client = faye(&server, "websocket");
    let unsigned = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQwMDAwMDAwMDAsImNoYW5uZWxzIjpbInNlY3JldCJdfQ.TOKEN";
    tell(&mut client, &format!("token {}", signed(unsigned)));
    tell(&mut client, "subscribe /secret");
    publish(&server, "secret", &json!("for you"));
    client.wait_for_output("message /secret /secret \"for you\"\n", 1);
}

/// A way to a server that can be cut and mended.
struct Wire {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self { address: listener.local_addr().unwrap(), is_cut: Arc::default(), open: Arc::default() };
        let (is_cut, open) = (Arc::clone(&wire.is_cut), Arc::clone(&wire.open));
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                let pair = |stream: &TcpStream| stream.try_clone().unwrap();
                open.lock().unwrap().extend([pair(&client), pair(&server)]);
                for (from, to) in [(pair(&client), pair(&server)), (server, client)] {
                    let is_cut = Arc::clone(&is_cut);
                    thread::spawn(move || carry(from, to, &is_cut));
                }
            }
        });
        wire
    }

    /// Nothing goes through any more, and neither side is told why.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if is_cut.load(Ordering::SeqCst) || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn check_cometd(transport: &str) {
    let server = serve();
    let wire = Wire::to(server.address());
    let endpoint = format!("http://{}/bayeux", wire.address);
    let mut client = node("tests/clients/cometd.mjs").args([endpoint.as_str(), transport, "/open/c"]).start_listening();
    client.wait_for_output("handshake true ack true\n", 1);
    client.wait_for_output("subscribed true\n", 1);
    publish(&server, "open/c", &json!({ "n": 0 }));
    client.wait_for_output("message {\"n\":0}\n", 1);
    client.say("publish {\"n\":1}");
    client.wait_for_output("published true\n", 1);
    client.wait_for_output("message {\"n\":1}\n", 1);
    wire.cut();
    for number in 2..30 {
        publish(&server, "open/c", &json!({ "n": number }));
    }
    // The client notices, tries again and fails; then its network comes back.
    client.wait_for_output("connect failed\n", 2);
    wire.mend();
    publish(&server, "open/c", &json!({ "n": 30 }));
    client.wait_for_output("message {\"n\":30}\n", 1);
    let said = client.output();
    let got: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("message ")).collect();
    let expected: Vec<String> = (0..=30).map(|number| format!("{{\"n\":{number}}}")).collect();
    assert_eq!(got, expected, "{said}");
    assert_eq!(said.matches("handshake").count(), 1, "it did not have to begin anew\n{said}");
}

#[test]
fn cometd_misses_nothing_over_a_websocket_that_breaks() {
    check_cometd("websocket");
}

#[test]
fn cometd_misses_nothing_by_long_polls_that_break() {
    check_cometd("long-polling");
}

/// A raw batch, as JSON.
pub(crate) fn post(client: &mut Connection, batch: &Value) -> Value {
    let body = batch.to_string();
    let response = client.fetch(format!(
        "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(response.status(), 200);
    serde_json::from_slice(&response.body).unwrap()
}

pub(crate) fn handshake(client: &mut Connection, ext: Value) -> String {
    let answer = post(
        client,
        &json!([{ "channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"], "ext": ext }]),
    );
    answer[0]["clientId"].as_str().unwrap().to_owned()
}

#[test]
fn each_message_has_its_checks() {
    let server = serve_with("subscriptions_max = 2\npublish_rate = 2");
    let mut client = server.connect();
    let id = handshake(&mut client, json!({}));
    let mut check = |message: Value, error: &str| {
        let answer = post(&mut client, &json!([message]));
        let said = answer[0]["error"].as_str().unwrap_or("");
        assert_eq!((said, &answer[0]["successful"]), (error, &json!(error.is_empty())), "{message}");
        answer[0].clone()
    };
    let handshake = |more: Value| {
        let mut message = json!({ "channel": "/meta/handshake", "id": 1 });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    check(handshake(json!({})), "402:version:Missing required parameter");
    check(handshake(json!({ "version": "1.0" })), "402:supportedConnectionTypes:Missing required parameter");
    let refused = check(
        handshake(json!({ "version": "1.0", "supportedConnectionTypes": ["pigeon", "smoke"] })),
        "301:pigeon,smoke:Connection types not supported",
    );
    assert_eq!(refused["advice"]["reconnect"], "handshake");
    check(
        handshake(json!({ "version": "1.0", "supportedConnectionTypes": ["websocket"], "ext": { "auth_token": "x" } })),
        "403::Authentication required",
    );
    check(json!({ "channel": "/meta/connect" }), "402:clientId:Missing required parameter");
    check(json!({ "channel": "/meta/connect", "clientId": id }), "402:connectionType:Missing required parameter");
    check(
        json!({ "channel": "/meta/connect", "clientId": id, "connectionType": "pigeon" }),
        "301:pigeon:Connection types not supported",
    );
    let unknown = check(
        json!({ "channel": "/meta/connect", "clientId": "nobody", "connectionType": "long-polling", "id": "x" }),
        "401:nobody:Unknown client",
    );
    assert_eq!(
        (&unknown["advice"]["reconnect"], &unknown["clientId"], &unknown["id"]),
        (&json!("handshake"), &Value::Null, &json!("x"))
    );
    let subscribe =
        |subscription: Value| json!({ "channel": "/meta/subscribe", "clientId": id, "subscription": subscription });
    let missing =
        check(json!({ "channel": "/meta/subscribe", "clientId": id }), "402:subscription:Missing required parameter");
    assert_eq!(missing["subscription"], json!([]));
    check(subscribe(json!("open")), "405:open:Invalid channel");
    check(subscribe(json!("/open/*/a")), "405:/open/*/a:Invalid channel");
    check(subscribe(json!("/meta/connect")), "403:/meta/connect:Forbidden channel");
    check(subscribe(json!(["/open/a", "/secret"])), "403:/secret:Forbidden channel");
    check(subscribe(json!("/service/x")), "");
    assert_eq!(check(subscribe(json!(["/open/a", "/open/a"])), "")["subscription"], json!(["/open/a", "/open/a"]));
    assert_eq!(check(subscribe(json!("/open/b")), "")["subscription"], json!("/open/b"));
    check(subscribe(json!("/open/c")), "403:/open/c:Forbidden channel");
    check(json!({ "channel": "/open/a", "clientId": id }), "402:data:Missing required parameter");
    check(json!({ "data": 1 }), "405::Invalid channel");
    check(json!({ "channel": "/open/*", "data": 1 }), "405:/open/*:Invalid channel");
    check(json!({ "channel": "/meta/other", "data": 1 }), "403:/meta/other:Forbidden channel");
    check(json!({ "channel": "/service/x", "data": 1, "clientId": id }), "");
    let published = check(json!({ "channel": "/open/a", "data": null, "clientId": id, "id": 7 }), "");
    assert_eq!(published, json!({ "id": 7, "clientId": id, "channel": "/open/a", "successful": true }));
    check(json!({ "channel": "/open/a", "data": 2, "clientId": id }), "");
    check(json!({ "channel": "/open/a", "data": 3, "clientId": id }), "407:/open/a:Failed to publish");
    check(json!({ "channel": "/meta/unsubscribe", "clientId": id, "subscription": "/open/zzz" }), "");
    check(json!({ "channel": "/meta/disconnect", "clientId": id }), "");
    check(json!({ "channel": "/meta/disconnect", "clientId": id }), &format!("401:{id}:Unknown client"));
}

#[test]
fn a_batch_is_answered_in_its_order_and_a_connect_with_others_is_not_held() {
    let server = serve();
    let mut client = server.connect();
    let id = handshake(&mut client, json!({}));
    let batch = json!([
        { "channel": "/meta/connect", "clientId": id, "connectionType": "long-polling", "id": "1" },
        { "channel": "/meta/subscribe", "clientId": id, "subscription": "/open/a", "id": "2" },
    ]);
    let answer = post(&mut client, &batch);
    let mut ids: Vec<&str> = answer.as_array().unwrap().iter().map(|reply| reply["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["1", "2"]);
    publish(&server, "open/a", &json!("for the next connect"));
    let connect = json!([{ "channel": "/meta/connect", "clientId": id, "connectionType": "long-polling", "id": "3" }]);
    let answer = post(&mut client, &connect);
    assert_eq!(answer[0]["advice"], json!({ "reconnect": "retry", "interval": 0, "timeout": 45_000 }));
    assert_eq!(answer[1], json!({ "channel": "/open/a", "data": "for the next connect" }), "and nothing else");
    assert_eq!(post(&mut client, &json!([])), json!([]));
}

#[test]
fn a_second_connect_takes_the_place_of_the_first() {
    let server = serve();
    let (mut first, mut second) = (server.connect(), server.connect());
    let id = handshake(&mut first, json!({}));
    post(&mut first, &json!([{ "channel": "/meta/subscribe", "clientId": id, "subscription": "/open/a" }]));
    let connect = |number: u32| {
        let body =
            json!([{ "channel": "/meta/connect", "clientId": id, "connectionType": "long-polling", "id": number }])
                .to_string();
        format!(
            "POST /bayeux/connect HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    first.send(connect(1));
    server.wait_for_holds(1);
    second.send(connect(2));
    let answer: Value = serde_json::from_slice(&first.response().body).unwrap();
    assert_eq!(
        (&answer[0]["id"], &answer[0]["successful"], answer.as_array().unwrap().len()),
        (&json!(1), &json!(true), 1)
    );
    publish(&server, "open/a", &json!("news"));
    let answer: Value = serde_json::from_slice(&second.response().body).unwrap();
    assert_eq!((&answer[0]["id"], &answer[1]["data"]), (&json!(2), &json!("news")));
    // A goodbye ends a held connect, and tells it to stop.
    first.send(connect(3));
    server.wait_for_holds(1);
    post(&mut second, &json!([{ "channel": "/meta/disconnect", "clientId": id }]));
    let answer: Value = serde_json::from_slice(&first.response().body).unwrap();
    assert_eq!((&answer[0]["id"], &answer[0]["advice"]["reconnect"]), (&json!(3), &json!("none")));
}

#[test]
fn acknowledged_batches_are_numbered_and_sent_again_when_they_were_lost() {
    let server = serve();
    let mut client = server.connect();
    let id = handshake(&mut client, json!({ "ack": true }));
    post(&mut client, &json!([{ "channel": "/meta/subscribe", "clientId": id, "subscription": "/open/a" }]));
    publish(&server, "open/a", &json!("a"));
    let mut connect = |ack: u64| {
        post(
            &mut client,
            &json!([{
                "channel": "/meta/connect", "clientId": id, "connectionType": "long-polling", "ext": { "ack": ack }, "advice": { "timeout": 0 },
            }]),
        )
    };
    let first = connect(0);
    assert_eq!((&first[0]["data"], &first[1]["ext"]), (&json!("a"), &json!({ "ack": 1 })), "deliveries come first");
    publish(&server, "open/a", &json!("b"));
    let again = connect(0);
    let data: Vec<&Value> = again.as_array().unwrap().iter().map(|message| &message["data"]).collect();
    assert_eq!(data, [&json!("a"), &json!("b"), &Value::Null]);
    assert_eq!(again[2]["ext"], json!({ "ack": 2 }));
    let quiet = connect(2);
    assert_eq!((quiet.as_array().unwrap().len(), &quiet[0]["ext"]), (1, &json!({ "ack": 2 })));
}

#[test]
fn a_client_whose_log_has_moved_on_is_told_to_begin_anew() {
    let server = serve();
    let mut client = server.connect();
    let id = handshake(&mut client, json!({}));
    post(&mut client, &json!([{ "channel": "/meta/subscribe", "clientId": id, "subscription": "/open/a" }]));
    for number in 0..150 {
        publish(&server, "open/a", &json!(number));
    }
    let connect = json!([{ "channel": "/meta/connect", "clientId": id, "connectionType": "long-polling" }]);
    let answer = post(&mut client, &connect);
    assert_eq!(answer[0]["error"], format!("401:{id}:Unknown client"));
    assert_eq!(answer[0]["advice"]["reconnect"], "handshake");
}

#[test]
fn scripts_of_other_sites_poll_by_calls_and_by_headers() {
    let server = serve();
    let message = "%5B%7B%22channel%22%3A%22%2Fmeta%2Fhandshake%22%2C%22version%22%3A%221.0%22%2C%22supportedConnectionTypes%22%3A%5B%22callback-polling%22%5D%7D%5D";
    let answer = server.fetch(format!("GET /bayeux?message={message}&jsonp=__jsonp1__ HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((answer.status(), answer.head.header("Content-Type")), (200, Some("text/javascript; charset=utf-8")));
    let text = answer.body_text();
    assert!(text.starts_with("/**/__jsonp1__([{") && text.ends_with("]);"), "{text}");
    let bad = server.fetch(format!("GET /bayeux?message={message}&jsonp=alert(1) HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((bad.status(), bad.body_text().as_str()), (400, "Bad request"));
    let body = format!("message={message}");
    let form = server.fetch(format!(
        "POST /bayeux HTTP/1.1\r\nHost: a\r\nOrigin: https://b.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(form.head.header("Access-Control-Allow-Origin"), Some("https://b.example"));
    assert_eq!(form.head.header("Access-Control-Allow-Credentials"), Some("true"));
    let preflight = server.fetch(
        "OPTIONS /bayeux HTTP/1.1\r\nHost: a\r\nOrigin: https://b.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: X-Own\r\n\r\n",
    );
    assert_eq!(
        (preflight.status(), preflight.head.header("Access-Control-Allow-Origin")),
        (200, Some("https://b.example"))
    );
    assert!(preflight.head.header("Access-Control-Allow-Headers").unwrap().contains("X-Own"));
    for request in [
        "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n[",
        "GET /bayeux HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let bad = server.fetch(request);
        assert_eq!((bad.status(), bad.body_text().as_str()), (400, "Bad request"));
    }
}

#[test]
fn a_websocket_carries_deliveries_at_once_and_keeps_its_connect() {
    let server = serve();
    let mut socket = WebSocket::open(server.connect(), "/bayeux", "");
    socket.send_text("[]");
    socket.expect_text("[]");
    let hear = |socket: &mut WebSocket| -> Value { serde_json::from_slice(&socket.message().1).unwrap() };
    let handshake = json!([{ "channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"], "id": "1" }]);
    socket.send_text(&handshake.to_string());
    let id = hear(&mut socket)[0]["clientId"].as_str().unwrap().to_owned();
    // Faye's order: the connect first, which is held, then the subscription.
    let connect = json!([{ "channel": "/meta/connect", "clientId": id, "connectionType": "websocket", "id": "2", "advice": { "timeout": 1000 } }]);
    socket.send_text(&connect.to_string());
    let subscribe = json!([{ "channel": "/meta/subscribe", "clientId": id, "subscription": "/open/a", "id": "3" }]);
    socket.send_text(&subscribe.to_string());
    assert_eq!(hear(&mut socket)[0]["id"], "3");
    publish(&server, "open/a", &json!({ "hello": "world" }));
    socket.expect_text("[{\"channel\":\"/open/a\",\"data\":{\"hello\":\"world\"}}]");
    assert_eq!(hear(&mut socket)[0]["id"], "2", "at the end of its time");
    drop(socket);
    // What comes while it is away waits for it.
    waft_testkit::eventually("the end of the socket", || (server.metric("waft_holds") == Some(0.0)).then_some(()));
    publish(&server, "open/a", &json!("missed"));
    let mut socket = WebSocket::open(server.connect(), "/bayeux", "");
    socket.send_text(&connect.to_string());
    socket.expect_text("[{\"channel\":\"/open/a\",\"data\":\"missed\"}]");
    socket.send_text(&json!([{ "channel": "/meta/disconnect", "clientId": id }]).to_string());
    assert_eq!(hear(&mut socket)[0]["successful"], json!(true));
    assert_eq!(socket.expect_close().0, Some(1000));
}
