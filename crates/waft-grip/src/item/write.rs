//! Items as JSON values, for publishing clients.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Action, Formats, HttpResponse, HttpStream, Item, ResponseBody, WsKind, WsMessage};
use crate::json;
use crate::tnetstring::TValue;

/// A map under construction.
struct Members<'a>(Vec<(Cow<'a, [u8]>, TValue<'a>)>);

impl<'a> Members<'a> {
    fn set(&mut self, name: &'static str, value: TValue<'a>) {
        self.0.push((Cow::Borrowed(name.as_bytes()), value));
    }

    /// Text goes under `text`; other bytes go under `binary` as base64.
    fn set_content(&mut self, text: &'static str, binary: &'static str, content: &'a [u8]) {
        if std::str::from_utf8(content).is_ok() {
            self.set(text, TValue::str(content));
        } else {
            self.set(binary, TValue::Str(Cow::Owned(STANDARD.encode(content).into_bytes())));
        }
    }

    fn set_filters(&mut self, filters: Option<&'a Vec<String>>) {
        if let Some(filters) = filters {
            self.set("content-filters", TValue::List(filters.iter().map(TValue::str).collect()));
        }
    }
}

pub(super) fn item(item: &Item) -> TValue<'_> {
    let mut out = Members(Vec::new());
    out.set("channel", TValue::str(&item.channel));
    if let Some(id) = &item.id {
        out.set("id", TValue::str(id));
    }
    if let Some(id) = &item.prev_id {
        out.set("prev-id", TValue::str(id));
    }
    out.set("formats", formats(&item.formats));
    if !item.meta.is_empty() {
        let meta = item.meta.iter().map(|(name, value)| (Cow::Borrowed(name.as_bytes()), TValue::str(value)));
        out.set("meta", TValue::Map(meta.collect()));
    }
    if let Some(size) = item.size {
        out.set("size", TValue::Int(size.into()));
    }
    if item.no_seq {
        out.set("no-seq", TValue::Bool(true));
    }
    TValue::Map(out.0)
}

fn formats(formats: &Formats) -> TValue<'_> {
    let mut out = Members(Vec::new());
    if let Some(format) = &formats.http_response {
        out.set("http-response", http_response(format));
    }
    if let Some(format) = &formats.http_stream {
        out.set("http-stream", http_stream(format));
    }
    if let Some(format) = &formats.ws_message {
        out.set("ws-message", ws_message(format));
    }
    if let Some(value) = formats.json_object.as_deref().and_then(json::parse) {
        out.set("json-object", value);
    }
    TValue::Map(out.0)
}

fn http_response(format: &HttpResponse) -> TValue<'_> {
    let mut out = Members(Vec::new());
    if format.action != Action::Send {
        out.set("action", action(format.action));
        return TValue::Map(out.0);
    }
    out.set("code", TValue::Int(format.code.into()));
    out.set("reason", TValue::str(&format.reason));
    if !format.headers.is_empty() {
        let pairs = format.headers.iter().map(|(n, v)| TValue::List(vec![TValue::str(n), TValue::str(v)]));
        out.set("headers", TValue::List(pairs.collect()));
    }
    match &format.body {
        ResponseBody::Bytes(body) => out.set_content("body", "body-bin", body),
        ResponseBody::Patch(patch) => out.set("body-patch", TValue::List(patch.operations().map(borrow).collect())),
    }
    out.set_filters(format.content_filters.as_ref());
    TValue::Map(out.0)
}

fn http_stream(format: &HttpStream) -> TValue<'_> {
    let mut out = Members(Vec::new());
    if format.action == Action::Send {
        out.set_content("content", "content-bin", &format.content);
        out.set_filters(format.content_filters.as_ref());
    } else {
        out.set("action", action(format.action));
    }
    TValue::Map(out.0)
}

fn ws_message(format: &WsMessage) -> TValue<'_> {
    let mut out = Members(Vec::new());
    if format.action == Action::Send {
        let kind = match format.kind {
            WsKind::Text => "text",
            WsKind::Binary => "binary",
            WsKind::Ping => "ping",
            WsKind::Pong => "pong",
        };
        out.set("type", TValue::str(kind));
        out.set_content("content", "content-bin", &format.content);
        out.set_filters(format.content_filters.as_ref());
        return TValue::Map(out.0);
    }
    out.set("action", action(format.action));
    if let Some(code) = format.code {
        out.set("code", TValue::Int(code.into()));
    }
    if !format.reason.is_empty() {
        out.set("reason", TValue::str(&format.reason));
    }
    TValue::Map(out.0)
}

fn action(action: Action) -> TValue<'static> {
    TValue::str(match action {
        Action::Send => "send",
        Action::Hint => "hint",
        Action::Close => "close",
        Action::Refresh => "refresh",
    })
}

fn borrow(value: &serde_json::Value) -> TValue<'_> {
    use serde_json::Value;
    match value {
        Value::Null => TValue::Null,
        Value::Bool(b) => TValue::Bool(*b),
        Value::Number(n) => n.as_i128().map_or_else(|| TValue::Float(n.as_f64().unwrap_or(0.0)), TValue::Int),
        Value::String(text) => TValue::str(text),
        Value::Array(values) => TValue::List(values.iter().map(borrow).collect()),
        Value::Object(members) => {
            TValue::Map(members.iter().map(|(k, v)| (Cow::Borrowed(k.as_bytes()), borrow(v))).collect())
        }
    }
}
