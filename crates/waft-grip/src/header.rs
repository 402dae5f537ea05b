//! The value grammar that all `Grip-*` headers share (GRIP section 2), and the header list of items and instructs.

/// One comma-separated piece of a header value: `value *( ";" param )`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// What stands before the first `;`, trimmed. Quotes are kept as they are.
    pub value: Vec<u8>,
    /// The parameters in the order given, values unquoted.
    pub params: Vec<Param>,
}

/// One parameter, `name`, `name=token` or `name="quoted"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Param {
    /// The name as written.
    pub name: Vec<u8>,
    /// The value with quotes and backslashes resolved, empty for a bare name.
    pub value: Vec<u8>,
}

impl Value {
    /// The value of the first parameter called `name`, compared without regard to case.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&[u8]> {
        self.params.iter().find(|p| p.name.eq_ignore_ascii_case(name.as_bytes())).map(|p| p.value.as_slice())
    }
}

/// Reads a header value that may hold several pieces divided by commas outside of double quotes.
///
/// Empty pieces are skipped and a piece with an unterminated quote is dropped; neither is an error in GRIP.
#[must_use]
pub fn parse_values(value: &[u8]) -> Vec<Value> {
    split_commas(value).into_iter().filter(|piece| !piece.is_empty()).filter_map(parse_piece).collect()
}

/// Reads a value in which commas are data. `None` if a quote in a parameter is not closed.
#[must_use]
pub fn parse_piece(piece: &[u8]) -> Option<Value> {
    let piece = piece.trim_ascii();
    let (value, rest) = match memchr::memchr(b';', piece) {
        Some(at) => piece.split_at_checked(at).unwrap_or((piece, b"")),
        None => (piece, &b""[..]),
    };
    let params = match rest.split_first() {
        Some((_, rest)) => parse_params(rest)?,
        None => Vec::new(),
    };
    Some(Value { value: value.trim_ascii().to_vec(), params })
}

/// Reads `param *( ";" param )`. `None` if a quote is not closed. Empty parameters are skipped.
#[must_use]
pub fn parse_params(text: &[u8]) -> Option<Vec<Param>> {
    let mut out = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let (param, after) = parse_param(rest)?;
        if !param.name.is_empty() {
            out.push(param);
        }
        rest = after;
    }
    Some(out)
}

/// Divides at commas that stand outside of double quotes, and trims. A quote that is never closed runs to the end.
#[must_use]
pub fn split_commas(value: &[u8]) -> Vec<&[u8]> {
    split_outside(value, b'"', b'"')
}

/// Divides at commas that stand outside of double quotes and of `<...>`, for values that begin with a URI.
pub(crate) fn split_links(value: &[u8]) -> Vec<&[u8]> {
    split_outside(value, b'<', b'>')
}

fn split_outside(value: &[u8], open: u8, close: u8) -> Vec<&[u8]> {
    let mut closer: Option<u8> = None;
    let mut escaped = false;
    value
        .split(|&byte| {
            if escaped {
                escaped = false;
                return false;
            }
            match closer {
                Some(b'"') if byte == b'\\' => escaped = true,
                Some(end) if byte == end => closer = None,
                Some(_) => {}
                None if byte == open => closer = Some(close),
                None if byte == b'"' => closer = Some(b'"'),
                None => return byte == b',',
            }
            false
        })
        .map(<[u8]>::trim_ascii)
        .collect()
}

/// Reads one parameter and returns it with what follows its `;`.
fn parse_param(text: &[u8]) -> Option<(Param, &[u8])> {
    let end_of_name = text.iter().position(|&b| b == b'=' || b == b';').unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end_of_name)?;
    let name = name.trim_ascii().to_vec();
    let Some((b'=', rest)) = rest.split_first() else {
        return Some((Param { name, value: Vec::new() }, rest.get(1..).unwrap_or_default().trim_ascii_start()));
    };
    let rest = rest.trim_ascii_start();
    if let Some((b'"', quoted)) = rest.split_first() {
        let (value, after) = unquote(quoted)?;
        let next = memchr::memchr(b';', after).and_then(|at| after.get(at + 1..)).unwrap_or_default();
        return Some((Param { name, value }, next.trim_ascii_start()));
    }
    let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
    let (value, after) = rest.split_at_checked(end)?;
    let param = Param { name, value: value.trim_ascii().to_vec() };
    Some((param, after.get(1..).unwrap_or_default().trim_ascii_start()))
}

