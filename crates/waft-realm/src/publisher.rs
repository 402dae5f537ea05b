//! Who may call the publish API of a realm.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::Realm;
use crate::key::{claims, is_equal, is_in_time};

/// What a publisher showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may publish.
    Admitted,
    /// Its token is good, and for another realm.
    Forbidden,
    /// It showed nothing, or nothing good.
    Unauthorized,
}

/// How wrong a publisher's clock may be, in seconds.
const LEEWAY_S: u64 = 60;
/// Longer fields are refused unread.
const AUTHORIZATION_MAX: usize = 9 * 1024;

impl Realm {
    /// Judges the `Authorization` field of a call, or the `Fastly-Key` field where it came in that.
    #[must_use]
    pub fn judge_publisher(&self, authorization: Option<&[u8]>, fastly_key: Option<&[u8]>, now_unix_s: u64) -> Verdict {
        if fastly_key.is_some_and(|presented| self.is_publish_token(presented)) {
            return Verdict::Admitted;
        }
        let Some(value) = authorization.filter(|value| value.len() <= AUTHORIZATION_MAX) else {
            return Verdict::Unauthorized;
        };
        let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
        let (scheme, credentials) = value.split_at(space);
        let credentials = credentials.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.judge_bearer(credentials, now_unix_s);
        }
        if scheme.eq_ignore_ascii_case(b"basic") && self.is_basic(credentials) {
            return Verdict::Admitted;
        }
        Verdict::Unauthorized
    }

    fn judge_bearer(&self, token: &[u8], now_unix_s: u64) -> Verdict {
        if self.is_publish_token(token) {
            return Verdict::Admitted;
        }
        let Some(claims) = std::str::from_utf8(token).ok().and_then(|token| claims(token, self.keys.iter())) else {
            return Verdict::Unauthorized;
        };
        match claims.get("iss").and_then(Value::as_str) {
            _ if !is_in_time(&claims, now_unix_s, LEEWAY_S) => Verdict::Unauthorized,
            Some(issuer) if issuer == self.name => Verdict::Admitted,
            _ => Verdict::Forbidden,
        }
    }

    /// A realm's name and the base64 text of one of its keys, or a publish token. Some libraries wrap the value in
    /// `b'...'`, and some break it with line feeds.
    fn is_basic(&self, credentials: &[u8]) -> bool {
        let unwrapped = credentials.strip_prefix(b"b'").and_then(|rest| rest.strip_suffix(b"'")).unwrap_or(credentials);
        let text: Vec<u8> = unwrapped.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let Ok(pair) = STANDARD.decode(text) else { return false };
        let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
        let (user, password) = pair.split_at(colon);
        let password = password.get(1..).unwrap_or_default();
        self.is_publish_token(password)
            || (user == self.name.as_bytes() && self.keys.iter().any(|key| key.is_base64_of(password)))
    }

    fn is_publish_token(&self, presented: &[u8]) -> bool {
        self.publish_tokens.iter().any(|token| is_equal(token.as_bytes(), presented))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Key;
    use crate::key::tests::hs256;

    fn realm() -> Realm {
        let mut realm = Realm::new("probe");
        realm.keys = vec![Key::parse("base64:c2VjcmV0").unwrap(), Key::parse("older").unwrap()];
        realm.publish_tokens = vec!["opaque".to_owned()];
        realm
    }

    fn check(authorization: &str, expected: Verdict) {
        assert_eq!(realm().judge_publisher(Some(authorization.as_bytes()), None, 1000), expected, "{authorization}");
    }

    #[test]
    fn a_token_of_either_key_is_taken_for_its_own_realm_alone() {
        let signed = |key: &[u8], claims| format!("Bearer {}", hs256(key, &claims));
        check(&signed(b"secret", json!({ "iss": "probe", "exp": 1500 })), Verdict::Admitted);
        check(&signed(b"older", json!({ "iss": "probe", "exp": 1500 })), Verdict::Admitted);
        check(&signed(b"secret", json!({ "iss": "probe", "exp": 1_500_000_000_000_u64 })), Verdict::Admitted);
        check(&signed(b"secret", json!({ "iss": "other", "exp": 1500 })), Verdict::Forbidden);
        check(&signed(b"secret", json!({ "exp": 1500 })), Verdict::Forbidden);
        check(&signed(b"secret", json!({ "iss": "probe", "exp": 900 })), Verdict::Unauthorized);
        check(&signed(b"third", json!({ "iss": "probe", "exp": 1500 })), Verdict::Unauthorized);
        check(&signed(b"c2VjcmV0", json!({ "iss": "probe", "exp": 1500 })), Verdict::Unauthorized);
    }

    #[test]
    fn opaque_tokens_and_basic_credentials_are_taken_as_libraries_send_them() {
        check("Bearer opaque", Verdict::Admitted);
        check("Bearer opaqu", Verdict::Unauthorized);
        let basic = |pair: &str| STANDARD.encode(pair);
        check(&format!("Basic {}", basic("probe:c2VjcmV0")), Verdict::Admitted);
        check(&format!("Basic b'{}'", basic("probe:c2VjcmV0")), Verdict::Admitted);
        check(&format!("Basic {}\n", basic("any:opaque")), Verdict::Admitted);
        check(&format!("Basic {}", basic("other:c2VjcmV0")), Verdict::Unauthorized);
        check(&format!("Basic {}", basic("probe:secret")), Verdict::Unauthorized);
        check("Basic", Verdict::Unauthorized);
        check("", Verdict::Unauthorized);
        let verdict = |fastly: &[u8]| realm().judge_publisher(None, Some(fastly), 1000);
        assert_eq!((verdict(b"opaque"), verdict(b"x")), (Verdict::Admitted, Verdict::Unauthorized));
        assert_eq!(realm().judge_publisher(None, None, 1000), Verdict::Unauthorized);
    }
}
