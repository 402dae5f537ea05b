//! The GRIP control layer of a WebSocket: messages from the target that steer waft instead of reaching the client.
//!
//! The target switches it on with the extension `grip` in its handshake answer. From then on its messages are
//! control messages (`c:` and a JSON object), content for the client (behind the message prefix, `m:` unless it says
//! otherwise), or neither, which are dropped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::handshake::read_extensions;

/// The extension's name; compared exactly.
pub const EXTENSION: &str = "grip";
/// The message prefix where the target names none.
pub const DEFAULT_MESSAGE_PREFIX: &str = "m:";
/// The most filters of one subscription; more close the connection with 1011.
pub const FILTERS_MAX: usize = 5;
/// Seconds between keep-alives where the message names none, or zero.
pub const KEEP_ALIVE_TIMEOUT_S: u32 = 55;
/// Seconds until a delayed message where it names none, or zero.
pub const SEND_DELAYED_TIMEOUT_S: u32 = 1;

const CONTROL_PREFIX: &[u8] = b"c:";

/// The control layer as one target asked for it. A word and a half while the prefix is the common one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GripExtension {
    message_prefix: Option<Box<str>>,
}

/// Reads the extension from the fields of the target's handshake answer; `None` if the target did not ask for it or
/// the list cannot be read.
#[must_use]
pub fn parse_grip_extension<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<GripExtension> {
    let list = read_extensions(fields).ok()?;
    let grip = list.iter().find(|extension| extension.name == EXTENSION)?;
    let prefix = grip.params.iter().find(|(name, _)| *name == "message-prefix").and_then(|(_, value)| value.as_deref());
    Some(GripExtension::with_prefix(prefix.unwrap_or(DEFAULT_MESSAGE_PREFIX)))
}

/// What to do with a message from the target.
#[derive(Clone, Debug, PartialEq)]
pub enum FromTarget {
    /// A control message; an error of it is at most worth a debug line, unless
    /// [`ControlError::closes`] says otherwise.
    Control(Result<ControlMessage, ControlError>),
    /// Neither a control message nor one with the prefix.
    Drop,
    /// For the client, without the prefix.
    Relay(Bytes),
}

impl GripExtension {
    /// The layer with a message prefix of the target's choice, possibly empty.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        Self { message_prefix: (prefix != DEFAULT_MESSAGE_PREFIX).then(|| prefix.into()) }
    }

    /// The bytes in front of what is meant for the client.
    #[must_use]
    pub fn message_prefix(&self) -> &str {
        self.message_prefix.as_deref().unwrap_or(DEFAULT_MESSAGE_PREFIX)
    }

    /// Sorts a whole text or binary message from the target. Only text can be a control message.
    #[must_use]
    pub fn classify(&self, is_text: bool, content: &Bytes) -> FromTarget {
        if let Some(json) = content.strip_prefix(CONTROL_PREFIX).filter(|_| is_text) {
            return FromTarget::Control(ControlMessage::parse(json));
        }
        let prefix = self.message_prefix().as_bytes();
        match content.strip_prefix(prefix) {
            Some(rest) => FromTarget::Relay(content.slice_ref(rest)),
            None => FromTarget::Drop,
        }
    }
}

/// The type of frame a keep-alive or delayed message is sent as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageType {
    /// A binary message.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
    /// A text message.
    #[default]
    Text,
}

/// When keep-alives are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepAliveMode {
    /// After the time without anything sent to the client.
    #[default]
    Idle,
    /// Each time the time has passed.
    Interval,
}

/// A message to be sent to the client later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The content; may be empty.
    pub content: Bytes,
    /// The type of frame.
    pub message_type: MessageType,
    /// Seconds until it is sent, at least 1.
    pub timeout_s: u32,
}

