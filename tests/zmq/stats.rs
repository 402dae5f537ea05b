use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waft_testkit::{Process, Server, Setup, WebSocket, differs, eventually, python, waft_only};

/// A server with the test handler behind a route `main`, and a subscriber that hears its statistics.
fn start(encoding: &str) -> (Server, Process) {
    let setup = Setup::new()
        .route("*,id=main test")
        .proxy("stats_report_interval=2")
        .handler("stats_spec=ipc://{rundir}/{ipc_prefix}stats")
        .handler("stats_report_interval=2")
        .handler("stats_subscription_ttl=4")
        .handler("subscription_linger=1")
        .handler(format!("stats_format={encoding}"));
    let server = Server::start(setup);
    let address = format!("ipc://{}", server.directory().join("run/pushpin-stats").display());
    let subscriber = python("tests/zmq/stats.py").args([address.as_str(), encoding]).start();
    let mut asked: Option<Instant> = None;
    eventually("a subscriber that hears", || {
        // Seldom enough that each request is told by itself.
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_millis(500)) {
            server.get("/").response();
            asked = Some(Instant::now());
        }
        subscriber.output().contains("counts {").then_some(())
    });
    (server, subscriber)
}

/// What was told of one type.
fn told(subscriber: &Process, kind: &str) -> Vec<Value> {
    let output = subscriber.output();
    let lines = output.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    lines.filter_map(|json| serde_json::from_str(json).ok()).collect()
}

fn expect(subscriber: &Process, kind: &str, expected: &Value) {
    eventually(&format!("{kind} {expected}"), || told(subscriber, kind).contains(expected).then_some(()));
}

/// What is told of the last connection of a kind.
fn last_id(subscriber: &Process, kind: &str) -> String {
    eventually("a connection that is told of", || {
        let all = told(subscriber, "conn");
        let last = all.iter().rev().find(|told| told["type"] == kind && told["route"] == "main")?;
        Some(last["id"].as_str().unwrap().to_owned())
    })
}

#[test]
fn connections_subscriptions_and_messages_are_told_in_both_encodings() {
    for encoding in ["json", "tnetstring"] {
        let (server, subscriber) = start(encoding);
        let mut stream = server.get("/stream?channel=s");
        stream.expect_head(200);
        let sub = json!({ "mode": "stream", "channel": "s", "ttl": 4, "subscribers": 1 });
        expect(&subscriber, "sub", &sub);
        let stream_id = last_id(&subscriber, "http");
        let conn = json!({ "id": stream_id, "type": "http", "peer-address": "127.0.0.1", "route": "main", "ttl": 120 });
        // Once when it began and once when it was held.
        eventually("two words of a hold", || {
            (told(&subscriber, "conn").iter().filter(|told| **told == conn).count() == 2).then_some(())
        });
        // Requests that come together are told together, so only the sums are sure.
        for (kind, field) in [("activity", "count"), ("counts", "requests-received")] {
            eventually(&format!("two requests told by {kind}"), || (sum(&subscriber, kind, field) >= 2).then_some(()));
        }

        let mut socket = WebSocket::open(server.connect(), "/ws?channel=w", "");
        let socket_id = last_id(&subscriber, "ws");
        let conn = json!({ "id": socket_id, "type": "ws", "peer-address": "127.0.0.1", "route": "main", "ttl": 120 });
        expect(&subscriber, "conn", &conn);
        expect(&subscriber, "sub", &json!({ "mode": "ws", "channel": "w", "ttl": 4, "subscribers": 1 }));

        let items = ["s", "w", "nobody"].map(|channel| {
            json!({ "channel": channel, "id": "1", "formats": {
                "http-response": { "body": "x" }, "http-stream": { "content": "x" }, "ws-message": { "content": "x" },
            }})
        });
        server.publish(json!(items));
        stream.expect_stream("[stream opened]\nx");
        socket.expect_text("x");
        let message =
            |channel, transport| json!({ "channel": channel, "count": 1, "item-id": "1", "transport": transport });
        expect(&subscriber, "message", &message("s", "http-stream"));
        expect(&subscriber, "message", &message("w", "ws-message"));
        assert_eq!(told(&subscriber, "message").len(), 2);

        drop(stream);
        expect(&subscriber, "sub", &json!({ "mode": "stream", "channel": "s", "unavailable": true }));
        let gone = json!({ "id": stream_id, "unavailable": true, "route": "main" });
        let without = json!({ "id": stream_id, "unavailable": true });
        expect(&subscriber, "conn", &differs("Pushpin forgets the route of a hold", without, gone));
        drop(socket);
        expect(&subscriber, "sub", &json!({ "mode": "ws", "channel": "w", "unavailable": true }));
        expect(&subscriber, "conn", &json!({ "id": socket_id, "route": "main", "unavailable": true }));
    }
}

