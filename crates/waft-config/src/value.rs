//! The values that settings are made of: durations, sizes, addresses, rules.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use waft_net::Endpoint;

/// Serde by way of `FromStr` and `Display`.
macro_rules! as_text {
    ($($name:ty => $expected:literal),+ $(,)?) => { $(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(crate::value::Text($expected, std::marker::PhantomData))
            }
        }
    )+ };
}

pub(crate) use as_text;

/// Reads a text, or a whole number as the text of it.
pub(crate) struct Text<T>(pub(crate) &'static str, pub(crate) std::marker::PhantomData<T>);

impl<T: FromStr> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_refused| E::custom(format_args!("`{text}` is not {}", self.0)))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(if value { "true" } else { "false" })
    }
}

as_text! {
    ByteSize => "a size such as 65536, \"64 KiB\" or \"1 MB\"",
    CloseCode => "a close code that servers may send, such as 4000",
    Duration => "a duration such as \"30s\", \"5m\" or \"100ms\"",
    ForwardedFor => "a rule such as \"truncate:0,append\", \"append\" or \"\"",
    ForwardedProto => "\"off\", \"proto-only\" or \"on\"",
    Level => "a level: \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
    Listen => "an address: \"7999\", \"127.0.0.1:7999\", \"443?tls\" or \"unix:/path?mode=660\"",
    LogFormat => "\"text\" or \"json\"",
    OctalMode => "an octal mode such as \"660\"",
    OutboundRules => "\"hardened\" or \"open\"",
    Resolver => "\"system\" or \"dns\"",
    PingMode => "\"answer\" or \"forward\"",
    Allowed => "\"read\", \"publish\" or \"presence\"",
    Audience => "\"everyone\" or \"clients\"",
    Told => "\"channels\" or \"connections\"",
    JsonPForm => "\"basic\" or \"extended\"",
    RequestKind => "\"http\" or \"ws\"",
    SlowReader => "\"drop\" or \"close\"",
    StatsFormat => "\"tnetstring\" or \"json\"",
    WorkerRole => "\"gateway\" or \"front\"",
}

/// A text that is no value of the kind that was asked for. What was expected is said by the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a value of this kind")]
pub struct NotAValue;

/// A WebSocket close code that a server may send (RFC 6455 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl FromStr for CloseCode {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        match text.parse() {
            Ok(code @ (1000 | 1001 | 1008 | 1011..=1014 | 3000..=4999)) => Ok(Self(code)),
            _ => Err(NotAValue),
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A span of time, written as `30s`, `5m`, `2h`, `1d` or `100ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

impl Duration {
    /// This many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// This many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }
}

/// Units of time in milliseconds, the largest first.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Duration {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let (number, unit) = number_and_unit(text).ok_or(NotAValue)?;
        let (_, millis) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or(NotAValue)?;
        number.checked_mul(*millis).map(Self::from_millis).ok_or(NotAValue)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        let (unit, size) = TIME_UNITS.iter().find(|(_, size)| millis.is_multiple_of(*size)).unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", millis / size)
    }
}

/// A number of bytes, written as a number, or with a unit: `64 KiB`, `1 MB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The size as an index of this machine, cut to what one can hold.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Units of size, in the order in which they are preferred for writing.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let (number, unit) = number_and_unit(text).ok_or(NotAValue)?;
        if unit.is_empty() {
            return Ok(Self(number));
        }
        let (_, size) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(NotAValue)?;
        number.checked_mul(*size).map(Self).ok_or(NotAValue)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, size): &&(&str, u64)| self.0 >= *size && self.0.is_multiple_of(*size);
        match SIZE_UNITS.iter().find(fits) {
            Some((unit, size)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

/// The digits at the beginning of `text` (underscores allowed between them) and what follows.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.replace('_', "").parse().ok()?, unit.trim_start()))
}

/// A value, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrOff<T> {
    /// Switched off: there is no limit, or nothing is done.
    Off,
    /// Switched on, with this value.
    On(T),
}