/// A command from the target.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlMessage {
    /// Close the target's side and keep the client.
    Detach,
    /// Send the delayed message now.
    FlushDelayed,
    /// Send a message to the client again and again; `None` turns it off.
    KeepAlive {
        /// What to send how often.
        message: Option<Scheduled>,
        /// From when the time counts.
        mode: KeepAliveMode,
    },
    /// Send one message after a delay; an earlier one that still waits is sent first.
    SendDelayed(Scheduled),
    /// Join the session of this id, or leave it.
    Session {
        /// The session.
        id: Option<String>,
    },
    /// Set filter metadata of the connection, or remove it.
    SetMeta {
        /// The name; not empty.
        name: String,
        /// The value; `None` removes.
        value: Option<String>,
    },
    /// Subscribe to a channel, or replace the filters of a subscription.
    Subscribe {
        /// The channel without the route's prefix; not empty.
        channel: String,
        /// Filters in order, at most [`FILTERS_MAX`].
        filters: Vec<String>,
        /// The id before the first item wanted: what the client saw last. waft's own extension.
        last_id: Option<String>,
        /// The id the target believes to be the channel's latest. waft's own extension.
        prev_id: Option<String>,
    },
    /// End a subscription.
    Unsubscribe {
        /// The channel without the route's prefix; not empty.
        channel: String,
    },
}

/// A control message that is not one. The connection continues, except where [`Self::closes`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A field is missing or has a wrong type or value.
    #[error("control message field {field} is missing or wrong")]
    BadField {
        /// The field.
        field: &'static str,
    },
    /// Not a JSON object.
    #[error("control message is not a JSON object")]
    NotAnObject,
    /// More filters than a subscription may have.
    #[error("too many filters for channel '{channel}'")]
    TooManyFilters {
        /// The channel.
        channel: String,
    },
    /// A type nobody defined.
    #[error("control message type {name:?} is unknown")]
    UnknownType {
        /// The type.
        name: String,
    },
}

impl ControlError {
    /// Whether the client's connection is closed with 1011: it would get items the filters were meant to hold back.
    #[must_use]
    pub const fn closes(&self) -> bool {
        matches!(self, Self::TooManyFilters { .. })
    }
}

impl ControlMessage {
    /// Reads the JSON behind `c:`.
    ///
    /// # Errors
    /// It is not a known control message.
    pub fn parse(json: &[u8]) -> Result<Self, ControlError> {
        let fields: Map<String, Value> = serde_json::from_slice(json).map_err(|_not_json| ControlError::NotAnObject)?;
        let message = match required(&fields, "type")? {
            "detach" => Self::Detach,
            "flush-delayed" => Self::FlushDelayed,
            "keep-alive" => Self::KeepAlive {
                message: scheduled(&fields, KEEP_ALIVE_TIMEOUT_S)?,
                mode: match optional(&fields, "mode")? {
                    Some("interval") => KeepAliveMode::Interval,
                    _ => KeepAliveMode::Idle,
                },
            },
            "send-delayed" => Self::SendDelayed(
                scheduled(&fields, SEND_DELAYED_TIMEOUT_S)?.ok_or(ControlError::BadField { field: "content" })?,
            ),
            "session" => Self::Session { id: owned(&fields, "id")? },
            "set-meta" => {
                Self::SetMeta { name: required(&fields, "name")?.to_owned(), value: owned(&fields, "value")? }
            }
            "subscribe" => subscribe(&fields)?,
            "unsubscribe" => Self::Unsubscribe { channel: required(&fields, "channel")?.to_owned() },
            unknown => return Err(ControlError::UnknownType { name: unknown.chars().take(64).collect() }),
        };
        Ok(message)
    }
}

fn subscribe(fields: &Map<String, Value>) -> Result<ControlMessage, ControlError> {
    let channel = required(fields, "channel")?.to_owned();
    let bad_filters = ControlError::BadField { field: "filters" };
    let filters = match fields.get("filters") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|filter| filter.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or(bad_filters)?,
        Some(_) => return Err(bad_filters),
    };
    if filters.len() > FILTERS_MAX {
        return Err(ControlError::TooManyFilters { channel });
    }
    let (last_id, prev_id) = (owned(fields, "last-id")?, owned(fields, "prev-id")?);
    Ok(ControlMessage::Subscribe { channel, filters, last_id, prev_id })
}

