//! Content with directives, `%x` and `%(argument)x`, read in pieces of any size.

/// Bytes an argument may have; more is refused, as it must be kept until its directive is known.
pub const MAX_ARGUMENT: usize = 4096;

/// Why a template is malformed. Positions are counted in bytes from the start of the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The directive has no meaning here.
    #[error("Unknown directive '{}' at position {position}", .directive.escape_ascii())]
    Unknown {
        /// The byte after `%` and the argument.
        directive: u8,
        /// Where the `%` stands.
        position: u64,
    },
    /// `%(` is not followed by `)`.
    #[error("Unterminated field starting at position {0}")]
    Unterminated(u64),
    /// The content ends before the directive.
    #[error("Expected directive after '%' at position {0}")]
    Expected(u64),
    /// A variable has no value.
    #[error("No such variable '{name}' at position {position}")]
    NoVariable {
        /// The argument.
        name: String,
        /// Where the `%` stands.
        position: u64,
    },
    /// An argument is longer than [`MAX_ARGUMENT`].
    #[error("Field too long at position {0}")]
    TooLong(u64),
}

/// A part of a template.
pub(super) enum Part<'a> {
    /// Bytes to be kept as they are.
    Literal(&'a [u8]),
    /// A directive other than `%%`.
    Directive { letter: u8, argument: Option<&'a [u8]>, position: u64 },
}

/// Reads a template in pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    state: State,
    argument: Vec<u8>,
    /// Where the last `%` stood.
    start: u64,
    /// Bytes read so far.
    position: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After `%`.
    Percent,
    /// Inside of `( )`.
    Argument,
    /// After a backslash inside of `( )`.
    Escape,
    /// After `)`.
    Letter,
}

impl Scanner {
    /// Reads a piece and hands its parts to `sink` in order.
    pub(super) fn feed(
        &mut self,
        mut input: &[u8],
        mut sink: impl FnMut(Part<'_>) -> Result<(), TemplateError>,
    ) -> Result<(), TemplateError> {
        while let Some((&byte, rest)) = input.split_first() {
            if self.state == State::Text {
                let at = memchr::memchr(b'%', input).unwrap_or(input.len());
                let (literal, after) = input.split_at_checked(at).unwrap_or((input, b""));
                if !literal.is_empty() {
                    sink(Part::Literal(literal))?;
                }
                self.position += literal.len() as u64;
                input = after;
                if let Some((_, rest)) = after.split_first() {
                    self.start = self.position;
                    self.position += 1;
                    self.state = State::Percent;
                    input = rest;
                }
                continue;
            }
            input = rest;
            self.position += 1;
            self.step(byte, &mut sink)?;
        }
        Ok(())
    }

    /// Tells that there is no more.
    pub(super) fn finish(&self) -> Result<(), TemplateError> {
        match self.state {
            State::Text => Ok(()),
            State::Percent | State::Letter => Err(TemplateError::Expected(self.start)),
            State::Argument | State::Escape => Err(TemplateError::Unterminated(self.start)),
        }
    }

    fn step(
        &mut self,
        byte: u8,
        sink: &mut impl FnMut(Part<'_>) -> Result<(), TemplateError>,
    ) -> Result<(), TemplateError> {
        let position = self.start;
        self.state = match (self.state, byte) {
            (State::Percent, b'(') => {
                self.argument.clear();
                State::Argument
            }
            (State::Percent, b'%') => {
                sink(Part::Literal(b"%"))?;
                State::Text
            }
            (State::Percent, letter) => {
                sink(Part::Directive { letter, argument: None, position })?;
                State::Text
            }
            (State::Letter, letter) => {
                sink(Part::Directive { letter, argument: Some(&self.argument), position })?;
                State::Text
            }
            (State::Argument, b'\\') => State::Escape,
            (State::Argument, b')') => State::Letter,
            (State::Argument | State::Escape, _) => {
                if self.argument.len() >= MAX_ARGUMENT {
                    return Err(TemplateError::TooLong(position));
                }
                self.argument.push(byte);
                State::Argument
            }
            (State::Text, _) => State::Text,
        };
        Ok(())
    }
}

/// Replaces each `%(name)s` by the variable's value.
pub(super) fn substitute<'v>(
    template: &[u8],
    variable: impl Fn(&str) -> Option<&'v str>,
) -> Result<Vec<u8>, TemplateError> {
    let mut out = Vec::with_capacity(template.len());
    let mut scanner = Scanner::default();
    scanner.feed(template, |part| {
        match part {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Directive { letter: b's', argument: Some(name), position } => {
                let name = String::from_utf8_lossy(name);
                let value = variable(&name);
                let value = value.ok_or_else(|| TemplateError::NoVariable { name: name.into_owned(), position })?;
                out.extend_from_slice(value.as_bytes());
            }
            Part::Directive { letter, position, .. } => {
                return Err(TemplateError::Unknown { directive: letter, position });
            }
        }
        Ok(())
    })?;
    scanner.finish()?;
    Ok(out)
}
