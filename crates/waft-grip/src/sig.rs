//! `Grip-Sig`: the token that tells an origin that a request came through the proxy (GRIP sections 3.1 and 3.5).
//!
//! Times are arguments, Unix seconds. The one thing read from outside is the key file of a `file:` key, when the
//! configuration is loaded.

mod pem;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, crypto};

use crate::keepalive::hex_digit;
use crate::lenient;

/// Name of the header that carries the token.
pub const NAME: &str = "Grip-Sig";

/// Seconds for which a token is valid.
pub const LIFETIME_SECONDS: u64 = 3600;

/// Tokens longer than this many bytes are not looked at. Those of an RSA key of 4096 bits have about 800.
pub const MAX_TOKEN: usize = 8192;

/// A key that makes tokens.
///
/// Written as in configurations: plain text is the secret itself; `base64:...` is the secret in base64; `file:PATH` names
/// a file with a private key in PEM (EC on P-256, or RSA) or a secret in hex.
#[derive(Clone)]
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
}

/// A key that checks tokens: a [`SigningKey`] in any of its forms, or a public key in PEM.
#[derive(Clone)]
pub struct VerifyingKey {
    key: DecodingKey,
    family: AlgorithmFamily,
}

/// Makes the tokens of one issuer, one each second, as requests within one second get equal tokens anyway.
#[derive(Clone, Debug)]
pub struct Signer {
    key: SigningKey,
    issuer: String,
    latest: Option<(u64, String)>,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file cannot be read.
    #[error("cannot read key file {path}, check that it exists and may be read: {source}")]
    Read {
        /// The file, after resolving it against the base directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is PEM, but of no kind that can be used here.
    #[error("key file is PEM but holds no usable key, give it an EC key on P-256 or an RSA key of 2048 bits or more")]
    Pem,
    /// The file is not PEM and its content is not hex.
    #[error("key file is neither PEM nor hex, put the secret into it as hex digits")]
    Hex,
    /// The secret has no bytes.
    #[error("key is empty, give it at least one byte")]
    Empty,
}

/// Why a token cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The issuer cannot be written as JSON.
    #[error("issuer cannot be written: {0}")]
    Issuer(#[from] serde_json::Error),
    /// The key failed.
    #[error("signing failed, check the key: {0}")]
    Key(#[from] jsonwebtoken::errors::Error),
}

impl SigningKey {
    /// Reads a key from configuration. Relative paths of files are taken from `base_dir`. `None` for an empty text,
    /// which stands for no key.
    ///
    /// # Errors
    /// [`KeyError`]; a key that cannot sign is found here and not at the first request.
    pub fn parse(text: &str, base_dir: &Path) -> Result<Option<Self>, KeyError> {
        let Some(material) = Material::read(text, base_dir)? else { return Ok(None) };
        use_own_provider();
        let key = match material {
            Material::Secret(secret) => Self { key: EncodingKey::from_secret(&secret), algorithm: Algorithm::HS256 },
            Material::Pem(pem) => pem::private_key(&pem).ok_or(KeyError::Pem)?,
        };
        // A trial shows whether the curve and the size suit the algorithm.
        match crypto::sign(b"trial", &key.key, key.algorithm) {
            Ok(_) => Ok(Some(key)),
            Err(_) => Err(KeyError::Pem),
        }
    }

    /// A token for `issuer` that is valid for [`LIFETIME_SECONDS`].
    ///
    /// # Errors
    /// [`SignError`]; the request should then go on unsigned.
    pub fn sign(&self, issuer: &str, now_unix_s: u64) -> Result<String, SignError> {
        let expires = now_unix_s.saturating_add(LIFETIME_SECONDS);
        let claims = format!(r#"{{"exp":{expires},"iss":{}}}"#, serde_json::to_string(issuer)?);
        let header = match self.algorithm {
            Algorithm::ES256 => r#"{"typ":"JWT","alg":"ES256"}"#,
            Algorithm::RS256 => r#"{"typ":"JWT","alg":"RS256"}"#,
            _ => r#"{"typ":"JWT","alg":"HS256"}"#,
        };
        let mut token = String::with_capacity(192);
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = crypto::sign(token.as_bytes(), &self.key, self.algorithm)?;
        token.push('.');
        token.push_str(&signature);
        Ok(token)
    }
}

impl Signer {
    /// Signs with `key` in the name of `issuer`.
    #[must_use]
    pub fn new(key: SigningKey, issuer: impl Into<String>) -> Self {
        Self { key, issuer: issuer.into(), latest: None }
    }

    /// The token for a request sent at `now_unix_s`.
    ///
    /// # Errors
    /// As [`SigningKey::sign`].
    pub fn token(&mut self, now_unix_s: u64) -> Result<&str, SignError> {
        let latest = match self.latest.take() {
            Some((made, token)) if made == now_unix_s => (made, token),
            _ => (now_unix_s, self.key.sign(&self.issuer, now_unix_s)?),
        };
        Ok(self.latest.insert(latest).1.as_str())
    }
}

impl VerifyingKey {
    /// Reads a key as [`SigningKey::parse`] does, public keys in PEM included.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str, base_dir: &Path) -> Result<Option<Self>, KeyError> {
        let Some(material) = Material::read(text, base_dir)? else { return Ok(None) };
        use_own_provider();
        let key = match material {
            Material::Secret(secret) => DecodingKey::from_secret(&secret),
            Material::Pem(pem) => pem::public_key(&pem).ok_or(KeyError::Pem)?,
        };
        Ok(Some(Self { family: key.family(), key }))
    }

    /// Whether `token` was signed with this key and has not expired. `iss` is not looked at, and a token without `exp`
    /// is refused.
    #[must_use]
    pub fn verify(&self, token: &[u8], now_unix_s: u64) -> bool {
        self.expiry(token).is_some_and(|expires| expires > 0.0 && expires > now_unix_s as f64)
    }

    /// The `exp` claim of a token with a good signature.
    fn expiry(&self, token: &[u8]) -> Option<f64> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?.trim();
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header: serde_json::Value = decode(header)?;
        let algorithm: Algorithm = header.get("alg")?.as_str()?.parse().ok()?;
        // The key says which algorithms are fine, never the token, or a public key could be taken for a secret.
        if !self.allows(algorithm) || !crypto::verify(signature, message.as_bytes(), &self.key, algorithm).ok()? {
            return None;
        }
        let claims: serde_json::Value = decode(claims)?;
        claims.get("exp")?.as_f64()
    }

    fn allows(&self, algorithm: Algorithm) -> bool {
        match self.family {
            AlgorithmFamily::Hmac => matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512),
            AlgorithmFamily::Rsa => matches!(algorithm, Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512),
            AlgorithmFamily::Ec => algorithm == Algorithm::ES256,
            _ => false,
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("family", &self.family).finish_non_exhaustive()
    }
}

/// What a configured key consists of.
enum Material {
    Secret(Vec<u8>),
    Pem(String),
}

impl Material {
    fn read(text: &str, base_dir: &Path) -> Result<Option<Self>, KeyError> {
        if text.is_empty() {
            return Ok(None);
        }
        let material = if let Some(encoded) = text.strip_prefix("base64:") {
            Self::Secret(lenient::base64(encoded.as_bytes()))
        } else if let Some(path) = text.strip_prefix("file:") {
            let path = base_dir.join(path);
            let content = std::fs::read_to_string(&path).map_err(|source| KeyError::Read { path, source })?;
            if content.trim_start().starts_with("-----BEGIN") {
                Self::Pem(content)
            } else {
                Self::Secret(decode_hex(content.trim().as_bytes()).ok_or(KeyError::Hex)?)
            }
        } else if text.trim_start().starts_with("-----BEGIN") {
            // A public key taken for a secret would let anybody sign.
            Self::Pem(text.to_owned())
        } else {
            Self::Secret(text.as_bytes().to_vec())
        };
        match material {
            Self::Secret(secret) if secret.is_empty() => Err(KeyError::Empty),
            material => Ok(Some(material)),
        }
    }
}

/// Names the provider of cryptography, so that another crate that turns on a second one cannot leave the process with
/// none. It may be set once, so being late is fine.
fn use_own_provider() {
    crypto::aws_lc::DEFAULT_PROVIDER.install_default().ok();
}

fn decode(part: &str) -> Option<serde_json::Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(hex_digit(*high)? << 4 | hex_digit(*low)?),
        _ => None,
    };
    text.chunks(2).map(pair).collect()
}
