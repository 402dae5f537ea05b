//! [`TValue`] from and to JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::tnetstring::TValue;

/// Reads a whole JSON text. `None` if it is not JSON, or nests deeper than the parser's limit of 128.
pub(crate) fn parse(text: &[u8]) -> Option<TValue<'_>> {
    serde_json::from_slice(text).ok()
}

/// The value as compact JSON. Bytes that are not UTF-8 become replacement characters, as JSON has only text.
pub(crate) fn to_vec(value: &TValue<'_>) -> Vec<u8> {
    // A TValue has string keys and finite or null numbers, so there is nothing the serializer can refuse.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The value in the form that JSON patches work on.
pub(crate) fn to_serde(value: &TValue<'_>) -> serde_json::Value {
    match value {
        TValue::Null => serde_json::Value::Null,
        TValue::Bool(b) => (*b).into(),
        TValue::Int(n) => integer(*n),
        TValue::Float(n) => (*n).into(),
        TValue::Str(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
        TValue::List(values) => values.iter().map(to_serde).collect(),
        TValue::Map(members) => {
            let members = members.iter().map(|(k, v)| (String::from_utf8_lossy(k).into_owned(), to_serde(v)));
            serde_json::Value::Object(members.collect())
        }
    }
}

/// A number that JSON readers understand: those beyond 64 bits lose precision.
fn integer(n: i128) -> serde_json::Value {
    if let Ok(n) = i64::try_from(n) {
        return n.into();
    }
    u64::try_from(n).map_or_else(|_| (n as f64).into(), Into::into)
}

impl Serialize for TValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Int(n) => integer(*n).serialize(serializer),
            Self::Float(n) => serializer.serialize_f64(*n),
            Self::Str(bytes) => serializer.serialize_str(&String::from_utf8_lossy(bytes)),
            Self::List(values) => serializer.collect_seq(values),
            Self::Map(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(&String::from_utf8_lossy(key), value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for TValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = TValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(TValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(TValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(TValue::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(TValue::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(TValue::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(TValue::Str(Cow::Borrowed(value.as_bytes())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(TValue::Str(Cow::Owned(value.as_bytes().to_vec())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(TValue::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            members.push((key, map.next_value()?));
        }
        Ok(TValue::Map(members))
    }
}

/// A member name, borrowed unless it had escapes.
struct Key<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(AnyValue)? {
            TValue::Str(key) => Ok(Self(key)),
            _ => Ok(Self(Cow::Borrowed(b""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tnetstring::tests::any_value;

    #[test]
    fn strings_without_escapes_are_borrowed() {
        let Some(TValue::List(values)) = parse(br#"["plain","a\nb"]"#) else { panic!("a list") };
        assert!(matches!(&values[0], TValue::Str(Cow::Borrowed(b"plain"))));
        assert!(matches!(&values[1], TValue::Str(Cow::Owned(text)) if text == b"a\nb"));
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        for text in ["", "{", "{}x", "nul", "\"\u{1}\"", "[1,]"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"\"\xff\""), None);
        assert_eq!(parse("[".repeat(10_000).as_bytes()), None);
    }

    #[test]
    fn numbers_leave_as_they_came() {
        for text in ["18446744073709551615", "-9223372036854775808", "111.74407138656039", "0.1", "1e300"] {
            let value = parse(text.as_bytes()).unwrap();
            let again: f64 = String::from_utf8(to_vec(&value)).unwrap().parse().unwrap();
            assert_eq!(again.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
        assert_eq!(to_vec(&parse(b"18446744073709551615").unwrap()), b"18446744073709551615");
    }

    /// Of equal keys the maps that patches work on keep one.
    fn has_equal_keys(value: &TValue<'_>) -> bool {
        match value {
            TValue::List(values) => values.iter().any(has_equal_keys),
            TValue::Map(members) => {
                let equal = |i: usize| members[..i].iter().any(|(key, _)| *key == members[i].0);
                (0..members.len()).any(equal) || members.iter().any(|(_, v)| has_equal_keys(v))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(value in any_value()) {
            let text = to_vec(&value);
            let again = parse(&text).unwrap();
            prop_assert_eq!(to_vec(&again), text.clone());
            prop_assert_eq!(again, value.clone());
            if !has_equal_keys(&value) {
                let sorted: serde_json::Value = serde_json::from_slice(&text).unwrap();
                prop_assert_eq!(to_serde(&value), sorted);
            }
        }
    }
}
