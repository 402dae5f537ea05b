//! Items as publishers of realms write them: older forms than GRIP's too.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use waft_grip::item::{Item, parse_item_json};
use waft_realm::{ChannelKind, is_channel};

/// Why a body is refused. `Display` is the answer's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ItemsError {
    /// It does not parse.
    #[error("body is not valid JSON")]
    NotJson,
    /// There is no list of items, or an item is no object.
    #[error("body has no list of items; write it as {{\"items\":[{{...}}]}}")]
    NoItems,
    /// An item has no name of a channel.
    #[error("item has no channel; name one of up to 255 bytes")]
    NoChannel,
    /// An item has the name of a channel that waft itself publishes to.
    #[error("item has a reserved channel; only waft publishes to `@lifecycle` and `.../@presence`")]
    ReservedChannel,
    /// An item has an id that is neither a text nor a number.
    #[error("item has an {0} that is no text")]
    NoText(&'static str),
    /// An item has nothing to send.
    #[error("item has no format")]
    NoFormat,
    /// A format is malformed.
    #[error("{0}")]
    Format(String),
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    items: Vec<BTreeMap<String, &'a RawValue>>,
}

/// The items of a body. With `channel`, that is where all of them go.
pub(crate) fn read(body: &[u8], channel: Option<&str>) -> Result<Vec<Item>, ItemsError> {
    let items = match serde_json::from_slice::<Body<'_>>(body) {
        Ok(body) => body.items,
        Err(error) if error.is_data() => return Err(ItemsError::NoItems),
        Err(_) => return Err(ItemsError::NotJson),
    };
    if items.is_empty() {
        return Err(ItemsError::NoItems);
    }
    items.iter().map(|item| read_item(item, channel)).collect()
}

/// Brings an item into the form of GRIP, in which formats have an object of their own and ids are texts.
fn read_item(item: &BTreeMap<String, &RawValue>, channel: Option<&str>) -> Result<Item, ItemsError> {
    let name = match channel {
        Some(name) => Some(name.to_owned()),
        None => item.get("channel").and_then(|value| serde_json::from_str::<String>(value.get()).ok()),
    };
    let name = name.filter(|name| is_channel(name)).ok_or(ItemsError::NoChannel)?;
    if ChannelKind::of(&name).is_reserved() {
        return Err(ItemsError::ReservedChannel);
    }
    let mut formats: BTreeMap<&str, &RawValue> = BTreeMap::new();
    let mut out = serde_json::Map::new();
    let mut raw = |name: &str, value: &RawValue| {
        let value = serde_json::from_str(value.get()).unwrap_or_default();
        out.insert(name.to_owned(), value);
    };
    for (name, value) in item {
        match name.as_str() {
            "channel" | "formats" | "id" | "prev-id" => {}
            "meta" | "size" | "no-seq" => raw(name, value),
            format => {
                formats.insert(format, value);
            }
        }
    }
    let nested: BTreeMap<&str, &RawValue> = match item.get("formats").filter(|value| value.get() != "null") {
        Some(value) => serde_json::from_str(value.get())
            .map_err(|_no_object| ItemsError::Format("formats is no object".to_owned()))?,
        None => BTreeMap::new(),
    };
    formats.extend(nested);
    if formats.is_empty() {
        return Err(ItemsError::NoFormat);
    }
    out.insert("channel".to_owned(), name.into());
    for key in ["id", "prev-id"] {
        if let Some(text) = item.get(key).map(|value| text_of(value)) {
            out.insert(key.to_owned(), text.ok_or(ItemsError::NoText(key))?);
        }
    }
    let mut text = serde_json::to_string(&out).unwrap_or_default();
    // Formats are passed on as they were written, numbers to their last digit.
    text.pop();
    text.push_str(",\"formats\":");
    text.push_str(&serde_json::to_string(&formats).unwrap_or_default());
    text.push('}');
    parse_item_json(text.as_bytes()).map_err(|error| ItemsError::Format(error.to_string()))
}

/// A text, or a number as the text of it; null is as good as absent.
fn text_of(value: &RawValue) -> Option<serde_json::Value> {
    match serde_json::from_str(value.get()).ok()? {
        text @ (serde_json::Value::String(_) | serde_json::Value::Null) => Some(text),
        serde_json::Value::Number(_) => Some(value.get().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, channel: Option<&str>, expected: Result<&str, ItemsError>) {
        let shown = read(body.as_bytes(), channel).map(|items| {
            let shown = |item: &Item| {
                let object = item.formats.json_object.as_ref().map(|text| String::from_utf8_lossy(text).into_owned());
                format!(
                    "{} {:?} {:?} {:?}",
                    item.channel,
                    item.id.as_deref(),
                    item.prev_id.as_deref(),
                    object.as_deref()
                )
            };
            items.iter().map(shown).collect::<Vec<_>>().join(" | ")
        });
        assert_eq!(shown.as_deref(), expected.as_ref().map(|text| *text), "{body}");
    }

    #[test]
    fn formats_stand_in_the_item_or_in_an_object_of_their_own() {
        let check = |item: &str, expected| check(&format!("{{\"items\":[{item}]}}"), None, expected);
        check(r#"{"channel":"c","json-object":{"a":1}}"#, Ok(r#"c None None Some("{\"a\":1}")"#));
        check(r#"{"channel":"c","fpp":"x","id":7,"prev-id":"6"}"#, Ok(r#"c Some("7") Some("6") Some("\"x\"")"#));
        check(r#"{"channel":"c","formats":{"json-object":null}}"#, Ok(r#"c None None Some("null")"#));
        check(r#"{"channel":"c","json-object":1,"formats":{"json-object":2}}"#, Ok(r#"c None None Some("2")"#));
        check(r#"{"channel":"c","xmpp-stanza":"<a/>","id":null}"#, Ok("c None None None"));
        check(r#"{"json-object":1}"#, Err(ItemsError::NoChannel));
        check(r#"{"channel":"","json-object":1}"#, Err(ItemsError::NoChannel));
        check(r#"{"channel":"c"}"#, Err(ItemsError::NoFormat));
        check(r#"{"channel":"c","json-object":1,"id":[]}"#, Err(ItemsError::NoText("id")));
        check(r#"{"channel":"c","formats":[]}"#, Err(ItemsError::Format("formats is no object".to_owned())));
        assert!(matches!(read(br#"{"items":[{"channel":"c","http-stream":1}]}"#, None), Err(ItemsError::Format(_))));
    }

    #[test]
    fn the_channel_of_the_path_wins_and_bodies_must_have_items() {
        check(
            r#"{"items":[{"fpp":1},{"channel":"x","fpp":2}]}"#,
            Some("a/b"),
            Ok(r#"a/b None None Some("1") | a/b None None Some("2")"#),
        );
        check("{", None, Err(ItemsError::NotJson));
        check("{}", None, Err(ItemsError::NoItems));
        check(r#"{"items":[]}"#, None, Err(ItemsError::NoItems));
        check(r#"{"items":[1]}"#, None, Err(ItemsError::NoItems));
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(body: Vec<u8>, text in "[\\[\\]{}\":a-z,0-9]{0,60}") {
            let _ = read(&body, None);
            let _ = read(format!("{{\"items\":[{text}]}}").as_bytes(), Some("c"));
        }
    }
}
