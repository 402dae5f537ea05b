//! Messages as clients send them (section 2 of the protocol).

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A message of a client. What is of another type than it should be counts as absent.
#[derive(Clone, Debug, Default)]
pub struct Message<'a> {
    /// Its channel.
    pub channel: Option<String>,
    /// Its id as JSON text, to be sent back as it is.
    pub id: Option<&'a str>,
    /// The client that sends it.
    pub client_id: Option<String>,
    /// Whether it says a version.
    pub has_version: bool,
    /// Whether it says a minimum version, which only CometD's clients do.
    pub has_minimum_version: bool,
    /// The connection types that the client can use.
    pub connection_types: Option<Vec<String>>,
    /// The connection type in use.
    pub connection_type: Option<String>,
    /// What is (un)subscribed.
    pub subscription: Option<Subscription<'a>>,
    /// The payload, as JSON text.
    pub data: Option<&'a str>,
    /// How long the client wants its connect to be held at most, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Extensions, by name.
    pub ext: HashMap<String, &'a RawValue>,
}

/// The channels of a subscription, in the shape in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The names.
    pub names: Vec<String>,
    /// The JSON text, to be sent back as it is.
    pub text: &'a str,
}

/// Why something is no batch of messages. HTTP clients get status 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// It is not JSON.
    #[error("batch is not JSON")]
    NotJson,
    /// It is neither an object nor a list of objects.
    #[error("batch is no list of objects")]
    NotMessages,
    /// It has more messages than may be.
    #[error("batch has more than {MESSAGES_MAX} messages")]
    TooMany,
}

/// Messages of one batch.
pub(crate) const MESSAGES_MAX: usize = 256;

/// Reads a batch: a list of messages, or one message.
///
/// # Errors
/// [`BatchError`].
pub fn parse_batch(text: &[u8]) -> Result<Vec<Message<'_>>, BatchError> {
    let text = std::str::from_utf8(text).map_err(|_no_text| BatchError::NotJson)?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|_no_json| BatchError::NotJson)?;
    let messages: Vec<Fields<'_>> = if whole.get().starts_with('{') {
        vec![serde_json::from_str(whole.get()).map_err(|_no_object| BatchError::NotMessages)?]
    } else {
        serde_json::from_str(whole.get()).map_err(|_no_list| BatchError::NotMessages)?
    };
    if messages.len() > MESSAGES_MAX {
        return Err(BatchError::TooMany);
    }
    Ok(messages.into_iter().map(Message::of).collect())
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Fields<'a> {
    #[serde(borrow)]
    named: HashMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        read(self.named.get(name)?)
    }

    fn object(&self, name: &str) -> HashMap<String, &'a RawValue> {
        let raw: Option<&&'a RawValue> = self.named.get(name);
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }
}

fn read<T: DeserializeOwned>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

impl<'a> Message<'a> {
    fn of(fields: Fields<'a>) -> Self {
        let id = fields.named.get("id").map(|raw| raw.get());
        Self {
            channel: fields.get("channel"),
            // Anything else could not be told apart from another id, or is no id.
            id: id.filter(|text| text.starts_with(['"', '-']) || text.starts_with(|c: char| c.is_ascii_digit())),
            client_id: fields.get("clientId"),
            has_version: fields.get::<String>("version").is_some(),
            has_minimum_version: fields.named.contains_key("minimumVersion"),
            connection_types: fields.get("supportedConnectionTypes"),
            connection_type: fields.get("connectionType"),
            subscription: fields.named.get("subscription").and_then(|raw| Subscription::of(raw)),
            data: fields.named.get("data").map(|raw| raw.get()),
            timeout_ms: fields.object("advice").get("timeout").and_then(|raw| read::<f64>(raw)).map(|ms| ms as u64),
            ext: fields.object("ext"),
        }
    }

    /// Whether it asks for the acknowledgement extension, in a handshake.
    #[must_use]
    pub fn wants_acks(&self) -> bool {
        self.ext.get("ack").is_some_and(|raw| {
            let value = read::<serde_json::Value>(raw).unwrap_or_default();
            value == true || value.get("enabled").is_some_and(|enabled| enabled == true)
        })
    }

