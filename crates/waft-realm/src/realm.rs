//! A realm: who it is, and who may do what in it.

use std::time::Duration;

use crate::{Grant, Key, Pattern};

/// What a client does with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// See who is there.
    Presence,
    /// Publish to it.
    Publish,
    /// Get what is published.
    Read,
}

/// A rule that lets clients do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of which channels.
    pub channels: Vec<Pattern>,
    /// What.
    pub operations: Vec<Operation>,
    /// Everyone, rather than clients with a token of the realm.
    pub everyone: bool,
}

/// What the clients of one realm may take of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are held at a time: 10,000.
    pub connections_max: usize,
    /// Bayeux clients at a time: 10,000.
    pub sessions_max: usize,
    /// Channels of one client: 200.
    pub subscriptions_max: usize,
    /// Messages that one connection or Bayeux client may publish in a second, after a burst of as many: 50.
    pub publish_rate: u32,
    /// Bytes of one message of a client: 64 KiB.
    pub message_max: usize,
    /// How long a poll is held: 45 s.
    pub hold: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            sessions_max: 10_000,
            subscriptions_max: 200,
            publish_rate: 50,
            message_max: 64 << 10,
            hold: Duration::from_secs(45),
        }
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Realm {
    /// Its name, in paths and tokens.
    pub name: String,
    /// Its keys: any of them signs tokens of publishers and of clients, so that one can be changed for another.
    pub keys: Vec<Key>,
    /// Opaque tokens of publishers.
    pub publish_tokens: Vec<String>,
    /// Further keys that sign tokens of clients only.
    pub client_keys: Vec<Key>,
    /// What clients may do. What no rule and no token allows is refused.
    pub rules: Vec<Rule>,
    /// Values of Origin that are let in, as a route has them. Empty: all.
    pub origins: Vec<String>,
    /// What its clients may take.
    pub limits: Limits,
}

impl Realm {
    /// A realm without keys, in which nobody may do anything.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            keys: Vec::new(),
            publish_tokens: Vec::new(),
            client_keys: Vec::new(),
            rules: Vec::new(),
            origins: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Whether a client with this grant (`None`: without a token) may do this with a channel.
    #[must_use]
    pub fn may(&self, operation: Operation, channel: &str, grant: Option<&Grant>) -> bool {
        self.allows(operation, grant, |pattern| pattern.matches(channel))
    }

    /// Whether a client may do this with all channels that a pattern names.
    #[must_use]
    pub fn may_all(&self, operation: Operation, channels: &Pattern, grant: Option<&Grant>) -> bool {
        self.allows(operation, grant, |pattern| pattern.covers(channels))
    }

    fn allows(&self, operation: Operation, grant: Option<&Grant>, fits: impl Fn(&Pattern) -> bool) -> bool {
        let by_rule = self.rules.iter().any(|rule| {
            (rule.everyone || grant.is_some())
                && rule.operations.contains(&operation)
                && rule.channels.iter().any(&fits)
        });
        by_rule || grant.is_some_and(|grant| grant.channels(operation).iter().any(&fits))
    }
}

/// What stands before the names of a realm's channels in the hub, so that no two realms share one.
#[must_use]
pub fn channel_prefix(realm: &str) -> String {
    format!("realm:{realm}:")
}

/// Whether a text can name a realm: letters, digits, `-` and `_`, up to 64 of them.
#[must_use]
pub fn is_realm_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whether a text can name a channel: up to 255 bytes, none of them a control character.
#[must_use]
pub fn is_channel(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm() -> Realm {
        let rule = |channels: &str, operations: &[Operation], everyone| Rule {
            channels: vec![Pattern::parse(channels)],
            operations: operations.to_vec(),
            everyone,
        };
        let mut realm = Realm::new("r");
        realm.rules = vec![
            rule("public/**", &[Operation::Read], true),
            rule("chat/*", &[Operation::Read, Operation::Publish], false),
        ];
        realm
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let token = Grant { publish: vec![Pattern::parse("mine")], ..Grant::default() };
        let check = |operation, channel: &str, anonymous: bool, with_token: bool| {
            assert_eq!(realm().may(operation, channel, None), anonymous, "{operation:?} {channel} without a token");
            assert_eq!(realm().may(operation, channel, Some(&token)), with_token, "{operation:?} {channel} with one");
        };
        check(Operation::Read, "public/a", true, true);
        check(Operation::Publish, "public/a", false, false);
        check(Operation::Read, "chat/a", false, true);
        check(Operation::Publish, "chat/a", false, true);
        check(Operation::Presence, "chat/a", false, false);
        check(Operation::Read, "chat/a/b", false, false);
        check(Operation::Publish, "mine", false, true);
        check(Operation::Read, "mine", false, false);
    }

    #[test]
    fn all_channels_of_a_pattern_have_to_be_allowed() {
        let may = |text| realm().may_all(Operation::Read, &Pattern::parse(text), None);
        assert!(may("public/*") && may("public/**") && may("public/a/*"));
        assert!(!may("**") && !may("*") && !may("chat/*"));
    }

    #[test]
    fn names_are_judged() {
        assert!(is_realm_name("12ab34cd") && is_realm_name("A-b_1"));
        assert!(
            !is_realm_name("") && !is_realm_name("a/b") && !is_realm_name("a:b") && !is_realm_name(&"a".repeat(65))
        );
        assert!(is_channel("a/b c") && !is_channel("") && !is_channel("a\n") && !is_channel(&"a".repeat(256)));
    }
}
