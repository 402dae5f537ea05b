//! The filters that ask a web service about each delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use waft_testkit::{Gate, Reply, Request, Server, Setup, Target, WebSocket, waft_only};

/// What a filter's service does with an item, by the content of the item or the sender in its metadata.
fn judge(request: &Request) -> Reply {
    let meta: Value = serde_json::from_str(request.header("Pub-Meta").unwrap_or("{}")).unwrap();
    match (meta["do"].as_str(), request.body_text().as_str()) {
        (Some("drop"), _) => Reply::text("").header("Action", "drop"),
        (Some("keep"), _) => Reply::status("204 No Content"),
        (Some("fail"), _) => Reply::status("500 Broken"),
        (Some("long"), _) => Reply::text("x".repeat(100_001)),
        (_, content) => Reply::text(format!("<{content}>")),
    }
}

/// A server whose clients are held with `filter` on the channel `c`, and which asks itself.
fn held(mode: &'static str, filter: &'static str) -> (Target, Server) {
    let target = Target::start(move |request| match request.path() {
        "/filter" => judge(request),
        _ => Reply::hold(mode, &format!("c; filter={filter}"))
            .header("Grip-Set-Meta", "url=/filter")
            .header("Grip-Set-Meta", "user=\"al\\\"ice\""),
    });
    let server = Server::start(Setup::new().route(format!("* {}", target.address())));
    (target, server)
}

fn item(meta: Value, text: &str) -> Value {
    json!({ "channel": "c", "meta": meta, "http-stream": { "content": text } })
}

