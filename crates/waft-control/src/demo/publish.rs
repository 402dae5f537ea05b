//! What the demonstration publishes: each message in the form of every kind of client.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use url::form_urlencoded;
use waft_gateway::{Answer, Gateway, Payload};
use waft_grip::item::{Formats, HttpResponse, HttpStream, Item, ResponseBody, WsMessage};
use waft_http1::RequestHead;
use waft_hub::Ordered;

use super::{Demo, MESSAGE_MAX, Refusal};

/// The answer to somebody who published.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Receipt {
    pub(super) id: String,
    pub(super) channel: String,
    pub(super) listeners: usize,
}

impl Demo {
    /// Publishes `text` to all clients of `channel`.
    pub(super) fn publish(&self, gateway: &Gateway, now: Instant, channel: &str, text: &str) -> Receipt {
        let number = self.published.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}-{number}", self.epoch);
        let item = Item { id: Some(id.clone()), ..Item::new(channel, formats(&id, text)) };
        let published = gateway.publish(now, item);
        Receipt { id, channel: channel.to_owned(), listeners: published.listeners }
    }
}

/// The message that a request carries: the field `message` of a form, or the body itself.
pub(super) fn message(head: &RequestHead, body: &[u8]) -> Result<String, Refusal> {
    let kind = head.field("Content-Type").unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let text = if kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        // Tools that send any body as a form by default mean the body itself, which has no such field.
        let named = form_urlencoded::parse(body).find(|(name, _)| name == "message").map(|(_, text)| text.into_owned());
        match named {
            Some(text) => text,
            None => read_text(body)?.to_owned(),
        }
    } else {
        read_text(body)?.to_owned()
    };
    check(&text).map(|()| text)
}

/// Whether a text can be published.
pub(super) fn check(text: &str) -> Result<(), Refusal> {
    match text.len() {
        0 => Err(Refusal::Empty),
        seen if seen > MESSAGE_MAX => Err(Refusal::TooLong { seen }),
        _ => Ok(()),
    }
}

fn read_text(body: &[u8]) -> Result<&str, Refusal> {
    str::from_utf8(body).map_err(|_not_utf8| Refusal::NotText)
}

fn formats(id: &str, text: &str) -> Formats {
    let answer = json!({ "items": [{ "id": id, "text": text }] });
    Formats {
        http_response: Some(HttpResponse {
            code: 200,
            reason: "OK".into(),
            body: ResponseBody::Bytes(format!("{answer}\n").into()),
            ..HttpResponse::default()
        }),
        http_stream: Some(HttpStream { content: event(id, text).into(), ..HttpStream::default() }),
        ws_message: Some(WsMessage { content: text.to_owned().into(), ..WsMessage::default() }),
        json_object: None,
    }
}

/// A server-sent event. Any of its three line ends would end a field, so each line of the text becomes a field.
fn event(id: &str, text: &str) -> String {
    let mut out = format!("id: {id}\nevent: message\n");
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out
}

/// The answer to a long-poll that comes back late: everything it missed, and the position that this brings it to.
pub(super) fn poll_answer(missed: &[Arc<Ordered<Payload>>], gap: bool) -> Answer {
    let items: Vec<serde_json::Value> = missed.iter().flat_map(|item| items_of(&item.payload)).collect();
    let position = missed.last().map(|item| item.position.to_string());
    let body = json!({ "items": items, "gap": gap, "position": position });
    let mut answer = Answer::new(200, "application/json", format!("{body}\n"));
    answer.fields.push("Cache-Control", "no-store");
    answer
}

/// The items in a published answer. What somebody published by the control API may be any text, or nothing for polls.
fn items_of(payload: &Payload) -> Vec<serde_json::Value> {
    let Some(HttpResponse { body: ResponseBody::Bytes(body), .. }) = &payload.formats.http_response else {
        return Vec::new();
    };
    if body.is_empty() {
        return Vec::new();
    }
    let items = serde_json::from_slice(body).ok().and_then(|mut answer: serde_json::Value| {
        match answer.get_mut("items").map(serde_json::Value::take) {
            Some(serde_json::Value::Array(items)) => Some(items),
            _ => None,
        }
    });
    items.unwrap_or_else(|| vec![json!({ "text": String::from_utf8_lossy(body).trim_end() })])
}
