//! The item reader, one for both encodings. Private helpers give the texts of GRIP section 11.

use bytes::Bytes;

use super::{Action, Formats, HttpResponse, HttpStream, Item, ResponseBody, WsKind, WsMessage};
use crate::patch::Patch;
use crate::shape::{Encoding, Object, ShapeError};
use crate::tnetstring::TValue;
use crate::{json, lenient, status};

/// The formats that waft reads, by the names publishers use.
const HTTP_RESPONSE: &str = "http-response";
const HTTP_STREAM: &str = "http-stream";
const WS_MESSAGE: &str = "ws-message";
const JSON_OBJECT: &str = "json-object";
/// An older name of the same.
const FPP: &str = "fpp";

pub(super) fn items(value: &TValue<'_>, encoding: Encoding) -> Result<Vec<Item>, ShapeError> {
    let object = Object::new(value, "object")?;
    let items = object.list("items")?.ok_or_else(|| object.missing("'items'"))?;
    items.iter().map(|value| item(value, encoding, None)).collect()
}

pub(super) fn item(value: &TValue<'_>, encoding: Encoding, channel: Option<&str>) -> Result<Item, ShapeError> {
    let object = Object::new(value, "publish item object")?;
    let channel = match channel {
        Some(name) => name.to_owned(),
        None => object.string("channel")?.ok_or_else(|| object.missing("'channel'"))?,
    };
    Ok(Item {
        channel,
        id: object.string("id")?,
        prev_id: object.string("prev-id")?,
        formats: formats(object, encoding)?,
        meta: object.meta()?,
        size: object.count("size")?,
        no_seq: object.bool("no-seq")?.unwrap_or(false),
    })
}

/// The formats stand in their own object or, in the older form, beside the other members. If both are there, the
/// former win by name.
fn formats(item: Object<'_, '_>, encoding: Encoding) -> Result<Formats, ShapeError> {
    let nested = item.object("formats", "'formats'")?;
    let find = |name: &str| nested.and_then(|formats| formats.get(name)).or_else(|| item.get(name));
    // A JSON payload may be null, which counts as absent everywhere else.
    let find_json = |name: &str| nested.and_then(|formats| formats.get_any(name)).or_else(|| item.get_any(name));
    let object = |name: &str, of: &'static str| find(name).map(|value| Object::new(value, of)).transpose();

    let found = Formats {
        http_response: object(HTTP_RESPONSE, "'http-response'")?.map(|o| http_response(o, encoding)).transpose()?,
        http_stream: object(HTTP_STREAM, "'http-stream'")?.map(|o| http_stream(o, encoding)).transpose()?,
        ws_message: object(WS_MESSAGE, "'ws-message'")?.map(|o| ws_message(o, encoding)).transpose()?,
        json_object: find_json(JSON_OBJECT).or_else(|| find_json(FPP)).map(|value| json::to_vec(value).into()),
    };
    // Formats of other products are ignored, but show that the publisher did not forget the payload.
    if found == Formats::default() && nested.is_none_or(|formats| formats.members().is_empty()) {
        return Err(ShapeError::NoFormats);
    }
    Ok(found)
}

fn http_response(object: Object<'_, '_>, encoding: Encoding) -> Result<HttpResponse, ShapeError> {
    let action = action(object)?;
    if action != Action::Send {
        return Ok(HttpResponse {
            action,
            code: 200,
            reason: status::reason(200).to_owned(),
            ..HttpResponse::default()
        });
    }
    let code = object.code("code")?.unwrap_or(200);
    let reason = object.string("reason")?.filter(|reason| !reason.chars().any(char::is_control));
    let headers = object.headers()?;
    let body = match content(object, encoding, "body", "body-bin")? {
        Some((bytes, _)) => ResponseBody::Bytes(bytes),
        None => match object.list("body-patch")? {
            Some(operations) => ResponseBody::Patch(Patch::new(operations.iter().map(json::to_serde).collect())),
            None if encoding == Encoding::Json => return Err(object.missing("'body', 'body-bin', or 'body-patch'")),
            None => return Err(object.missing("'body' or 'body-patch'")),
        },
    };
    Ok(HttpResponse {
        action,
        code,
        reason: reason.unwrap_or_else(|| status::reason(code).to_owned()),
        headers,
        body,
        content_filters: object.strings("content-filters", "'content-filters'")?,
    })
}

