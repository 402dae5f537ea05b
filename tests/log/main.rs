//! The log of a channel: what was missed is sent from it, without the backend.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use serde_json::json;
use waft_testkit::{Connection, Gate, Reply, Server, Setup, Target, waft_only};

/// A server whose backend holds event streams and polls, always with the same words.
fn serve() -> (Target, Server) {
    let target = Target::start(|request| match request.path() {
        "/poll?after=1" => Reply::hold("response", "c; prev-id=1"),
        "/poll?after=9" => Reply::hold("response", "c; prev-id=9"),
        "/poll" => Reply::hold("response", "c"),
        _ => Reply::status("200 OK")
            .header("Content-Type", "text/event-stream")
            .header("Grip-Hold", "stream")
            .header("Grip-Channel", "c")
            .body(":open\n\n"),
    });
    let server = Server::start(native(&target));
    (target, server)
}

/// All requests to this target, with waft's own defaults.
fn native(target: &Target) -> Setup {
    Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\n\n[[route]]\ntargets = [\"{}\"]\n",
        target.address()
    ))
}

fn publish(server: &Server, id: u32) {
    let event = format!("id: {id}\ndata: item {id}\n\n");
    server.publish(json!([{
        "channel": "c",
        "id": id.to_string(),
        "prev-id": (id - 1).to_string(),
        "formats": { "http-stream": { "content": event }, "http-response": { "body": format!("item {id}") } },
    }]));
}

fn events(server: &Server, last_id: Option<&str>) -> Connection {
    let mut client = server.connect();
    let last = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    client.send(format!("GET /events HTTP/1.1\r\nHost: a\r\n{last}\r\n"));
    client.expect_head(200);
    client.expect_stream(":open\n\n");
    client
}

fn event(id: u32) -> String {
    format!("id: {id}\ndata: item {id}\n\n")
}

#[test]
fn a_client_that_comes_back_gets_what_it_missed_and_then_what_is_new() {
    waft_only!("Pushpin keeps no log");
    let (_target, server) = serve();
    let mut client = events(&server, None);
    publish(&server, 1);
    client.expect_stream(event(1));
    drop(client);
    publish(&server, 2);
    publish(&server, 3);
    let mut client = events(&server, Some("1"));
    client.expect_stream(event(2) + &event(3));
    publish(&server, 4);
    client.expect_stream(event(4));
}

#[test]
fn a_client_that_missed_nothing_gets_nothing_twice() {
    waft_only!("Pushpin keeps no log");
    let (_target, server) = serve();
    let mut client = events(&server, None);
    publish(&server, 1);
    client.expect_stream(event(1));
    drop(client);
    let mut client = events(&server, Some("1"));
    publish(&server, 2);
    client.expect_stream(event(2));
}

#[test]
fn a_new_client_gets_nothing_old() {
    waft_only!("Pushpin keeps no log");
    let (_target, server) = serve();
    let mut client = events(&server, None);
    publish(&server, 1);
    client.expect_stream(event(1));
    let mut other = events(&server, None);
    publish(&server, 2);
    other.expect_stream(event(2));
    client.expect_stream(event(2));
}

#[test]
fn a_poll_that_is_behind_is_answered_from_the_log() {
    waft_only!("Pushpin asks the backend again");
    let (target, server) = serve();
    let mut client = events(&server, None);
    publish(&server, 1);
    publish(&server, 2);
    client.expect_stream(event(1) + &event(2));
    let before = target.request_count();
    assert_eq!(server.get("/poll?after=1").response().body_text(), "item 2");
    assert_eq!(target.request_count(), before + 1);
}

#[test]
fn nothing_is_lost_between_two_polls() {
    waft_only!("Pushpin asks the backend again");
    let (_target, server) = serve();
    let mut keeper = events(&server, None);
    publish(&server, 1);
    keeper.expect_stream(event(1));
    let mut poller = server.connect();
    poller.send("GET /poll?after=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    publish(&server, 2);
    assert_eq!(poller.response().body_text(), "item 2");
    keeper.expect_stream(event(2));
}

/// A backend that sends the second half of a body when the gate opens, with these words about the channel.
fn serve_in_halves(channel: &'static str) -> (Gate, Target, Server) {
    let gate = Gate::new();
    let opened = gate.clone();
    let target = Target::raw(move |mut connection, _| {
        connection.until(b"\r\n\r\n");
        connection.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nGrip-Hold: stream\r\nGrip-Channel: {channel}\r\n\
             Content-Length: 10\r\n\r\n:one\n"
        ));
        opened.wait();
        connection.send(":two\n");
    });
    let server = Server::start(native(&target));
    (gate, target, server)
}

#[test]
fn what_was_missed_comes_before_what_is_published_while_the_stream_opens() {
    waft_only!("Pushpin keeps no log");
    for channel in ["c", "c; prev-id=1", "c; filter=skip-self"] {
        let (gate, _target, server) = serve_in_halves(channel);
        publish(&server, 1);
        publish(&server, 2);
        let mut client = server.connect();
        client.send("GET /events HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 1\r\n\r\n");
        client.expect_head(200);
        client.expect_stream(":one\n");
        publish(&server, 3);
        gate.open();
        client.expect_stream(":two\n".to_owned() + &event(2) + &event(3));
        publish(&server, 4);
        client.expect_stream(event(4));
    }
}

#[test]
fn what_follows_a_gap_goes_through_the_filters_too() {
    waft_only!("Pushpin tells of no gap");
    let target = Target::start(|_| {
        Reply::status("200 OK")
            .header("Content-Type", "text/event-stream")
            .header("Grip-Hold", "stream")
            .header("Grip-Channel", "c; prev-id=gone; filter=skip-self; filter=var-subst")
            .header("Grip-Set-Meta", "user=ann")
            .body(":open\n\n")
    });
    let server = Server::start(native(&target));
    let gap = "event: gap\ndata: {\"reason\":\"items-dropped\"}\n\n";
    for (sender, expected) in [("ann", gap.to_owned()), ("bob", format!("{gap}data: for ann\n\n"))] {
        let mut client = events(&server, None);
        server.publish(json!([{
            "channel": "c",
            "id": format!("{sender}-2"),
            "prev-id": format!("{sender}-1"),
            "no-seq": true,
            "meta": { "sender": sender },
            "formats": { "http-stream": { "content": "data: for %(user)s\n\n" } },
        }]));
        client.expect_stream(expected);
    }
}
