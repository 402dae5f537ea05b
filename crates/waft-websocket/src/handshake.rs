//! The opening handshake (RFC 6455 section 4), for both sides.
//!
//! Fields come in as an iterator of names and values, whatever HTTP codec they came through; names are compared
//! without regard to case.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::extension::{Extension, ExtensionError, is_token, parse_into, tokens};

/// The longest `Sec-WebSocket-Key` taken. The standard's keys are 24 bytes; the GRIP proxies before us took any key of
/// about this length, and clients rely on it.
pub const KEY_MAX: usize = 220;
/// The most subprotocols read from an offer.
pub const PROTOCOLS_MAX: usize = 64;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether the request asks for WebSocket at all, by an `Upgrade` token of that name. One that asks and fails
/// [`Request::read`] is answered 400, one that does not ask is plain HTTP.
pub fn wants_websocket<'a>(mut fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> bool {
    fields.any(|(name, value)| {
        name.eq_ignore_ascii_case("upgrade") && tokens(value).any(|token| token.eq_ignore_ascii_case("websocket"))
    })
}

/// A client's request that may be answered with 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The client's key, for [`accept_key`].
    pub key: &'a [u8],
    /// Subprotocols the client offers, in its order of preference.
    pub protocols: Vec<&'a str>,
    /// Extensions the client offers, in its order of preference.
    pub extensions: Vec<Extension<'a>>,
}

/// Why a request cannot become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request announces a body.
    #[error("websocket request has a body")]
    Body,
    /// `Connection` does not name `upgrade`.
    #[error("connection field does not name upgrade")]
    Connection,
    /// The offered extensions cannot be read.
    #[error("extension offer cannot be read")]
    Extensions(#[from] ExtensionError),
    /// The key is missing, repeated, empty, too long or not printable.
    #[error("websocket key is missing or malformed")]
    Key,
    /// The method is not GET.
    #[error("websocket request does not use GET")]
    Method,
    /// Subprotocols that are not tokens, repeat, or are too many.
    #[error("subprotocol offer cannot be read")]
    Protocols,
    /// `Upgrade` does not name `websocket`.
    #[error("upgrade field does not name websocket")]
    Upgrade,
    /// The version is not 13; the answer should carry `Sec-WebSocket-Version: 13`.
    #[error("websocket version is not 13")]
    Version,
}

impl<'a> Request<'a> {
    /// Judges a request by its method and fields.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn read<F>(method: &str, fields: F) -> Result<Self, RequestError>
    where
        F: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        if method != "GET" {
            return Err(RequestError::Method);
        }
        if !wants_websocket(fields.clone()) {
            return Err(RequestError::Upgrade);
        }
        if !names_upgrade(fields.clone()) {
            return Err(RequestError::Connection);
        }
        let has_body = fields.clone().any(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding")
                || (name.eq_ignore_ascii_case("content-length") && value.trim_ascii() != b"0")
        });
        if has_body {
            return Err(RequestError::Body);
        }
        if only(fields.clone(), "sec-websocket-version") != Some(b"13") {
            return Err(RequestError::Version);
        }
        let key = only(fields.clone(), "sec-websocket-key").ok_or(RequestError::Key)?;
        if key.is_empty() || key.len() > KEY_MAX || !key.iter().all(u8::is_ascii_graphic) {
            return Err(RequestError::Key);
        }
        let protocols = read_protocols(fields.clone()).ok_or(RequestError::Protocols)?;
        Ok(Self { key, protocols, extensions: read_extensions(fields)? })
    }
}

/// `Sec-WebSocket-Accept` for a key: Base64 of the SHA-1 of the key and the standard's fixed identifier.
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    let mut accept = [0; 28];
    // 20 bytes of digest are 28 characters, so the result always fits.
    let _fits = STANDARD.encode_slice(context.finish().as_ref(), &mut accept);
    accept
}

/// The fields of a 101 answer that the handshake itself makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// From [`accept_key`].
    pub accept: [u8; 28],
    /// The subprotocol chosen, one of those offered.
    pub protocol: Option<&'a str>,
    /// Elements for `Sec-WebSocket-Extensions`, ready to be joined.
    pub extensions: &'a [String],
}

