//! The words of the configuration language.

/// Why a configuration cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct ConfError {
    /// Where it stands, from 1.
    pub line: u32,
    /// What is wrong, one clause.
    pub text: String,
}

impl ConfError {
    pub(super) fn new(line: u32, text: impl Into<String>) -> Self {
        Self { line, text: text.into() }
    }
}

/// A word, or a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Mark(char),
    Name(String),
    Number(i64),
    Text(String),
}

/// A token with its line.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) line: u32,
}

/// Splits a text into tokens. Commas are optional everywhere, so they are left out.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, ConfError> {
    let mut out = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let start = line;
        let (token, length) = match first {
            '\n' => {
                line += 1;
                (None, 1)
            }
            ',' => (None, 1),
            '#' => (None, rest.find('\n').unwrap_or(rest.len())),
            '=' | '{' | '}' | '[' | ']' | '(' | ')' | ':' => (Some(Token::Mark(first)), 1),
            '"' | '\'' => {
                let length = text_length(rest, first)
                    .ok_or_else(|| ConfError::new(start, format!("the text has no closing {first}")))?;
                let inner = rest.get(1..length - 1).unwrap_or_default();
                line += u32::try_from(inner.matches('\n').count()).unwrap_or(0);
                (Some(Token::Text(inner.to_owned())), length)
            }
            '0'..='9' | '-' => {
                let length = 1 + run(rest.get(1..), |c| c.is_ascii_digit());
                let digits = rest.get(..length).unwrap_or_default();
                let number = digits
                    .parse()
                    .map_err(|_| ConfError::new(start, format!("`{digits}` is not a number that fits")))?;
                (Some(Token::Number(number)), length)
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let length = run(Some(rest), |c| c.is_ascii_alphanumeric() || c == '_');
                (Some(Token::Name(rest.get(..length).unwrap_or_default().to_owned())), length)
            }
            c if c.is_whitespace() => (None, c.len_utf8()),
            c => return Err(ConfError::new(start, format!("`{c}` has no meaning here"))),
        };
        out.extend(token.map(|token| Placed { token, line: start }));
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(out)
}

/// Bytes from the opening quotation mark to behind the closing one. A backslash keeps what follows it from closing.
fn text_length(rest: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn run(rest: Option<&str>, fits: impl Fn(char) -> bool) -> usize {
    let rest = rest.unwrap_or_default();
    rest.find(|c| !fits(c)).unwrap_or(rest.len())
}
