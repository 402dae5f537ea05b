use waft_testkit::{Process, Server, node, python};

use crate::{post, server_for_backend};

fn manage(server: &Server, arguments: &[&str]) -> waft_testkit::Script {
    python("examples/django/manage.py")
        .args(arguments)
        .directory("examples/django")
        .env("CONTROL", format!("http://{}", server.control_address()))
        .env("DATABASE", server.directory().join("events.sqlite3"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

fn start() -> (Process, Server) {
    let (server, port) = server_for_backend();
    manage(&server, &["migrate", "--verbosity", "0"]).succeed();
    let mut backend = manage(&server, &["runserver", "--noreload", &format!("127.0.0.1:{port}")]).start();
    backend.wait_for_port(port);
    (backend, server)
}

#[test]
fn django_grip_streams_polls_publishes_and_trusts_the_signature() {
    let (_backend, server) = start();
    let answer = server.get("/whoami").response();
    assert_eq!(answer.body_text(), "proxied=True signed=True\n");
    let mut stream = server.get("/stream");
    stream.expect_head(200);
    stream.expect_stream("welcome\n");
    let mut poll = server.get("/poll");
    server.wait_for_holds(2);
    assert_eq!(server.fetch(post("/news", "hello")).body_text(), "published\n");
    stream.expect_stream("hello\n");
    assert_eq!(poll.response().body_text(), "hello\n");
}

#[test]
fn django_eventstream_sends_what_a_client_missed_while_it_was_away() {
    let (_backend, server) = start();
    let send = |text: &str| assert_eq!(server.fetch(post("/event", text)).body_text(), "sent\n");
    let mut events = server.get("/events/");
    let head = events.expect_head(200);
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    events.stream_until("stream-open");
    send("one");
    let first = events.stream_until("{\"text\": \"one\"}\n\n");
    let id = first.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(events);
    send("two");
    send("three");
    let mut again = server.connect();
    again.send(format!("GET /events/ HTTP/1.1\r\nHost: example.com\r\nLast-Event-ID: {id}\r\n\r\n"));
    again.expect_head(200);
    let missed = again.stream_until("{\"text\": \"three\"}\n\n");
    assert!(missed.contains("{\"text\": \"two\"}") && !missed.contains("\"one\""), "{missed}");
    send("four");
    let live = again.stream_until("{\"text\": \"four\"}\n\n");
    let texts = (missed.clone() + &live).matches("\"text\"").count();
    assert_eq!(texts, 3, "{missed}{live}");
}

#[test]
fn an_event_source_reads_django_events() {
    let (_backend, server) = start();
    let url = format!("http://{}/events/", server.address());
    let mut client = node("tests/clients/events.mjs").args([&url, "2"]).start();
    client.wait_for_output("open", 1);
    server.wait_for_holds(1);
    server.fetch(post("/event", "one"));
    server.fetch(post("/event", "two"));
    client.wait_for_output("data={\"text\": \"one\"}", 1);
    client.wait_for_output("data={\"text\": \"two\"}", 1);
    assert!(client.wait_for_exit().success());
}