impl<T: Copy> OrOff<T> {
    /// The value, if it is on.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl OrOff<Duration> {
    /// The duration, if it is on.
    pub fn duration(self) -> Option<std::time::Duration> {
        self.value().map(|duration| duration.0)
    }
}

impl<T: Serialize> Serialize for OrOff<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        if matches!(value.as_str(), Some("off")) || value.as_bool() == Some(false) {
            return Ok(Self::Off);
        }
        T::deserialize(value)
            .map(Self::On)
            .map_err(|error| D::Error::custom(format_args!("{}, or \"off\"", error.message())))
    }
}

/// Where connections are accepted: an endpoint, with TLS or without.
///
/// Written as `7999`, `127.0.0.1:7999`, `[::]:80`, `443?tls` or
/// `unix:/path?mode=660&user=u&group=g`. A bare port is one of all IPv4 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address to bind.
    pub endpoint: Endpoint,
    /// Whether clients speak TLS there.
    pub tls: bool,
    /// Authorities one of which must vouch for a client.
    pub client_ca: Option<PathBuf>,
    /// Clients without a certificate are let in too.
    pub client_optional: bool,
    /// Owner that the Unix socket is given to.
    pub user: Option<String>,
    /// Group that the Unix socket is given to.
    pub group: Option<String>,
    /// The id of the route that its requests take; their own conditions count if there is none. Not part of the text.
    pub route: Option<String>,
}

impl Listen {
    /// A plain address. `None` if the text is none.
    pub fn plain(text: &str) -> Option<Self> {
        text.parse().ok().filter(|listen: &Self| !listen.tls)
    }
}

impl FromStr for Listen {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let mut endpoint: Endpoint = address.parse().map_err(|_no_endpoint| NotAValue)?;
        let mut listen = Self {
            endpoint: endpoint.clone(),
            tls: false,
            client_ca: None,
            client_optional: false,
            user: None,
            group: None,
            route: None,
        };
        for param in query.split('&').filter(|param| !param.is_empty()) {
            match (&mut endpoint, param.split_once('=')) {
                (_, None) if param == "tls" => listen.tls = true,
                (_, None) if param == "client_optional" => listen.client_optional = true,
                (_, Some(("client_ca", path))) if !path.is_empty() => listen.client_ca = Some(path.into()),
                (Endpoint::Unix { mode, .. }, Some(("mode", octal))) => *mode = Some(octal.parse::<OctalMode>()?.0),
                (Endpoint::Unix { .. }, Some(("user", user))) => listen.user = Some(user.to_owned()),
                (Endpoint::Unix { .. }, Some(("group", group))) => listen.group = Some(group.to_owned()),
                _ => return Err(NotAValue),
            }
        }
        let is_whole = listen.tls || listen.client_ca.is_none();
        let is_whole = is_whole && (listen.client_ca.is_some() || !listen.client_optional);
        if is_whole { Ok(Self { endpoint, ..listen }) } else { Err(NotAValue) }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut params = Vec::new();
        match &self.endpoint {
            Endpoint::Tcp(addr) if *addr.ip().to_string() == *"0.0.0.0" => write!(f, "{}", addr.port())?,
            Endpoint::Tcp(addr) => write!(f, "{addr}")?,
            Endpoint::Unix { path, mode } => {
                write!(f, "unix:{}", path.display())?;
                params.extend(mode.map(|mode| format!("mode={mode:o}")));
            }
        }
        params.extend(self.tls.then(|| "tls".to_owned()));
        params.extend(self.client_ca.as_ref().map(|path| format!("client_ca={}", path.display())));
        params.extend(self.client_optional.then(|| "client_optional".to_owned()));
        params.extend(self.user.as_ref().map(|user| format!("user={user}")));
        params.extend(self.group.as_ref().map(|group| format!("group={group}")));
        if params.is_empty() { Ok(()) } else { write!(f, "?{}", params.join("&")) }
    }
}