    /// The last batch that the client has received, in a connect.
    #[must_use]
    pub fn ack(&self) -> Option<u64> {
        read(self.ext.get("ack")?)
    }

    /// A text of an extension: a member of `ext`, or of an object in it. `path` has its name, or both with a dot between.
    #[must_use]
    pub fn ext_text(&self, path: &str) -> Option<String> {
        match path.split_once('.') {
            None => read(self.ext.get(path)?),
            Some((object, member)) => {
                let object: HashMap<String, serde_json::Value> = read(self.ext.get(object)?)?;
                object.get(member)?.as_str().map(str::to_owned)
            }
        }
    }

    /// The clock of the client and its idea of ours, for the extension `timesync`: `tc` as JSON text.
    #[must_use]
    pub fn timesync(&self) -> Option<u64> {
        let object: HashMap<String, serde_json::Value> = read(self.ext.get("timesync")?)?;
        object.get("tc")?.as_u64()
    }
}

impl<'a> Subscription<'a> {
    fn of(raw: &'a RawValue) -> Option<Self> {
        let text = raw.get();
        let names = match read::<String>(raw) {
            Some(name) => vec![name],
            None => read::<Vec<String>>(raw)?,
        };
        Some(Self { names, text })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_is_a_list_or_one_message() {
        let count = |text: &str| parse_batch(text.as_bytes()).map(|batch| batch.len());
        for (text, expected) in [
            ("[]", Ok(0)),
            ("{}", Ok(1)),
            (" [ {}, {\"channel\":\"/a\"} ] ", Ok(2)),
            ("", Err(BatchError::NotJson)),
            ("[{}", Err(BatchError::NotJson)),
            ("7", Err(BatchError::NotMessages)),
            ("[[]]", Err(BatchError::NotMessages)),
            ("[{},null]", Err(BatchError::NotMessages)),
        ] {
            assert_eq!(count(text), expected, "{text}");
        }
        assert_eq!(count(&format!("[{}{{}}]", "{},".repeat(MESSAGES_MAX))), Err(BatchError::TooMany));
    }

    #[test]
    fn fields_are_read_and_those_of_another_type_are_absent() {
        let text = br#"[{"channel":"/meta/x","id":7,"clientId":"c","version":"1.0","minimumVersion":"1.0",
            "supportedConnectionTypes":["websocket"],"connectionType":"websocket","subscription":["/a","/b/*"],
            "data": null ,"advice":{"timeout":0},"ext":{"ack":3,"auth":{"token":"t"},"timesync":{"tc":5,"l":0,"o":0}}},
            {"channel":7,"id":{},"clientId":null,"subscription":"/a","advice":[],"ext":{"ack":true}}]"#;
        let batch = parse_batch(text).unwrap();
        let first = &batch[0];
        assert_eq!(
            (first.channel.as_deref(), first.id, first.client_id.as_deref()),
            (Some("/meta/x"), Some("7"), Some("c"))
        );
        assert!(first.has_version && first.has_minimum_version && !first.wants_acks());
        let subscription = first.subscription.as_ref().unwrap();
        assert_eq!((subscription.names.len(), subscription.text), (2, r#"["/a","/b/*"]"#));
        assert_eq!((first.data, first.timeout_ms, first.ack()), (Some("null"), Some(0), Some(3)));
        assert_eq!((first.ext_text("auth.token").as_deref(), first.timesync()), (Some("t"), Some(5)));
        let second = &batch[1];
        assert_eq!((second.channel.as_deref(), second.id, second.client_id.as_deref()), (None, None, None));
        assert_eq!(second.subscription.as_ref().unwrap().text, r#""/a""#);
        assert!(second.wants_acks() && second.data.is_none() && second.timeout_ms.is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, text in "[\\[\\]{}\":a-z/,0-9]{0,80}") {
            let _ = parse_batch(&bytes);
            let _ = parse_batch(text.as_bytes());
        }
    }
}
