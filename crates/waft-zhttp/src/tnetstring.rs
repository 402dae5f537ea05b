//! TNetStrings: `LENGTH ':' DATA TYPE`, and the tree of values that both encodings of ZHTTP share.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{NESTING_MAX, VALUES_MAX};

/// A value as TNetStrings know it. JSON is read into the same tree, so that packets are judged once.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `!`
    Bool(bool),
    /// `,`: any bytes, sharing the memory of the packet they were read from.
    Bytes(Bytes),
    /// `^`
    Float(f64),
    /// `#`
    Integer(i64),
    /// `]`
    List(Vec<Self>),
    /// `}`: in the order of the wire. Where a key is repeated the last one counts, see [`Value::field`].
    Map(Vec<(Bytes, Self)>),
    /// `~`
    Null,
}

/// Why bytes are not one TNetString value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TnetError {
    /// The data ends before its length says so.
    #[error("the value at byte {at} is cut short")]
    CutShort {
        /// Offset in the input.
        at: usize,
    },
    /// The length is missing, has over nine digits, or lacks its colon.
    #[error("no valid length at byte {at}")]
    Length {
        /// Offset in the input.
        at: usize,
    },
    /// The data does not suit its type.
    #[error("the data at byte {at} does not suit its type")]
    Data {
        /// Offset in the input.
        at: usize,
    },
    /// The type byte is unknown.
    #[error("unknown type {kind:#04x}")]
    Kind {
        /// The type byte.
        kind: u8,
    },
    /// Lists and maps inside each other go deeper than [`NESTING_MAX`].
    #[error("values are nested deeper than {NESTING_MAX}")]
    Nesting,
    /// More values than [`VALUES_MAX`].
    #[error("more than {VALUES_MAX} values")]
    TooMany,
    /// Something follows the value.
    #[error("{bytes} bytes follow the value")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl Value {
    /// Reads one value that fills `input` to its end.
    pub fn decode(input: &Bytes) -> Result<Self, TnetError> {
        let mut reader = Reader { input, values: 0 };
        let (value, end) = reader.value(0, input.len(), 0)?;
        if end != input.len() {
            return Err(TnetError::Trailing { bytes: input.len() - end });
        }
        Ok(value)
    }

    /// Appends the value to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Bool(true) => out.put_slice(b"4:true!"),
            Self::Bool(false) => out.put_slice(b"5:false!"),
            Self::Bytes(bytes) => put_bytes(out, bytes),
            Self::Float(number) => put_scalar(out, number.to_string().as_bytes(), b'^'),
            Self::Integer(number) => put_integer(out, *number),
            Self::List(items) => {
                let mut inner = BytesMut::new();
                items.iter().for_each(|item| item.encode(&mut inner));
                put_scalar(out, &inner, b']');
            }
            Self::Map(fields) => {
                let mut inner = BytesMut::new();
                for (key, value) in fields {
                    put_bytes(&mut inner, key);
                    value.encode(&mut inner);
                }
                put_scalar(out, &inner, b'}');
            }
            Self::Null => out.put_slice(b"0:~"),
        }
    }

    /// The field of a map, the last one if it is repeated.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Appends a byte string.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_scalar(out, bytes, b',');
}

/// Appends an integer.
pub(crate) fn put_integer(out: &mut BytesMut, number: i64) {
    put_scalar(out, itoa::Buffer::new().format(number).as_bytes(), b'#');
}

/// Appends data with its length and type.
pub(crate) fn put_scalar(out: &mut BytesMut, data: &[u8], kind: u8) {
    out.put_slice(itoa::Buffer::new().format(data.len()).as_bytes());
    out.put_u8(b':');
    out.put_slice(data);
    out.put_u8(kind);
}

struct Reader<'a> {
    input: &'a Bytes,
    values: usize,
}

