//! Signatures: Standard Webhooks (v1 and v1a) and the forms of other senders.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Which headers a receiver is told id, time and signature with.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// `X-GitHub-Delivery`, `X-GitHub-Event`, `X-Hub-Signature-256`. The secret is used as it is written.
    Github,
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    #[default]
    Standard,
    /// `Stripe-Signature`. The secret is used as it is written.
    Stripe,
    /// `svix-id`, `svix-timestamp`, `svix-signature`, beside those of the standard.
    Svix,
}

/// What is signed with.
pub struct Key(Kind);

enum Kind {
    /// `whsec_` and base64.
    Shared { decoded: Box<hmac::Key>, written: Box<hmac::Key> },
    /// `whsk_` and base64: a seed, or seed and public key.
    Private(Ed25519KeyPair),
    /// Any other text, for the styles that take it as it is.
    Text(Box<hmac::Key>),
}

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SecretError {
    /// Not base64 where that was promised.
    #[error("a secret is `whsec_` or `whsk_` with base64 behind it")]
    Form,
    /// Too short or too long.
    #[error("the key of a `whsec_` secret has 24 to 64 bytes, that of a `whsk_` one 32 or 64")]
    Length,
    /// The style cannot be signed with this kind of key.
    #[error(
        "the styles `github` and `stripe` need a shared secret, the others one that begins with `whsec_` or `whsk_`"
    )]
    Style,
}