#[test]
fn a_service_changes_what_a_stream_gets() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let (target, server) = held("stream", "http-modify");
    let mut client = server.get("/stream");
    client.expect_head(200);
    target.next_request();
    server.publish(json!([item(json!({ "sender": "bob" }), "hello")]));
    client.expect_stream("<hello>");
    let asked = target.next_request();
    assert_eq!((asked.head.method(), asked.path(), asked.body_text().as_str()), ("POST", "/filter", "hello"));
    assert_eq!(asked.header("Sub-Meta"), Some(r#"{"url":"/filter","user":"al\"ice"}"#));
    assert_eq!(asked.header("Pub-Meta"), Some(r#"{"sender":"bob"}"#));
    assert!(asked.header("Grip-Sig").is_some() && asked.header("Grip-Feature").unwrap().contains("filter:http-modify"));
    for (what, expected) in [("keep", "kept"), ("drop", ""), ("fail", ""), ("long", "")] {
        server.publish(json!([item(json!({ "do": what }), expected), item(json!({ "do": "keep" }), ";")]));
        client.expect_stream(format!("{expected};"));
    }
    assert_eq!(server.metric("waft_drops_total{reason=\"filter\"}"), Some(1.0));
    assert_eq!(server.metric("waft_drops_total{reason=\"filter_error\"}"), Some(2.0));
    assert_eq!(server.metric("waft_filter_requests_total"), Some(9.0));
    assert_eq!(server.metric("waft_filter_failures_total"), Some(2.0));
    assert_eq!(server.metric("waft_filters_under_way"), Some(0.0));
}

#[test]
fn a_service_says_what_may_pass_and_changes_nothing() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let (target, server) = held("stream", "http-check");
    let mut client = server.get("/stream");
    client.expect_head(200);
    target.next_request();
    server.publish(json!([
        item(json!({ "do": "drop" }), "no"),
        item(json!({}), "yes"),
        item(json!({ "do": "keep" }), ".")
    ]));
    client.expect_stream("yes.");
    for _ in 0..3 {
        assert_eq!(target.next_request().body_text(), "");
    }
}

#[test]
fn positions_are_told_to_the_service() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let target = Target::start(|request| match request.path() {
        "/filter" => Reply::status("204 No Content"),
        _ => Reply::hold("stream", "c; prev-id=1; filter=http-check, d; prev-id=x, e")
            .header("Grip-Link", "</next>; rel=next")
            .header("Grip-Set-Meta", "url=/filter"),
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/stream");
    client.expect_head(200);
    target.next_request();
    server.publish(json!([{ "channel": "c", "id": "2", "prev-id": "1", "http-stream": { "content": "two" } }]));
    client.expect_stream("two");
    let asked = target.next_request();
    let last: Vec<&str> = asked.head.headers("Grip-Last").collect();
    assert_eq!(last, ["c; last-id=2", "d; last-id=x"]);
}

#[test]
fn what_is_published_meanwhile_waits_for_its_turn() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let gate = Gate::new();
    let target = Target::start({
        let gate = gate.clone();
        move |request| match request.path() {
            "/filter" if request.body_text() == "slow" => {
                gate.wait();
                Reply::text("SLOW,")
            }
            "/filter" => Reply::text(request.body_text().to_uppercase()),
            "/other" => Reply::hold("stream", "c"),
            _ => Reply::hold("stream", "c; filter=http-modify, d").header("Grip-Set-Meta", "url=/filter"),
        }
    });
    let server = Server::start(Setup::to(&target));
    let mut asked = server.get("/asked");
    asked.expect_head(200);
    let mut plain = server.get("/other");
    plain.expect_head(200);
    server.publish(json!([item(json!({}), "slow"), item(json!({}), "a,"), item(json!({}), "b,"),]));
    server.publish(json!([{ "channel": "d", "http-stream": { "content": "d," } }]));
    // Others are not kept waiting.
    plain.expect_stream("slowa,b,");
    gate.open();
    asked.expect_stream("SLOW,A,B,d,");
}

#[test]
fn filters_run_in_their_order_each_on_what_the_one_before_left() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let check = |filters: &'static str, expected: &str| {
        let target = Target::start(move |request| match request.path() {
            "/filter" => Reply::text(format!("{}%(user)s", request.body_text())),
            _ => Reply::hold("stream", &format!("c; {filters}")).header("Grip-Set-Meta", "url=/filter, user=ann"),
        });
        let server = Server::start(Setup::to(&target));
        let mut client = server.get("/stream");
        client.expect_head(200);
        server.publish(json!([item(json!({}), "%(user)s,"), item(json!({ "sender": "ann" }), "own")]));
        server.publish(json!([{ "channel": "c", "http-stream": { "action": "close" } }]));
        client.expect_stream(expected);
        client.expect_stream_end();
    };
    check("filter=skip-self; filter=var-subst; filter=http-modify", "ann,%(user)s");
    check("filter=http-modify; filter=var-subst; filter=skip-self", "ann,ann");
    check("filter=http-check; filter=var-subst; filter=skip-self", "ann,");
}

#[test]
fn a_long_poll_is_answered_with_what_the_service_lets_pass() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let (_target, server) = held("response", "http-modify");
    let mut client = server.get("/poll");
    let poll = |meta: Value, body: &str| json!({ "channel": "c", "meta": meta, "http-response": { "body": body } });
    let items = json!([poll(json!({ "do": "drop" }), "dropped"), poll(json!({}), "passed"), poll(json!({}), "late")]);
    server.publish_until_answered(&mut client, &items);
    assert_eq!(client.response().body_text(), "<passed>");
}

