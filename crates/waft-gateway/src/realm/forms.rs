//! The wire forms of an item for the clients of realms, each made at most once and shared by all who get it.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use waft_websocket::frame::Opcode;
use waft_websocket::message::Message;

use crate::subscribe::Item;

/// Forms that were made.
#[derive(Debug, Default)]
pub(crate) struct Forms {
    bayeux: OnceLock<Message>,
    bayeux_event: OnceLock<Framed>,
    event: OnceLock<Message>,
    line: OnceLock<Framed>,
    sse: OnceLock<Framed>,
}

/// Content for streams, as an HTTP chunk and without.
#[derive(Debug)]
pub(crate) struct Framed {
    chunk: Bytes,
    content: Bytes,
}

impl Framed {
    fn new(content: &[u8]) -> Self {
        let chunk = waft_http1::chunk(content);
        let begin = chunk.len().saturating_sub(content.len() + 2);
        let content = chunk.slice(begin..begin + content.len());
        Self { chunk, content }
    }

    /// The content in the one form or the other.
    pub(crate) fn bytes(&self, chunked: bool) -> &Bytes {
        if chunked { &self.chunk } else { &self.content }
    }

    /// The content alone.
    pub(crate) fn content(&self) -> &Bytes {
        &self.content
    }
}

/// The item that a view of it stands for; itself if it is none.
pub(crate) fn original(item: &Item) -> &Item {
    item.payload.original.as_ref().unwrap_or(item)
}

/// The channel of an item as its realm calls it.
pub(crate) fn channel(item: &Item) -> &str {
    own_name(&item.channel)
}

/// A name in the hub as its realm knows it.
pub(crate) fn own_name(hub_name: &str) -> &str {
    hub_name.splitn(3, ':').nth(2).unwrap_or_default()
}

/// The value of an item, as JSON text; none if it has none for clients of realms.
pub(crate) fn value(item: &Item) -> Option<&Bytes> {
    original(item).payload.formats.json_object.as_ref()
}

/// What an item is for an event stream.
pub(crate) fn sse(item: &Item) -> Option<&Framed> {
    let (value, forms) = parts(item)?;
    Some(forms.sse.get_or_init(|| {
        let position = item.position.to_string();
        Framed::new(&[b"id: ", position.as_bytes(), b"\ndata: ", value, b"\n\n"].concat())
    }))
}

/// What an item is for a stream of JSON lines.
pub(crate) fn line(item: &Item) -> Option<&Framed> {
    let (value, forms) = parts(item)?;
    Some(forms.line.get_or_init(|| {
        let mut out = entry(item, value);
        out.extend_from_slice(b"\n");
        Framed::new(&out)
    }))
}

/// What an item is in a list: its position and its value.
pub(crate) fn entry(item: &Item, value: &[u8]) -> BytesMut {
    let position = item.position.to_string();
    let mut out = BytesMut::with_capacity(position.len() + value.len() + 24);
    for part in [&b"{\"id\":\""[..], position.as_bytes(), b"\",\"data\":", value, b"}"] {
        out.extend_from_slice(part);
    }
    out
}

/// What an item is for the sockets of plain clients.
pub(crate) fn event(item: &Item) -> Option<&Message> {
    let (value, forms) = parts(item)?;
    Some(forms.event.get_or_init(|| {
        let position = item.position.to_string();
        let name = serde_json::to_string(channel(item)).unwrap_or_default();
        let parts = [
            &b"{\"type\":\"event\",\"channel\":"[..],
            name.as_bytes(),
            b",\"id\":\"",
            position.as_bytes(),
            b"\",\"data\":",
        ];
        Message::new(Opcode::Text, &[&parts.concat()[..], value, b"}"].concat())
    }))
}

/// What an item is for the sockets of Bayeux clients: a batch of one message.
pub(crate) fn bayeux(item: &Item) -> Option<&Message> {
    let item = original(item);
    let (value, forms) = parts(item)?;
    Some(forms.bayeux.get_or_init(|| {
        let mut out = b"[".to_vec();
        waft_bayeux::write_delivery(channel(item), value, &mut out);
        out.push(b']');
        Message::new(Opcode::Text, &out)
    }))
}

/// What an item is for the event streams of Bayeux clients: a batch of one message.
pub(crate) fn bayeux_event(item: &Item) -> Option<&Framed> {
    let item = original(item);
    let (_, forms) = parts(item)?;
    let batch = bayeux(item)?.content();
    Some(forms.bayeux_event.get_or_init(|| Framed::new(&waft_bayeux::event(&batch))))
}

fn parts(item: &Item) -> Option<(&Bytes, &Forms)> {
    Some((item.payload.formats.json_object.as_ref()?, item.payload.realm.as_deref()?))
}
