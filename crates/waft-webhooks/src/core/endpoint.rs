//! Applications and endpoints: what users set, and what is known of them beside.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use waft_outbound::target::Target;
use waft_outbound::{ClientIdentity, check_tls};
use waft_store::Place;

use super::filter::{is_pattern, wants};
use super::sign::{Key, SecretError, Style};

/// Most headers that an endpoint may add.
const HEADERS_MAX: usize = 32;

/// Most secrets that sign at the same time.
pub const SECRETS_MAX: usize = 8;

/// Most patterns or channels of an endpoint.
const LIST_MAX: usize = 100;

/// Most pauses of an own schedule.
const RETRIES_MAX: usize = 50;

/// Headers that endpoints may not set, beside those that belong to the connection.
const RESERVED: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "expect",
    "forwarded",
    "metadata-flavor",
    "x-google-metadata-request",
    "stripe-signature",
];

/// Beginnings of header names that endpoints may not set: signatures, and what opens metadata services.
const RESERVED_PREFIXES: &[&str] = &["webhook-", "svix-", "x-hub-", "x-github-", "x-forwarded-", "x-aws-ec2-metadata-"];

/// What users set for an endpoint.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointSettings {
    /// Where it is.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// Event types it wants: `order.paid`, `order.*`. Empty: all.
    pub types: Vec<String>,
    /// Channels whose items it gets.
    pub channels: Vec<String>,
    /// Headers to send along.
    pub headers: BTreeMap<String, String>,
    /// Headers for id, time and signature.
    pub style: Style,
    /// Deliveries a second at most. Absent: no limit.
    pub rate_per_s: Option<f64>,
    /// Deliveries under way at once.
    pub concurrency_max: u32,
    /// Seconds that a try may take. Absent: as configured.
    pub timeout_s: Option<u32>,
    /// Pauses before each try, in seconds; the first is before the first try. Absent: as configured.
    pub retry_s: Option<Vec<u64>>,
    /// Messages with the same order key are delivered one after the other.
    pub ordered: bool,
    /// Nothing is delivered; what waits, waits on.
    pub disabled: bool,
    /// TLS.
    pub tls: TlsSettings,
    /// How it has to prove that it wants to be called.
    pub challenge: Challenge,
}

/// TLS towards an endpoint. PEM that cannot be used is refused when the endpoint is made.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Any certificate is accepted, if the configuration allows that. For tests.
    pub insecure: bool,
    /// Authorities that have signed its certificate, PEM, instead of those of the system.
    pub ca: Option<String>,
    /// A certificate to present, PEM, with its chain.
    pub certificate: Option<String>,
    /// Its key, PEM.
    pub key: Option<String>,
}

impl TlsSettings {
    /// The certificate to present, if there is one.
    pub fn identity(&self) -> Option<ClientIdentity> {
        let (certificate, key) = (self.certificate.as_deref()?, self.key.as_deref()?);
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Some(ClientIdentity { certificates: bytes(certificate), key: bytes(key) })
    }

    /// The authorities to trust, if they are its own.
    pub fn authorities(&self) -> Option<Bytes> {
        self.ca.as_ref().map(|ca| Bytes::copy_from_slice(ca.as_bytes()))
    }
}

/// How an endpoint proves that it wants to be called.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Challenge {
    /// It answers a GET request with the text of the query parameter `challenge` as its body.
    Echo,
    /// It need not.
    #[default]
    None,
    /// It answers an OPTIONS request that has `WebHook-Request-Origin` with `WebHook-Allowed-Origin` (CloudEvents).
    Options,
}

impl Default for EndpointSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            description: String::new(),
            types: Vec::new(),
            channels: Vec::new(),
            headers: BTreeMap::new(),
            style: Style::Standard,
            rate_per_s: None,
            concurrency_max: 20,
            timeout_s: None,
            retry_s: None,
            ordered: false,
            disabled: false,
            tls: TlsSettings::default(),
            challenge: Challenge::None,
        }
    }
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Certificate and key.
    #[error("tls.certificate and tls.key need each other")]
    Certificate,
    /// A certificate, key or authority that cannot be used.
    #[error("tls cannot be used: {0}")]
    Tls(String),
    /// A limit of 0.
    #[error("concurrency_max, rate_per_s and timeout_s must be above 0, timeout_s at most 300")]
    Limit,
    /// A header that may not be set.
    #[error("the header `{name}` cannot be set")]
    Header {
        /// Its name.
        name: String,
    },
    /// Too many of something.
    #[error("too many {what}: at most {max}")]
    Many {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// A pattern that is none.
    #[error("`{pattern}` is no event type; write words joined by dots, `order.*`, or `*`")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// A secret that cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The URL.
    #[error("the url cannot be used: {0}")]
    Url(String),
}

