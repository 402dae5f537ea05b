use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waft_testkit::{Connection, Reply, Response, Server, Setup, Target};

use crate::serve;

/// Holds a request on the channel `c`, publishes an item of this `http-response` and returns what the client gets.
fn answer_of(hold: Reply, response: Value) -> Response {
    let (_target, server) = serve(move |_| hold.clone());
    let mut client = server.get("/poll");
    server.publish_until_answered(&mut client, &json!([{ "channel": "c", "http-response": response }]));
    client.response()
}

fn text_of(mut client: Connection) -> String {
    client.response().body_text()
}

#[test]
fn a_published_item_answers_the_request() {
    let answer = answer_of(Reply::hold("response", "c"), json!({ "body": "hi\n" }));
    assert_eq!((answer.status(), answer.head.reason(), answer.body_text().as_str()), (200, "OK", "hi\n"));
    assert_eq!(answer.head.header("Content-Type"), Some("text/plain"));
    assert_eq!(answer.head.content_length(), Some(3));
}

#[test]
fn an_item_brings_its_own_code_reason_and_headers() {
    let response = json!({ "code": 499, "reason": "Later", "headers": { "X-Z": "1" }, "body": "x" });
    let answer = answer_of(Reply::hold("response", "c").header("X-A", "b"), response);
    assert_eq!((answer.status(), answer.head.reason()), (499, "Later"));
    assert_eq!((answer.head.header("X-A"), answer.head.header("X-Z")), (Some("b"), Some("1")));
}

#[test]
fn the_reason_follows_the_code_when_the_item_gives_none() {
    let answer = answer_of(Reply::hold("response", "c"), json!({ "code": 201, "body": "" }));
    assert_eq!((answer.status(), answer.head.reason()), (201, "Created"));
    assert_eq!(answer.head.content_length(), Some(0));
}

#[test]
fn headers_of_an_item_replace_inherited_ones_of_the_same_name() {
    let hold = Reply::hold("response", "c").header("X-A", "1").header("X-A", "2").header("X-B", "kept");
    let answer = answer_of(hold, json!({ "headers": [["x-a", "3"], ["x-a", "4"]], "body": "" }));
    assert_eq!(answer.head.headers("X-A").collect::<Vec<_>>(), ["3", "4"]);
    assert_eq!(answer.head.header("X-B"), Some("kept"));
}

#[test]
fn an_item_cannot_set_grip_headers_or_a_wrong_length() {
    let headers = json!({ "Grip-Hold": "stream", "Content-Length": "999" });
    let answer = answer_of(Reply::hold("response", "c"), json!({ "headers": headers, "body": "four" }));
    assert_eq!((answer.head.header("Grip-Hold"), answer.head.content_length()), (None, Some(4)));
}

#[test]
fn a_body_may_be_base64() {
    let answer = answer_of(Reply::hold("response", "c"), json!({ "body-bin": "AAH/" }));
    assert_eq!(answer.body, [0, 1, 255]);
}

#[test]
fn a_patch_is_applied_to_the_body_of_the_hold_and_keeps_its_newline() {
    let hold = Reply::hold("response", "c").body("{\"a\":1,\"b\":[1]}\n");
    let patch = json!([{"op":"replace","path":"/a","value":2},{"op":"add","path":"/b/-","value":3}]);
    let answer = answer_of(hold, json!({ "body-patch": patch }));
    assert!(answer.body.ends_with(b"}\n"), "{:?}", answer.body_text());
    assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), json!({"a":2,"b":[1,3]}));
}

#[test]
fn a_patch_that_does_not_apply_answers_502() {
    let hold = Reply::hold("response", "c").body("{\"a\":1}\n");
    let answer = answer_of(hold, json!({ "body-patch": [{"op":"test","path":"/a","value":2}] }));
    assert_eq!(answer.status(), 502);
}

#[test]
fn without_an_item_the_body_of_the_hold_is_sent_after_the_timeout() {
    // Timeouts below 5 seconds become 5.
    let (_target, server) = serve(|_| Reply::hold("response", "c").header("Grip-Timeout", "1").body("nothing\n"));
    let start = Instant::now();
    let mut client = server.get("/poll");
    client.head();
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(9), "{waited:?}");
    assert_eq!(client.exactly(8), b"nothing\n");
}

