//! Clients that speak HTTP/2, without TLS: the library h2 of Python, httpx, curl and h2load.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod clients;
mod limits;
mod streams;
mod websocket;

use waft_testkit::{Reply, Request, Script, Server, Setup, Target, python};

/// A backend that holds, answers and echoes, and waft in front of it.
fn serve() -> (Target, Server) {
    serve_with("")
}

/// The same, with further lines of configuration.
fn serve_with(more: &str) -> (Target, Server) {
    start("", more)
}

/// `own` are further lines about the server itself.
fn start(own: &str, more: &str) -> (Target, Server) {
    let target = Target::start(|request| match request.path() {
        "/ws" => events(request),
        path if path.starts_with("/hold/") => Reply::hold("stream", path.trim_start_matches("/hold/")).body("open\n"),
        "/poll" => Reply::hold("response", "c"),
        "/seen" => Reply::text(format!("{:?} {:?}", request.header("Host"), request.header("Cookie"))),
        "/huge" => Reply::text("y".repeat(4 << 20)),
        "/echo" => Reply::text(&request.body),
        path => Reply::text(format!("answer to {path}")),
    });
    let server = Server::start(Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\nshards = 1\n{own}\n[control]\nlisten = [\"CONTROL\"]\n\n{more}\n[[route]]\n\
         targets = [{{ address = \"{}\", over_http = true }}]\n",
        target.address()
    )));
    (target, server)
}

/// Opens WebSockets, subscribes them to the channel `room`, and sends back what they send.
fn events(request: &Request) -> Reply {
    let subscribe = r#"c:{"type":"subscribe","channel":"room"}"#;
    let body = match request.body.starts_with(b"OPEN") {
        true => format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len()).into_bytes(),
        false => request.body.clone(),
    };
    Reply::text(body)
        .header("Content-Type", "application/websocket-events")
        .header("Sec-WebSocket-Extensions", r#"grip; message-prefix="""#)
}

/// The client in one of its parts.
fn client(server: &Server, part: &str, more: &[&str]) -> Script {
    python("tests/http2/client.py").arg(server.address().to_string()).arg(part).args(more)
}
