use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_795_444_984;

/// Keys made for these tests alone.
fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sig/keys")
}

fn signing(text: &str) -> SigningKey {
    SigningKey::parse(text, &dir()).unwrap().unwrap()
}

fn verifying(text: &str) -> VerifyingKey {
    VerifyingKey::parse(text, &dir()).unwrap().unwrap()
}

#[test]
fn a_token_has_exactly_the_known_header_and_claims() {
    let token = signing("changeme").sign("pushpin", NOW).unwrap();
    // Computed with another implementation of HMAC.
    assert_eq!(
        token,
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3OTU0NDg1ODQsImlzcyI6InB1c2hwaW4ifQ.fc3u3vfyJbfGj9ih0hvk2mITzDY7hUOs7VbVaJU-_1o"
    );
    assert!(verifying("changeme").verify(token.as_bytes(), NOW));
}

#[test]
fn every_form_of_a_key_checks_what_its_private_form_signed() {
    let cases: &[(&str, &[&str])] = &[
        ("changeme", &["changeme", "base64:Y2hhbmdlbWU=", "file:secret.hex"]),
        ("base64:AAEC", &["base64:AAEC"]),
        ("file:secret.hex", &["changeme"]),
        ("file:ec_sec1.pem", &["file:ec_sec1.pem", "file:ec_pkcs8.pem", "file:ec_pub.pem"]),
        ("file:ec_pkcs8.pem", &["file:ec_sec1.pem", "file:ec_pub.pem"]),
        ("file:rsa_pkcs1.pem", &["file:rsa_pkcs1.pem", "file:rsa_pkcs8.pem", "file:rsa_pub.pem", "file:rsa_pub1.pem"]),
        ("file:rsa_pkcs8.pem", &["file:rsa_pub.pem"]),
    ];
    for (signer, verifiers) in cases {
        let token = signing(signer).sign("us", NOW).unwrap();
        for verifier in *verifiers {
            assert!(verifying(verifier).verify(token.as_bytes(), NOW), "{signer} by {verifier}");
        }
        for other in ["other", "file:ec_pub.pem", "file:rsa_pub.pem"].into_iter().filter(|o| !verifiers.contains(o)) {
            assert!(!verifying(other).verify(token.as_bytes(), NOW), "{signer} by {other}");
        }
    }
}

#[test]
fn the_algorithm_follows_the_key() {
    for (key, algorithm) in [("k", "HS256"), ("file:ec_pkcs8.pem", "ES256"), ("file:rsa_pkcs1.pem", "RS256")] {
        let token = signing(key).sign("us", NOW).unwrap();
        let header = token.split('.').next().unwrap();
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        assert_eq!(text, format!(r#"{{"typ":"JWT","alg":"{algorithm}"}}"#));
    }
}

#[test]
fn an_issuer_with_quotes_stays_one_claim() {
    let token = signing("k").sign("a\",\"exp\":1,\"\n", NOW).unwrap();
    assert!(verifying("k").verify(token.as_bytes(), NOW));
}

#[test]
fn tokens_expire_after_their_lifetime() {
    let token = signing("k").sign("us", NOW).unwrap();
    let key = verifying("k");
    assert!(key.verify(token.as_bytes(), NOW + LIFETIME_SECONDS - 1));
    assert!(!key.verify(token.as_bytes(), NOW + LIFETIME_SECONDS));
}

fn token(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = crypto::sign(message.as_bytes(), &EncodingKey::from_secret(b"k"), Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

#[test]
fn only_complete_tokens_are_accepted() {
    let hs = r#"{"alg":"HS256"}"#;
    let cases: &[(&str, &str, bool)] = &[
        (hs, r#"{"exp":2}"#, true),
        (hs, r#"{"exp":2.5}"#, true),
        (hs, r#"{"exp":1}"#, false),
        (hs, r#"{"exp":"2"}"#, false),
        (hs, r#"{"exp":null}"#, false),
        (hs, r#"{"iss":"us"}"#, false),
        (hs, "text", false),
        (r#"{"alg":"none"}"#, r#"{"exp":2}"#, false),
        (r#"{"alg":"HS512"}"#, r#"{"exp":2}"#, false),
        (r#"{"typ":"JWT"}"#, r#"{"exp":2}"#, false),
    ];
    for (header, claims, expected) in cases {
        assert_eq!(verifying("k").verify(token(header, claims).as_bytes(), 1), *expected, "{header} {claims}");
    }
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(r#"{"exp":2}"#));
    assert!(!verifying("k").verify(unsigned.as_bytes(), 1));
}

#[test]
fn a_public_key_is_not_taken_for_a_secret() {
    let public = std::fs::read(dir().join("rsa_pub.pem")).unwrap();
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(r#"{"exp":2}"#));
    let signature = crypto::sign(message.as_bytes(), &EncodingKey::from_secret(&public), Algorithm::HS256).unwrap();
    assert!(!verifying("file:rsa_pub.pem").verify(format!("{message}.{signature}").as_bytes(), 1));
}

#[test]
fn keys_that_cannot_be_used_are_refused_when_read() {
    assert!(SigningKey::parse("", &dir()).unwrap().is_none());
    assert!(VerifyingKey::parse("", &dir()).unwrap().is_none());
    let refused = |text: &str| SigningKey::parse(text, &dir()).unwrap_err();
    assert!(matches!(refused("base64:"), KeyError::Empty));
    assert!(matches!(refused("file:missing.pem"), KeyError::Read { path, .. } if path.ends_with("missing.pem")));
    assert!(matches!(refused("file:../pem.rs"), KeyError::Hex));
    for public_or_unsuited in ["file:ec_pub.pem", "file:rsa_pub.pem", "file:rsa_pub1.pem", "file:ec384.pem"] {
        assert!(matches!(refused(public_or_unsuited), KeyError::Pem), "{public_or_unsuited}");
    }
}

#[test]
fn a_signer_makes_one_token_each_second() {
    let mut signer = Signer::new(signing("file:ec_pkcs8.pem"), "us");
    // Signatures on P-256 are never equal, so an equal token is the kept one.
    let first = signer.token(NOW).unwrap().to_owned();
    assert_eq!(signer.token(NOW).unwrap(), first);
    assert_ne!(signer.token(NOW + 1).unwrap(), first);
}

#[test]
fn debug_output_does_not_show_the_secret() {
    let shown = format!("{:?} {:?}", signing("hush-hush"), verifying("hush-hush"));
    assert!(!shown.contains("hush"), "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_panic(token: Vec<u8>) {
        prop_assert!(!verifying("k").verify(&token, 0));
    }

    #[test]
    fn a_damaged_token_is_refused(at: prop::sample::Index, byte in b'0'..=b'9') {
        let mut token = signing("k").sign("us", NOW).unwrap().into_bytes();
        // The last character carries bits that base64 does not use.
        let at = at.index(token.len() - 1);
        prop_assume!(token[at] != byte);
        token[at] = byte;
        prop_assert!(!verifying("k").verify(&token, NOW));
    }
}
