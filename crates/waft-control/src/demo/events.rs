//! WebSocket-over-HTTP: the events of a client's WebSocket as the gateway sends them to a backend.

use serde_json::json;
use waft_gateway::{Answer, Gateway, Request};

use super::{Demo, Refusal, channel, publish};

/// The content type of events.
const CONTENT_TYPE: &str = "application/websocket-events";

/// Something that happened on a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event<'a> {
    kind: &'a [u8],
    content: &'a [u8],
}

impl Demo {
    /// Answers the events of a WebSocket: it listens to its channel, and what it says is published there.
    pub(super) fn socket(&self, gateway: &Gateway, request: &Request<'_>) -> Result<Answer, Refusal> {
        let kind = request.head.field("Content-Type").unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if !kind.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes()) {
            return Err(Refusal::NoSocket);
        }
        let channel = channel(request.head)?;
        let mut out = Vec::new();
        let mut opened = false;
        for event in parse(request.body).ok_or(Refusal::Events)? {
            match event.kind {
                b"OPEN" => {
                    opened = true;
                    let subscribe = json!({ "type": "subscribe", "channel": &channel });
                    put(&mut out, "OPEN", b"");
                    put(&mut out, "TEXT", format!("c:{subscribe}").as_bytes());
                }
                b"TEXT" => {
                    let text = String::from_utf8_lossy(event.content);
                    match publish::check(&text) {
                        Ok(()) => drop(self.publish(gateway, request.now, &channel, &text)),
                        Err(refusal) => put(&mut out, "TEXT", format!("not published: {refusal}").as_bytes()),
                    }
                }
                b"PING" => put(&mut out, "PONG", event.content),
                b"CLOSE" => put(&mut out, "CLOSE", event.content),
                // Binary messages have no place on the page, and nothing is owed to a pong or to a client who has gone.
                _ => {}
            }
        }
        let mut answer = Answer::new(200, CONTENT_TYPE, out);
        if opened {
            // What is not a control message is for the client as it is.
            answer.fields.push("Sec-WebSocket-Extensions", "grip; message-prefix=\"\"");
        }
        Ok(answer)
    }
}

/// The events of a body; none if it breaks the form: `TYPE [SP hex-length] CRLF [content CRLF]`, over and over.
fn parse(body: &[u8]) -> Option<Vec<Event<'_>>> {
    let mut events = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, after) = (rest.get(..end)?, rest.get(end + 2..)?);
        let Some(space) = line.iter().position(|byte| *byte == b' ') else {
            events.push(Event { kind: line, content: b"" });
            rest = after;
            continue;
        };
        let digits = str::from_utf8(line.get(space + 1..)?).ok()?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let length = usize::from_str_radix(digits, 16).ok()?;
        let content = after.get(..length)?;
        rest = after.get(length..)?.strip_prefix(b"\r\n")?;
        events.push(Event { kind: line.get(..space)?, content });
    }
    Some(events)
}

fn put(out: &mut Vec<u8>, kind: &str, content: &[u8]) {
    out.extend_from_slice(kind.as_bytes());
    if !content.is_empty() {
        out.extend_from_slice(format!(" {:x}\r\n", content.len()).as_bytes());
        out.extend_from_slice(content);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_are_read_as_they_are_framed() {
        let check = |body: &str, expected: Option<&[(&str, &str)]>| {
            let events = parse(body.as_bytes());
            let events = events.as_ref().map(|events| {
                let text = |bytes| str::from_utf8(bytes).unwrap();
                events.iter().map(|event| (text(event.kind), text(event.content))).collect::<Vec<_>>()
            });
            assert_eq!(events.as_deref(), expected, "{body:?}");
        };
        check("", Some(&[]));
        check("OPEN\r\n", Some(&[("OPEN", "")]));
        check("TEXT 0\r\n\r\n", Some(&[("TEXT", "")]));
        check(
            "OPEN\r\nTEXT c\r\nhello\r\nworld\r\nCLOSE\r\n",
            Some(&[("OPEN", ""), ("TEXT", "hello\r\nworld"), ("CLOSE", "")]),
        );
        for broken in
            ["OPEN", "TEXT 5\r\nhell", "TEXT 5\r\nhello", "TEXT x\r\n\r\n", "TEXT +1\r\na\r\n", "TEXT \r\n\r\n"]
        {
            check(broken, None);
        }
        check("TEXT ffffffffffffffffff\r\n\r\n", None);
    }

    proptest! {
        #[test]
        fn what_was_put_is_read_back(messages: Vec<Vec<u8>>) {
            let mut body = Vec::new();
            for message in &messages {
                put(&mut body, "TEXT", message);
            }
            let read: Vec<Vec<u8>> = parse(&body).unwrap().iter().map(|event| event.content.to_vec()).collect();
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn any_bytes_are_read_without_panic(body: Vec<u8>) {
            prop_assert!(parse(&body).is_none_or(|events| events.len() <= body.len()));
        }
    }
}
