//! TNetStrings, the encoding of ZeroMQ publish packets (GRIP section 11.6): `<length>:<bytes><type>`.
//!
//! [`TValue`] is also what JSON bodies are read into, so that items have one reader for both encodings. Strings borrow
//! from the input wherever no escape has to be resolved.

use std::borrow::Cow;

/// Lists and maps may nest this deep; more is refused, so that no input can exhaust the stack.
pub const MAX_DEPTH: usize = 64;

/// Digits of a length; more is refused. Nine digits are just under a gigabyte, far above any message limit.
pub const MAX_LENGTH_DIGITS: usize = 9;

/// A value from a TNetString or from JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum TValue<'a> {
    /// Nothing, type `~`.
    Null,
    /// Truth, type `!`.
    Bool(bool),
    /// A whole number, type `#`. The type holds both ranges of 64 bits.
    Int(i128),
    /// Another number, type `^`.
    Float(f64),
    /// A string of bytes, type `,`. From JSON it is always UTF-8.
    Str(Cow<'a, [u8]>),
    /// A list, type `]`.
    List(Vec<Self>),
    /// Keys and values in the order given, type `}`. Of equal keys the last one counts.
    Map(Vec<(Cow<'a, [u8]>, Self)>),
}

impl<'a> TValue<'a> {
    /// The member called `key`, if this is a map that has one. A null member counts as absent.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&Self> {
        let Self::Map(members) = self else { return None };
        let (_, found) = members.iter().rev().find(|(name, _)| name.as_ref() == key.as_bytes())?;
        if matches!(found, Self::Null) { None } else { Some(found) }
    }

    /// A string that borrows `text`.
    #[must_use]
    pub fn str(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self::Str(Cow::Borrowed(text.as_ref()))
    }
}

/// Why bytes are not a TNetString.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The length is missing, not a number, or longer than [`MAX_LENGTH_DIGITS`].
    #[error("tnetstring does not begin with a length of 1 to {MAX_LENGTH_DIGITS} digits and a colon")]
    Length,
    /// The value is shorter than its length says.
    #[error("tnetstring is cut short")]
    Truncated,
    /// The type byte is none of the seven.
    #[error("tnetstring has the unknown type byte {0}")]
    Type(u8),
    /// The bytes do not fit the type.
    #[error("tnetstring holds a malformed value")]
    Value,
    /// Lists and maps nest deeper than [`MAX_DEPTH`].
    #[error("tnetstring nests deeper than {MAX_DEPTH}")]
    Depth,
    /// Bytes follow the value where nothing may follow.
    #[error("tnetstring is followed by other bytes")]
    Trailing,
}

/// Reads one value and returns it with the bytes that follow it.
///
/// # Errors
/// [`Error`]; bytes that are cut short are an error like any other, there is no partial state.
pub fn parse(input: &[u8]) -> Result<(TValue<'_>, &[u8]), Error> {
    parse_at(input, 0)
}

/// Reads one value that must fill `input`.
///
/// # Errors
/// As [`parse`], and [`Error::Trailing`].
pub fn parse_all(input: &[u8]) -> Result<TValue<'_>, Error> {
    match parse(input)? {
        (value, []) => Ok(value),
        _ => Err(Error::Trailing),
    }
}

/// Appends `value` to `out`. A float that is not finite is written as null, which the format can express.
pub fn write(value: &TValue<'_>, out: &mut Vec<u8>) {
    match value {
        TValue::Null => frame(b"", b'~', out),
        TValue::Bool(true) => frame(b"true", b'!', out),
        TValue::Bool(false) => frame(b"false", b'!', out),
        TValue::Int(n) => frame(n.to_string().as_bytes(), b'#', out),
        TValue::Float(n) if n.is_finite() => frame(format!("{n:?}").as_bytes(), b'^', out),
        TValue::Float(_) => frame(b"", b'~', out),
        TValue::Str(bytes) => frame(bytes, b',', out),
        TValue::List(values) => {
            let mut inner = Vec::new();
            for value in values {
                write(value, &mut inner);
            }
            frame(&inner, b']', out);
        }
        TValue::Map(members) => {
            let mut inner = Vec::new();
            for (key, value) in members {
                frame(key, b',', &mut inner);
                write(value, &mut inner);
            }
            frame(&inner, b'}', out);
        }
    }
}

fn frame(data: &[u8], kind: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(data.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(data);
    out.push(kind);
}

fn parse_at(input: &[u8], depth: usize) -> Result<(TValue<'_>, &[u8]), Error> {
    let (data, kind, rest) = unframe(input)?;
    let value = match kind {
        b',' => TValue::Str(Cow::Borrowed(data)),
        b'#' => TValue::Int(number(data)?),
        b'^' => TValue::Float(number(data)?),
        b'!' => match data {
            b"true" => TValue::Bool(true),
            b"false" => TValue::Bool(false),
            _ => return Err(Error::Value),
        },
        b'~' if data.is_empty() => TValue::Null,
        b'~' => return Err(Error::Value),
        b']' | b'}' if depth >= MAX_DEPTH => return Err(Error::Depth),
        b']' => parse_list(data, depth + 1)?,
        b'}' => parse_map(data, depth + 1)?,
        other => return Err(Error::Type(other)),
    };
    Ok((value, rest))
}

fn parse_list(mut data: &[u8], depth: usize) -> Result<TValue<'_>, Error> {
    let mut values = Vec::new();
    while !data.is_empty() {
        let (value, rest) = parse_at(data, depth)?;
        values.push(value);
        data = rest;
    }
    Ok(TValue::List(values))
}

