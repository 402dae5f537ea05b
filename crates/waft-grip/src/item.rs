//! Publish items (GRIP section 11): what a publisher sends to a channel, in JSON or as a TNetString.

mod read;
#[cfg(test)]
mod tests;
mod write;

use bytes::Bytes;

use crate::header::HeaderList;
use crate::json;
use crate::patch::Patch;
use crate::shape::{Encoding, ShapeError};
use crate::tnetstring::{self, TValue};

/// One publication to one channel, with a payload for each kind of listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// The channel, with the route prefix. May be empty.
    pub channel: String,
    /// The item's position, unique within the channel.
    pub id: Option<String>,
    /// The position of the item before it.
    pub prev_id: Option<String>,
    /// The payloads.
    pub formats: Formats,
    /// Metadata for filters.
    pub meta: Vec<(String, String)>,
    /// Declared size of the content in bytes, for rate limits.
    pub size: Option<u64>,
    /// Whether to bypass the sequencing buffer.
    pub no_seq: bool,
}

/// The payloads of an item. Formats unknown to waft are ignored, so all may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Formats {
    /// For response holds.
    pub http_response: Option<HttpResponse>,
    /// For stream holds.
    pub http_stream: Option<HttpStream>,
    /// For WebSockets.
    pub ws_message: Option<WsMessage>,
    /// Any JSON value, as compact text, for the doors that speak JSON.
    pub json_object: Option<Bytes>,
}

/// What a payload does. Which actions mean something depends on the format; the others do nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Deliver the content.
    #[default]
    Send,
    /// Tell listeners that there is news: holds are retried, streams fetch their next link.
    Hint,
    /// End the stream or the WebSocket.
    Close,
    /// Let a WebSocket over HTTP ask its backend now.
    Refresh,
}

/// Payload for response holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpResponse {
    /// What to do; only send and hint have an effect.
    pub action: Action,
    /// Status code, 0 to 999.
    pub code: u16,
    /// Reason phrase.
    pub reason: String,
    /// Headers that override those of the held response by name.
    pub headers: HeaderList,
    /// The body.
    pub body: ResponseBody,
    /// The content filters that the publisher prepared the body for.
    pub content_filters: Option<Vec<String>>,
}

/// Body of an `http-response` payload.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseBody {
    /// The body itself.
    Bytes(Bytes),
    /// Changes to the JSON body of the held response.
    Patch(Patch),
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

/// Payload for stream holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpStream {
    /// What to do; refresh has no effect.
    pub action: Action,
    /// Appended to the stream as it is.
    pub content: Bytes,
    /// The content filters that the publisher prepared the content for.
    pub content_filters: Option<Vec<String>>,
}

/// Payload for WebSockets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WsMessage {
    /// What to do; hint has no effect.
    pub action: Action,
    /// Kind of message.
    pub kind: WsKind,
    /// Payload of the message.
    pub content: Bytes,
    /// Code of a close. `None` is sent as 1000.
    pub code: Option<u16>,
    /// Reason of a close.
    pub reason: String,
    /// The content filters that the publisher prepared the content for.
    pub content_filters: Option<Vec<String>>,
}

/// Kind of a WebSocket message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WsKind {
    /// A text message.
    #[default]
    Text,
    /// A binary message.
    Binary,
    /// A ping frame.
    Ping,
    /// A pong frame.
    Pong,
}

/// Why a publish request is refused. `Display` is the body of the 400 answer, without its final line feed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The body does not parse.
    #[error("Body is not valid JSON.")]
    NotJson,
    /// The body is JSON, but not an object.
    #[error("Invalid format.")]
    NotObject,
    /// There are no items, or one of them is malformed. Nothing of the request may be published.
    #[error("Invalid format: {0}")]
    Format(#[from] ShapeError),
}

