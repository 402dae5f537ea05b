use serde_json::json;
use waft_testkit::{Gate, Reply, Server, Setup, Target, waft_only};

use crate::serve;

#[test]
fn pages_that_link_to_each_other_come_as_one_response() {
    let (target, server) = serve(|request| match request.path() {
        "/list/1" => Reply::text("one,").header("Grip-Link", "</list/2?x=y>; rel=next"),
        "/list/2?x=y" => Reply::text("two,").header("Grip-Link", "<3>; rel=next"),
        "/list/3" => Reply::text("three").header("Grip-Foo", ""),
        _ => Reply::status("404 Not Found"),
    });
    let answer = server.get("/list/1").response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "one,two,three"));
    assert_eq!(target.request_count(), 3);
}

#[test]
fn a_next_page_may_become_a_stream() {
    let (_target, server) = serve(|request| match request.path() {
        "/1" => Reply::text("one,").header("Grip-Link", "</2>; rel=next"),
        _ => Reply::hold("stream", "c").body("two,"),
    });
    let mut client = server.get("/1");
    client.expect_head(200);
    client.expect_stream("one,two,");
    server.wait_for_holds(1);
    server.publish_text("c", "item");
    client.expect_stream("item");
}

#[test]
fn a_hint_fetches_the_next_link_with_the_position_of_the_listener() {
    let (target, server) = serve(|request| match request.path() {
        "/stream" => Reply::hold("stream", "c; prev-id=1").header("Grip-Link", "</next>; rel=next").body("open\n"),
        _ => Reply::hold("stream", "c; prev-id=2").header("Grip-Link", "</then>; rel=next").body("missed\n"),
    });
    let mut client = server.connect();
    client.send("GET /stream HTTP/1.1\r\nHost: example.com\r\nCookie: secret\r\n\r\n");
    client.expect_head(200);
    client.expect_stream("open\n");
    target.next_request();
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "hint" } }]));
    let fetched = target.next_request();
    assert_eq!((fetched.head.method(), fetched.path()), ("GET", "/next"));
    assert_eq!(fetched.header("Grip-Last"), Some("c; last-id=1"));
    assert_eq!((fetched.header("Cookie"), fetched.header("Host")), (None, Some("example.com")));
    assert!(fetched.header("Grip-Sig").is_some());
    client.expect_stream("missed\n");
    server.publish(json!([{ "channel": "c", "id": "3", "prev-id": "2", "http-stream": { "content": "third\n" } }]));
    client.expect_stream("third\n");
}

#[test]
fn items_published_while_a_link_is_fetched_come_after_its_body() {
    let gate = Gate::new();
    let (target, server) = serve({
        let gate = gate.clone();
        move |request| match request.path() {
            "/stream" => Reply::hold("stream", "c").header("Grip-Link", "</next>; rel=next"),
            _ => {
                gate.wait();
                Reply::hold("stream", "c").header("Grip-Link", "</next>; rel=next").body("fetched,")
            }
        }
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    target.next_request();
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "hint" } }]));
    target.next_request();
    server.publish_text("c", "published");
    gate.open();
    client.expect_stream("fetched,published");
}

#[test]
fn a_link_may_change_the_channels_of_the_stream() {
    let (target, server) = serve(|request| match request.path() {
        "/stream" => Reply::hold("stream", "old").header("Grip-Link", "</next>; rel=next"),
        _ => Reply::hold("stream", "new").header("Grip-Link", "</then>; rel=next").body("moved,"),
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    target.next_request();
    server.publish(json!([{ "channel": "old", "http-stream": { "action": "hint" } }]));
    client.expect_stream("moved,");
    server.wait_for_listener("new", 2);
    server.publish_text("old", "lost");
    server.publish_text("new", "found");
    client.expect_stream("found");
}

#[test]
fn a_link_without_a_hold_ends_the_stream() {
    let (target, server) = serve(|request| match request.path() {
        "/stream" => Reply::hold("stream", "c").header("Grip-Link", "</last>; rel=next"),
        _ => Reply::text("that was all").header("Grip-Foo", ""),
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    target.next_request();
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "hint" } }]));
    client.expect_stream("that was all");
    client.expect_stream_end();
}

#[test]
fn a_quiet_stream_fetches_its_link_when_the_timeout_of_the_link_has_passed() {
    let (_target, server) = serve(|request| match request.path() {
        "/stream" => Reply::hold("stream", "c").header("Grip-Link", "</next>; rel=next; timeout=1"),
        _ => Reply::hold("stream", "c").header("Grip-Link", "</next>; rel=next; timeout=60").body("fetched"),
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("fetched");
}

#[test]
fn a_failing_link_is_tried_again() {
    let (target, server) = serve({
        let count = std::sync::atomic::AtomicUsize::new(0);
        move |request| match request.path() {
            "/stream" => Reply::hold("stream", "c").header("Grip-Link", "</next>; rel=next"),
            _ if count.fetch_add(1, std::sync::atomic::Ordering::AcqRel) == 0 => Reply::status("503 Not Now"),
            _ => Reply::hold("stream", "c").header("Grip-Link", "</next>; rel=next").body("at last"),
        }
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    target.next_request();
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "hint" } }]));
    client.expect_stream("at last");
}

#[test]
fn a_stream_with_a_position_but_without_a_link_ends_after_its_first_body() {
    let target = Target::start(|_| Reply::hold("stream", "c; prev-id=1").body("open\n"));
    let server = Server::start(
        Setup::new()
            .route(format!("*,debug,path_beg=/debug {0}", target.address()))
            .route(format!("* {}", target.address())),
    );
    let answer = server.get("/").response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "open\n"));
    let answer = server.get("/debug").response();
    let error = "channel 'c' specifies prev-id, but no next link found";
    assert_eq!(answer.body_text(), format!("open\n\n\n{error}\n"));
}

#[test]
fn listeners_that_want_the_same_page_share_one_fetch() {
    let (target, server) = serve(|request| match request.path() {
        "/stream" => Reply::hold("stream", "c").header("Grip-Link", "</next>; rel=next"),
        _ => Reply::hold("stream", "c").header("Grip-Link", "</next>; rel=next").body("page"),
    });
    let mut clients: Vec<_> = (0..10).map(|_| server.get("/stream")).collect();
    clients.iter_mut().for_each(|client| drop(client.expect_head(200)));
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "hint" } }]));
    clients.iter_mut().for_each(|client| client.expect_stream("page"));
    let fetches = target.request_count() - 10;
    assert!(fetches <= 5, "{fetches} fetches for 10 listeners");
}

#[test]
fn the_backend_is_told_when_a_client_with_a_gone_link_has_left() {
    waft_only!("Pushpin knows gone links since 1.41 only");
    let (target, server) = serve(|request| match request.path() {
        "/stream" => Reply::hold("stream", "c").header("Grip-Link", "</gone?user=1>; rel=gone"),
        _ => Reply::text(""),
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    target.next_request();
    drop(client);
    let told = target.next_request();
    assert_eq!((told.head.method(), told.path(), told.body.len()), ("POST", "/gone?user=1", 0));
    assert!(told.header("Grip-Sig").is_some());
}
