//! Messages as they are handed over by callers of the API.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::filter::{self, is_event_type};

/// Messages in one call at most.
pub const MESSAGES_MAX: usize = 1_000;

/// Longest idempotency or order key in bytes.
const KEY_MAX: usize = 256;

/// A message to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// The application, if the caller names one.
    pub app: Option<String>,
    /// The event type.
    pub kind: String,
    /// The media type of the body.
    pub content_type: String,
    /// The hash of what its order is kept by; 0 is nothing.
    pub order: u64,
    /// The hash of what it is recognised by if it comes again; 0 is nothing.
    pub idempotency: u64,
    /// The endpoints it is meant for; none is all that want its type.
    pub endpoints: Option<Vec<String>>,
    /// The body.
    pub body: Vec<u8>,
    /// The request that it is; none for what is posted to registered endpoints.
    pub request: Option<NewRequest>,
}

/// A request that is delivered as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRequest {
    /// The method.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Header lines.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Any certificate will do.
    pub ignore_tls_errors: bool,
}

/// Why a call hands over no messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// A body that is empty or too long.
    #[error("the body of a message has 1 to {max} bytes, not {seen}")]
    Body {
        /// The limit.
        max: usize,
        /// How long it is.
        seen: usize,
    },
    /// No payload, or two.
    #[error("a message needs either `payload`, which is JSON, or `text`")]
    Content,
    /// A key that is empty or too long.
    #[error("a key has 1 to {KEY_MAX} bytes")]
    Key,
    /// Not the JSON that was expected.
    #[error("the call cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// None, or too many.
    #[error("a call has 1 to {MESSAGES_MAX} messages")]
    Many,
    /// The event type.
    #[error("`type` must be words of letters, digits, `_` and `-`, joined by dots, and not begin with `webhooks.`")]
    Type,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call<'a> {
    #[serde(borrow, default)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow, default)]
    app: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    text: Option<String>,
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    order_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    idempotency_key: Option<Cow<'a, str>>,
    #[serde(default)]
    endpoints: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(borrow, default)]
    app: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    text: Option<String>,
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    order_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    idempotency_key: Option<Cow<'a, str>>,
    #[serde(default)]
    endpoints: Option<Vec<String>>,
}

/// Reads a call: one message, or `messages`. `header_key` is the field `Idempotency-Key`, for one message. Returns the
/// messages and whether they came as a list.
pub fn parse(body: &[u8], header_key: Option<&[u8]>, body_max: usize) -> Result<(Vec<NewMessage>, bool), SubmitError> {
    let call: Call<'_> = serde_json::from_slice(body)?;
    if let Some(messages) = call.messages {
        if messages.is_empty() || messages.len() > MESSAGES_MAX {
            return Err(SubmitError::Many);
        }
        let app = call.app;
        let with_app = |message: Message<'_>| {
            let mut read = read(message, body_max)?;
            read.app = read.app.or_else(|| app.as_deref().map(ToOwned::to_owned));
            Ok(read)
        };
        return Ok((messages.into_iter().map(with_app).collect::<Result<_, SubmitError>>()?, true));
    }
    let message = Message {
        app: call.app,
        kind: call.kind.ok_or(SubmitError::Type)?,
        payload: call.payload,
        text: call.text,
        content_type: call.content_type,
        order_key: call.order_key,
        idempotency_key: call.idempotency_key,
        endpoints: call.endpoints,
    };
    let mut message = read(message, body_max)?;
    if let Some(key) = header_key {
        message.idempotency = hash_key(key)?;
    }
    Ok((vec![message], false))
}

fn read(message: Message<'_>, body_max: usize) -> Result<NewMessage, SubmitError> {
    if !is_event_type(&message.kind) || filter::is_own(&message.kind) {
        return Err(SubmitError::Type);
    }
    let (body, default_type) = match (message.payload, message.text) {
        (Some(payload), None) => (payload.get().as_bytes().to_vec(), "application/json"),
        (None, Some(text)) => (text.into_bytes(), "text/plain"),
        (Some(_), Some(_)) | (None, None) => return Err(SubmitError::Content),
    };
    if body.is_empty() || body.len() > body_max {
        return Err(SubmitError::Body { max: body_max, seen: body.len() });
    }
    let content_type = message.content_type.as_deref().unwrap_or(default_type);
    if content_type.len() > KEY_MAX || !content_type.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
        return Err(SubmitError::Key);
    }
    let key = |key: Option<Cow<'_, str>>| key.map_or(Ok(0), |key| hash_key(key.as_bytes()));
    Ok(NewMessage {
        app: message.app.map(Cow::into_owned),
        kind: message.kind.into_owned(),
        content_type: content_type.to_owned(),
        order: key(message.order_key)?,
        idempotency: key(message.idempotency_key)?,
        endpoints: message.endpoints,
        body,
        request: None,
    })
}

/// A number for a key, the same in every process; never 0.
pub(crate) fn hash_key(key: &[u8]) -> Result<u64, SubmitError> {
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(SubmitError::Key);
    }
    let hash = digest(&SHA256, key);
    let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
    Ok(u64::from_le_bytes(first).max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, expected: Result<usize, &str>) {
        let result = parse(body.as_bytes(), None, 100).map(|(messages, _)| messages.len());
        match (result, expected) {
            (Ok(count), Ok(expected)) => assert_eq!(count, expected, "{body}"),
            (Err(error), Err(expected)) => assert!(error.to_string().starts_with(expected), "{body}: {error}"),
            (result, expected) => panic!("{body}: {result:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn calls_are_read_or_refused_with_a_reason() {
        check(r#"{"type":"order.paid","payload":{"a":1}}"#, Ok(1));
        check(r#"{"type":"a","text":"hello","content_type":"text/html","order_key":"k","app":"x"}"#, Ok(1));
        check(r#"{"messages":[{"type":"a","payload":1},{"type":"b","payload":false}]}"#, Ok(2));
        check(r#"{"messages":[]}"#, Err("a call has 1 to 1000 messages"));
        check(r#"{"type":"a"}"#, Err("a message needs either"));
        check(r#"{"type":"a","payload":1,"text":"b"}"#, Err("a message needs either"));
        check(r#"{"type":"a b","payload":1}"#, Err("`type` must be"));
        check(r#"{"type":"webhooks.x","payload":1}"#, Err("`type` must be"));
        check(r#"{"payload":1}"#, Err("`type` must be"));
        check(r#"{"type":"a","payload":1,"idempotency_key":""}"#, Err("a key has"));
        check(r#"{"type":"a","payload":1,"other":2}"#, Err("the call cannot be read: unknown field"));
        check(
            &format!(r#"{{"type":"a","text":"{}"}}"#, "x".repeat(101)),
            Err("the body of a message has 1 to 100 bytes"),
        );
        check("", Err("the call cannot be read"));
        check("[1]", Err("the call cannot be read"));
    }

    #[test]
    fn the_payload_stays_byte_by_byte_as_it_was() {
        let body = br#"{"type":"a","payload": {"b" : 1.00, "a":"\u00e9"} }"#;
        let (messages, _) = parse(body, Some(b"key"), 100).unwrap();
        assert_eq!(messages[0].body, br#"{"b" : 1.00, "a":"\u00e9"}"#);
        let (again, _) = parse(br#"{"type":"a","payload":1,"idempotency_key":"key"}"#, None, 100).unwrap();
        assert_eq!(messages[0].idempotency, again[0].idempotency);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            parse(&body, None, 50).ok();
        }
    }
}