/// What is done with `X-Forwarded-For`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedFor {
    /// Keep only this many of the last values. `None`: keep all.
    pub truncate: Option<u32>,
    /// Add the address of the peer.
    pub append: bool,
}

impl FromStr for ForwardedFor {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let mut rule = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.strip_prefix("truncate:") {
                Some(kept) => rule.truncate = Some(kept.parse().map_err(|_no_number| NotAValue)?),
                None if part == "append" => rule.append = true,
                None => return Err(NotAValue),
            }
        }
        Ok(rule)
    }
}

impl fmt::Display for ForwardedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.truncate, self.append) {
            (Some(kept), true) => write!(f, "truncate:{kept},append"),
            (Some(kept), false) => write!(f, "truncate:{kept}"),
            (None, true) => f.write_str("append"),
            (None, false) => Ok(()),
        }
    }
}

/// File permissions, written in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OctalMode(pub u32);

impl FromStr for OctalMode {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let mode = u32::from_str_radix(text, 8).map_err(|_not_octal| NotAValue)?;
        if mode <= 0o777 { Ok(Self(mode)) } else { Err(NotAValue) }
    }
}

impl fmt::Display for OctalMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

/// Defines a choice among words. The first of several words for a variant is the one written.
macro_rules! words {
    ($(
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal $(| $other:literal)* ),+ $(,)? }
    )+) => { $(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $( $(#[doc = $doc])+ $variant, )+ }

        impl FromStr for $name {
            type Err = NotAValue;

            fn from_str(text: &str) -> Result<Self, NotAValue> {
                match text {
                    $( $word $(| $other)* => Ok(Self::$variant), )+
                    _ => Err(NotAValue),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $( Self::$variant => $word, )+ })
            }
        }
    )+ };
}

