//! The list form of `Sec-WebSocket-Extensions` (RFC 6455 section 9.1) and plain token lists.

use std::borrow::Cow;

/// The most extensions read from one handshake; a client offers one or two.
pub const EXTENSIONS_MAX: usize = 16;
/// The most parameters read of one extension.
pub const PARAMS_MAX: usize = 16;

/// One element of the list: a name and its parameters, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The name as written; names are compared exactly.
    pub name: &'a str,
    /// Parameters with their unquoted value, if they have one.
    pub params: Vec<(&'a str, Option<Cow<'a, str>>)>,
}

/// A list that does not follow the grammar or is longer than the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// The text is not a list of extensions.
    #[error("extension list does not follow the grammar")]
    Malformed,
    /// More than [`EXTENSIONS_MAX`] extensions or [`PARAMS_MAX`] parameters.
    #[error("extension list has more than {limit} elements")]
    TooMany {
        /// The limit that was crossed.
        limit: usize,
    },
}

/// Reads one field value and appends its extensions to `list`.
///
/// # Errors
/// The list is malformed or too long.
pub fn parse_into<'a>(value: &'a [u8], list: &mut Vec<Extension<'a>>) -> Result<(), ExtensionError> {
    let mut rest = std::str::from_utf8(value).map_err(|_not_text| ExtensionError::Malformed)?;
    loop {
        rest = trim_start(rest);
        if let Some(after) = rest.strip_prefix(',') {
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return Ok(());
        }
        if list.len() >= EXTENSIONS_MAX {
            return Err(ExtensionError::TooMany { limit: EXTENSIONS_MAX });
        }
        let (extension, after) = parse_one(rest)?;
        list.push(extension);
        rest = trim_start(after);
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(ExtensionError::Malformed);
        }
    }
}

/// The tokens of a comma-separated field, such as `Connection` or `Sec-WebSocket-Protocol`; empty elements are skipped.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &str> + Clone {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.split(',').map(|token| token.trim_matches([' ', '\t'])).filter(|token| !token.is_empty())
}

/// Whether `text` is an HTTP token (RFC 9110 section 5.6.2).
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn parse_one(text: &str) -> Result<(Extension<'_>, &str), ExtensionError> {
    let (name, mut rest) = take_token(text)?;
    let mut params = Vec::new();
    loop {
        rest = trim_start(rest);
        let Some(after) = rest.strip_prefix(';') else { return Ok((Extension { name, params }, rest)) };
        if params.len() >= PARAMS_MAX {
            return Err(ExtensionError::TooMany { limit: PARAMS_MAX });
        }
        let (param, after) = take_token(trim_start(after))?;
        rest = trim_start(after);
        let value = match rest.strip_prefix('=') {
            None => None,
            Some(after) => {
                let (value, after) = take_value(trim_start(after))?;
                rest = after;
                Some(value)
            }
        };
        params.push((param, value));
    }
}

fn take_value(text: &str) -> Result<(Cow<'_, str>, &str), ExtensionError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = take_token(text)?;
        return Ok((Cow::Borrowed(token), rest));
    };
    // Most quoted values hold no backslash and are borrowed.
    if let Some((value, rest)) = quoted.split_once('"')
        && !value.contains('\\')
    {
        return Ok((Cow::Borrowed(value), rest));
    }
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => return Ok((Cow::Owned(value), chars.as_str())),
            '\\' => value.push(chars.next().ok_or(ExtensionError::Malformed)?),
            plain => value.push(plain),
        }
    }
    Err(ExtensionError::Malformed)
}

fn take_token(text: &str) -> Result<(&str, &str), ExtensionError> {
    let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((token, rest)) if !token.is_empty() => Ok((token, rest)),
        _ => Err(ExtensionError::Malformed),
    }
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(value: &str) -> Result<String, ExtensionError> {
        let mut list = Vec::new();
        parse_into(value.as_bytes(), &mut list)?;
        let shown = list.iter().map(|extension| {
            let params = extension.params.iter().map(|(name, value)| match value {
                Some(value) => format!(";{name}=<{value}>"),
                None => format!(";{name}"),
            });
            format!("{}{}", extension.name, params.collect::<String>())
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn lists_are_read_with_their_parameters() {
        let check = |value: &str, expected: &str| assert_eq!(shown(value).as_deref(), Ok(expected), "{value}");
        check("", "");
        check("grip", "grip");
        check(" a ,, b;c , d ; e = 1 ;f=\"g\"", "a b;c d;e=<1>;f=<g>");
        check("grip; message-prefix=\"\"", "grip;message-prefix=<>");
        check("x; y=\"a\\\"b, c\"; z", "x;y=<a\"b, c>;z");
        check("permessage-deflate; client_max_window_bits", "permessage-deflate;client_max_window_bits");
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for value in ["a b", ";", "a;", "a;=1", "a;b=", "a;b=\"c", "a;b=\"c\\", "a=b", "\u{e9}", "\""] {
            assert_eq!(shown(value), Err(ExtensionError::Malformed), "{value}");
        }
        assert_eq!(shown(&"a,".repeat(17)), Err(ExtensionError::TooMany { limit: EXTENSIONS_MAX }));
        assert_eq!(shown(&format!("a{}", ";b".repeat(17))), Err(ExtensionError::TooMany { limit: PARAMS_MAX }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value: Vec<u8>, text in "[a;=\", \\\\]{0,40}") {
            let mut list = Vec::new();
            let _either = parse_into(&value, &mut list);
            let _either = parse_into(text.as_bytes(), &mut list);
            prop_assert!(list.len() <= EXTENSIONS_MAX);
        }
    }
}
