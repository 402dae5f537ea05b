//! What is published, with each wire form made at most once.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use waft_grip::item::{Action, Formats, HttpStream, Item, ResponseBody, WsKind};
use waft_websocket::frame::Opcode;
use waft_websocket::message::Message;

use crate::realm::Forms;
use crate::subscribe;

/// A published item on its way to the listeners of every shard.
#[derive(Debug)]
pub struct Payload {
    /// The formats, one for each kind of listener.
    pub formats: Formats,
    /// The metadata that filters look at.
    pub meta: Vec<(String, String)>,
    /// The size that the publisher says it has, in bytes.
    declared: Option<u64>,
    stream_chunk: OnceLock<Bytes>,
    ws_message: OnceLock<Message>,
    /// Forms for the clients of realms; none for an item that has nothing for them.
    pub(crate) realm: Option<Box<Forms>>,
    /// The item that this one shows to those who listen to a pattern of channels.
    pub(crate) original: Option<subscribe::Item>,
}

impl Payload {
    /// The payload of `item`.
    pub fn new(item: Item) -> Self {
        let realm = item.formats.json_object.is_some().then(Box::default);
        Self {
            formats: item.formats,
            meta: item.meta,
            declared: item.size,
            stream_chunk: OnceLock::new(),
            ws_message: OnceLock::new(),
            realm,
            original: None,
        }
    }

    /// Blocks of `block` bytes that a delivery to a long-poll counts as.
    pub fn response_blocks(&self, block: u64) -> u64 {
        let size = self.formats.http_response.as_ref().map_or(0, |format| match &format.body {
            ResponseBody::Bytes(body) => body.len(),
            ResponseBody::Patch(_) => 0,
        });
        self.blocks_of(size, block)
    }

    /// Blocks of `block` bytes that a delivery to a stream counts as.
    pub fn stream_blocks(&self, block: u64) -> u64 {
        self.blocks_of(self.formats.http_stream.as_ref().map_or(0, |format| format.content.len()), block)
    }

    /// Blocks of `block` bytes that a delivery to a WebSocket counts as.
    pub fn ws_blocks(&self, block: u64) -> u64 {
        self.blocks_of(self.formats.ws_message.as_ref().map_or(0, |format| format.content.len()), block)
    }

    /// Blocks of `block` bytes that the item counts as: those of its largest format.
    pub fn blocks(&self, block: u64) -> u64 {
        self.response_blocks(block).max(self.stream_blocks(block)).max(self.ws_blocks(block))
    }

    fn blocks_of(&self, size: usize, block: u64) -> u64 {
        self.declared.unwrap_or(size as u64).div_ceil(block.max(1))
    }

    /// The payload that shows `original` to those who listen to a pattern of channels.
    pub(crate) fn view(original: subscribe::Item) -> Self {
        Self { original: Some(original), ..Self::new(Item::default()) }
    }

    /// The content for streams, framed as one HTTP chunk; none if there is nothing to send.
    pub(crate) fn stream_chunk(&self) -> Option<&Bytes> {
        let content = stream_content(self.formats.http_stream.as_ref()?)?;
        Some(self.stream_chunk.get_or_init(|| waft_http1::chunk(content)))
    }
}

impl Payload {
    /// The message for WebSockets, framed once for all; none if the item sends them nothing.
    pub(crate) fn ws_message(&self) -> Option<&Message> {
        let format = self.formats.ws_message.as_ref().filter(|format| format.action == Action::Send)?;
        Some(self.ws_message.get_or_init(|| Message::new(opcode(format.kind), &format.content)))
    }
}

/// The frame type of a published message.
pub(crate) const fn opcode(kind: WsKind) -> Opcode {
    match kind {
        WsKind::Binary => Opcode::Binary,
        WsKind::Ping => Opcode::Ping,
        WsKind::Pong => Opcode::Pong,
        WsKind::Text => Opcode::Text,
    }
}

/// The content of a stream item that sends something.
pub(crate) fn stream_content(item: &HttpStream) -> Option<&Bytes> {
    match &item.action {
        Action::Send if !item.content.is_empty() => Some(&item.content),
        _ => None,
    }
}

/// Appends `data` to `out` as one HTTP chunk; nothing for no data, which would end the body.
pub(crate) fn put_chunk(out: &mut BytesMut, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + 20);
    out.put_slice(waft_http1::chunk_header(data.len()).as_ref());
    out.put_slice(data);
    out.put_slice(b"\r\n");
}

/// What an item keeps in memory, about: its contents and metadata in bytes.
pub(crate) fn payload_size(item: &Item) -> usize {
    let formats = &item.formats;
    let response = formats.http_response.as_ref().map_or(0, |format| match &format.body {
        ResponseBody::Bytes(body) => body.len(),
        ResponseBody::Patch(_) => 512,
    });
    let stream = formats.http_stream.as_ref().map_or(0, |format| format.content.len());
    let message = formats.ws_message.as_ref().map_or(0, |format| format.content.len());
    let object = formats.json_object.as_ref().map_or(0, Bytes::len);
    let meta: usize = item.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
    response + stream + message + object + meta
}
