//! What a client's token lets it do.

use serde_json::{Map, Value};

use crate::key::{claims, is_in_time};
use crate::{Operation, Pattern, Realm};

/// What a client has shown that it may do, beyond what the rules of its realm say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// Who it is (`sub`), for presence.
    pub subject: Option<String>,
    /// What others see of it in presence (`info`).
    pub info: Option<Value>,
    /// Channels it may read (`channels`).
    pub read: Vec<Pattern>,
    /// Channels it may publish to (`publish`).
    pub publish: Vec<Pattern>,
    /// Channels whose members it may see (`presence`).
    pub presence: Vec<Pattern>,
    /// When it ends, in Unix seconds.
    pub expires: u64,
}

/// Why a client's token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It is no token, or no key of the realm has signed it.
    #[error("the token is not signed with a key of this realm")]
    Signature,
    /// It is over, has not begun, or never ends.
    #[error("the token is not valid at this time; it needs `exp`")]
    Time,
    /// It names another realm as its issuer.
    #[error("the token is for another realm")]
    Issuer,
}

/// How wrong clocks may be, in seconds.
const LEEWAY_S: u64 = 60;

impl Realm {
    /// Reads a client's token, which a key of the realm or one of its keys for clients has signed.
    ///
    /// # Errors
    /// [`GrantError`].
    pub fn grant(&self, token: &str, now_unix_s: u64) -> Result<Grant, GrantError> {
        let keys = self.keys.iter().chain(&self.client_keys);
        let claims = claims(token, keys).ok_or(GrantError::Signature)?;
        if !is_in_time(&claims, now_unix_s, LEEWAY_S) {
            return Err(GrantError::Time);
        }
        // Whoever signs with a key of its own may call itself anything, as long as it names no realm by mistake.
        if claims.get("iss").is_some_and(|issuer| self.client_keys.is_empty() && issuer != self.name.as_str()) {
            return Err(GrantError::Issuer);
        }
        Ok(Grant {
            subject: claims.get("sub").and_then(Value::as_str).map(str::to_owned),
            info: claims.get("info").cloned(),
            read: patterns(&claims, "channels"),
            publish: patterns(&claims, "publish"),
            presence: patterns(&claims, "presence"),
            expires: claims.get("exp").and_then(Value::as_f64).map_or(0, |exp| exp as u64),
        })
    }
}

impl Grant {
    /// The channels that it opens for an operation.
    #[must_use]
    pub fn channels(&self, operation: Operation) -> &[Pattern] {
        match operation {
            Operation::Presence => &self.presence,
            Operation::Publish => &self.publish,
            Operation::Read => &self.read,
        }
    }
}

fn patterns(claims: &Map<String, Value>, name: &str) -> Vec<Pattern> {
    let list = claims.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(Pattern::parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Key;
    use crate::key::tests::hs256;

    #[test]
    fn a_token_says_what_its_bearer_may_do() {
        let mut realm = Realm::new("demo");
        realm.keys = vec![Key::parse("new").unwrap(), Key::parse("old").unwrap()];
        let says = json!({
            "iss": "demo", "exp": 2000, "sub": "ann", "info": { "nick": "A" },
            "channels": ["a", "b*"], "publish": ["a"],
        });
        for key in ["new", "old"] {
            let grant = realm.grant(&hs256(key.as_bytes(), &says), 1000).unwrap();
            assert_eq!((grant.subject.as_deref(), grant.expires), (Some("ann"), 2000));
            for (operation, channel, expected) in [
                (Operation::Read, "a", true),
                (Operation::Read, "bc", true),
                (Operation::Read, "c", false),
                (Operation::Publish, "a", true),
                (Operation::Publish, "bc", false),
                (Operation::Presence, "a", false),
            ] {
                assert_eq!(realm.may(operation, channel, Some(&grant)), expected, "{operation:?} {channel}");
            }
        }
        let refused = |key: &str, says: Value, now| realm.grant(&hs256(key.as_bytes(), &says), now).unwrap_err();
        assert_eq!(refused("third", says.clone(), 1000), GrantError::Signature);
        assert_eq!(refused("new", says, 3000), GrantError::Time);
        assert_eq!(refused("new", json!({ "iss": "demo" }), 1000), GrantError::Time);
        assert_eq!(refused("new", json!({ "iss": "other", "exp": 2000 }), 1000), GrantError::Issuer);
    }
}
