//! Assignments and values.

use super::lex::{ConfError, Placed, Token};

/// Lists, maps and calls inside each other that are read.
const NESTING_MAX: usize = 32;

/// A value as it is written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Call { class: String, parameters: Vec<(String, Spot)> },
    List(Vec<Spot>),
    Map(Vec<(Spot, Spot)>),
    Name(String),
    Number(i64),
    Text(String),
}

/// A value and its line.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) value: Value,
    pub(super) line: u32,
}

/// Reads `name = value` assignments.
pub(super) fn assignments(tokens: &[Placed]) -> Result<Vec<(String, Spot)>, ConfError> {
    let mut parser = Parser { tokens, last_line: tokens.last().map_or(1, |token| token.line) };
    let mut out = Vec::new();
    while !parser.tokens.is_empty() {
        let name = parser.name("the name of an assignment")?;
        parser.mark('=')?;
        out.push((name, parser.value(0)?));
    }
    Ok(out)
}

struct Parser<'a> {
    tokens: &'a [Placed],
    last_line: u32,
}

impl Parser<'_> {
    fn next(&mut self, wanted: &str) -> Result<Placed, ConfError> {
        let Some((first, rest)) = self.tokens.split_first() else {
            return Err(ConfError::new(self.last_line, format!("the file ends where {wanted} is expected")));
        };
        self.tokens = rest;
        Ok(first.clone())
    }

    fn name(&mut self, wanted: &str) -> Result<String, ConfError> {
        let placed = self.next(wanted)?;
        match placed.token {
            Token::Name(name) => Ok(name),
            other => Err(ConfError::new(placed.line, format!("{} stands where {wanted} is expected", shown(&other)))),
        }
    }

    fn mark(&mut self, mark: char) -> Result<(), ConfError> {
        let placed = self.next(&format!("`{mark}`"))?;
        if placed.token == Token::Mark(mark) {
            return Ok(());
        }
        Err(ConfError::new(placed.line, format!("{} stands where `{mark}` is expected", shown(&placed.token))))
    }

    /// Takes `mark` if it comes next.
    fn ends_with(&mut self, mark: char) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if first.token == Token::Mark(mark) => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn value(&mut self, depth: usize) -> Result<Spot, ConfError> {
        let Placed { token, line } = self.next("a value")?;
        if depth > NESTING_MAX {
            return Err(ConfError::new(line, format!("values are nested deeper than {NESTING_MAX}")));
        }
        let value = match token {
            Token::Text(text) => Value::Text(text),
            Token::Number(number) => Value::Number(number),
            Token::Mark('[') => {
                let mut items = Vec::new();
                while !self.ends_with(']') {
                    items.push(self.value(depth + 1)?);
                }
                Value::List(items)
            }
            Token::Mark('{') => {
                let mut entries = Vec::new();
                while !self.ends_with('}') {
                    let key = self.value(depth + 1)?;
                    self.mark(':')?;
                    entries.push((key, self.value(depth + 1)?));
                }
                Value::Map(entries)
            }
            Token::Name(name) if self.ends_with('(') => {
                let mut parameters = Vec::new();
                while !self.ends_with(')') {
                    let parameter = self.name("the name of a parameter")?;
                    self.mark('=')?;
                    parameters.push((parameter, self.value(depth + 1)?));
                }
                Value::Call { class: name, parameters }
            }
            Token::Name(name) => Value::Name(name),
            Token::Mark(mark) => {
                return Err(ConfError::new(line, format!("`{mark}` stands where a value is expected")));
            }
        };
        Ok(Spot { value, line })
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Mark(mark) => format!("`{mark}`"),
        Token::Name(name) => format!("`{name}`"),
        Token::Number(number) => format!("`{number}`"),
        Token::Text(text) => format!("the text \"{text}\""),
    }
}
