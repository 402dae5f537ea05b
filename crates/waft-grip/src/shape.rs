//! Typed access to the members of a [`TValue`], with the error texts that GRIP publishers and origins know.

use std::borrow::Cow;

use crate::header::{HeaderList, is_field_name, is_field_value};
use crate::tnetstring::TValue;

/// Why an object does not have the shape it should have. `of` names the object, as in the known texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Something that must be an object is none.
    #[error("{of} is not an object")]
    NotObject {
        /// The value's name.
        of: &'static str,
    },
    /// A required member is missing.
    #[error("{of} does not contain {what}")]
    Missing {
        /// The object's name.
        of: &'static str,
        /// The quoted name of the member, or a list of alternatives.
        what: &'static str,
    },
    /// A member has another type than it should.
    #[error("{of} contains '{field}' with wrong type")]
    WrongType {
        /// The object's name.
        of: &'static str,
        /// The member's name.
        field: Cow<'static, str>,
    },
    /// A member is outside of its range.
    #[error("{of} contains '{field}' with invalid value")]
    InvalidValue {
        /// The object's name.
        of: &'static str,
        /// The member's name.
        field: &'static str,
    },
    /// A member that is one of a few words is another word.
    #[error("{of} contains '{field}' with unknown value")]
    UnknownValue {
        /// The object's name.
        of: &'static str,
        /// The member's name.
        field: &'static str,
    },
    /// A list of strings holds something else.
    #[error("{of} contains value with wrong type")]
    ListValue {
        /// The list's name.
        of: &'static str,
    },
    /// A list of headers holds something other than a list.
    #[error("headers contains element with wrong type")]
    HeaderElement,
    /// A header is a list of other than two elements.
    #[error("headers contains list with wrong number of elements")]
    HeaderLength,
    /// A header's name or value is not a string.
    #[error("header contains {0} element with wrong type")]
    HeaderType(&'static str),
    /// A header's name is not a token, or its value has a line end: it could not be written to HTTP safely.
    #[error("header contains {0} element with invalid value")]
    HeaderText(&'static str),
    /// An item has no payload.
    #[error("no formats specified")]
    NoFormats,
    /// Refused without a text, which is how the protocol has it for a few mistakes.
    #[error("")]
    Unexplained,
}

/// How the value was encoded; the names and forms of binary members depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Strings are text, and members ending in `-bin` hold base64.
    Json,
    /// Strings are bytes already.
    TNetString,
}

/// A map with the name that errors call it by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'v, 'a> {
    value: &'v TValue<'a>,
    name: &'static str,
}

impl<'v, 'a> Object<'v, 'a> {
    pub(crate) fn new(value: &'v TValue<'a>, name: &'static str) -> Result<Self, ShapeError> {
        match value {
            TValue::Map(_) => Ok(Self { value, name }),
            _ => Err(ShapeError::NotObject { of: name }),
        }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&'v TValue<'a>> {
        self.value.member(field)
    }

    /// The member called `field`, even if it is null.
    pub(crate) fn get_any(&self, field: &str) -> Option<&'v TValue<'a>> {
        self.members().iter().rev().find(|(name, _)| name.as_ref() == field.as_bytes()).map(|(_, value)| value)
    }

    pub(crate) fn members(&self) -> &'v [(Cow<'a, [u8]>, TValue<'a>)] {
        match self.value {
            TValue::Map(members) => members,
            _ => &[],
        }
    }

    pub(crate) fn missing(&self, what: &'static str) -> ShapeError {
        ShapeError::Missing { of: self.name, what }
    }

    pub(crate) fn wrong_type(&self, field: impl Into<Cow<'static, str>>) -> ShapeError {
        ShapeError::WrongType { of: self.name, field: field.into() }
    }

    pub(crate) fn unknown(&self, field: &'static str) -> ShapeError {
        ShapeError::UnknownValue { of: self.name, field }
    }

    pub(crate) fn invalid(&self, field: &'static str) -> ShapeError {
        ShapeError::InvalidValue { of: self.name, field }
    }