#[test]
fn a_hold_without_a_channel_ends_with_its_timeout() {
    let hold = || Reply::text("none\n").header("Grip-Hold", "response").header("Grip-Timeout", "5");
    let (_target, server) = serve(move |_| hold());
    assert_eq!(text_of(server.get("/poll")), "none\n");
}

#[test]
fn the_timeout_response_has_the_status_that_the_backend_wants() {
    let hold = Reply::status("404 Not Found")
        .header("Grip-Hold", "response")
        .header("Grip-Timeout", "5")
        .header("Grip-Status", "206 Half")
        .header("X-A", "1");
    let (_target, server) = serve(move |_| hold.clone());
    let answer = server.get("/poll").response();
    assert_eq!((answer.status(), answer.head.reason(), answer.head.header("X-A")), (206, "Half", Some("1")));
    assert!(answer.head.fields().iter().all(|(name, _)| !name.to_lowercase().starts_with("grip-")));
}

#[test]
fn the_connection_of_an_answered_request_takes_the_next_one() {
    let (target, server) = serve(|_| Reply::hold("response", "c"));
    let mut client = server.get("/one");
    let item = json!([{ "channel": "c", "http-response": { "body": "one" } }]);
    server.publish_until_answered(&mut client, &item);
    assert_eq!(client.response().body_text(), "one");
    client.send("GET /two HTTP/1.1\r\nHost: a\r\n\r\n");
    let item = json!([{ "channel": "c", "http-response": { "body": "two" } }]);
    server.publish_until_answered(&mut client, &item);
    assert_eq!(client.response().body_text(), "two");
    assert!(target.request_count() >= 2);
}

#[test]
fn a_request_pipelined_behind_a_held_one_is_served_after_it() {
    let (_target, server) = serve(|request| match request.path() {
        "/held" => Reply::hold("response", "c"),
        _ => Reply::text("plain"),
    });
    let mut client = server.connect();
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    server.publish_until_answered(&mut client, &json!([{ "channel": "c", "http-response": { "body": "held" } }]));
    assert_eq!(client.response().body_text(), "held");
    assert_eq!(client.response().body_text(), "plain");
}

#[test]
fn an_http_1_0_client_is_held_too_and_closed_after_its_answer() {
    let (_target, server) = serve(|_| Reply::hold("response", "c"));
    let mut client = server.connect();
    client.send("GET /poll HTTP/1.0\r\n\r\n");
    server.publish_until_answered(&mut client, &json!([{ "channel": "c", "http-response": { "body": "old" } }]));
    assert_eq!(client.response().body_text(), "old");
    client.expect_close();
}