words! {
    /// Which of `X-Forwarded-Proto` and `X-Forwarded-Protocol` are sent to targets.
    ForwardedProto {
        /// Neither.
        Off = "off" | "false",
        /// `X-Forwarded-Proto`.
        ProtoOnly = "proto-only",
        /// Both.
        On = "on" | "true",
    }
    /// How much is logged; each level includes those before it.
    Level {
        /// What a human must act on.
        Error = "error",
        /// What may need a human.
        Warn = "warn",
        /// What happens, a line a request.
        Info = "info",
        /// Details for the search for faults.
        Debug = "debug",
        /// Every step.
        Trace = "trace",
    }
    /// The form of log lines.
    LogFormat {
        /// For people.
        Text = "text",
        /// An object a line.
        Json = "json",
    }
    /// Which places may be called beside the targets.
    OutboundRules {
        /// Public ones, and the exceptions.
        Hardened = "hardened",
        /// All.
        Open = "open",
    }
    /// Who looks names up.
    Resolver {
        /// The system, as it is set up.
        System = "system",
        /// waft, at name servers.
        Dns = "dns",
    }
    /// Who answers the pings of WebSocket clients.
    PingMode {
        /// waft does.
        Answer = "answer",
        /// The target does.
        Forward = "forward",
    }
    /// What a client may do with a channel of a realm.
    Allowed {
        /// See who is there.
        Presence = "presence",
        /// Publish to it.
        Publish = "publish",
        /// Get what is published.
        Read = "read",
    }
    /// Whom a rule of a realm is for.
    Audience {
        /// Clients with a token of the realm.
        Clients = "clients",
        /// Everyone.
        Everyone = "everyone",
    }
    /// What a realm tells of its life.
    Told {
        /// Which channels are occupied.
        Channels = "channels",
        /// Who connects, and why a connection ends.
        Connections = "connections",
    }
    /// What waft is to its ZHTTP workers.
    WorkerRole {
        /// The connection manager of a server: requests are passed on as they came.
        Front = "front",
        /// A proxy: requests are made anew.
        Gateway = "gateway",
    }
    /// The form of a JSON-P answer.
    JsonPForm {
        /// The body alone.
        Basic = "basic",
        /// An object with code, reason, headers and body.
        Extended = "extended",
    }
    /// The kind of a request.
    RequestKind {
        /// HTTP.
        Http = "http",
        /// WebSocket.
        Ws = "ws",
    }
    /// What happens to a client that reads too slowly.
    SlowReader {
        /// Its connection is closed.
        Close = "close",
        /// It misses items, and is told so.
        Drop = "drop",
    }
    /// The form of statistics on the ZeroMQ socket.
    StatsFormat {
        /// TNetStrings.
        TNetString = "tnetstring",
        /// Compact JSON.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text`; `expected` is how it is written then, `None` if it is refused.
    fn check<T: FromStr + fmt::Display + PartialEq + fmt::Debug>(text: &str, expected: Option<&str>) {
        let got = text.parse::<T>().ok();
        assert_eq!(got.as_ref().map(ToString::to_string).as_deref(), expected, "{text:?}");
        if let (Some(value), Some(written)) = (got, expected) {
            assert_eq!(written.parse::<T>().ok(), Some(value), "{written:?} reads the same");
        }
    }

    #[test]
    fn close_codes_are_those_that_a_server_may_send() {
        for text in ["1000", "1013", "3000", "4999"] {
            check::<CloseCode>(text, Some(text));
        }
        for text in ["", "0", "1002", "1005", "1006", "1015", "2999", "5000", "70000"] {
            check::<CloseCode>(text, None);
        }
    }

    #[test]
    fn durations_have_a_unit() {
        let millis = |text: &str| text.parse::<Duration>().map(|duration| duration.0.as_millis());
        for (text, expected) in [
            ("100ms", 100),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1_000 s", 1_000_000),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text:?}");
        }
        check::<Duration>("90s", Some("90s"));
        check::<Duration>("120s", Some("2m"));
        check::<Duration>("1500ms", Some("1500ms"));
        check::<Duration>("0ms", Some("0s"));
        for text in ["", "5", "s", "-5s", "5 minutes", "1.5s", "99999999999999999d"] {
            check::<Duration>(text, None);
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        let bytes = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
        for (text, expected) in [("5", 5), ("64 KiB", 65_536), ("1MB", 1_000_000), ("2 gib", 2 << 30), ("3 kb", 3000)] {
            assert_eq!(bytes(text), Ok(expected), "{text:?}");
        }
        check::<ByteSize>("65536", Some("64 KiB"));
        check::<ByteSize>("100000", Some("100 kB"));
        check::<ByteSize>("1500", Some("1500 B"));
        check::<ByteSize>("0", Some("0"));
        for text in ["", "KiB", "-1", "1 XB", "1.5 MB", "99999999999 GiB"] {
            check::<ByteSize>(text, None);
        }
    }

    #[test]
    fn addresses_to_listen_on_keep_their_parameters() {
        for text in [
            "7999",
            "127.0.0.1:80",
            "[::]:80",
            "443?tls",
            "unix:/s",
            "unix:/s?mode=660&tls&user=u&group=g",
            "443?tls&client_ca=/a.pem",
            "443?tls&client_ca=/a.pem&client_optional",
        ] {
            check::<Listen>(text, Some(text));
        }
        check::<Listen>("0.0.0.0:80", Some("80"));
        for text in [
            "",
            "host:80",
            "80?mode=660",
            "80?tsl",
            "unix:",
            "unix:/s?mode=999",
            "unix:/s?x=y",
            "65536",
            "443?tls&client_optional",
            "443?client_ca=/a",
        ] {
            check::<Listen>(text, None);
        }
    }

    #[test]
    fn forwarding_rules_are_read() {
        for text in ["", "append", "truncate:0", "truncate:2,append"] {
            check::<ForwardedFor>(text, Some(text));
        }
        check::<ForwardedFor>("append, truncate:1", Some("truncate:1,append"));
        for text in ["truncate", "truncate:x", "prepend"] {
            check::<ForwardedFor>(text, None);
        }
    }
}
