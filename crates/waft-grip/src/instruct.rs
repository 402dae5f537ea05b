//! Instructs: what an origin asks the proxy to do with a response, in `Grip-*` headers (GRIP section 4) or in a JSON
//! body (section 5).

mod json_body;
mod link;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;

pub use self::link::{DEFAULT_LINK_TIMEOUT, Link, LinkError};
use crate::header::{HeaderList, Value, is_framing, is_grip, parse_params, parse_values, split_commas};
use crate::keepalive::{KeepAlive, KeepAliveError, parse_seconds};
use crate::shape::{ShapeError, set_meta};
use crate::status;

/// Content type of an instruct in the body.
pub const CONTENT_TYPE: &str = "application/grip-instruct";

/// How long a response hold lasts when the origin gives no timeout.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(55);

/// The shortest response hold; a smaller timeout is raised to it.
pub const MIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Filters that one channel may name; more refuse the instruct.
pub const MAX_FILTERS: usize = 5;

/// What an origin asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instruct {
    /// Whether and how to hold the client. Without a hold the response is sent at once.
    pub hold: Option<HoldMode>,
    /// The channels to subscribe to, in the order given. May be empty even with a hold.
    pub channels: Vec<ChannelRef>,
    /// How long a response hold lasts, at least [`MIN_TIMEOUT`]. `None` stands for [`DEFAULT_TIMEOUT`].
    pub timeout: Option<Duration>,
    /// What keeps a stream hold alive.
    pub keep_alive: Option<KeepAlive>,
    /// Metadata of this listener for filters; names are unique.
    pub meta: Vec<(String, String)>,
    /// Where to fetch what follows, or what was missed.
    pub next: Option<Link>,
    /// What to call when the client has gone.
    pub gone: Option<Link>,
    /// What the client gets: at once, or when a response hold times out.
    pub response: ResponseParts,
    expose: Option<Vec<String>>,
    json_body: bool,
}

/// How a client is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldMode {
    /// The first published item answers the request.
    Response,
    /// The response begins at once and published items are appended.
    Stream,
}

/// One subscription of an instruct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelRef {
    /// The name as the origin gave it, without the route prefix.
    pub name: String,
    /// The position up to which the origin has answered.
    pub prev_id: Option<String>,
    /// Names of filters, at most [`MAX_FILTERS`], unknown ones included.
    pub filters: Vec<String>,
}

/// A response to the client. `Grip-*` headers, the framing of the connection, and what `Grip-Expose-Headers` hides are
/// removed already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseParts {
    /// Status code, 0 to 999.
    pub code: u16,
    /// Reason phrase.
    pub reason: String,
    /// The headers for the client.
    pub headers: HeaderList,
    /// The body, if the instruct was JSON. Otherwise the origin's body is meant.
    pub body: Option<Bytes>,
}