#[test]
fn the_number_of_subscribers_is_told_within_a_second_and_again_while_they_stay() {
    let (server, subscriber) = start("json");
    let streams: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = server.get("/stream?channel=s");
            stream.expect_head(200);
            stream
        })
        .collect();
    let sub = json!({ "mode": "stream", "channel": "s", "ttl": 4, "subscribers": 3 });
    eventually("a subscription that is told again", || {
        (told(&subscriber, "sub").iter().filter(|told| **told == sub).count() >= 2).then_some(())
    });
    drop(streams);
    expect(&subscriber, "sub", &json!({ "mode": "stream", "channel": "s", "unavailable": true }));
}

#[test]
fn the_subscription_of_a_long_poll_ends_after_it_lingered() {
    let (server, subscriber) = start("json");
    let mut poll = server.get("/response?channel=r");
    expect(&subscriber, "sub", &json!({ "mode": "response", "channel": "r", "ttl": 4, "subscribers": 1 }));
    server.publish_text("r", "x");
    assert_eq!(poll.response().body_text(), "x");
    expect(&subscriber, "message", &json!({ "channel": "r", "count": 1, "transport": "http-response" }));
    expect(&subscriber, "sub", &json!({ "mode": "response", "channel": "r", "unavailable": true }));
    let output = subscriber.output();
    assert_eq!(output.matches("sub {\"channel\": \"r\", \"mode\": \"response\", \"unavailable\"").count(), 1);
}

#[test]
fn the_end_of_the_process_is_told() {
    waft_only!("Pushpin's processes end without a word");
    let (mut server, subscriber) = start("json");
    let mut stream = server.get("/stream?channel=s");
    stream.expect_head(200);
    expect(&subscriber, "sub", &json!({ "mode": "stream", "channel": "s", "ttl": 4, "subscribers": 1 }));
    let id = last_id(&subscriber, "http");
    server.terminate();
    expect(&subscriber, "conn", &json!({ "id": id, "route": "main", "unavailable": true }));
    expect(&subscriber, "sub", &json!({ "mode": "stream", "channel": "s", "unavailable": true }));
    assert!(server.wait_for_exit().success());
}

/// The sum of a field over all that was told of a type.
fn sum(subscriber: &Process, kind: &str, field: &str) -> u64 {
    told(subscriber, kind).iter().map(|told| told[field].as_u64().unwrap()).sum()
}

/// The sum of a field over all reports.
fn reported(subscriber: &Process, field: &str) -> u64 {
    sum(subscriber, "report", field)
}

#[test]
fn reports_count_what_went_to_and_fro() {
    let (server, subscriber) = start("json");
    let before = ["received", "sent", "http-response-sent"].map(|field| reported(&subscriber, field));
    assert_eq!(before, [0, 0, 0]);
    let mut stream = server.get("/stream?channel=s");
    stream.expect_head(200);
    let mut poll = server.get("/response?channel=r");
    let mut socket = WebSocket::open(server.connect(), "/ws?channel=w", "");
    socket.send_text("echoed");
    socket.expect_text("echoed");
    server.wait_for_holds(3);
    for channel in ["s", "r", "w", "nobody"] {
        server.publish_text(channel, "published");
    }
    stream.expect_stream("[stream opened]\npublished");
    assert_eq!(poll.response().body_text(), "published");
    socket.expect_text("published");
    for (field, expected) in [("received", 4), ("sent", 3), ("http-response-sent", 1), ("client-messages-received", 1)]
    {
        eventually(&format!("{expected} {field}"), || (reported(&subscriber, field) == expected).then_some(()));
    }
    eventually("two messages to the client", || (reported(&subscriber, "client-messages-sent") == 2).then_some(()));
    let reports = told(&subscriber, "report");
    let fields: Vec<&str> = reports[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(fields.len() >= 18, "{fields:?}");
    assert!(reports.iter().any(|report| report["route"] == "main" && report["connections"].as_u64() > Some(0)));
    assert!(reported(&subscriber, "minutes") >= 3);
    for side in ["client-header-bytes-received", "client-header-bytes-sent", "client-content-bytes-sent"] {
        assert!(reported(&subscriber, side) > 0, "{side}");
    }
}