impl EndpointSettings {
    /// Judges the settings. The address is judged again whenever it is called.
    pub fn check(&self, https_only: bool) -> Result<Target, SettingsError> {
        let target = Target::parse(self.url.as_bytes()).map_err(|error| SettingsError::Url(error.to_string()))?;
        if target.scheme.is_websocket() || (https_only && !target.scheme.is_tls()) {
            let wanted = if https_only { "https" } else { "http or https" };
            return Err(SettingsError::Url(format!("its scheme must be {wanted}")));
        }
        for pattern in &self.types {
            if !is_pattern(pattern) {
                return Err(SettingsError::Pattern { pattern: pattern.clone() });
            }
        }
        for (what, count, max) in [
            ("types", self.types.len(), LIST_MAX),
            ("channels", self.channels.len(), LIST_MAX),
            ("headers", self.headers.len(), HEADERS_MAX),
            ("pauses", self.retry_s.as_ref().map_or(0, Vec::len), RETRIES_MAX),
        ] {
            if count > max {
                return Err(SettingsError::Many { what, max });
            }
        }
        if let Some(name) = self.headers.iter().find(|(name, value)| !may_set(name, value)).map(|(name, _)| name) {
            return Err(SettingsError::Header { name: name.clone() });
        }
        let rate_is_bad = self.rate_per_s.is_some_and(|rate| !rate.is_finite() || rate <= 0.0);
        let timeout_is_bad = self.timeout_s.is_some_and(|timeout| !(1..=300).contains(&timeout));
        let schedule_is_bad = self.retry_s.as_ref().is_some_and(Vec::is_empty);
        if self.concurrency_max == 0 || rate_is_bad || timeout_is_bad || schedule_is_bad {
            return Err(SettingsError::Limit);
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return Err(SettingsError::Certificate);
        }
        if self.tls.ca.is_some() || self.tls.certificate.is_some() {
            check_tls(self.tls.identity().as_ref(), self.tls.authorities().as_ref())
                .map_err(|error| SettingsError::Tls(error.to_string()))?;
        }
        Ok(target)
    }

    /// Its own schedule in milliseconds, if it has one.
    pub fn schedule_ms(&self) -> Option<Vec<u64>> {
        self.retry_s.as_ref().map(|pauses| pauses.iter().map(|pause| pause.saturating_mul(1_000)).collect())
    }
}

fn may_set(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_token =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let is_value = value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    is_token
        && is_value
        && !RESERVED.contains(&lower.as_str())
        && !RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

/// A secret and how long it signs.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub struct Secret {
    /// `whsec_` or `whsk_` and base64, or another text for the styles that take it.
    pub text: String,
    /// When it stops to sign, in Unix milliseconds, after it was followed by another.
    #[serde(default)]
    pub until: Option<u64>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("until", &self.until).finish_non_exhaustive()
    }
}

/// Why an endpoint gets nothing though its owner did not disable it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Stopped {
    /// `gone` (it answered 410) or `failing` (it failed for days).
    pub reason: String,
    /// Since when, in Unix milliseconds.
    pub at: u64,
}

/// An endpoint as it is stored.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StoredEndpoint {
    /// Its number in this store.
    pub number: u32,
    /// Its name.
    pub id: String,
    /// Its application.
    pub app: u32,
    /// When it was made, in Unix milliseconds.
    pub created: u64,
    /// What users set.
    pub settings: EndpointSettings,
    /// What its messages are signed with, the newest first.
    pub secrets: Vec<Secret>,
    /// Why it gets nothing.
    #[serde(default)]
    pub stopped: Option<Stopped>,
    /// Whether it has proved that it wants to be called, or need not.
    pub verified: bool,
    /// Since when every delivery has failed, in Unix milliseconds.
    #[serde(default)]
    pub failing_since: Option<u64>,
    /// It stands in the configuration, and cannot be changed by calls.
    #[serde(default)]
    pub configured: bool,
    /// It was made for the origin of a URL, whose requests alone it gets.
    #[serde(default)]
    pub origin: bool,
}

/// An endpoint with what was made of its settings.
#[derive(Debug)]
pub struct Endpoint {
    /// What is stored.
    pub stored: StoredEndpoint,
    /// Where that lies; none while it is on its way.
    pub place: Option<Place>,
    /// Where to call.
    pub target: Target,
    /// Its keys, in the order of its secrets.
    pub keys: Vec<Key>,
    /// Its own schedule.
    pub schedule: Option<Vec<u64>>,
    /// When a request for its origin came last, in Unix milliseconds; 0 if not since the start.
    pub used: u64,
}