/// Why an instruct cannot be followed. `Display` is the text that clients see in debug mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstructError {
    /// `Grip-Hold` is something else.
    #[error("Grip-Hold must be set to either 'response' or 'stream'")]
    Hold,
    /// `Grip-Channel` has no name.
    #[error("failed to parse Grip-Channel")]
    Channel,
    /// A channel names more than [`MAX_FILTERS`] filters.
    #[error("too many filters for channel '{0}'")]
    Filters(String),
    /// `Grip-Timeout` is not a whole number.
    #[error("failed to parse Grip-Timeout")]
    Timeout,
    /// `Grip-Timeout` is negative.
    #[error("Grip-Timeout has invalid value")]
    TimeoutValue,
    /// `Grip-Set-Meta` has no name.
    #[error("Grip-Set-Meta cannot be empty")]
    Meta,
    /// `Grip-Status` does not begin with a code from 0 to 999.
    #[error("Grip-Status contains invalid status code")]
    Status,
    /// `Grip-Keep-Alive` cannot be used.
    #[error(transparent)]
    KeepAlive(#[from] KeepAliveError),
    /// `Grip-Link` cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A JSON instruct came with another status than 200.
    #[error("response code for {CONTENT_TYPE} content must be 200")]
    JsonStatus,
    /// The body is not JSON.
    #[error("failed to parse {CONTENT_TYPE} content as JSON")]
    Json,
    /// The body is JSON, but not an object.
    #[error("instruct must be an object")]
    NotObject,
    /// The hold mode of a JSON instruct is something else.
    #[error("hold 'mode' must be set to either 'response' or 'stream'")]
    JsonHold,
    /// The keep-alive mode of a JSON instruct is something else.
    #[error("keep-alive 'mode' must be set to either 'idle' or 'interval'")]
    JsonKeepAliveMode,
    /// A member of the JSON instruct is missing or malformed.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// Whether a response with these headers is an instruct: it has a `Grip-*` header or the instruct content type.
pub fn is_instruct<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> bool {
    for (name, value) in fields {
        if is_grip(name) || is_json_type(name, value) {
            return true;
        }
    }
    false
}

impl Instruct {
    /// Reads the head of a response. If [`Self::needs_json_body`] then holds, [`Self::apply_json`] must follow.
    ///
    /// # Errors
    /// [`InstructError`]; the client gets a 502.
    pub fn from_head<'a>(
        status: u16,
        reason: &str,
        fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    ) -> Result<Self, InstructError> {
        let json_body = fields.clone().any(|(name, value)| is_json_type(name, value));
        if json_body && status != 200 {
            return Err(InstructError::JsonStatus);
        }
        let mut instruct = Self { json_body, ..Self::default() };
        instruct.response.code = status;
        reason.clone_into(&mut instruct.response.reason);
        for (name, value) in fields.clone() {
            if let Some(name) = name.get(5..).filter(|_| is_grip(name)) {
                instruct.read_field(name, value)?;
            }
        }
        instruct.read_firsts(fields.clone())?;
        if !json_body {
            let kept = fields.filter(|(name, _)| !name.eq_ignore_ascii_case("content-encoding"));
            instruct.response.headers = kept.collect();
            instruct.clean_headers();
        }
        Ok(instruct)
    }

    /// Whether the instruct goes on in the body, which then must be read whole and given to [`Self::apply_json`].
    #[must_use]
    pub fn needs_json_body(&self) -> bool {
        self.json_body
    }

    /// Reads the body of a JSON instruct on top of what the headers said.
    ///
    /// # Errors
    /// [`InstructError`]; the client gets a 502 and this value is not to be used.
    pub fn apply_json(&mut self, body: &[u8]) -> Result<(), InstructError> {
        json_body::apply(self, body)?;
        self.json_body = false;
        self.clean_headers();
        Ok(())
    }

    /// The timeout of a response hold, with the default filled in.
    #[must_use]
    pub fn hold_timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    /// Headers that may be repeated.
    fn read_field(&mut self, name: &str, value: &[u8]) -> Result<(), InstructError> {
        if name.eq_ignore_ascii_case("channel") {
            if value.trim_ascii().is_empty() {
                return Err(InstructError::Channel);
            }
            for piece in parse_values(value) {
                self.channels.push(channel(&piece)?);
            }
        } else if name.eq_ignore_ascii_case("set-meta") {
            self.read_meta(value)?;
        } else if name.eq_ignore_ascii_case("link") {
            let links = link::parse(value)?;
            // Of several links of a kind the last one counts.
            self.next = links.next.or(self.next.take());
            self.gone = links.gone.or(self.gone.take());
        } else if name.eq_ignore_ascii_case("expose-headers") {
            let names = split_commas(value).into_iter().filter(|name| !name.is_empty());
            let expose = self.expose.get_or_insert_default();
            expose.extend(names.map(|name| String::from_utf8_lossy(name).into_owned()));
        }
        Ok(())
    }

    /// Headers of which the first counts.
    fn read_firsts<'a>(
        &mut self,
        fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    ) -> Result<(), InstructError> {
        let first = |wanted: &str| fields.clone().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, v)| v);
        let first_piece = |wanted: &str| {
            let value = first(wanted)?;
            Some(parse_values(value).into_iter().next().map(|piece| piece.value).unwrap_or_default())
        };
        if let Some(mode) = first_piece("grip-hold") {
            self.hold = Some(match mode.as_slice() {
                b"response" => HoldMode::Response,
                b"stream" => HoldMode::Stream,
                _ => return Err(InstructError::Hold),
            });
        }
        if let Some(timeout) = first_piece("grip-timeout") {
            let seconds = parse_seconds(&timeout).ok_or(InstructError::Timeout)?;
            let seconds = u64::try_from(seconds).ok().ok_or(InstructError::TimeoutValue)?;
            self.timeout = Some(Duration::from_secs(seconds).max(MIN_TIMEOUT));
        }
        if let Some(value) = first("grip-keep-alive") {
            self.keep_alive = KeepAlive::parse(value)?;
        }
        if let Some(value) = first("grip-status") {
            self.read_status(value)?;
        }
        Ok(())
    }

    fn read_meta(&mut self, value: &[u8]) -> Result<(), InstructError> {
        for piece in split_commas(value).into_iter().filter(|piece| !piece.is_empty()) {
            if piece.starts_with(b"=") || piece.starts_with(b";") {
                return Err(InstructError::Meta);
            }
            let Some(param) = parse_params(piece).and_then(|params| params.into_iter().next()) else { continue };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            set_meta(&mut self.meta, text(&param.name), text(&param.value));
        }
        Ok(())
    }

    fn read_status(&mut self, value: &[u8]) -> Result<(), InstructError> {
        let text = String::from_utf8_lossy(value.trim_ascii());
        let (code, reason) = match text.split_once(' ') {
            Some((code, reason)) => (code, Some(reason.trim())),
            None => (text.as_ref(), None),
        };
        let code = code.parse().ok().filter(|code| *code <= 999).ok_or(InstructError::Status)?;
        self.response.code = code;
        self.response.reason = reason.unwrap_or_else(|| status::reason(code)).to_owned();
        Ok(())
    }

    fn clean_headers(&mut self) {
        let expose = self.expose.as_deref();
        let exposed =
            |name: &str| expose.is_none_or(|names| names.iter().any(|exposed| exposed.eq_ignore_ascii_case(name)));
        self.response.headers.retain(|name| !is_grip(name) && !is_framing(name) && exposed(name));
    }
}

fn is_json_type(name: &str, value: &[u8]) -> bool {
    let media_type = || value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    name.eq_ignore_ascii_case("content-type") && media_type().eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
}

fn channel(piece: &Value) -> Result<ChannelRef, InstructError> {
    if piece.value.is_empty() {
        return Err(InstructError::Channel);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let name = text(&piece.value);
    let filters: Vec<String> =
        piece.params.iter().filter(|p| p.name == b"filter").map(|filter| text(&filter.value)).collect();
    if filters.len() > MAX_FILTERS {
        return Err(InstructError::Filters(name));
    }
    Ok(ChannelRef { name, prev_id: piece.param("prev-id").map(text), filters })
}
