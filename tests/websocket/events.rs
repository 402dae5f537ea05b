//! The event form of WebSockets, as backends write it.

use waft_testkit::Reply;

/// A response with events.
pub(crate) fn events(body: impl AsRef<[u8]>) -> Reply {
    Reply::status("200 OK").header("Content-Type", "application/websocket-events").body(body)
}

/// The event of a text message.
pub(crate) fn text(content: &str) -> String {
    format!("TEXT {:x}\r\n{content}\r\n", content.len())
}