fn scheduled(fields: &Map<String, Value>, default_s: u32) -> Result<Option<Scheduled>, ControlError> {
    let content = if let Some(encoded) = optional(fields, "content-bin")? {
        STANDARD.decode(encoded).map_err(|_not_base64| ControlError::BadField { field: "content-bin" })?.into()
    } else if let Some(content) = optional(fields, "content")? {
        Bytes::copy_from_slice(content.as_bytes())
    } else {
        return Ok(None);
    };
    let message_type = match optional(fields, "message-type")? {
        None | Some("text") => MessageType::Text,
        Some("binary") => MessageType::Binary,
        Some("ping") => MessageType::Ping,
        Some("pong") => MessageType::Pong,
        Some(_) => return Err(ControlError::BadField { field: "message-type" }),
    };
    let timeout_s = match fields.get("timeout") {
        None | Some(Value::Null) => default_s,
        Some(value) => match value.as_u64().ok_or(ControlError::BadField { field: "timeout" })? {
            0 => default_s,
            seconds => u32::try_from(seconds).unwrap_or(u32::MAX),
        },
    };
    Ok(Some(Scheduled { content, message_type, timeout_s }))
}

fn required<'a>(fields: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, ControlError> {
    optional(fields, field)?.filter(|value| !value.is_empty()).ok_or(ControlError::BadField { field })
}

fn owned(fields: &Map<String, Value>, field: &'static str) -> Result<Option<String>, ControlError> {
    Ok(optional(fields, field)?.map(str::to_owned))
}

