//! Paths, frames and payloads of SockJS.

use std::fmt::Write as _;

use serde_json::Value;
use url::form_urlencoded;
use waft_http1::{Fields, HeadLimits, HeadWriter, Parsed, RequestHead, parse_request};
use waft_route::SockJs;

/// What a path below a SockJS endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// What the endpoint can do.
    Info,
    /// The page that a client loads into a frame.
    Iframe,
    /// A WebSocket without the framing of SockJS.
    RawWebSocket,
    /// A transport of a session.
    Session { id: &'a str, transport: Transport },
    /// Nothing.
    Unknown,
}

/// How the messages of a session travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    JsonP,
    JsonPSend,
    WebSocket,
    Xhr,
    XhrSend,
}

/// Where `path` leads below the endpoint; none if it is not below.
pub(crate) fn place<'a>(endpoint: &SockJs, path: &'a str) -> Option<Place<'a>> {
    let base = endpoint.path.strip_suffix('/').unwrap_or(&endpoint.path);
    let below = path.strip_prefix(base)?;
    if below.is_empty() {
        return Some(Place::Unknown);
    }
    let below = below.strip_prefix('/')?;
    let parts: Vec<&str> = below.split('/').collect();
    Some(match *parts.as_slice() {
        ["info"] => Place::Info,
        ["websocket"] => Place::RawWebSocket,
        [page] if page.starts_with("iframe") && page.ends_with(".html") => Place::Iframe,
        [server, id, transport] if is_name(server) && is_name(id) => match transport {
            "jsonp" => Place::Session { id, transport: Transport::JsonP },
            "jsonp_send" => Place::Session { id, transport: Transport::JsonPSend },
            "websocket" => Place::Session { id, transport: Transport::WebSocket },
            "xhr" => Place::Session { id, transport: Transport::Xhr },
            "xhr_send" => Place::Session { id, transport: Transport::XhrSend },
            _ => Place::Unknown,
        },
        _ => Place::Unknown,
    })
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && !part.contains('.')
}

/// What a client of a session gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The session is closed.
    Close(u16, String),
    Heartbeat,
    Messages(Vec<String>),
    Open,
}

impl Frame {
    /// The text of the frame.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Close(code, reason) => format!("c{}", Value::from(vec![Value::from(*code), reason.as_str().into()])),
            Self::Heartbeat => "h".to_owned(),
            Self::Messages(messages) => messages_text(messages),
            Self::Open => "o".to_owned(),
        }
    }

    /// The script that hands the frame to the function `callback`.
    pub(crate) fn script(&self, callback: &str) -> String {
        format!("/**/{callback}({});\n", Value::from(self.text()))
    }
}

