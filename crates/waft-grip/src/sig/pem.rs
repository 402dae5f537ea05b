//! Keys from PEM files in all forms that openssl writes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use super::SigningKey;

/// The identifiers of an EC key and of the curve P-256, as they stand in a PKCS#8 key.
const EC_P256: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

/// A private key, EC tried first.
pub(super) fn private_key(pem: &str) -> Option<SigningKey> {
    if let Some(key) = ec_private_key(pem) {
        return Some(SigningKey { key, algorithm: Algorithm::ES256 });
    }
    // Only private sections, as the reader below would take the inside of a public key for a private one.
    let section = section(pem, "RSA PRIVATE KEY").or_else(|| section(pem, "PRIVATE KEY"))?;
    let key = EncodingKey::from_rsa_pem(section.as_bytes()).ok()?;
    Some(SigningKey { key, algorithm: Algorithm::RS256 })
}

/// A public key, or the public half of a private one; EC tried first.
pub(super) fn public_key(pem: &str) -> Option<DecodingKey> {
    if let Some(section) = section(pem, "PUBLIC KEY") {
        return DecodingKey::from_ec_pem(section.as_bytes())
            .or_else(|_| DecodingKey::from_rsa_pem(section.as_bytes()))
            .ok();
    }
    if let Some(section) = section(pem, "RSA PUBLIC KEY") {
        return DecodingKey::from_rsa_pem(section.as_bytes()).ok();
    }
    let private = private_key(pem)?;
    let public = Jwk::from_encoding_key(&private.key, private.algorithm).ok()?;
    DecodingKey::from_jwk(&public).ok()
}

fn ec_private_key(pem: &str) -> Option<EncodingKey> {
    if let Some(section) = section(pem, "PRIVATE KEY") {
        return EncodingKey::from_ec_pem(section.as_bytes()).ok();
    }
    // The older form of RFC 5915, which is wrapped into the newer one.
    let section = section(pem, "EC PRIVATE KEY")?;
    let text: String = section.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let inner = STANDARD.decode(text).ok()?;
    let mut content = vec![0x02, 0x01, 0x00];
    content.extend_from_slice(&EC_P256);
    content.extend(der(0x04, &inner)?);
    Some(EncodingKey::from_ec_der(&der(0x30, &content)?))
}

/// The section of this kind with its first and last line. Files may have several, such as the parameters of a curve.
fn section(pem: &str, kind: &str) -> Option<String> {
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let (_, rest) = pem.split_once(&begin)?;
    let (body, _) = rest.split_once(&end)?;
    Some(format!("{begin}{body}{end}\n"))
}

/// One DER element. `None` if it is longer than any key.
fn der(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
    let mut out = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    out.extend_from_slice(content);
    Some(out)
}
