//! Keys that check signed tokens.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde_json::{Map, Value};

/// Tokens longer than this many bytes are not looked at.
const TOKEN_MAX: usize = 8192;

/// A key that checks tokens: a shared secret, or the public half of a key pair.
#[derive(Clone)]
pub struct Key {
    /// The name under which tokens ask for it, if it has one.
    id: Option<String>,
    /// The bytes of a shared secret, for those who send it rather than sign with it.
    secret: Option<Vec<u8>>,
    key: DecodingKey,
    family: AlgorithmFamily,
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has no bytes.
    #[error("key is empty, give it at least one byte")]
    Empty,
    /// It begins with `base64:` and what follows is not base64.
    #[error("key is not base64 behind `base64:`, write its bytes in the standard alphabet")]
    Base64,
    /// It is PEM, but no public key that can be used here.
    #[error("PEM holds no public key that can be used, give it an RSA key, an EC key on P-256 or an Ed25519 key")]
    Pem,
    /// It is no set of JSON web keys.
    #[error("file is no set of JSON web keys, write it as {{\"keys\":[...]}}: {0}")]
    Set(String),
}

impl Key {
    /// Reads a key: `base64:` and bytes, a public key in PEM, or a secret as it stands.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        use_own_provider();
        if text.trim_start().starts_with("-----BEGIN") {
            let pem = text.as_bytes();
            let key = DecodingKey::from_ec_pem(pem)
                .or_else(|_| DecodingKey::from_rsa_pem(pem))
                .or_else(|_| DecodingKey::from_ed_pem(pem))
                .map_err(|_unknown| KeyError::Pem)?;
            return Ok(Self { id: None, secret: None, family: key.family(), key });
        }
        let secret = match text.strip_prefix("base64:") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_not_base64| KeyError::Base64)?,
            None => text.as_bytes().to_vec(),
        };
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        let key = DecodingKey::from_secret(&secret);
        Ok(Self { id: None, family: key.family(), secret: Some(secret), key })
    }

    /// Whether `presented` is the base64 text of this secret. Takes a time that does not tell how much was right.
    #[must_use]
    pub fn is_base64_of(&self, presented: &[u8]) -> bool {
        self.secret.as_ref().is_some_and(|secret| is_equal(STANDARD.encode(secret).as_bytes(), presented))
    }

    /// Whether a token with this header and signature is signed with this key. The key says which algorithms are fine,
    /// never the token, or a public key could be taken for a secret.
    fn has_signed(&self, token: &Parts<'_>) -> bool {
        let names_another = matches!((&self.id, token.key_id.as_deref()), (Some(own), Some(asked)) if own != asked);
        !names_another
            && self.allows(token.algorithm)
            && crypto::verify(token.signature, token.message.as_bytes(), &self.key, token.algorithm).unwrap_or(false)
    }

    fn allows(&self, algorithm: Algorithm) -> bool {
        match self.family {
            AlgorithmFamily::Hmac => matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512),
            AlgorithmFamily::Rsa => matches!(algorithm, Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512),
            AlgorithmFamily::Ec => matches!(algorithm, Algorithm::ES256 | Algorithm::ES384),
            AlgorithmFamily::Ed => algorithm == Algorithm::EdDSA,
        }
    }
}

/// The public keys of a set of JSON web keys (RFC 7517). Keys of kinds unknown here are passed over, secrets too: a set
/// is public.
///
/// # Errors
/// [`KeyError::Set`].
pub fn keys_of_set(text: &str) -> Result<Vec<Key>, KeyError> {
    use_own_provider();
    let set: JwkSet = serde_json::from_str(text).map_err(|error| KeyError::Set(error.to_string()))?;
    let key = |jwk: &jsonwebtoken::jwk::Jwk| {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let public = key.family() != AlgorithmFamily::Hmac;
        public.then(|| Key { id: jwk.common.key_id.clone(), secret: None, family: key.family(), key })
    };
    Ok(set.keys.iter().filter_map(key).collect())
}

/// A token taken apart, its signature not checked yet.
struct Parts<'a> {
    message: &'a str,
    signature: &'a str,
    claims: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header: Value = decode(header)?;
        let algorithm = header.get("alg")?.as_str()?.parse().ok()?;
        let key_id = header.get("kid").and_then(Value::as_str).map(str::to_owned);
        Some(Self { message, signature: signature.trim_end_matches('='), claims, algorithm, key_id })
    }
}

/// The claims of a token that one of `keys` has signed.
pub(crate) fn claims<'a>(token: &str, mut keys: impl Iterator<Item = &'a Key>) -> Option<Map<String, Value>> {
    let parts = Parts::of(token.trim())?;
    if !keys.any(|key| key.has_signed(&parts)) {
        return None;
    }
    decode(parts.claims)
}

/// Whether the times of a token are fine: it must end, and `leeway_s` is how wrong a clock may be.
pub(crate) fn is_in_time(claims: &Map<String, Value>, now_unix_s: u64, leeway_s: u64) -> bool {
    let (now, leeway) = (now_unix_s as f64, leeway_s as f64);
    let number = |name: &str| match claims.get(name) {
        None => Some(None),
        Some(value) => value.as_f64().map(Some),
    };
    let ends = matches!(number("exp"), Some(Some(exp)) if exp + leeway > now);
    let begun = |name| matches!(number(name), Some(begin) if begin.is_none_or(|begin| begin <= now + leeway));
    ends && begun("nbf") && begun("iat")
}