/// Why a packet from a publish socket is skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The packet begins with `J`, but is not JSON.
    #[error("publish packet is not valid JSON")]
    Json,
    /// The packet is not a TNetString.
    #[error("publish packet cannot be read: {0}")]
    TNetString(#[from] tnetstring::Error),
    /// The packet was decoded, but is not an item.
    #[error("publish packet is not an item: {0}")]
    Item(#[from] ShapeError),
}

impl Item {
    /// Reads an item from a decoded value. With `channel`, that name is used and a `channel` member is ignored, as for
    /// packets whose channel came in a frame of its own.
    ///
    /// # Errors
    /// The [`ShapeError`] whose text publishers know.
    pub fn from_value(value: &TValue<'_>, encoding: Encoding, channel: Option<&str>) -> Result<Self, ShapeError> {
        read::item(value, encoding, channel)
    }

    /// The item as a JSON object with a `formats` member, for publishing clients. Content that is not UTF-8 is written
    /// as base64 in the `-bin` member.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json::to_vec(&write::item(self))
    }

    /// The item with its channel, id and one payload; the other parts are empty.
    #[must_use]
    pub fn new(channel: impl Into<String>, formats: Formats) -> Self {
        Self { channel: channel.into(), formats, ..Self::default() }
    }
}

/// Reads the body of `POST /publish`, `{"items":[...]}`. An empty list is fine.
///
/// # Errors
/// [`PublishError`]; one bad item refuses all.
pub fn parse_publish_body(body: &[u8]) -> Result<Vec<Item>, PublishError> {
    let value = json::parse(body).ok_or(PublishError::NotJson)?;
    if !matches!(value, TValue::Map(_)) {
        return Err(PublishError::NotObject);
    }
    Ok(items_from_value(&value, Encoding::Json)?)
}

/// Reads the `items` member of an object: a publish body, or the arguments of a `publish` command.
///
/// # Errors
/// The [`ShapeError`] of the object or of the first bad item.
pub fn items_from_value(value: &TValue<'_>, encoding: Encoding) -> Result<Vec<Item>, ShapeError> {
    read::items(value, encoding)
}

/// Reads one item from JSON.
///
/// # Errors
/// [`PacketError`].
pub fn parse_item_json(text: &[u8]) -> Result<Item, PacketError> {
    let value = json::parse(text).ok_or(PacketError::Json)?;
    Ok(Item::from_value(&value, Encoding::Json, None)?)
}

/// Reads one item from a TNetString, in which strings are bytes.
///
/// # Errors
/// [`PacketError`].
pub fn parse_item_tnetstring(text: &[u8]) -> Result<Item, PacketError> {
    let value = tnetstring::parse_all(text)?;
    Ok(Item::from_value(&value, Encoding::TNetString, None)?)
}

/// Reads one frame of the PULL socket: `T` and a TNetString, `J` and a JSON object, or a bare TNetString.
///
/// # Errors
/// [`PacketError`]; the packet is to be skipped and the next one read.
pub fn parse_packet(frame: &[u8]) -> Result<Item, PacketError> {
    read_packet(frame, None)
}

/// Reads the second frame of a SUB socket's message; `channel` is the first one.
///
/// # Errors
/// As [`parse_packet`].
pub fn parse_channel_packet(channel: &[u8], frame: &[u8]) -> Result<Item, PacketError> {
    read_packet(frame, Some(&String::from_utf8_lossy(channel)))
}

fn read_packet(frame: &[u8], channel: Option<&str>) -> Result<Item, PacketError> {
    match frame.split_first() {
        Some((b'J', text)) => {
            let value = json::parse(text).ok_or(PacketError::Json)?;
            Ok(Item::from_value(&value, Encoding::Json, channel)?)
        }
        first => {
            let text = match first {
                Some((b'T', text)) => text,
                _ => frame,
            };
            let value = tnetstring::parse_all(text)?;
            Ok(Item::from_value(&value, Encoding::TNetString, channel)?)
        }
    }
}
