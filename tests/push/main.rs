//! The push service: realms, and everything that their clients speak.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod bayeux;
mod chat;
mod eventsource;
mod live;
mod presence;
mod publish;
mod socket;
mod views;
mod web;

use serde_json::{Value, json};
use waft_testkit::{Connection, Server, Setup};

/// A server with the realm `demo`: everyone may read and publish, but for what is secret.
fn serve() -> Server {
    serve_with("")
}

/// The same, with more lines for the realm.
fn serve_with(lines: &str) -> Server {
    Server::start(Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\nshards = 2\n\n[control]\nlisten = [\"CONTROL\"]\n\n[[realm]]\nname = \"demo\"\n\
         keys = [\"base64:c2VjcmV0\", \"base64:b2xk\"]\npublish_tokens = [\"opaque\"]\n\
         access = [{{ channels = [\"open/**\", \"chat\"], allow = [\"read\", \"publish\", \"presence\"], to = \"everyone\" }}]\n{lines}\n\
         [[route]]\nrealm = \"demo\"\n"
    )))
}

/// Publishes a JSON value to a channel of the realm.
fn publish(server: &Server, channel: &str, value: &Value) {
    let body = json!({ "items": [{ "channel": channel, "json-object": value }] }).to_string();
    let answer = server.control(format!(
        "POST /realm/demo/publish/ HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer opaque\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "Published\n"));
}

/// A request with some header lines.
fn get(server: &Server, path: &str, lines: &str) -> Connection {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    client
}

/// The next event of a stream: its id and its data.
fn event(client: &mut Connection) -> (String, Value) {
    let text = client.stream_until("\n\n");
    let part = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    (part("id: "), serde_json::from_str(&part("data: ")).unwrap_or_default())
}

/// A stream of events that has begun.
fn events(server: &Server, path: &str, lines: &str) -> Connection {
    let mut client = get(server, path, &format!("Accept: text/event-stream\r\n{lines}"));
    let head = client.expect_head(200);
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    client.expect_stream("retry: 2000\n\n");
    client
}
