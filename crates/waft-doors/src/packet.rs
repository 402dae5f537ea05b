//! Statistics as they go out: one frame of a type, a space, and a map in one of two encodings.

use std::borrow::Cow;

use bytes::Bytes;
use waft_grip::tnetstring::{self, TValue};

use crate::config::StatsFormat;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Int(u64),
    Text(Cow<'a, str>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(is: bool) -> Self {
        Self::Bool(is)
    }
}

/// A message of the statistics.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    kind: &'static str,
    fields: Vec<(&'static str, Value<'a>)>,
}

impl<'a> Packet<'a> {
    /// A message of a type, from whom.
    pub(crate) fn new(kind: &'static str, from: &'a str) -> Self {
        Self { kind, fields: vec![("from", from.into())] }
    }

    /// The same with one more field.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value<'a>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The same with one more field, if there is a value for it.
    pub(crate) fn with_some(self, name: &'static str, value: Option<impl Into<Value<'a>>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The frame, its keys sorted.
    pub(crate) fn write(mut self, format: StatsFormat) -> Bytes {
        self.fields.sort_unstable_by_key(|(name, _)| *name);
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(self.kind.as_bytes());
        match format {
            StatsFormat::TNetString => {
                out.extend_from_slice(b" T");
                let members = self.fields.iter().map(|(name, value)| {
                    let value = match value {
                        Value::Bool(is) => TValue::Bool(*is),
                        Value::Int(number) => TValue::Int(i128::from(*number)),
                        Value::Text(text) => TValue::str(text.as_bytes()),
                    };
                    (Cow::Borrowed(name.as_bytes()), value)
                });
                tnetstring::write(&TValue::Map(members.collect()), &mut out);
            }
            StatsFormat::Json => {
                out.extend_from_slice(b" J");
                self.write_json(&mut out);
            }
        }
        out.into()
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let mut before = b'{';
        for (name, value) in &self.fields {
            out.push(before);
            before = b',';
            // No name needs an escape.
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            match value {
                Value::Bool(is) => out.extend_from_slice(if *is { b"true" } else { b"false" }),
                Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
                Value::Text(text) => out.extend_from_slice(serde_json::Value::from(&**text).to_string().as_bytes()),
            }
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_are_those_that_subscribers_know() {
        let packet = || {
            let packet = Packet::new("sub", "pushpin-handler_1").with("mode", "stream").with("channel", "a\"b");
            packet.with("ttl", 60).with_some("subscribers", Some(1)).with_some("gone", None::<bool>)
        };
        assert_eq!(
            packet().write(StatsFormat::Json),
            r#"sub J{"channel":"a\"b","from":"pushpin-handler_1","mode":"stream","subscribers":1,"ttl":60}"#
        );
        assert_eq!(
            packet().write(StatsFormat::TNetString),
            "sub T90:7:channel,3:a\"b,4:from,17:pushpin-handler_1,4:mode,6:stream,11:subscribers,1:1#3:ttl,2:60#}"
        );
    }
}