impl Reader<'_> {
    /// Reads the value that starts at `at` and ends no later than `limit`; returns it with its end.
    fn value(&mut self, at: usize, limit: usize, depth: usize) -> Result<(Value, usize), TnetError> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(TnetError::TooMany);
        }
        let (start, length) = self.length(at, limit)?;
        let end = start + length;
        if end >= limit {
            return Err(TnetError::CutShort { at });
        }
        let data = self.input.get(start..end).unwrap_or_default();
        let kind = self.input.get(end).copied().unwrap_or_default();
        let value = match kind {
            b',' => Value::Bytes(self.input.slice(start..end)),
            b'#' => Value::Integer(text(data).and_then(|text| text.parse().ok()).ok_or(TnetError::Data { at })?),
            b'^' => Value::Float(text(data).and_then(|text| text.parse().ok()).ok_or(TnetError::Data { at })?),
            b'!' => match data {
                b"true" => Value::Bool(true),
                b"false" => Value::Bool(false),
                _ => return Err(TnetError::Data { at }),
            },
            b'~' if data.is_empty() => Value::Null,
            b'~' => return Err(TnetError::Data { at }),
            b']' => Value::List(self.list(start, end, depth + 1)?),
            b'}' => Value::Map(self.map(start, end, depth + 1)?),
            kind => return Err(TnetError::Kind { kind }),
        };
        Ok((value, end + 1))
    }

    fn length(&self, at: usize, limit: usize) -> Result<(usize, usize), TnetError> {
        let mut length = 0_usize;
        for (digits, index) in (at..limit).enumerate() {
            match self.input.get(index) {
                Some(digit @ b'0'..=b'9') if digits < 9 => length = length * 10 + usize::from(digit - b'0'),
                Some(b':') if digits > 0 => return Ok((index + 1, length)),
                _ => return Err(TnetError::Length { at }),
            }
        }
        Err(TnetError::CutShort { at })
    }

    fn list(&mut self, mut at: usize, end: usize, depth: usize) -> Result<Vec<Value>, TnetError> {
        if depth > NESTING_MAX {
            return Err(TnetError::Nesting);
        }
        let mut items = Vec::new();
        while at < end {
            let (item, next) = self.value(at, end, depth)?;
            items.push(item);
            at = next;
        }
        Ok(items)
    }

    fn map(&mut self, mut at: usize, end: usize, depth: usize) -> Result<Vec<(Bytes, Value)>, TnetError> {
        if depth > NESTING_MAX {
            return Err(TnetError::Nesting);
        }
        let mut fields = Vec::new();
        while at < end {
            let (key, next) = self.value(at, end, depth)?;
            let Value::Bytes(key) = key else { return Err(TnetError::Data { at }) };
            let (value, next) = self.value(next, end, depth)?;
            fields.push((key, value));
            at = next;
        }
        Ok(fields)
    }
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &'static [u8], expected: Result<Value, TnetError>) {
        assert_eq!(Value::decode(&Bytes::from_static(input)), expected, "{}", input.escape_ascii());
    }

    fn bytes(text: &'static str) -> Value {
        Value::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn each_type_is_read() {
        check(b"5:hello,", Ok(bytes("hello")));
        check(b"0:,", Ok(bytes("")));
        check(b"005:hello,", Ok(bytes("hello")));
        check(b"2:-5#", Ok(Value::Integer(-5)));
        check(b"3:1.5^", Ok(Value::Float(1.5)));
        check(b"4:true!", Ok(Value::Bool(true)));
        check(b"5:false!", Ok(Value::Bool(false)));
        check(b"0:~", Ok(Value::Null));
        check(b"8:1:a,1:1#]", Ok(Value::List(vec![bytes("a"), Value::Integer(1)])));
        check(b"8:1:k,1:v,}", Ok(Value::Map(vec![(Bytes::from_static(b"k"), bytes("v"))])));
    }

    #[test]
    fn what_is_not_a_value_is_refused() {
        check(b"", Err(TnetError::CutShort { at: 0 }));
        check(b"5", Err(TnetError::CutShort { at: 0 }));
        check(b"5:hell", Err(TnetError::CutShort { at: 0 }));
        check(b"5:hello", Err(TnetError::CutShort { at: 0 }));
        check(b":,", Err(TnetError::Length { at: 0 }));
        check(b"-1:,", Err(TnetError::Length { at: 0 }));
        check(b"0000000001:a,", Err(TnetError::Length { at: 0 }));
        check(b"1:a?", Err(TnetError::Kind { kind: b'?' }));
        check(b"1:a,b", Err(TnetError::Trailing { bytes: 1 }));
        check(b"1:x#", Err(TnetError::Data { at: 0 }));
        check(b"3:yes!", Err(TnetError::Data { at: 0 }));
        check(b"1:a~", Err(TnetError::Data { at: 0 }));
        check(b"4:1:a,}", Err(TnetError::CutShort { at: 6 }));
        check(b"8:1:1#1:v,}", Err(TnetError::Data { at: 2 }));
        check(b"4:9:a,]", Err(TnetError::CutShort { at: 2 }));
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        let value = Value::decode(&Bytes::from_static(b"16:1:k,1:v,1:k,1:w,}")).unwrap();
        assert_eq!(value.field("k"), Some(&bytes("w")));
    }

    #[test]
    fn nesting_and_number_of_values_are_bounded() {
        let mut deep = BytesMut::from(&b"0:~"[..]);
        for _ in 0..=NESTING_MAX {
            let mut outer = BytesMut::new();
            put_scalar(&mut outer, &deep, b']');
            deep = outer;
        }
        assert_eq!(Value::decode(&deep.freeze()), Err(TnetError::Nesting));
        let mut many = BytesMut::new();
        put_scalar(&mut many, &b"0:~".repeat(VALUES_MAX), b']');
        assert_eq!(Value::decode(&many.freeze()), Err(TnetError::TooMany));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            (-1e9..1e9).prop_map(Value::Float),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Bytes(bytes.into())),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..8), inner), 0..6).prop_map(
                    |fields| Value::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
                ),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(value in values()) {
            let mut out = BytesMut::new();
            value.encode(&mut out);
            prop_assert_eq!(Value::decode(&out.freeze()), Ok(value));
        }

        #[test]
        fn no_bytes_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            Value::decode(&input.into()).ok();
        }

        #[test]
        fn no_near_miss_panics(value in values(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut out = BytesMut::new();
            value.encode(&mut out);
            let at = at.index(out.len());
            out[at] = byte;
            Value::decode(&out.freeze()).ok();
        }
    }
}