#[test]
fn a_long_poll_stays_behind_what_the_service_dropped() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let target = Target::start(|request| match request.path() {
        "/filter" => judge(request),
        _ => Reply::hold("response", "c; prev-id=1; filter=http-modify").header("Grip-Set-Meta", "url=/filter"),
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/poll");
    target.next_request();
    server.wait_for_holds(1);
    server.publish(json!([
        { "channel": "c", "id": "2", "prev-id": "1", "meta": { "do": "drop" }, "http-response": { "body": "two" } },
        { "channel": "c", "id": "3", "prev-id": "2", "http-response": { "body": "three" } },
    ]));
    assert_eq!(client.response().body_text(), "<three>");
    // The target was not asked again: nothing was missed.
    assert!([target.next_request(), target.next_request()].iter().all(|request| request.path() == "/filter"));
}

#[test]
fn failures_are_told_in_debug_mode_alone() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let refused = waft_testkit::free_port();
    let check = |url: String, expected: &str| {
        let target = Target::start(move |request| match request.path() {
            "/status" => Reply::status("404 Not Found"),
            "/long" => Reply::text("x".repeat(100_001)),
            path if path.starts_with("/poll") => {
                Reply::hold("response", "c; filter=http-modify").header("Grip-Set-Meta", &url)
            }
            _ => Reply::hold("stream", "c; filter=http-modify").header("Grip-Set-Meta", &url),
        });
        let debug = Server::start(Setup::new().route(format!("*,debug {}", target.address())));
        let mut client = debug.get("/stream");
        client.expect_head(200);
        let mut poll = debug.get("/poll");
        debug.wait_for_holds(2);
        debug.publish(json!([{ "channel": "c", "http-stream": { "content": "a" }, "http-response": { "body": "a" } }]));
        client.expect_stream(format!("\n\nfilter error: {expected}\n"));
        client.expect_stream_end();
        let answer = poll.response();
        assert_eq!(answer.status(), 502);
        assert!(answer.body_text().contains(expected), "{}", answer.body_text());
        let quiet = Server::start(Setup::to(&target));
        let mut client = quiet.get("/stream");
        client.expect_head(200);
        quiet.publish(json!([item(json!({}), "lost")]));
        quiet.publish(json!([{ "channel": "c", "http-stream": { "action": "close" } }]));
        client.expect_stream_end();
    };
    check("user=x".to_owned(), "missing url value");
    check("url=\"http://[\"".to_owned(), "invalid url value");
    check("url=\"ftp://a/\"".to_owned(), "invalid url value");
    check("url=/status".to_owned(), "unexpected network request status: code=404");
    check("url=/long".to_owned(), "network response exceeded 100000 bytes");
    check(format!("url=\"http://127.0.0.1:{refused}/\""), "network request failed: connection refused");
}

#[test]
fn a_service_elsewhere_is_asked_over_the_network_under_the_address_rules() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let service = Target::start(judge);
    let address = service.address();
    let target = Target::start(move |_| {
        Reply::hold("stream", "c; filter=http-modify").header("Grip-Set-Meta", &format!("url=\"http://{address}/ask\""))
    });
    let start = |outbound: &str| {
        Server::start(Setup::native(format!(
            "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[outbound]\n{outbound}\n\
             [[route]]\ntargets = [\"{}\"]\n",
            target.address()
        )))
    };
    let server = start("exceptions = [\"127.0.0.1\"]");
    let mut client = server.get("/stream");
    client.expect_head(200);
    server.publish(json!([item(json!({}), "a"), item(json!({}), "b")]));
    client.expect_stream("<a><b>");
    let asked = service.next_request();
    assert_eq!((asked.path(), asked.header("Host")), ("/ask", Some(address.to_string().as_str())));
    assert!(asked.header("Grip-Sig").is_some());
    // One connection served both.
    assert_eq!((service.connection_count(), server.metric("waft_outbound_reuses_total")), (1, Some(1.0)));
    let strict = start("");
    let mut client = strict.get("/stream");
    client.expect_head(200);
    strict.publish(json!([item(json!({}), "lost")]));
    strict.publish(json!([{ "channel": "c", "http-stream": { "action": "close" } }]));
    client.expect_stream_end();
    strict.wait_for_log("egress-address-refused");
    assert_eq!(service.request_count(), 2);
}