#[test]
fn a_client_that_asked_to_close_is_closed_after_its_answer() {
    let (_target, server) = serve(|_| Reply::hold("response", "c"));
    let mut client = server.connect();
    client.send("GET /poll HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    server.publish_until_answered(&mut client, &json!([{ "channel": "c", "http-response": { "body": "bye" } }]));
    assert_eq!(client.response().body_text(), "bye");
    client.expect_close();
}

#[test]
fn an_item_of_another_format_leaves_the_hold_alone() {
    let (_target, server) = serve(|_| Reply::hold("response", "c"));
    let mut client = server.get("/poll");
    let items = json!([
        { "channel": "c", "http-stream": { "content": "stream" } },
        { "channel": "c", "formats": { "no-such-format": {} } },
        { "channel": "other", "http-response": { "body": "other" } },
        { "channel": "c", "http-response": { "body": "mine" } },
    ]);
    server.publish_until_answered(&mut client, &items);
    assert_eq!(client.response().body_text(), "mine");
}

#[test]
fn one_item_answers_every_client_of_the_channel() {
    let (_target, server) = serve(|_| Reply::hold("response", "c"));
    let mut clients: Vec<_> = (0..20).map(|_| server.get("/poll")).collect();
    server.wait_for_holds(20);
    server.publish_text("c", "all\n");
    for client in &mut clients {
        assert_eq!(client.response().body_text(), "all\n");
    }
}

#[test]
fn channels_may_be_joined_with_commas_or_given_in_several_headers() {
    for channel in ["a", "b", "c"] {
        let (_target, server) = serve(|_| {
            Reply::text("").header("Grip-Hold", "response").header("Grip-Channel", "a, b").header("Grip-Channel", "c")
        });
        let mut client = server.get("/poll");
        server.publish_until_answered(&mut client, &json!([{ "channel": channel, "http-response": { "body": "x" } }]));
        assert_eq!(client.response().body_text(), "x");
    }
}

#[test]
fn a_hint_sends_the_request_to_the_backend_again_whole() {
    let (target, server) = serve(|request| match request.body.as_slice() {
        b"ask" if request.header("X-Mine") == Some("1") => Reply::hold("response", "c"),
        _ => Reply::text("wrong"),
    });
    let mut client = server.connect();
    client.send("POST /poll?q=1 HTTP/1.1\r\nHost: a\r\nX-Mine: 1\r\nContent-Length: 3\r\n\r\nask");
    assert_eq!(target.next_request().path(), "/poll?q=1");
    server.wait_for_holds(1);
    server.publish(json!([{ "channel": "c", "http-response": { "action": "hint" } }]));
    let again = target.next_request();
    assert_eq!((again.head.method(), again.path(), again.body_text().as_str()), ("POST", "/poll?q=1", "ask"));
    server.publish_until_answered(&mut client, &json!([{ "channel": "c", "http-response": { "body": "done" } }]));
    assert_eq!(client.response().body_text(), "done");
}

#[test]
fn a_close_action_does_not_end_a_held_request() {
    let (_target, server) = serve(|_| Reply::hold("response", "c"));
    let mut client = server.get("/poll");
    server.wait_for_holds(1);
    let items = json!([
        { "channel": "c", "http-response": { "action": "close" } },
        { "channel": "c", "http-response": { "body": "answer" } },
    ]);
    server.publish_until_answered(&mut client, &items);
    assert_eq!(client.response().body_text(), "answer");
}

#[test]
fn a_request_too_large_to_be_kept_cannot_be_held() {
    let (_target, server) = serve(|_| Reply::hold("response", "c"));
    let mut client = server.connect();
    client.send("POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 150000\r\n\r\n");
    client.send(vec![b'x'; 150_000]);
    let answer = client.response();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.body_text(), "Request too large to accept GRIP instruct.\n");
}

#[test]
fn a_body_too_large_to_be_kept_cannot_be_held() {
    let (_target, server) = serve(|_| Reply::hold("response", "c").body(vec![b'x'; 150_000]));
    assert_eq!(server.get("/poll").response().status(), 502);
}

#[test]
fn a_route_puts_its_prefix_before_the_channels_of_its_backend() {
    let target = Target::start(|_| Reply::hold("response", "c"));
    let server = Server::start(Setup::new().route(format!("*,prefix=one- {}", target.address())));
    let mut client = server.get("/poll");
    let items = json!([
        { "channel": "c", "http-response": { "body": "bare" } },
        { "channel": "one-c", "http-response": { "body": "prefixed" } },
    ]);
    server.publish_until_answered(&mut client, &items);
    assert_eq!(client.response().body_text(), "prefixed");
}

#[test]
fn a_target_may_subscribe_its_clients_to_a_channel_of_its_own() {
    let target = Target::start(|_| Reply::text("").header("Grip-Hold", "response"));
    let server = Server::start(Setup::new().route(format!("* {},sub=all", target.address())));
    let mut client = server.get("/poll");
    server.publish_until_answered(&mut client, &json!([{ "channel": "all", "http-response": { "body": "for all" } }]));
    assert_eq!(client.response().body_text(), "for all");
}

#[test]
fn recover_sends_held_requests_to_the_backend_again() {
    let (target, server) = serve(|_| Reply::hold("response", "c"));
    let _client = server.get("/poll");
    target.next_request();
    server.wait_for_holds(1);
    let answer = server.post_control("/recover", "");
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "Updated\n"));
    target.next_request();
}