pub(crate) fn is_equal(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?).ok()
}

/// Names the provider of cryptography. It may be set once, so being late is fine.
fn use_own_provider() {
    crypto::aws_lc::DEFAULT_PROVIDER.install_default().ok();
}

/// Secrets are shown nowhere.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("family", &self.family).finish_non_exhaustive()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |key: &Self| key.key.try_get_as_bytes().map(<[u8]>::to_vec).ok();
        self.id == other.id && self.family == other.family && self.secret == other.secret && bytes(self) == bytes(other)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use jsonwebtoken::EncodingKey;
    use serde_json::json;

    use super::*;

    pub(crate) fn token(header: &str, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
        use_own_provider();
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    pub(crate) fn hs256(secret: &[u8], claims: &Value) -> String {
        token(r#"{"typ":"JWT","alg":"HS256"}"#, claims, &EncodingKey::from_secret(secret), Algorithm::HS256)
    }

    const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    const EC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\nOF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n-----END PRIVATE KEY-----\n";
    const EC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9\nq9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==\n-----END PUBLIC KEY-----\n";

    #[test]
    fn the_worked_example_of_the_publish_api_is_signed_by_its_key() {
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJwcm9iZSIsImV4cCI6MjAwMDAwMDAwMH0.\
                     3OjQ7Riy5XpXxqHJ-lnPxztZK5ljhcruAlSfVgyDxgg";
        let key = Key::parse("base64:c2VjcmV0").unwrap();
        assert_eq!(claims(token, [&key].into_iter()).unwrap()["iss"], "probe");
        // The base64 text of the key is not the key.
        assert!(claims(token, [&Key::parse("c2VjcmV0").unwrap()].into_iter()).is_none());
    }

    #[test]
    fn each_kind_of_key_takes_its_own_algorithm_alone() {
        let says = json!({ "exp": 1 });
        let ed = token(
            r#"{"alg":"EdDSA"}"#,
            &says,
            &EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap(),
            Algorithm::EdDSA,
        );
        let ec = token(
            r#"{"alg":"ES256"}"#,
            &says,
            &EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap(),
            Algorithm::ES256,
        );
        let hs = hs256(b"secret", &says);
        // A public key that is taken for a secret would let everybody sign.
        let forged = hs256(EC_PUBLIC.as_bytes(), &says);
        let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
        let keys = [ED_PUBLIC, EC_PUBLIC, "secret"].map(|text| Key::parse(text).unwrap());
        for (token, expected) in [
            (&ed, [true, false, false]),
            (&ec, [false, true, false]),
            (&hs, [false, false, true]),
            (&forged, [false; 3]),
            (&none, [false; 3]),
        ] {
            let taken = keys.each_ref().map(|key| claims(token, [key].into_iter()).is_some());
            assert_eq!(taken, expected, "{token}");
        }
    }

    #[test]
    fn a_set_gives_public_keys_by_their_names() {
        let set = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
            { "kty": "oct", "kid": "two", "k": "c2VjcmV0" },
        ] });
        let keys = keys_of_set(&set.to_string()).unwrap();
        assert_eq!(keys.len(), 1);
        let key = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
        let signed = |header| token(header, &json!({}), &key, Algorithm::EdDSA);
        assert!(claims(&signed(r#"{"alg":"EdDSA","kid":"one"}"#), keys.iter()).is_some());
        assert!(claims(&signed(r#"{"alg":"EdDSA"}"#), keys.iter()).is_some());
        assert!(claims(&signed(r#"{"alg":"EdDSA","kid":"two"}"#), keys.iter()).is_none());
        assert!(matches!(keys_of_set("[]"), Err(KeyError::Set(_))));
    }

    #[test]
    fn a_token_must_end_and_have_begun() {
        for (times, expected) in [
            (json!({ "exp": 1061 }), true),
            (json!({ "exp": 1040 }), true),
            (json!({ "exp": 940 }), false),
            (json!({ "exp": 1_900_000_000_000_u64 }), true),
            (json!({ "exp": "1061" }), false),
            (json!({}), false),
            (json!({ "exp": 2000, "nbf": 1059 }), true),
            (json!({ "exp": 2000, "nbf": 1061 }), false),
            (json!({ "exp": 2000, "iat": 1061 }), false),
        ] {
            assert_eq!(is_in_time(times.as_object().unwrap(), 1000, 60), expected, "{times}");
        }
    }

    #[test]
    fn keys_that_cannot_be_used_say_why() {
        assert_eq!(Key::parse(""), Err(KeyError::Empty));
        assert_eq!(Key::parse("base64:"), Err(KeyError::Empty));
        assert_eq!(Key::parse("base64:%"), Err(KeyError::Base64));
        assert_eq!(Key::parse("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), Err(KeyError::Pem));
        assert!(!format!("{:?}", Key::parse("hush")).contains("hush"));
    }
}