/// Reads up to the closing quote, resolving `\x` to `x`.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((out, text.get(at + 1..)?)),
            b'\\' => out.push(*bytes.next()?.1),
            _ => out.push(byte),
        }
    }
    None
}

/// An ordered list of header fields. Names compare without regard to ASCII case; values are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<(String, Vec<u8>)>);

impl HeaderList {
    /// An empty list, without allocation.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a field; fields of the same name stay.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// The first value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice())
    }

    /// Removes every field called `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Keeps the fields whose name satisfies `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for HeaderList {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Whether `name` begins with `Grip-`, in any case.
#[must_use]
pub fn is_grip(name: &str) -> bool {
    name.as_bytes().get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"grip-"))
}

/// Whether `name` belongs to the framing of one HTTP hop, which waft writes itself.
pub(crate) fn is_framing(name: &str) -> bool {
    ["connection", "keep-alive", "transfer-encoding", "content-length"].iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// Whether `name` is a token and so may be written as a field name (RFC 9110 section 5.6.2).
pub(crate) fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether `value` may be written as a field value: no byte that could end the line.
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    !value.iter().any(|&b| matches!(b, b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(values: &[Value]) -> Vec<String> {
        values
            .iter()
            .map(|v| {
                let mut text = String::from_utf8_lossy(&v.value).into_owned();
                for p in &v.params {
                    let (name, value) = (String::from_utf8_lossy(&p.name), String::from_utf8_lossy(&p.value));
                    text.push_str(&format!("|{name}={value}"));
                }
                text
            })
            .collect()
    }

    #[test]
    fn values_are_split_trimmed_and_unquoted() {
        let cases: &[(&str, &[&str])] = &[
            ("a", &["a"]),
            (" a , b ", &["a", "b"]),
            ("a,,b,", &["a", "b"]),
            ("", &[]),
            (
                r#"a; prev-id=3; filter=skip-self, "b,c"; filter=build-id"#,
                &["a|prev-id=3|filter=skip-self", r#""b,c"|filter=build-id"#],
            ),
            (r#"a; x="1;2,3"; y=4"#, &["a|x=1;2,3|y=4"]),
            (r#"a; x="q\"\\z""#, &[r#"a|x=q"\z"#]),
            (r#"a; x = "1" ; y"#, &["a|x=1|y="]),
            (r#"a;;x=1;"#, &["a|x=1"]),
            (r#"a, b; x="open, c"#, &["a"]),
            (r#"a; x="end\"#, &[]),
            (r#""quo;ted""#, &["\"quo|ted\"="]),
            ("a; x= two words ;y=1", &["a|x=two words|y=1"]),
        ];
        for (input, expected) in cases {
            assert_eq!(shown(&parse_values(input.as_bytes())), *expected, "{input}");
        }
    }

    #[test]
    fn parameters_are_found_in_any_case() {
        let value = parse_piece(b"a; PREV-ID=3").unwrap();
        assert_eq!(value.param("prev-id"), Some(&b"3"[..]));
        assert_eq!(value.param("rel"), None);
    }

    #[test]
    fn a_header_list_compares_names_in_any_case() {
        let mut list: HeaderList = [("A", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(list.get("a"), Some(&b"1"[..]));
        list.remove("A");
        assert_eq!(list.iter().collect::<Vec<_>>(), [("b", &b"2"[..])]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(value: Vec<u8>) {
            let pieces = parse_values(&value);
            prop_assert!(pieces.len() <= split_commas(&value).len());
            prop_assert!(parse_piece(&value).is_none_or(|piece| piece.value.len() <= value.len()));
            prop_assert!(split_links(&value).len() <= value.len() + 1);
        }

        #[test]
        fn a_quoted_parameter_comes_back_as_it_was(raw in "[ -~]{0,20}") {
            let quoted = raw.replace('\\', "\\\\").replace('"', "\\\"");
            let values = parse_values(format!("v; p=\"{quoted}\"; q=1").as_bytes());
            prop_assert_eq!(values.len(), 1);
            prop_assert_eq!(values[0].param("p"), Some(raw.as_bytes()));
            prop_assert_eq!(values[0].param("q"), Some(&b"1"[..]));
        }
    }
}
