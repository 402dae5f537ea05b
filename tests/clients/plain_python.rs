use waft_testkit::{Process, Server, program};

use crate::{post, server_for_backend};

/// The example runs with any Python, without a package.
fn start() -> (Process, Server) {
    let (server, port) = server_for_backend();
    let mut backend = program("python3")
        .arg("examples/python/app.py")
        .env("PORT", port.to_string())
        .env("CONTROL", format!("http://{}", server.control_address()))
        .start();
    backend.wait_for_port(port);
    (backend, server)
}

#[test]
fn the_plain_python_example_streams_polls_and_publishes() {
    let (_backend, server) = start();
    let mut stream = server.get("/stream");
    stream.expect_head(200);
    stream.expect_stream("welcome\n");
    let mut poll = server.get("/poll");
    server.wait_for_holds(2);
    assert_eq!(server.fetch(post("/", "hello")).body_text(), "published\n");
    stream.expect_stream("data: hello\n\n");
    assert_eq!(poll.response().body_text(), "hello\n");
}

#[test]
fn the_plain_python_example_serves_events() {
    let (_backend, server) = start();
    let mut events = server.get("/events");
    let head = events.expect_head(200);
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    events.expect_stream("event: open\ndata: welcome\n\n");
    server.fetch(post("/", "hello"));
    events.expect_stream("data: hello\n\n");
}
