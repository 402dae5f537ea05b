use std::time::{Duration, Instant};

use serde_json::json;
use waft_testkit::{Connection, Reply};

use crate::{serve, serve_debug};

fn stream_with(value: &'static str) -> (waft_testkit::Target, waft_testkit::Server, Connection) {
    let (target, server) = serve(move |_| Reply::hold("stream", "c").header("Grip-Keep-Alive", value).body("open\n"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    (target, server, client)
}

#[test]
fn data_is_sent_again_and_again_while_nothing_happens() {
    let (_target, _server, mut client) = stream_with("ping, pong ; timeout=1");
    client.expect_stream("ping, pongping, pong");
}

#[test]
fn data_may_have_escapes() {
    let (_target, _server, mut client) = stream_with(r"event: keep-alive\ndata:\\\x21\r\n; format=cstring; timeout=1");
    client.expect_stream("event: keep-alive\ndata:\\!\r\n");
}

#[test]
fn data_may_be_base64() {
    let (_target, _server, mut client) = stream_with("AAEC; format=base64; timeout=1");
    client.expect_stream([0, 1, 2]);
}

#[test]
fn data_is_not_unquoted() {
    let (_target, _server, mut client) = stream_with("\"quoted\"; timeout=1");
    client.expect_stream("\"quoted\"");
}

#[test]
fn an_idle_keep_alive_waits_again_after_each_item() {
    let (_target, server, mut client) = stream_with("K; timeout=2");
    // Each wait is up to a second shorter than the timeout, so items every half second keep it away.
    let start = Instant::now();
    for n in 0..8 {
        while start.elapsed() < Duration::from_millis(500 * n) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        server.publish_text("c", ".");
    }
    client.expect_stream("........");
    client.expect_stream("K");
}

#[test]
fn an_interval_keep_alive_comes_in_spite_of_items() {
    let (_target, server, mut client) = stream_with("K; timeout=1; mode=interval");
    let start = Instant::now();
    let mut published = 0;
    while start.elapsed() < Duration::from_millis(2_500) {
        server.publish_text("c", ".");
        published += 1;
        std::thread::park_timeout(Duration::from_millis(100));
    }
    server.publish_text("c", "end");
    let text = client.stream_until("end");
    assert_eq!(text.matches('.').count(), published);
    assert!(text.contains('K'), "{text}");
}

#[test]
fn a_json_instruction_has_keep_alives_too() {
    for (data, expected) in [(json!({ "content": "K\n" }), "K\n"), (json!({ "content-bin": "Sg==" }), "J")] {
        let (_target, server) = serve(move |_| {
            let mut keep_alive = data.clone();
            keep_alive["timeout"] = json!(1);
            let hold = json!({ "mode": "stream", "channels": [{ "name": "c" }], "keep-alive": keep_alive });
            Reply::instruct(&json!({ "hold": hold }))
        });
        let mut client = server.get("/stream");
        client.expect_head(200);
        client.expect_stream(expected);
    }
}

#[test]
fn a_wrong_keep_alive_is_refused_and_told_in_debug_mode() {
    let cases = [
        (";timeout=1", "Grip-Keep-Alive cannot be empty"),
        ("a; format=x", "no such Grip-Keep-Alive format 'x'"),
        ("a; mode=x", "no such Grip-Keep-Alive mode 'x'"),
        ("a; timeout=x", "failed to parse Grip-Keep-Alive timeout value"),
        ("a; timeout=-1", "Grip-Keep-Alive timeout has invalid value"),
        (r"a\; format=cstring", "failed to parse Grip-Keep-Alive cstring format"),
        (r"a\x1; format=cstring", "failed to parse Grip-Keep-Alive cstring format"),
    ];
    let (_target, server) = serve_debug(move |request| {
        let number: usize = request.path().trim_start_matches('/').parse().unwrap();
        Reply::hold("stream", "c").header("Grip-Keep-Alive", cases[number].0)
    });
    for (number, (value, error)) in cases.iter().enumerate() {
        let answer = server.get(&format!("/{number}")).response();
        assert_eq!(answer.status(), 502, "{value}");
        assert_eq!(answer.body_text(), format!("Failed to parse accept instructions: {error}\n"), "{value}");
    }
}
