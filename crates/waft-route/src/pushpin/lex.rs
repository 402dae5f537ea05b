//! Lines into sections, sections into a value and parameters.

use std::iter::Peekable;
use std::str::Chars;

/// A condition or a target as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// The first item; empty if that is a parameter already.
    pub(super) value: String,
    /// The parameters in order. One without `=` has an empty value.
    pub(super) params: Vec<(String, String)>,
}

/// Why a line cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LexError {
    #[error("empty prop name")]
    EmptyName,
    #[error("expecting prop")]
    ExpectingProp,
    #[error("unexpected escape character: {0}")]
    UnexpectedEscape(char),
    #[error("unterminated escape sequence")]
    UnterminatedEscape,
    #[error("unterminated quoted section")]
    UnterminatedQuote,
}

/// The sections of a line. None of them: the line is blank or a comment.
pub(super) fn sections(line: &str) -> Result<Vec<Section>, LexError> {
    let mut chars = line.trim_end_matches(['\r', '\n']).chars().peekable();
    let mut sections = Vec::new();
    loop {
        while chars.next_if_eq(&' ').is_some() {}
        // A comment ends the line wherever it begins, also within a value.
        match chars.peek() {
            None | Some('#') => return Ok(sections),
            Some(_) => sections.push(section(&mut chars)?),
        }
    }
}

fn section(chars: &mut Peekable<Chars<'_>>) -> Result<Section, LexError> {
    let mut section = Section::default();
    let mut first = true;
    loop {
        let (name, value) = item(chars)?;
        match value {
            Some(_) if name.is_empty() => return Err(LexError::EmptyName),
            None if first => section.value = name,
            None if name.is_empty() => return Err(LexError::ExpectingProp),
            value => section.params.push((name, value.unwrap_or_default())),
        }
        if chars.next_if_eq(&',').is_none() {
            return Ok(section);
        }
        first = false;
    }
}

/// One item up to a space, comma or comment that is not quoted, split at its first `=`, quoted or not.
fn item(chars: &mut Peekable<Chars<'_>>) -> Result<(String, Option<String>), LexError> {
    let mut text = String::new();
    while let Some(c) = chars.next_if(|c| !matches!(c, ' ' | ',' | '#')) {
        match c {
            '"' => quoted(chars, &mut text)?,
            _ => text.push(c),
        }
    }
    Ok(match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text, None),
    })
}

fn quoted(chars: &mut Peekable<Chars<'_>>, into: &mut String) -> Result<(), LexError> {
    loop {
        match chars.next().ok_or(LexError::UnterminatedQuote)? {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(LexError::UnterminatedEscape)? {
                c @ ('\\' | '"') => into.push(c),
                c => return Err(LexError::UnexpectedEscape(c)),
            },
            c => into.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value and its parameters.
    type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)]);

    fn check(line: &str, expected: Result<&[Expected<'_>], LexError>) {
        let expected = expected.map(|sections| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let section = |(value, params): &Expected<'_>| Section {
                value: (*value).to_owned(),
                params: params.iter().map(own).collect(),
            };
            sections.iter().map(section).collect::<Vec<_>>()
        });
        assert_eq!(sections(line), expected, "{line:?}");
    }

    #[test]
    fn lines_are_taken_apart() {
        check("", Ok(&[]));
        check("   ", Ok(&[]));
        check("# all of it", Ok(&[]));
        check("  # all of it", Ok(&[]));
        check("* test", Ok(&[("*", &[]), ("test", &[])]));
        check("  *   test  \r", Ok(&[("*", &[]), ("test", &[])]));
        check("a,b,c=d e", Ok(&[("a", &[("b", ""), ("c", "d")]), ("e", &[])]));
        check("id=x test", Ok(&[("", &[("id", "x")]), ("test", &[])]));
        check(",id=x test", Ok(&[("", &[("id", "x")]), ("test", &[])]));
        check("* test # and why", Ok(&[("*", &[]), ("test", &[])]));
        check("* te#st", Ok(&[("*", &[]), ("te", &[])]));
        check("a,b=c=d", Ok(&[("a", &[("b", "c=d")])]));
        check("a\tb", Ok(&[("a\tb", &[])]));
        check(r"a\b", Ok(&[(r"a\b", &[])]));
    }

    #[test]
    fn quotes_protect_what_would_end_an_item() {
        check(r#"a,h="x: y, #z" t"#, Ok(&[("a", &[("h", "x: y, #z")]), ("t", &[])]));
        check(r#"a,h=pre"mid dle"post t"#, Ok(&[("a", &[("h", "premid dlepost")]), ("t", &[])]));
        check(r#""a=b" t"#, Ok(&[("", &[("a", "b")]), ("t", &[])]));
        check(r#"a,"h=i, j" t"#, Ok(&[("a", &[("h", "i, j")]), ("t", &[])]));
        check(r#"a,h="\"\\" t"#, Ok(&[("a", &[("h", r#""\"#)]), ("t", &[])]));
        check(r#""" t"#, Ok(&[("", &[]), ("t", &[])]));
    }

    #[test]
    fn mistakes_are_named() {
        check(r#"a "b"#, Err(LexError::UnterminatedQuote));
        check(r#"a "b\"#, Err(LexError::UnterminatedEscape));
        check(r#"a "b\n""#, Err(LexError::UnexpectedEscape('n')));
        check("a, b", Err(LexError::ExpectingProp));
        check("a,,c b", Err(LexError::ExpectingProp));
        check("a,", Err(LexError::ExpectingProp));
        check("a,#", Err(LexError::ExpectingProp));
        check("a,=c b", Err(LexError::EmptyName));
        check("=c b", Err(LexError::EmptyName));
    }
}