impl Response<'_> {
    /// Appends the field lines, each with its CRLF.
    pub fn write_fields(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
        out.extend_from_slice(&self.accept);
        out.extend_from_slice(b"\r\n");
        if let Some(protocol) = self.protocol {
            out.extend_from_slice(b"Sec-WebSocket-Protocol: ");
            out.extend_from_slice(protocol.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !self.extensions.is_empty() {
            out.extend_from_slice(b"Sec-WebSocket-Extensions: ");
            out.extend_from_slice(self.extensions.join(", ").as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A client's key made of 16 bytes that the caller drew at random.
#[must_use]
pub fn client_key(random: [u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    // 16 bytes are 24 characters, so the result always fits.
    let _fits = STANDARD.encode_slice(random, &mut key);
    key
}

/// What the server agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The subprotocol chosen, one of those offered.
    pub protocol: Option<&'a str>,
    /// The extensions chosen; their parameters are still to be judged by whoever offered them.
    pub extensions: Vec<Extension<'a>>,
}

/// Why a server's answer fails the connection (section 4.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// `Sec-WebSocket-Accept` is missing or not the one for our key.
    #[error("server did not prove that it read the key")]
    Accept,
    /// `Connection` does not name `upgrade`.
    #[error("connection field does not name upgrade")]
    Connection,
    /// An extension that was not offered.
    #[error("server chose extension {name} which was not offered")]
    ExtensionNotOffered {
        /// Its name.
        name: String,
    },
    /// The extensions cannot be read.
    #[error("extension answer cannot be read")]
    Extensions(#[from] ExtensionError),
    /// The status is not 101: an ordinary HTTP answer, which a proxy relays.
    #[error("server answered with status {status}")]
    NotSwitching {
        /// The status.
        status: u16,
    },
    /// A subprotocol that was not offered, or more than one.
    #[error("server chose a subprotocol which was not offered")]
    ProtocolNotOffered,
    /// `Upgrade` is not exactly `websocket`.
    #[error("upgrade field does not name websocket")]
    Upgrade,
}

/// Judges a server's answer to a request with `key` that offered `protocols` and the extensions named `extensions`.
///
/// # Errors
/// The first rule that is broken.
pub fn check_answer<'a, F>(
    status: u16,
    fields: F,
    key: &[u8],
    protocols: &[&str],
    extensions: &[&str],
) -> Result<Answer<'a>, AnswerError>
where
    F: Iterator<Item = (&'a str, &'a [u8])> + Clone,
{
    if status != 101 {
        return Err(AnswerError::NotSwitching { status });
    }
    if !only(fields.clone(), "upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
        return Err(AnswerError::Upgrade);
    }
    if !names_upgrade(fields.clone()) {
        return Err(AnswerError::Connection);
    }
    if only(fields.clone(), "sec-websocket-accept") != Some(&accept_key(key)) {
        return Err(AnswerError::Accept);
    }
    let chosen = read_protocols(fields.clone()).ok_or(AnswerError::ProtocolNotOffered)?;
    let protocol = match *chosen {
        [] => None,
        [one] if protocols.contains(&one) => Some(one),
        _ => return Err(AnswerError::ProtocolNotOffered),
    };
    let answered = read_extensions(fields)?;
    if let Some(alien) = answered.iter().find(|extension| !extensions.contains(&extension.name)) {
        return Err(AnswerError::ExtensionNotOffered { name: alien.name.to_owned() });
    }
    Ok(Answer { protocol, extensions: answered })
}

/// All elements of `Sec-WebSocket-Extensions`, over however many lines.
///
/// # Errors
/// The list is malformed or too long.
pub fn read_extensions<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Vec<Extension<'a>>, ExtensionError> {
    let mut list = Vec::new();
    for (_, value) in fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions")) {
        parse_into(value, &mut list)?;
    }
    Ok(list)
}

fn read_protocols<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<Vec<&'a str>> {
    let mut list = Vec::new();
    for (_, value) in fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol")) {
        std::str::from_utf8(value).ok()?;
        for token in tokens(value) {
            if !is_token(token) || list.contains(&token) || list.len() >= PROTOCOLS_MAX {
                return None;
            }
            list.push(token);
        }
    }
    Some(list)
}

fn names_upgrade<'a>(mut fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> bool {
    fields.any(|(name, value)| {
        name.eq_ignore_ascii_case("connection") && tokens(value).any(|token| token.eq_ignore_ascii_case("upgrade"))
    })
}