    pub(crate) fn bytes(&self, field: &'static str) -> Result<Option<&'v [u8]>, ShapeError> {
        match self.get(field) {
            None => Ok(None),
            Some(TValue::Str(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(self.wrong_type(field)),
        }
    }

    /// Text: TNetString bytes that are not UTF-8 get replacement characters.
    pub(crate) fn text(&self, field: &'static str) -> Result<Option<Cow<'v, str>>, ShapeError> {
        Ok(self.bytes(field)?.map(String::from_utf8_lossy))
    }

    pub(crate) fn string(&self, field: &'static str) -> Result<Option<String>, ShapeError> {
        Ok(self.text(field)?.map(Cow::into_owned))
    }

    /// A whole number. Fractions are cut and numeric strings accepted, as origins in loosely typed languages send them.
    pub(crate) fn int(&self, field: &'static str) -> Result<Option<i64>, ShapeError> {
        match self.get(field) {
            None => Ok(None),
            Some(TValue::Int(n)) => i64::try_from(*n).map(Some).ok().ok_or_else(|| self.invalid(field)),
            // The cast saturates, and every caller has a range far inside.
            Some(TValue::Float(n)) if n.is_finite() => Ok(Some(n.trunc() as i64)),
            Some(TValue::Str(text)) => {
                let number = std::str::from_utf8(text).ok().and_then(|t| t.trim().parse().ok());
                number.map(Some).ok_or_else(|| self.wrong_type(field))
            }
            Some(_) => Err(self.wrong_type(field)),
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn count(&self, field: &'static str) -> Result<Option<u64>, ShapeError> {
        self.int(field)?.map(|n| u64::try_from(n).ok().ok_or_else(|| self.invalid(field))).transpose()
    }

    /// A status code, 0 to 999.
    pub(crate) fn code(&self, field: &'static str) -> Result<Option<u16>, ShapeError> {
        let code = |n| u16::try_from(n).ok().filter(|n| *n <= 999).ok_or_else(|| self.invalid(field));
        self.int(field)?.map(code).transpose()
    }

    pub(crate) fn bool(&self, field: &'static str) -> Result<Option<bool>, ShapeError> {
        match self.get(field) {
            None => Ok(None),
            Some(TValue::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.wrong_type(field)),
        }
    }

    pub(crate) fn list(&self, field: &'static str) -> Result<Option<&'v [TValue<'a>]>, ShapeError> {
        match self.get(field) {
            None => Ok(None),
            Some(TValue::List(values)) => Ok(Some(values)),
            Some(_) => Err(self.wrong_type(field)),
        }
    }

    /// A list of strings; `of` is what errors call the list.
    pub(crate) fn strings(&self, field: &'static str, of: &'static str) -> Result<Option<Vec<String>>, ShapeError> {
        let Some(values) = self.list(field)? else { return Ok(None) };
        let string = |value: &TValue<'_>| match value {
            TValue::Str(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            _ => Err(ShapeError::ListValue { of }),
        };
        values.iter().map(string).collect::<Result<_, _>>().map(Some)
    }

    /// A map member; errors about its own members call it `of`.
    pub(crate) fn object(&self, field: &'static str, of: &'static str) -> Result<Option<Self>, ShapeError> {
        match self.get(field) {
            None => Ok(None),
            Some(value @ TValue::Map(_)) => Ok(Some(Self { value, name: of })),
            Some(_) => Err(self.wrong_type(field)),
        }
    }

    /// The `meta` member, a map of strings. Of equal names the last counts.
    pub(crate) fn meta(&self) -> Result<Vec<(String, String)>, ShapeError> {
        let mut out = Vec::new();
        let Some(meta) = self.object("meta", "'meta'")? else { return Ok(out) };
        for (key, value) in meta.members() {
            let key = String::from_utf8_lossy(key).into_owned();
            let TValue::Str(value) = value else { return Err(meta.wrong_type(key)) };
            set_meta(&mut out, key, String::from_utf8_lossy(value).into_owned());
        }
        Ok(out)
    }

    /// The `headers` member in either form, a map or a list of pairs.
    pub(crate) fn headers(&self) -> Result<HeaderList, ShapeError> {
        let mut out = HeaderList::new();
        match self.get("headers") {
            None => {}
            Some(TValue::Map(members)) => {
                for (name, value) in members {
                    let TValue::Str(value) = value else {
                        let field = String::from_utf8_lossy(name).into_owned();
                        return Err(ShapeError::WrongType { of: "headers", field: field.into() });
                    };
                    push_header(&mut out, name, value)?;
                }
            }
            Some(TValue::List(fields)) => {
                for field in fields {
                    let TValue::List(pair) = field else { return Err(ShapeError::HeaderElement) };
                    let [name, value] = pair.as_slice() else { return Err(ShapeError::HeaderLength) };
                    let TValue::Str(name) = name else { return Err(ShapeError::HeaderType("name")) };
                    let TValue::Str(value) = value else { return Err(ShapeError::HeaderType("value")) };
                    push_header(&mut out, name, value)?;
                }
            }
            Some(_) => return Err(self.wrong_type("headers")),
        }
        Ok(out)
    }
}

/// Sets `name`, in place if it was set before.
pub(crate) fn set_meta(meta: &mut Vec<(String, String)>, name: String, value: String) {
    match meta.iter_mut().find(|(n, _)| *n == name) {
        Some((_, old)) => *old = value,
        None => meta.push((name, value)),
    }
}

fn push_header(out: &mut HeaderList, name: &[u8], value: &[u8]) -> Result<(), ShapeError> {
    if !is_field_name(name) {
        return Err(ShapeError::HeaderText("name"));
    }
    if !is_field_value(value) {
        return Err(ShapeError::HeaderText("value"));
    }
    out.push(String::from_utf8_lossy(name), value);
    Ok(())
}
