//! Who may call the control API.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use waft_gateway::Answer;
use waft_grip::sig::VerifyingKey;

/// Longer `Authorization` fields are refused unread: room for a token of [`waft_grip::sig::MAX_TOKEN`] bytes.
const AUTHORIZATION_MAX: usize = 9 * 1024;

/// What a caller must show. With neither, everyone may call.
#[derive(Clone, Default)]
pub(crate) struct Guard {
    pub(crate) token: Option<String>,
    pub(crate) jwt_key: Option<VerifyingKey>,
}

impl Guard {
    /// Whether nothing is asked for.
    pub(crate) fn is_open(&self) -> bool {
        self.token.is_none() && self.jwt_key.is_none()
    }

    /// Whether a request with this `Authorization` field may be served. The time is asked for only when a signed token
    /// has to be judged; it is in Unix seconds.
    pub(crate) fn admits(&self, authorization: Option<&[u8]>, now_unix_s: impl FnOnce() -> u64) -> bool {
        if self.is_open() {
            return true;
        }
        let Some(value) = authorization.filter(|value| value.len() <= AUTHORIZATION_MAX) else { return false };
        let Some(space) = value.iter().position(|byte| *byte == b' ') else { return false };
        let (scheme, credentials) = value.split_at(space);
        let credentials = credentials.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.is_token(credentials)
                || self.jwt_key.as_ref().is_some_and(|key| key.verify(credentials, now_unix_s()));
        }
        scheme.eq_ignore_ascii_case(b"basic")
            && STANDARD.decode(credentials).is_ok_and(|pair| {
                let colon = pair.iter().position(|byte| *byte == b':');
                colon.and_then(|colon| pair.get(colon + 1..)).is_some_and(|password| self.is_token(password))
            })
    }

    /// Compares in a time that does not tell how much of the token was right.
    fn is_token(&self, presented: &[u8]) -> bool {
        self.token.as_ref().is_some_and(|token| verify_slices_are_equal(token.as_bytes(), presented).is_ok())
    }

    /// The answer to a caller who is not let in.
    pub(crate) fn refusal(&self) -> Answer {
        let mut answer = Answer::text(401, &b"Unauthorized\n"[..]);
        answer.fields.push("WWW-Authenticate", "Bearer realm=\"waft\"");
        if self.token.is_some() {
            answer.fields.push("WWW-Authenticate", "Basic realm=\"waft\"");
        }
        answer
    }
}

/// Secrets are shown nowhere.
impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("token", &self.token.is_some()).field("jwt_key", &self.jwt_key).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use waft_grip::sig::SigningKey;

    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    fn guard(token: Option<&str>, jwt_key: Option<&str>) -> Guard {
        let jwt_key = jwt_key.map(|key| VerifyingKey::parse(key, Path::new("/")).unwrap().unwrap());
        Guard { token: token.map(Into::into), jwt_key }
    }

    fn check(guard: &Guard, authorization: Option<&str>, expected: bool) {
        let admitted = guard.admits(authorization.map(str::as_bytes), || NOW_S);
        assert_eq!(admitted, expected, "{guard:?} {authorization:?}");
    }

    #[test]
    fn without_a_secret_everyone_is_let_in() {
        for authorization in [None, Some("Bearer x"), Some("nonsense")] {
            check(&guard(None, None), authorization, true);
        }
    }

    #[test]
    fn a_token_is_taken_as_bearer_or_as_password() {
        let guard = guard(Some("s3cret"), None);
        for good in ["Bearer s3cret", "bearer  s3cret", "Basic dXNlcjpzM2NyZXQ=", "BASIC OnMzY3JldA=="] {
            check(&guard, Some(good), true);
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3cret2",
            "Bearer S3CRET",
            "Basic s3cret",
            "Basic czNjcmV0",
            "Basic dXNlcjpzM2NyZQ==",
            "Digest s3cret",
            "s3cret",
        ] {
            check(&guard, Some(bad), false);
        }
        check(&guard, None, false);
        check(&guard, Some(&format!("Bearer {}", "s3cret".repeat(2000))), false);
    }

    #[test]
    fn a_signed_token_must_be_of_the_key_and_in_time() {
        let sign = |key: &str, at: u64| {
            format!("Bearer {}", SigningKey::parse(key, Path::new("/")).unwrap().unwrap().sign("me", at).unwrap())
        };
        let both = guard(Some("s3cret"), Some("key"));
        check(&both, Some(&sign("key", NOW_S)), true);
        check(&both, Some("Bearer s3cret"), true);
        check(&both, Some(&sign("other", NOW_S)), false);
        check(&both, Some(&sign("key", NOW_S - 4000)), false);
        let signed_only = guard(None, Some("key"));
        check(&signed_only, Some(&sign("key", NOW_S)), true);
        check(&signed_only, Some("Bearer "), false);
        check(&signed_only, Some("Basic Og=="), false);
        check(&signed_only, None, false);
    }

    #[test]
    fn a_signed_token_without_an_end_is_refused() {
        // {"alg":"HS256"} . {"iss":"me"}, signed with the secret `key`.
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJtZSJ9.lqzuiibL8o8e44FRR2prcjuUnrhwffVbjb-T9Kd4T-8";
        check(&guard(None, Some("key")), Some(&format!("Bearer {token}")), false);
    }

    #[test]
    fn the_refusal_says_what_is_asked_for() {
        let schemes = |guard: &Guard| {
            let answer = guard.refusal();
            assert_eq!((answer.status, &answer.body[..]), (401, &b"Unauthorized\n"[..]));
            answer
                .fields
                .get_all("WWW-Authenticate")
                .map(|v| String::from_utf8_lossy(v).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(schemes(&guard(Some("t"), None)), ["Bearer realm=\"waft\"", "Basic realm=\"waft\""]);
        assert_eq!(schemes(&guard(None, Some("k"))), ["Bearer realm=\"waft\""]);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", guard(Some("s3cret"), Some("k3y"))).contains("3"));
    }
}