/// The value of a field that stands there exactly once.
fn only<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>, wanted: &str) -> Option<&'a [u8]> {
    let mut values = fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const BASE: &[(&str, &str)] = &[
        ("Host", "server.example.com"),
        ("upgrade", "h2c, WebSocket"),
        ("CONNECTION", "keep-alive, UPGRADE"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn bytes<'a>(fields: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, &'a [u8])> + Clone {
        fields.iter().map(|(name, value)| (*name, value.as_bytes()))
    }

    /// `base` with the fields of `changes` replaced or added; an empty value takes the field away.
    fn changed<'a>(base: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let kept = base.iter().filter(|(name, _)| changes.iter().all(|(other, _)| !name.eq_ignore_ascii_case(other)));
        kept.chain(changes.iter().filter(|(_, value)| !value.is_empty())).copied().collect()
    }

    #[test]
    fn keys_are_made_and_answered_as_in_the_standard() {
        assert_eq!(accept_key(KEY.as_bytes()), ACCEPT.as_bytes());
        assert_eq!(client_key(*b"the sample nonce"), KEY.as_bytes());
    }

    #[test]
    fn a_request_is_judged_rule_by_rule() {
        let check = |changes: &[(&str, &str)], expected: Option<RequestError>| {
            let fields = changed(BASE, changes);
            assert_eq!(Request::read("GET", bytes(&fields)).err(), expected, "{changes:?}");
        };
        check(&[], None);
        check(&[("Content-Length", "0")], None);
        check(&[("Sec-WebSocket-Key", "short")], None);
        check(&[("Content-Length", "1")], Some(RequestError::Body));
        check(&[("Transfer-Encoding", "chunked")], Some(RequestError::Body));
        check(&[("Upgrade", "")], Some(RequestError::Upgrade));
        check(&[("Upgrade", "websockets")], Some(RequestError::Upgrade));
        check(&[("Connection", "keep-alive")], Some(RequestError::Connection));
        check(&[("Sec-WebSocket-Version", "8")], Some(RequestError::Version));
        check(&[("Sec-WebSocket-Version", "")], Some(RequestError::Version));
        check(&[("Sec-WebSocket-Key", "")], Some(RequestError::Key));
        check(&[("Sec-WebSocket-Key", "a b")], Some(RequestError::Key));
        check(&[("Sec-WebSocket-Key", &"k".repeat(221))], Some(RequestError::Key));
        check(&[("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)], Some(RequestError::Key));
        check(&[("Sec-WebSocket-Protocol", "a, a")], Some(RequestError::Protocols));
        check(&[("Sec-WebSocket-Protocol", "a/b")], Some(RequestError::Protocols));
        let malformed = RequestError::Extensions(ExtensionError::Malformed);
        check(&[("Sec-WebSocket-Extensions", "a b")], Some(malformed));
        assert_eq!(Request::read("POST", bytes(BASE)), Err(RequestError::Method));
        assert!(wants_websocket(bytes(BASE)) && !wants_websocket(bytes(&[("Upgrade", "h2c")])));
    }

    #[test]
    fn offers_over_several_lines_are_one_list() {
        let fields = changed(
            BASE,
            &[
                ("Sec-WebSocket-Protocol", "chat, superchat"),
                ("sec-websocket-protocol", "mqtt"),
                ("Sec-WebSocket-Extensions", "grip"),
                ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
            ],
        );
        let request = Request::read("GET", bytes(&fields)).unwrap();
        assert_eq!(request.protocols, ["chat", "superchat", "mqtt"]);
        let names: Vec<&str> = request.extensions.iter().map(|extension| extension.name).collect();
        assert_eq!(names, ["grip", "permessage-deflate"]);
    }

    #[test]
    fn our_answer_satisfies_our_client() {
        let extensions = ["grip".to_owned(), "permessage-deflate; server_no_context_takeover".to_owned()];
        let response = Response { accept: accept_key(KEY.as_bytes()), protocol: Some("chat"), extensions: &extensions };
        let mut out = Vec::new();
        response.write_fields(&mut out);
        let text = String::from_utf8(out).unwrap();
        let fields: Vec<(&str, &str)> = text.lines().map(|line| line.split_once(": ").unwrap()).collect();
        let offered = ["grip", "permessage-deflate"];
        let answer = check_answer(101, bytes(&fields), KEY.as_bytes(), &["chat"], &offered).unwrap();
        assert_eq!((answer.protocol, answer.extensions.len()), (Some("chat"), 2));
    }

    #[test]
    fn an_answer_is_judged_rule_by_rule() {
        let base = [("Upgrade", "WebSocket"), ("Connection", "upgrade"), ("Sec-WebSocket-Accept", ACCEPT)];
        let check = |changes: &[(&str, &str)], expected: Option<AnswerError>| {
            let fields = changed(&base, changes);
            let got = check_answer(101, bytes(&fields), KEY.as_bytes(), &["a", "b"], &["grip"]);
            assert_eq!(got.err(), expected, "{changes:?}");
        };
        check(&[], None);
        check(&[("Sec-WebSocket-Protocol", "b"), ("Sec-WebSocket-Extensions", "grip")], None);
        check(&[("Upgrade", "h2c")], Some(AnswerError::Upgrade));
        check(&[("Connection", "close")], Some(AnswerError::Connection));
        check(&[("Sec-WebSocket-Accept", "")], Some(AnswerError::Accept));
        check(&[("Sec-WebSocket-Accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")], Some(AnswerError::Accept));
        check(&[("Sec-WebSocket-Protocol", "c")], Some(AnswerError::ProtocolNotOffered));
        check(&[("Sec-WebSocket-Protocol", "a, b")], Some(AnswerError::ProtocolNotOffered));
        let alien = AnswerError::ExtensionNotOffered { name: "permessage-deflate".to_owned() };
        check(&[("Sec-WebSocket-Extensions", "permessage-deflate")], Some(alien));
        let refused = check_answer(403, bytes(&base), KEY.as_bytes(), &[], &[]);
        assert_eq!(refused, Err(AnswerError::NotSwitching { status: 403 }));
    }
}
