use serde_json::json;
use waft_testkit::{Reply, Server, Setup, Target, waft_only};

use crate::serve;

#[test]
fn the_body_of_the_backend_comes_first_and_items_follow() {
    let (_target, server) = serve(|_| Reply::hold("stream", "c").body("open\n"));
    let mut client = server.get("/stream");
    let head = client.expect_head(200);
    assert!(head.is_chunked() && head.content_length().is_none(), "{head:?}");
    assert_eq!(head.header("Content-Type"), Some("text/plain"));
    client.expect_stream("open\n");
    server.publish_text("c", "one\n");
    client.expect_stream("one\n");
    server.publish_text("c", "two\n");
    client.expect_stream("two\n");
}

#[test]
fn a_message_published_once_the_client_saw_the_head_is_not_missed() {
    let (_target, server) = serve(|request| Reply::hold("stream", request.path()));
    for round in 0..20 {
        let path = format!("/{round}");
        let mut client = server.get(&path);
        client.expect_head(200);
        server.publish_text(&path, "at once");
        client.expect_stream("at once");
    }
}

#[test]
fn grip_headers_never_reach_the_client() {
    let (_target, server) = serve(|_| {
        Reply::hold("stream", "c").header("grip-set-meta", "a=b").header("Grip-Timeout", "5").header("X-Mine", "1")
    });
    let head = server.get("/stream").expect_head(200);
    assert!(head.fields().iter().all(|(name, _)| !name.to_lowercase().starts_with("grip-")), "{head:?}");
    assert_eq!(head.header("X-Mine"), Some("1"));
}

#[test]
fn the_backend_chooses_the_status_and_the_headers_that_are_shown() {
    let (_target, server) = serve(|_| {
        Reply::hold("stream", "c")
            .header("Grip-Status", "202")
            .header("Grip-Expose-Headers", "x-shown, Content-Type")
            .header("X-Shown", "1")
            .header("X-Secret", "2")
    });
    let head = server.get("/stream").expect_head(202);
    assert_eq!(head.reason(), "Accepted");
    assert_eq!((head.header("X-Shown"), head.header("X-Secret")), (Some("1"), None));
    assert_eq!(head.header("Content-Type"), Some("text/plain"));
}

#[test]
fn a_backend_error_page_can_be_held() {
    let (_target, server) = serve(|_| {
        Reply::status("404 Not Found").header("Grip-Hold", "stream").header("Grip-Channel", "c").body("gone\n")
    });
    let mut client = server.get("/stream");
    client.expect_head(404);
    client.expect_stream("gone\n");
    server.publish_text("c", "back\n");
    client.expect_stream("back\n");
}

#[test]
fn an_http_1_0_client_gets_bare_bytes_until_the_end() {
    let (_target, server) = serve(|_| Reply::hold("stream", "c").body("open\n"));
    let mut client = server.connect();
    client.send("GET /stream HTTP/1.0\r\n\r\n");
    let head = client.expect_head(200);
    assert!(!head.is_chunked(), "{head:?}");
    assert_eq!(client.exactly(5), b"open\n");
    server.publish(json!([
        { "channel": "c", "http-stream": { "content": "one\n" } },
        { "channel": "c", "http-stream": { "action": "close" } },
    ]));
    assert_eq!(client.rest(), b"one\n");
}