fn optional<'a>(fields: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, ControlError> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(ControlError::BadField { field }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scheduled_text(content: &'static str, timeout_s: u32) -> Scheduled {
        Scheduled { content: content.into(), message_type: MessageType::Text, timeout_s }
    }

    #[test]
    fn each_type_is_read_with_its_defaults() {
        use ControlMessage as C;
        let check = |json: &str, expected: C| assert_eq!(C::parse(json.as_bytes()), Ok(expected), "{json}");
        let subscribe = |filters: &[&str], last: Option<&str>, prev: Option<&str>| C::Subscribe {
            channel: "room".to_owned(),
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
            last_id: last.map(str::to_owned),
            prev_id: prev.map(str::to_owned),
        };
        check(r#"{"type":"subscribe","channel":"room"}"#, subscribe(&[], None, None));
        check(r#"{"type":"subscribe","channel":"room","filters":["a","b"],"x":1}"#, subscribe(&["a", "b"], None, None));
        let resumed = subscribe(&[], Some("7"), Some("9"));
        check(r#"{"type":"subscribe","channel":"room","last-id":"7","prev-id":"9"}"#, resumed);
        check(r#"{"type":"unsubscribe","channel":"room"}"#, C::Unsubscribe { channel: "room".to_owned() });
        check(r#"{"type":"detach"}"#, C::Detach);
        check(r#"{"type":"session"}"#, C::Session { id: None });
        check(r#"{"type":"session","id":"s"}"#, C::Session { id: Some("s".to_owned()) });
        let meta = |value: Option<&str>| C::SetMeta { name: "user".to_owned(), value: value.map(str::to_owned) };
        check(r#"{"type":"set-meta","name":"user","value":"bob"}"#, meta(Some("bob")));
        check(r#"{"type":"set-meta","name":"user","value":null}"#, meta(None));
        let keep_alive = |message, mode| C::KeepAlive { message, mode };
        check(r#"{"type":"keep-alive"}"#, keep_alive(None, KeepAliveMode::Idle));
        check(
            r#"{"type":"keep-alive","content":"{}","timeout":30,"mode":"idle"}"#,
            keep_alive(Some(scheduled_text("{}", 30)), KeepAliveMode::Idle),
        );
        check(
            r#"{"type":"keep-alive","content":"","timeout":0,"mode":"interval"}"#,
            keep_alive(Some(scheduled_text("", 55)), KeepAliveMode::Interval),
        );
        check(r#"{"type":"send-delayed","content-bin":"aGk="}"#, C::SendDelayed(scheduled_text("hi", 1)));
        let ping = Scheduled { content: "x".into(), message_type: MessageType::Ping, timeout_s: 4 };
        check(r#"{"type":"send-delayed","content":"x","message-type":"ping","timeout":4}"#, C::SendDelayed(ping));
        check(r#"{"type":"flush-delayed"}"#, C::FlushDelayed);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |json: &str, error: ControlError| {
            assert_eq!(ControlMessage::parse(json.as_bytes()), Err(error), "{json}");
        };
        let field = |field| ControlError::BadField { field };
        check("[]", ControlError::NotAnObject);
        check("{", ControlError::NotAnObject);
        check("{}", field("type"));
        check(r#"{"type":"ack"}"#, ControlError::UnknownType { name: "ack".to_owned() });
        check(r#"{"type":"subscribe"}"#, field("channel"));
        check(r#"{"type":"subscribe","channel":""}"#, field("channel"));
        check(r#"{"type":"subscribe","channel":"a","filters":"b"}"#, field("filters"));
        check(r#"{"type":"subscribe","channel":"a","filters":[1]}"#, field("filters"));
        check(r#"{"type":"set-meta","value":"b"}"#, field("name"));
        check(r#"{"type":"send-delayed"}"#, field("content"));
        check(r#"{"type":"send-delayed","content-bin":"?"}"#, field("content-bin"));
        check(r#"{"type":"keep-alive","content":"a","timeout":-1}"#, field("timeout"));
        check(r#"{"type":"keep-alive","content":"a","message-type":"close"}"#, field("message-type"));
        let many = ControlMessage::parse(br#"{"type":"subscribe","channel":"X","filters":["a","b","c","d","e","f"]}"#);
        let error = many.unwrap_err();
        assert!(error.closes());
        assert_eq!(error.to_string(), "too many filters for channel 'X'");
    }

    #[test]
    fn messages_are_sorted_by_their_first_bytes() {
        let check = |prefix: &str, is_text: bool, content: &'static str, expected: FromTarget| {
            assert_eq!(GripExtension::with_prefix(prefix).classify(is_text, &content.into()), expected, "{content}");
        };
        check("m:", true, "m:hey!", FromTarget::Relay("hey!".into()));
        check("m:", false, "m:", FromTarget::Relay("".into()));
        check("m:", true, "hey!", FromTarget::Drop);
        check("m:", false, "c:{}", FromTarget::Drop);
        check("", true, "hey!", FromTarget::Relay("hey!".into()));
        check("", false, "c:x", FromTarget::Relay("c:x".into()));
        check("", true, "c:x", FromTarget::Control(Err(ControlError::NotAnObject)));
        check("m:", true, "c:{\"type\":\"detach\"}", FromTarget::Control(Ok(ControlMessage::Detach)));
    }

    #[test]
    fn the_extension_is_found_among_others() {
        let check = |value: &str, expected: Option<&str>| {
            let fields = [("sec-websocket-extensions", value.as_bytes())];
            let got = parse_grip_extension(fields.into_iter());
            assert_eq!(got.as_ref().map(GripExtension::message_prefix), expected, "{value}");
        };
        check("grip", Some("m:"));
        check("foo, grip; message-prefix=\"\"", Some(""));
        check("grip; message-prefix=\"x, y\"", Some("x, y"));
        check("Grip", None);
        check("grip x", None);
        assert_eq!(parse_grip_extension([("X", &b"grip"[..])].into_iter()), None);
    }

    proptest! {
        #[test]
        fn any_content_is_sorted(content: Vec<u8>, is_text: bool, prefix in ".{0,3}") {
            let content = Bytes::from([b"c:", &content[..]].concat());
            let _any = GripExtension::with_prefix(&prefix).classify(is_text, &content);
        }
    }
}