impl Key {
    /// Reads a secret.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if let Some(encoded) = text.strip_prefix("whsec_") {
            let key = STANDARD.decode(encoded).map_err(|_cause| SecretError::Form)?;
            if !(24..=64).contains(&key.len()) {
                return Err(SecretError::Length);
            }
            let written = Box::new(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()));
            return Ok(Self(Kind::Shared { decoded: Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)), written }));
        }
        if let Some(encoded) = text.strip_prefix("whsk_") {
            let key = STANDARD.decode(encoded).map_err(|_cause| SecretError::Form)?;
            let pair = match key.split_at_checked(32) {
                Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
                Some((seed, public)) if public.len() == 32 => Ed25519KeyPair::from_seed_and_public_key(seed, public),
                Some(_) | None => return Err(SecretError::Length),
            };
            return Ok(Self(Kind::Private(pair.map_err(|_cause| SecretError::Form)?)));
        }
        if !(8..=256).contains(&text.len()) {
            return Err(SecretError::Length);
        }
        Ok(Self(Kind::Text(Box::new(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))))
    }

    /// Whether it can sign in this style.
    pub fn check(&self, style: Style) -> Result<(), SecretError> {
        match (&self.0, style) {
            (Kind::Private(_), Style::Standard | Style::Svix)
            | (Kind::Shared { .. }, _)
            | (Kind::Text(_), Style::Github | Style::Stripe) => Ok(()),
            (Kind::Private(_), Style::Github | Style::Stripe) | (Kind::Text(_), Style::Standard | Style::Svix) => {
                Err(SecretError::Style)
            }
        }
    }

    /// The key that receivers check with, `whpk_` and base64; none if the secret is shared.
    pub fn public(&self) -> Option<String> {
        match &self.0 {
            Kind::Private(pair) => Some(format!("whpk_{}", STANDARD.encode(pair.public_key().as_ref()))),
            Kind::Shared { .. } | Kind::Text(_) => None,
        }
    }

    /// Appends the signature of Standard Webhooks.
    fn sign_standard(&self, text: &[u8], out: &mut String) {
        match &self.0 {
            Kind::Shared { decoded, .. } => {
                out.push_str("v1,");
                STANDARD.encode_string(hmac::sign(decoded, text), out);
            }
            Kind::Private(pair) => {
                out.push_str("v1a,");
                STANDARD.encode_string(pair.sign(text), out);
            }
            Kind::Text(_) => {}
        }
    }

    /// The signature with the secret as it is written, in hexadecimal digits.
    fn sign_written(&self, parts: &[&[u8]]) -> Option<String> {
        let key = match &self.0 {
            Kind::Shared { written, .. } => written,
            Kind::Text(key) => key,
            Kind::Private(_) => return None,
        };
        let mut context = hmac::Context::with_key(key);
        parts.iter().for_each(|part| context.update(part));
        Some(context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// A new secret of random bytes, in the form in which it is kept.
pub fn new_secret(asymmetric: bool, random: [u8; 32]) -> String {
    if asymmetric && let Ok(pair) = Ed25519KeyPair::from_seed_unchecked(&random) {
        return format!("whsk_{}", STANDARD.encode([&random[..], pair.public_key().as_ref()].concat()));
    }
    format!("whsec_{}", STANDARD.encode(random))
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The id of the message.
    pub id: &'a str,
    /// The event type.
    pub kind: &'a str,
    /// The time of this try, in Unix seconds.
    pub timestamp: u64,
    /// The body.
    pub body: &'a [u8],
}

/// The headers that tell a receiver id, time and signatures. The first key is the newest; a style with room for one
/// signature uses that.
pub fn headers(style: Style, keys: &[&Key], signed: &Signed<'_>) -> Vec<(&'static str, String)> {
    let timestamp = signed.timestamp.to_string();
    match style {
        Style::Standard | Style::Svix => {
            let text = [signed.id.as_bytes(), b".", timestamp.as_bytes(), b".", signed.body].concat();
            let mut signatures = String::with_capacity(48 * keys.len());
            for key in keys {
                if !signatures.is_empty() {
                    signatures.push(' ');
                }
                key.sign_standard(&text, &mut signatures);
            }
            let mut headers = Vec::with_capacity(6);
            if style == Style::Svix {
                headers.push(("svix-id", signed.id.to_owned()));
                headers.push(("svix-timestamp", timestamp.clone()));
                headers.push(("svix-signature", signatures.clone()));
            }
            headers.push(("webhook-id", signed.id.to_owned()));
            headers.push(("webhook-timestamp", timestamp));
            headers.push(("webhook-signature", signatures));
            headers
        }
        Style::Github => {
            let mut headers =
                vec![("X-GitHub-Delivery", signed.id.to_owned()), ("X-GitHub-Event", signed.kind.to_owned())];
            if let Some(signature) = keys.iter().find_map(|key| key.sign_written(&[signed.body])) {
                headers.push(("X-Hub-Signature-256", format!("sha256={signature}")));
            }
            headers
        }
        Style::Stripe => {
            let mut value = format!("t={timestamp}");
            for key in keys {
                if let Some(signature) = key.sign_written(&[timestamp.as_bytes(), b".", signed.body]) {
                    value.push_str(",v1=");
                    value.push_str(&signature);
                }
            }
            vec![("Stripe-Signature", value)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u";
    const SIGNED: Signed<'_> =
        Signed { id: "msg_1", kind: "a.b", timestamp: 1_700_000_000, body: b"{\"type\":\"a.b\"}" };

    fn private() -> String {
        format!("whsk_{}", STANDARD.encode([1; 32]))
    }

    fn check(style: Style, secrets: &[&str], expected: &[(&str, &str)]) {
        let keys: Vec<Key> = secrets.iter().map(|secret| Key::parse(secret).unwrap()).collect();
        let headers = headers(style, &keys.iter().collect::<Vec<_>>(), &SIGNED);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(headers, expected);
    }

    #[test]
    fn signatures_are_those_of_the_standard() {
        let (v1, v1a) = (
            "v1,TN6bKjC5wX3hgoeJ34JLPrwDw7uzH0FxldylWOCrIeg=",
            "v1a,Mua/t4Vb+Ik5ATYIxjng5pJMA0mopnffyseQsmkfxUZod/VbCQ+rDAPY1UK92+rBrGcti0aiNJN5gawhfUuMBQ==",
        );
        let both = format!("{v1} {v1a}");
        check(
            Style::Standard,
            &[SHARED, &private()],
            &[("webhook-id", "msg_1"), ("webhook-timestamp", "1700000000"), ("webhook-signature", &both)],
        );
        check(
            Style::Svix,
            &[SHARED],
            &[
                ("svix-id", "msg_1"),
                ("svix-timestamp", "1700000000"),
                ("svix-signature", v1),
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", "1700000000"),
                ("webhook-signature", v1),
            ],
        );
        let key = Key::parse(&private()).unwrap();
        assert_eq!(key.public().as_deref(), Some("whpk_iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="));
    }

    #[test]
    fn other_styles_use_the_secret_as_it_is_written() {
        // As the command line of OpenSSL computes them.
        check(
            Style::Github,
            &["a plain secret"],
            &[
                ("X-GitHub-Delivery", "msg_1"),
                ("X-GitHub-Event", "a.b"),
                ("X-Hub-Signature-256", "sha256=5386f1a5c075de9c4e046d27619e95a8ac24f132c764540b76197b18792cd526"),
            ],
        );
        check(
            Style::Stripe,
            &["a plain secret"],
            &[("Stripe-Signature", "t=1700000000,v1=d4feefbfc0de697c9781ccade5f38aa5af9fb94afdba104d492302a9bc56fcb4")],
        );
    }

    #[test]
    fn secrets_are_read_and_made() {
        for asymmetric in [false, true] {
            let secret = new_secret(asymmetric, [7; 32]);
            assert!(Key::parse(&secret).unwrap().check(Style::Standard).is_ok());
        }
        for (text, error) in [
            ("whsec_!", SecretError::Form),
            ("whsec_c2hvcnQ=", SecretError::Length),
            ("whsk_c2hvcnQ=", SecretError::Length),
            ("short", SecretError::Length),
        ] {
            assert_eq!(Key::parse(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(Key::parse("a plain secret").unwrap().check(Style::Standard), Err(SecretError::Style));
        assert_eq!(Key::parse(&private()).unwrap().check(Style::Github), Err(SecretError::Style));
    }
}