fn parse_map(mut data: &[u8], depth: usize) -> Result<TValue<'_>, Error> {
    let mut members = Vec::new();
    while !data.is_empty() {
        let (key, b',', rest) = unframe(data)? else { return Err(Error::Value) };
        let (value, rest) = parse_at(rest, depth)?;
        members.push((Cow::Borrowed(key), value));
        data = rest;
    }
    Ok(TValue::Map(members))
}

/// Splits one frame into its data, its type byte, and what follows.
fn unframe(input: &[u8]) -> Result<(&[u8], u8, &[u8]), Error> {
    let window = input.get(..=MAX_LENGTH_DIGITS).unwrap_or(input);
    let colon = memchr::memchr(b':', window).ok_or(Error::Length)?;
    let (digits, rest) = input.split_at_checked(colon).ok_or(Error::Length)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Error::Length);
    }
    let length: usize = number(digits).ok().ok_or(Error::Length)?;
    let (data, rest) = rest.get(1..).and_then(|rest| rest.split_at_checked(length)).ok_or(Error::Truncated)?;
    let (kind, rest) = rest.split_first().ok_or(Error::Truncated)?;
    Ok((data, *kind, rest))
}

fn number<N: std::str::FromStr>(data: &[u8]) -> Result<N, Error> {
    std::str::from_utf8(data).ok().and_then(|text| text.parse().ok()).ok_or(Error::Value)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_every_type_are_read() {
        let cases: &[(&str, TValue<'_>)] = &[
            ("0:~", TValue::Null),
            ("4:true!", TValue::Bool(true)),
            ("5:false!", TValue::Bool(false)),
            ("2:-7#", TValue::Int(-7)),
            ("3:1.5^", TValue::Float(1.5)),
            ("0:,", TValue::str("")),
            ("3:a:b,", TValue::str("a:b")),
            ("8:1:1#1:2#]", TValue::List(vec![TValue::Int(1), TValue::Int(2)])),
            ("8:1:a,1:2#}", TValue::Map(vec![(Cow::Borrowed(b"a"), TValue::Int(2))])),
        ];
        for (input, expected) in cases {
            assert_eq!(parse_all(input.as_bytes()).as_ref(), Ok(expected), "{input}");
        }
    }

    #[test]
    fn malformed_input_is_an_error() {
        let cases: &[(&str, Error)] = &[
            ("", Error::Length),
            ("abc", Error::Length),
            (":x,", Error::Length),
            ("-1:,", Error::Length),
            ("+1:a,", Error::Length),
            ("1234567890:", Error::Length),
            ("5:abc", Error::Truncated),
            ("3:abc", Error::Truncated),
            ("3:", Error::Truncated),
            ("1:a?", Error::Type(b'?')),
            ("1:x#", Error::Value),
            ("1:x~", Error::Value),
            ("3:yes!", Error::Value),
            ("8:1:1#1:2#}", Error::Value),
            ("4:1:a,}", Error::Length),
            ("5:9:a,]", Error::Truncated),
            ("1:a,x", Error::Trailing),
        ];
        for (input, expected) in cases {
            assert_eq!(parse_all(input.as_bytes()).as_ref(), Err(expected), "{input}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut text = b"0:]".to_vec();
        for _ in 0..MAX_DEPTH {
            let mut outer = Vec::new();
            frame(&text, b']', &mut outer);
            text = outer;
        }
        assert_eq!(parse_all(&text), Err(Error::Depth));
    }

    #[test]
    fn of_equal_keys_the_last_counts_and_null_is_absent() {
        let value = parse_all(b"23:1:a,1:1#1:a,1:2#1:b,0:~}").unwrap();
        assert_eq!(value.member("a"), Some(&TValue::Int(2)));
        assert_eq!(value.member("b"), None);
    }

    /// Any value whose text form is exact.
    pub(crate) fn any_value() -> impl Strategy<Value = TValue<'static>> {
        let leaf = prop_oneof![
            Just(TValue::Null),
            any::<bool>().prop_map(TValue::Bool),
            any::<i64>().prop_map(|n| TValue::Int(n.into())),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(TValue::Float),
            ".{0,12}".prop_map(|s| TValue::Str(Cow::Owned(s.into_bytes()))),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = "[a-z]{0,6}".prop_map(|s| Cow::Owned(s.into_bytes()));
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(TValue::List),
                proptest::collection::vec((key, inner), 0..4).prop_map(TValue::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(value in any_value()) {
            let mut text = Vec::new();
            write(&value, &mut text);
            prop_assert_eq!(parse_all(&text), Ok(value));
        }

        #[test]
        fn any_bytes_are_read_without_panic(input: Vec<u8>) {
            parse(&input).ok();
        }

        #[test]
        fn damaged_text_is_read_without_panic(value in any_value(), at: prop::sample::Index, byte: u8) {
            let mut text = Vec::new();
            write(&value, &mut text);
            let at = at.index(text.len());
            text[at] = byte;
            parse(&text).ok();
            for end in 0..text.len() {
                parse(&text[..end]).ok();
            }
        }
    }
}