fn http_stream(object: Object<'_, '_>, encoding: Encoding) -> Result<HttpStream, ShapeError> {
    let action = action(object)?;
    if action != Action::Send {
        return Ok(HttpStream { action, ..HttpStream::default() });
    }
    let Some((content, _)) = content(object, encoding, "content", "content-bin")? else {
        return Err(object.missing(match encoding {
            Encoding::Json => "'content' or 'content-bin'",
            Encoding::TNetString => "'content'",
        }));
    };
    Ok(HttpStream { action, content, content_filters: object.strings("content-filters", "'content-filters'")? })
}

fn ws_message(object: Object<'_, '_>, encoding: Encoding) -> Result<WsMessage, ShapeError> {
    let action = action(object)?;
    match action {
        Action::Send => {}
        Action::Close => {
            let code = object.count("code")?.map(|n| u16::try_from(n).ok().ok_or_else(|| object.invalid("code")));
            let reason = object.string("reason")?.unwrap_or_default();
            return Ok(WsMessage { action, code: code.transpose()?, reason, ..WsMessage::default() });
        }
        Action::Hint | Action::Refresh => return Ok(WsMessage { action, ..WsMessage::default() }),
    }
    let kind = match object.bytes("type")? {
        None => None,
        Some(b"text") => Some(WsKind::Text),
        Some(b"binary") => Some(WsKind::Binary),
        Some(b"ping") => Some(WsKind::Ping),
        Some(b"pong") => Some(WsKind::Pong),
        Some(_) => return Err(object.unknown("type")),
    };
    let found = match (encoding, object.bytes("content-bin")?) {
        // In a TNetString the member is not base64, and its name only tells that it is binary.
        (Encoding::TNetString, Some(bytes)) => Some((Bytes::copy_from_slice(bytes), true)),
        _ => content(object, encoding, "content", "content-bin")?,
    };
    let (content, kind) = match (found, kind) {
        (Some((content, binary)), kind) => {
            (content, kind.unwrap_or(if binary { WsKind::Binary } else { WsKind::Text }))
        }
        (None, Some(kind @ (WsKind::Ping | WsKind::Pong))) => (Bytes::new(), kind),
        (None, _) => return Err(object.missing("'content' or 'content-bin'")),
    };
    let content_filters = object.strings("content-filters", "'content-filters'")?;
    Ok(WsMessage { action, kind, content, code: None, reason: String::new(), content_filters })
}

fn action(object: Object<'_, '_>) -> Result<Action, ShapeError> {
    match object.bytes("action")? {
        None | Some(b"send") => Ok(Action::Send),
        Some(b"hint") => Ok(Action::Hint),
        Some(b"close") => Ok(Action::Close),
        Some(b"refresh") => Ok(Action::Refresh),
        Some(_) => Err(ShapeError::Unexplained),
    }
}

/// The content and whether it came from the binary member, which exists in JSON only and wins.
fn content(
    object: Object<'_, '_>,
    encoding: Encoding,
    text: &'static str,
    binary: &'static str,
) -> Result<Option<(Bytes, bool)>, ShapeError> {
    if encoding == Encoding::Json
        && let Some(encoded) = object.bytes(binary)?
    {
        return Ok(Some((lenient::base64(encoded).into(), true)));
    }
    Ok(object.bytes(text)?.map(|bytes| (Bytes::copy_from_slice(bytes), false)))
}
