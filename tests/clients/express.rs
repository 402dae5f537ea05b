use waft_testkit::node;

use crate::{post, server_for_backend};

/// Runs a backend with serve-grip and goes through all that it does; `posted` is what it is asked to publish.
pub(crate) fn go_through(backend: &str, posted: &str) {
    let (server, port) = server_for_backend();
    let mut backend = node(backend)
        .env("PORT", port.to_string())
        .env("GRIP_URL", format!("http://{}/?verify-iss=pushpin&verify-key=changeme", server.control_address()))
        .start();
    backend.wait_for_port(port);
    assert_eq!(server.get("/whoami").response().body_text(), "proxied=true signed=true\n");
    let mut stream = server.get("/stream");
    stream.expect_head(200);
    stream.expect_stream("welcome\n");
    let mut poll = server.get("/poll");
    server.wait_for_holds(2);
    assert_eq!(server.fetch(post("/news", posted)).body_text(), "published\n");
    stream.expect_stream("hello\n");
    assert_eq!(poll.response().body_text(), "hello\n");
}

#[test]
fn serve_grip_streams_polls_publishes_and_trusts_the_signature() {
    go_through("examples/express/server.mjs", "hello");
}