#[test]
fn a_close_item_ends_the_body_and_the_connection_takes_another_request() {
    let (_target, server) = serve(|request| match request.path() {
        "/stream" => Reply::hold("stream", "c"),
        _ => Reply::text("next"),
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    server.publish(json!([
        { "channel": "c", "http-stream": { "content": "last\n" } },
        { "channel": "c", "http-stream": { "action": "close" } },
    ]));
    client.expect_stream("last\n");
    client.expect_stream_end();
    assert_eq!(client.fetch("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").body_text(), "next");
}

#[test]
fn content_may_be_base64() {
    let (_target, server) = serve(|_| Reply::hold("stream", "c"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    server.publish(json!([{ "channel": "c", "http-stream": { "content-bin": "AGE=", "content": "not this" } }]));
    client.expect_stream(b"\0a");
}

#[test]
fn items_arrive_in_the_order_of_publishing() {
    let (_target, server) = serve(|_| Reply::hold("stream", "c"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    let mut expected = String::new();
    for burst in 0..5 {
        let texts: Vec<String> = (0..40).map(|n| format!("{burst}:{n}\n")).collect();
        server
            .publish(texts.iter().map(|text| json!({ "channel": "c", "http-stream": { "content": text } })).collect());
        client.expect_stream(texts.concat());
        expected += &texts.concat();
    }
    assert!(expected.ends_with("4:39\n"));
}

#[test]
fn a_listener_gets_only_what_is_published_to_its_channels() {
    let (_target, server) = serve(|_| Reply::hold("stream", "a, b"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    for (channel, text) in
        [("c", "no"), ("a", "a\n"), ("aa", "no"), ("A", "no"), ("b", "b\n"), ("", "no"), ("a", "z\n")]
    {
        server.publish_text(channel, text);
    }
    client.expect_stream("a\nb\nz\n");
}

#[test]
fn one_item_may_serve_every_kind_of_hold() {
    let (_target, server) = serve(|request| Reply::hold(request.path().trim_start_matches('/'), "c"));
    let mut stream = server.get("/stream");
    stream.expect_head(200);
    let mut poll = server.get("/response");
    server.wait_for_holds(2);
    server.publish(json!([{ "channel": "c", "formats": {
        "http-response": { "body": "for polls" },
        "http-stream": { "content": "for streams" },
    }}]));
    stream.expect_stream("for streams");
    assert_eq!(poll.response().body_text(), "for polls");
}

#[test]
fn a_large_item_arrives_whole() {
    let (_target, server) = serve(|_| Reply::hold("stream", "c"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    let text = "0123456789abcdef".repeat(15_000);
    server.publish_text("c", &text);
    client.expect_stream(&text);
    server.publish_text("c", "after");
    client.expect_stream("after");
}

#[test]
fn a_large_first_body_arrives_whole_before_the_items() {
    let body = "0123456789abcdef".repeat(20_000);
    let (_target, server) = serve({
        let body = body.clone();
        move |_| Reply::hold("stream", "c").body(&body)
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream(&body);
    server.wait_for_holds(1);
    server.publish_text("c", "after");
    client.expect_stream("after");
}

#[test]
fn channel_names_are_taken_as_they_are() {
    for name in ["room 1", "r\u{f6}\u{f6}m", "a/b?c=d&e", "$", "{json}", &"n".repeat(200)] {
        let (_target, server) = serve({
            let name = name.to_owned();
            move |_| Reply::instruct(&json!({ "hold": { "mode": "stream", "channels": [{ "name": name }] } }))
        });
        let mut client = server.get("/stream");
        client.expect_head(200);
        server.publish_text(name, "found");
        client.expect_stream("found");
    }
}

#[test]
fn only_the_first_twenty_channels_count() {
    let names: Vec<String> = (1..=21).map(|n| format!("c{n}")).collect();
    let (_target, server) = serve(move |_| Reply::hold("stream", &names.join(",")));
    let mut client = server.get("/stream");
    client.expect_head(200);
    for channel in ["c21", "c20", "c1"] {
        server.publish_text(channel, channel);
    }
    client.expect_stream("c20c1");
}

#[test]
fn a_stream_ends_when_its_client_says_it_sends_no_more() {
    let (_target, server) = serve(|_| Reply::hold("stream", "c").body("open\n"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    client.finish_sending();
    client.expect_close();
}

#[test]
fn a_hold_is_forgotten_when_its_client_leaves() {
    waft_only!("Pushpin does not count its holds");
    let (_target, server) = serve(|_| Reply::hold("stream", "c"));
    let mut clients: Vec<_> = (0..5).map(|_| server.get("/stream")).collect();
    clients.iter_mut().for_each(|client| drop(client.expect_head(200)));
    server.wait_for_holds(5);
    drop(clients);
    waft_testkit::eventually("no hold is left", || (server.metric("waft_holds") == Some(0.0)).then_some(()));
}

#[test]
fn a_head_request_is_not_held() {
    waft_only!("Pushpin holds it");
    let (_target, server) = serve(|_| Reply::hold("stream", "c"));
    let mut client = server.connect();
    client.send("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_head(200);
    client.send("HEAD /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.expect_head(200);
    client.expect_close();
}

#[test]
fn a_hold_survives_its_backend() {
    let (target, server) = serve(|_| Reply::hold("stream", "c").body("open\n"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    drop(target);
    server.publish_text("c", "alive");
    client.expect_stream("alive");
}

#[test]
fn holds_of_different_routes_share_channels() {
    let one = Target::start(|_| Reply::hold("stream", "c"));
    let two = Target::start(|_| Reply::hold("stream", "c"));
    let setup = Setup::new()
        .route(format!("*,path_beg=/one {}", one.address()))
        .route(format!("*,path_beg=/two {}", two.address()));
    let server = Server::start(setup);
    let mut clients = [server.get("/one"), server.get("/two")];
    clients.iter_mut().for_each(|client| drop(client.expect_head(200)));
    server.publish_text("c", "both");
    clients.iter_mut().for_each(|client| client.expect_stream("both"));
}
