//! What a handler is told without a request: path `@*`, method `JSON`, a JSON text as body.

use bytes::Bytes;

use crate::request::{Protocol, Request};

/// Tells a handler that a connection has gone.
pub fn disconnect_notice(ident: &[u8], id: u64, protocol: Protocol) -> Bytes {
    notice(ident, id, None, br#"{"type":"disconnect"}"#, protocol)
}

/// Tells a handler that it may send `credits` more bytes to a connection.
pub fn credits_notice(ident: &[u8], id: u64, credits: u64, protocol: Protocol) -> Bytes {
    notice(ident, id, Some(credits), br#"{"type":"credits"}"#, protocol)
}

fn notice(ident: &[u8], id: u64, credits: Option<u64>, body: &[u8], protocol: Protocol) -> Bytes {
    let mut credits_text = itoa::Buffer::new();
    let credits = credits.map(|credits| credits_text.format(credits).as_bytes());
    let mut request = Request::notice(ident, id, protocol);
    // Readers do not care for the order, but this is the one that Mongrel2 writes.
    if protocol == Protocol::Json {
        request.server_header("METHOD", b"JSON");
    }
    if let Some(credits) = credits {
        request.server_header("DOWNLOAD_CREDITS", credits);
    }
    if protocol == Protocol::TNetString {
        request.server_header("METHOD", b"JSON");
    }
    request.finish(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_written_as_handlers_know_them() {
        let check = |notice: Bytes, expected: &str| assert_eq!(notice, expected.as_bytes());
        let (json, map) = (Protocol::Json, Protocol::TNetString);
        check(disconnect_notice(b"hand-1", 7, json), r#"hand-1 7 @* 17:{"METHOD":"JSON"},21:{"type":"disconnect"},"#);
        check(disconnect_notice(b"hand-1", 7, map), r#"hand-1 7 @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},"#);
        check(
            credits_notice(b"hand-1", 7, 40, json),
            r#"hand-1 7 @* 41:{"METHOD":"JSON","DOWNLOAD_CREDITS":"40"},18:{"type":"credits"},"#,
        );
        check(
            credits_notice(b"hand-1", 7, 40, map),
            r#"hand-1 7 @* 41:16:DOWNLOAD_CREDITS,2:40,6:METHOD,4:JSON,}18:{"type":"credits"},"#,
        );
    }
}