/// Characters that browsers change on the way are written as escapes, as the protocol asks for.
fn messages_text(messages: &[String]) -> String {
    let json = Value::from(messages.to_vec()).to_string();
    let is_changed = |character: char| {
        matches!(u32::from(character), 0x7f..=0x9f | 0xad | 0x600..=0x604 | 0x70f | 0x17b4..=0x17b5
            | 0x200c..=0x200f | 0x2028..=0x202f | 0x2060..=0x206f | 0xfeff | 0xfff0..=0xffff)
    };
    let mut text = String::with_capacity(json.len() + 1);
    text.push('a');
    for character in json.chars() {
        if is_changed(character) {
            // All of them are within the first plane, so that one escape is enough.
            let _written = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

/// The messages that a client sends: a JSON array of texts.
pub(crate) fn sent(payload: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice(payload).ok()
}

/// The messages of a client's WebSocket: an array of texts, or one text. Nothing is no message.
pub(crate) fn sent_framed(payload: &[u8]) -> Option<Vec<String>> {
    if payload.is_empty() {
        return Some(Vec::new());
    }
    sent(payload).or_else(|| serde_json::from_slice(payload).ok().map(|text| vec![text]))
}

/// The payload of a form (`d=`), or of a body that is no form.
pub(crate) fn form_payload(content_type: Option<&[u8]>, body: &[u8]) -> Option<Vec<u8>> {
    let kind = content_type.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default();
    if kind.trim_ascii().eq_ignore_ascii_case(b"text/plain") {
        return Some(body.to_vec());
    }
    let found = form_urlencoded::parse(body).find(|(name, _)| name == "d");
    found.map(|(_, payload)| payload.into_owned().into_bytes())
}

/// The function that a script is to call; an error if it is more than a name.
pub(crate) fn callback(query: Option<&str>) -> Result<Option<String>, ()> {
    let mut items = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let found = items.find(|(name, _)| name == "c" || name == "callback");
    match found {
        Some((_, name)) if crate::jsonp::is_callback(&name) => Ok(Some(name.into_owned())),
        Some((_, name)) if name.is_empty() => Ok(None),
        Some(_) => Err(()),
        None => Ok(None),
    }
}

/// The path that the target sees.
pub(crate) fn target_path(endpoint: &SockJs, raw: bool) -> String {
    let base = endpoint.path.strip_suffix('/').unwrap_or(&endpoint.path);
    match &endpoint.as_path {
        Some(path) => path.clone(),
        None if raw => format!("{base}/websocket"),
        None => base.to_owned(),
    }
}

/// The request for a WebSocket to `path` that stands for a client's request. A client that asks for a WebSocket
/// itself keeps its key and extensions if `raw`.
pub(crate) fn websocket_request(head: &RequestHead, path: &str, key: &str, raw: bool) -> Option<RequestHead> {
    let mut out = format!("GET {path} HTTP/1.1\r\n").into_bytes();
    let mut fields = Fields::new();
    if raw {
        fields.extend(head.fields());
    } else {
        let kept = head.end_to_end_fields().filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            !matches!(&*name, "accept" | "accept-encoding" | "content-length" | "content-type" | "expect")
                && !name.starts_with("sec-websocket-")
        });
        fields.extend(kept);
        fields.push("Upgrade", "websocket");
        fields.push("Connection", "Upgrade");
        fields.push("Sec-WebSocket-Key", key);
        fields.push("Sec-WebSocket-Version", "13");
    }
    HeadWriter::new(&mut out).fields(fields.iter()).finish();
    let unlimited = HeadLimits { bytes_max: usize::MAX, target_max: usize::MAX, fields_max: usize::MAX };
    match parse_request(&out, &unlimited) {
        Ok(Parsed::Complete { head, .. }) => Some(head),
        Ok(Parsed::Partial) | Err(_) => None,
    }
}

/// The page for frames, which runs the client library at `url`.
pub(crate) fn iframe_page(url: &str) -> String {
    let url = url.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!DOCTYPE html>\n<html>\n<head>\n  <meta charset=\"UTF-8\">\n  <script src=\"{url}\"></script>\n  <script>\n    \
         SockJS.bootstrap_iframe();\n  </script>\n</head>\n<body>\n  <p>This page carries the messages of another \
         one.</p>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(path: &str) -> SockJs {
        SockJs { path: path.to_owned(), as_path: None }
    }

    #[test]
    fn paths_below_an_endpoint_have_their_places() {
        let session = |transport| Some(Place::Session { id: "abc", transport });
        let cases = [
            ("/s/info", Some(Place::Info)),
            ("/s/iframe.html", Some(Place::Iframe)),
            ("/s/iframe-1.2.3.html", Some(Place::Iframe)),
            ("/s/websocket", Some(Place::RawWebSocket)),
            ("/s/000/abc/xhr", session(Transport::Xhr)),
            ("/s/000/abc/xhr_send", session(Transport::XhrSend)),
            ("/s/000/abc/jsonp", session(Transport::JsonP)),
            ("/s/000/abc/jsonp_send", session(Transport::JsonPSend)),
            ("/s/000/abc/websocket", session(Transport::WebSocket)),
            ("/s/000/abc/eventsource", Some(Place::Unknown)),
            ("/s/a.b/abc/xhr", Some(Place::Unknown)),
            ("/s//abc/xhr", Some(Place::Unknown)),
            ("/s", Some(Place::Unknown)),
            ("/s/", Some(Place::Unknown)),
            ("/sx/info", None),
            ("/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(place(&endpoint("/s"), path), expected, "{path}");
            assert_eq!(place(&endpoint("/s/"), path), expected, "{path} below /s/");
        }
    }

    #[test]
    fn frames_have_their_texts() {
        let cases = [
            (Frame::Open, "o"),
            (Frame::Heartbeat, "h"),
            (Frame::Messages(vec!["a\"b".to_owned(), "c".to_owned()]), r#"a["a\"b","c"]"#),
            (Frame::Messages(vec!["\u{2028}\u{feff}é".to_owned()]), "a[\"\\u2028\\ufeffé\"]"),
            (Frame::Close(3000, "Go away!".to_owned()), r#"c[3000,"Go away!"]"#),
        ];
        for (frame, text) in cases {
            assert_eq!(frame.text(), text);
        }
        assert_eq!(Frame::Messages(vec!["q".to_owned()]).script("cb.x"), "/**/cb.x(\"a[\\\"q\\\"]\");\n");
    }

    #[test]
    fn payloads_are_arrays_of_texts() {
        assert_eq!(sent(br#"["a","b"]"#), Some(vec!["a".to_owned(), "b".to_owned()]));
        for bad in [&b""[..], b"x", b"{}", b"[1]", b"\"a\"", b"[\"a\""] {
            assert_eq!(sent(bad), None);
        }
        assert_eq!(sent_framed(b""), Some(vec![]));
        assert_eq!(sent_framed(b"\"a\""), Some(vec!["a".to_owned()]));
        assert_eq!(sent_framed(b"7"), None);
    }

    #[test]
    fn forms_carry_the_payload_in_d() {
        let form = Some(&b"application/x-www-form-urlencoded"[..]);
        assert_eq!(form_payload(form, b"a=1&d=%5B%22x+y%22%5D"), Some(b"[\"x y\"]".to_vec()));
        assert_eq!(form_payload(form, b"e=1"), None);
        assert_eq!(form_payload(Some(b"Text/Plain; charset=UTF-8"), b"[\"d=1\"]"), Some(b"[\"d=1\"]".to_vec()));
    }

    #[test]
    fn a_callback_is_a_name() {
        assert_eq!(callback(Some("c=a.b_c")), Ok(Some("a.b_c".to_owned())));
        assert_eq!(callback(Some("x=1&callback=f")), Ok(Some("f".to_owned())));
        assert_eq!(callback(Some("c=")), Ok(None));
        assert_eq!(callback(None), Ok(None));
        assert_eq!(callback(Some("c=alert(1)")), Err(()));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages in proptest::collection::vec(any::<String>(), 0..5)) {
            let text = Frame::Messages(messages.clone()).text();
            prop_assert_eq!(sent(text.strip_prefix('a').unwrap().as_bytes()), Some(messages));
        }
    }
}