#[test]
fn no_more_requests_than_configured_are_under_way() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    const CLIENTS: usize = 12;
    let gate = Gate::new();
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let target = Target::start({
        let (gate, busy, most) = (gate.clone(), Arc::clone(&busy), Arc::clone(&most));
        move |request| match request.path() {
            "/filter" => {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.wait();
                busy.fetch_sub(1, Ordering::SeqCst);
                Reply::text("passed")
            }
            _ => Reply::hold("stream", "c; filter=http-modify").header("Grip-Set-Meta", "url=/filter"),
        }
    });
    let server = Server::start(Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\nshards = 1\n[control]\nlisten = [\"CONTROL\"]\n\
         [outbound]\nfilter_concurrent_max = 3\n[[route]]\ntargets = [\"{}\"]\n",
        target.address()
    )));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.get("/stream")).collect();
    clients.iter_mut().for_each(|client| drop(client.expect_head(200)));
    server.publish(json!([item(json!({}), "x")]));
    waft_testkit::eventually("three requests are under way", || (busy.load(Ordering::SeqCst) == 3).then_some(()));
    assert_eq!(server.metric("waft_filters_under_way"), Some(12.0));
    gate.open();
    clients.iter_mut().for_each(|client| client.expect_stream("passed"));
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[test]
fn a_client_that_leaves_while_it_waits_harms_nobody() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let gate = Gate::new();
    let target = Target::start({
        let gate = gate.clone();
        move |request| match request.path() {
            "/filter" => {
                gate.wait();
                Reply::text("passed")
            }
            _ => Reply::hold("stream", "c; filter=http-modify").header("Grip-Set-Meta", "url=/filter"),
        }
    });
    let server = Server::start(Setup::to(&target));
    let mut stays = server.get("/stream");
    stays.expect_head(200);
    let mut leaves = server.get("/stream");
    leaves.expect_head(200);
    server.wait_for_holds(2);
    server.publish(json!([item(json!({}), "x"), item(json!({}), "y")]));
    drop(leaves);
    server.wait_for_holds(1);
    gate.open();
    stays.expect_stream("passedpassed");
}

#[test]
fn websockets_are_filtered_and_keep_their_order() {
    waft_only!("Pushpin 1.36 has no filters that ask");
    let gate = Gate::new();
    let target = Target::start({
        let gate = gate.clone();
        move |request| {
            if request.path() == "/filter" {
                if request.body_text() == "slow" {
                    gate.wait();
                }
                return judge(request);
            }
            let events: String = request
                .body_text()
                .lines()
                .filter_map(|line| match line {
                    "OPEN" => Some(
                        [
                            "{\"type\":\"subscribe\",\"channel\":\"c\",\"filters\":[\"http-modify\"]}",
                            "{\"type\":\"set-meta\",\"name\":\"url\",\"value\":\"/filter\"}",
                        ]
                        .map(|control| format!("TEXT {:x}\r\nc:{control}\r\n", control.len() + 2))
                        .concat(),
                    ),
                    _ => None,
                })
                .collect();
            let open = if request.body_text().starts_with("OPEN") { "OPEN\r\n" } else { "" };
            Reply::status("200 OK")
                .header("Content-Type", "application/websocket-events")
                .header("Sec-WebSocket-Extensions", "grip")
                .body(format!("{open}{events}TEXT 7\r\nm:ready\r\n"))
        }
    });
    let server = Server::start(Setup::new().route(format!("* {},over_http", target.address())));
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("ready");
    let message =
        |meta: Value, content: &str| json!({ "channel": "c", "meta": meta, "ws-message": { "content": content } });
    server.publish(json!([
        message(json!({}), "slow"),
        message(json!({ "do": "drop" }), "dropped"),
        message(json!({ "do": "keep" }), "kept"),
        message(json!({}), "last"),
        { "channel": "c", "ws-message": { "action": "close", "code": 4001 } },
    ]));
    gate.open();
    for expected in ["<slow>", "kept", "<last>"] {
        socket.expect_text(expected);
    }
    assert_eq!(socket.expect_close().0, Some(4001));
}
