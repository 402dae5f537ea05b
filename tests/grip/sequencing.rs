use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waft_testkit::{Connection, Reply, Server, Target};

use crate::serve;

fn stream() -> (Target, Server, Connection) {
    let (target, server) = serve(|_| Reply::hold("stream", "c"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    (target, server, client)
}

fn item(id: &str, prev_id: &str) -> Value {
    json!({ "channel": "c", "id": id, "prev-id": prev_id, "http-stream": { "content": format!("{id};") } })
}

#[test]
fn an_id_that_was_seen_before_is_swallowed() {
    let (_target, server, mut client) = stream();
    for id in ["1", "2", "1", "2", "3"] {
        server.publish(json!([{ "channel": "c", "id": id, "http-stream": { "content": format!("{id};") } }]));
    }
    client.expect_stream("1;2;3;");
}

#[test]
fn the_same_id_on_another_channel_is_another_item() {
    let (_target, server) = serve(|_| Reply::hold("stream", "a, b"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    for channel in ["a", "b"] {
        server.publish(json!([{ "channel": channel, "id": "1", "http-stream": { "content": channel } }]));
    }
    client.expect_stream("ab");
}

#[test]
fn items_that_overtook_each_other_are_put_in_order() {
    let (_target, server, mut client) = stream();
    for (id, prev_id) in [("1", "0"), ("4", "3"), ("3", "2"), ("2", "1"), ("5", "4")] {
        server.publish(json!([item(id, prev_id)]));
    }
    client.expect_stream("1;2;3;4;5;");
}

#[test]
fn an_item_does_not_wait_for_a_missing_one_for_ever() {
    let (_target, server, mut client) = stream();
    server.publish(json!([item("1", "0")]));
    client.expect_stream("1;");
    let start = Instant::now();
    server.publish(json!([item("3", "2")]));
    client.expect_stream("3;");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(4_500) && waited < Duration::from_secs(9), "{waited:?}");
    server.publish(json!([item("4", "3")]));
    client.expect_stream("4;");
}

#[test]
fn an_item_may_ask_not_to_be_put_in_order() {
    let (_target, server, mut client) = stream();
    let mut hasty = item("9", "8");
    hasty["no-seq"] = json!(true);
    server.publish(json!([item("1", "0"), hasty]));
    client.expect_stream("1;9;");
}

#[test]
fn items_without_ids_never_wait() {
    let (_target, server, mut client) = stream();
    server.publish(json!([item("1", "0")]));
    server.publish_text("c", "bare;");
    server.publish(json!([item("7", "6")]));
    client.expect_stream("1;bare;7;");
}

#[test]
fn a_gap_makes_a_stream_fetch_its_link_from_its_own_position() {
    let (target, server) = serve(|request| match (request.path(), request.header("Grip-Last")) {
        ("/stream", _) => Reply::hold("stream", "c; prev-id=1").header("Grip-Link", "</next>; rel=next"),
        (_, Some("c; last-id=1")) => {
            Reply::hold("stream", "c; prev-id=3").header("Grip-Link", "</next>; rel=next").body("2;3;")
        }
        // A first subscription fetches as well, perhaps after the gap was mended.
        _ => Reply::hold("stream", "c; prev-id=3").header("Grip-Link", "</next>; rel=next"),
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    assert_eq!(target.next_request().path(), "/stream");
    server.publish(json!([item("3", "2")]));
    client.expect_stream("2;3;");
    server.publish(json!([item("4", "3")]));
    client.expect_stream("4;");
}

#[test]
fn a_held_request_whose_position_is_old_already_is_sent_to_the_backend_again() {
    let (target, server) = serve(|request| match (request.path(), request.header("Grip-Last")) {
        ("/stream", _) => Reply::hold("stream", "c"),
        ("/poll", Some("c; last-id=1")) => Reply::text("caught up"),
        _ => Reply::hold("response", "c; prev-id=1"),
    });
    let mut stream = server.get("/stream");
    stream.expect_head(200);
    server.publish(json!([item("1", "0"), item("2", "1")]));
    stream.expect_stream("1;2;");
    // The backend still says 1 while the channel is at 2.
    assert_eq!(server.get("/poll").response().body_text(), "caught up");
    assert!(target.request_count() >= 3);
}

#[test]
fn a_held_request_at_the_position_of_the_channel_just_waits() {
    let (_target, server) = serve(|request| match request.path() {
        "/stream" => Reply::hold("stream", "c"),
        _ => Reply::hold("response", "c; prev-id=2"),
    });
    let mut stream = server.get("/stream");
    stream.expect_head(200);
    server.publish(json!([item("1", "0"), item("2", "1")]));
    stream.expect_stream("1;2;");
    let mut poll = server.get("/poll");
    server.wait_for_holds(2);
    let next = json!({ "channel": "c", "id": "3", "prev-id": "2", "http-response": { "body": "three" } });
    server.publish(json!([next]));
    assert_eq!(poll.response().body_text(), "three");
}