impl Endpoint {
    /// Judges an endpoint and makes of it what is needed to serve it.
    pub fn new(stored: StoredEndpoint, https_only: bool) -> Result<Self, SettingsError> {
        let target = stored.settings.check(https_only)?;
        if stored.secrets.len() > SECRETS_MAX {
            return Err(SettingsError::Many { what: "secrets", max: SECRETS_MAX });
        }
        let keys = stored.secrets.iter().map(|secret| Key::parse(&secret.text)).collect::<Result<Vec<_>, _>>()?;
        keys.iter().try_for_each(|key| key.check(stored.settings.style))?;
        let schedule = stored.settings.schedule_ms();
        Ok(Self { stored, place: None, target, keys, schedule, used: 0 })
    }

    /// The keys that sign at a time in Unix milliseconds, the newest first.
    pub fn signing_keys(&self, now: u64) -> Vec<&Key> {
        let valid = |secret: &Secret| secret.until.is_none_or(|until| until > now);
        self.stored.secrets.iter().zip(&self.keys).filter(|(secret, _)| valid(secret)).map(|(_, key)| key).collect()
    }

    /// Whether deliveries are made.
    pub fn is_open(&self) -> bool {
        !self.stored.settings.disabled && self.stored.stopped.is_none() && self.stored.verified
    }

    /// Whether new messages are taken for it: a stopped endpoint gets what it missed by a replay.
    pub fn takes(&self) -> bool {
        self.stored.stopped.is_none()
    }

    /// Whether it gets messages of a type that name no endpoint.
    pub fn wants(&self, kind: &str) -> bool {
        !self.stored.origin && wants(&self.stored.settings.types, kind)
    }

    /// The host that its breaker is for.
    pub fn host(&self) -> String {
        self.target.authority()
    }
}

/// An application: whose messages go to whose endpoints.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StoredApp {
    /// Its number in this store.
    pub number: u32,
    /// Its name.
    pub id: String,
    /// When it was made, in Unix milliseconds.
    pub created: u64,
    /// The SHA-256 of its token; none if it has none.
    #[serde(default)]
    pub token: Option<[u8; 32]>,
    /// It stands in the configuration, and cannot be changed by calls.
    #[serde(default)]
    pub configured: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<(), &str>) {
        let settings: EndpointSettings = serde_json::from_str(json).unwrap();
        let result = settings.check(false).map(drop).map_err(|error| error.to_string());
        assert_eq!(result, expected.map_err(ToOwned::to_owned), "{json}");
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        check(r#"{"url":"https://example.com/hook"}"#, Ok(()));
        check(r#"{"url":"http://a.example/","types":["order.*"],"headers":{"X-Key":"1"},"rate_per_s":0.5}"#, Ok(()));
        check(
            r#"{"url":"ftp://a/"}"#,
            Err("the url cannot be used: the url's scheme is none of http, https, ws and wss"),
        );
        check(r#"{"url":"ws://a/"}"#, Err("the url cannot be used: its scheme must be http or https"));
        check(
            r#"{"url":"http://a/","types":["a b"]}"#,
            Err("`a b` is no event type; write words joined by dots, `order.*`, or `*`"),
        );
        for (name, value) in
            [("Host", "a"), ("webhook-id", "a"), ("X-Forwarded-For", "a"), ("a b", "c"), ("a", "b\\r\\nc: d")]
        {
            let shown = name;
            check(
                &format!(r#"{{"url":"http://a/","headers":{{"{name}":"{value}"}}}}"#),
                Err(&format!("the header `{shown}` cannot be set")),
            );
        }
        let limit = "concurrency_max, rate_per_s and timeout_s must be above 0, timeout_s at most 300";
        for wrong in
            ["\"concurrency_max\":0", "\"rate_per_s\":0", "\"timeout_s\":0", "\"timeout_s\":301", "\"retry_s\":[]"]
        {
            check(&format!(r#"{{"url":"http://a/",{wrong}}}"#), Err(limit));
        }
        check(r#"{"url":"http://a/","tls":{"key":"x"}}"#, Err("tls.certificate and tls.key need each other"));
        check(
            r#"{"url":"https://a/","tls":{"ca":"x"}}"#,
            Err("tls cannot be used: there is no certificate of an authority; give at least one in PEM"),
        );
        let https = EndpointSettings { url: "http://a/".into(), ..EndpointSettings::default() };
        assert!(https.check(true).is_err());
    }
}
