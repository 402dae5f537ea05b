//! The `build-id` filter: event ids made of the positions of all channels of a listener (GRIP section 8.4).

use std::borrow::Cow;

use super::template::{Part, Scanner, TemplateError, substitute};
use super::{Context, FilterError, meta};

/// Replaces `%I` in content that arrives in pieces of any size.
///
/// Make one for a body, [`feed`](Self::feed) it each piece, and [`finish`](Self::finish) it.
#[derive(Clone, Debug)]
pub struct BuildId {
    id: Vec<u8>,
    hex: bool,
    scanner: Scanner,
}

impl BuildId {
    /// Renders the id of the listener at its present positions.
    ///
    /// # Errors
    /// [`FilterError`] if the subscription's `id_format` or `id_encoding` is missing or malformed.
    pub fn new(context: &Context<'_>) -> Result<Self, FilterError> {
        let format = meta(context.sub_meta, "id_format").ok_or(FilterError::NoIdFormat)?;
        let hex = match meta(context.sub_meta, "id_encoding") {
            None => false,
            Some("hex") => true,
            Some(other) => return Err(FilterError::Encoding(other.to_owned())),
        };
        let id = substitute(format.as_bytes(), |name| {
            let channel = context.channels.iter().find(|channel| channel.name == name)?;
            Some(channel.prev_id.unwrap_or_default())
        })?;
        let id = encode(&id, hex).into_owned();
        Ok(Self { id, hex, scanner: Scanner::default() })
    }

    /// Appends to `out` what `input` stands for.
    ///
    /// # Errors
    /// [`FilterError`] if the content is malformed; what was appended before is right.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        let Self { id, hex, scanner } = self;
        scanner.feed(input, |part| {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Directive { letter: b'I', argument: None, .. } => out.extend_from_slice(id),
                Part::Directive { letter: b'I', argument: Some(literal), .. } => {
                    out.extend_from_slice(&encode(literal, *hex));
                }
                Part::Directive { letter, position, .. } => {
                    return Err(TemplateError::Unknown { directive: letter, position });
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Tells that the content is complete.
    ///
    /// # Errors
    /// [`FilterError`] if it ends inside of a directive.
    pub fn finish(&self) -> Result<(), FilterError> {
        Ok(self.scanner.finish()?)
    }
}

fn encode(id: &[u8], hex: bool) -> Cow<'_, [u8]> {
    if !hex {
        return Cow::Borrowed(id);
    }
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    Cow::Owned(id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect())
}
