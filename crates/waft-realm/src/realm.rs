//! A realm: who it is, and who may do what in it.

use std::time::Duration;

use crate::{ChannelKind, Grant, Key, Pattern};

/// What a client does with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// See who is there, and be seen.
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
    /// How long a member may be away, and a channel without listeners, before that is told: 5 s, since an event source
    /// comes back after 2 s.
    pub presence_grace: Duration,
    /// Members of one channel: 1,000.
    pub members_max: usize,
    /// Members of all channels: 20,000.
    pub members_total_max: usize,
    /// Bytes of the data of one member: 1 KiB.
    pub member_data_max: usize,
}

/// What the channel for that tells of the life of a realm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tells {
    /// Which channels are occupied.
    pub channels: bool,
    /// Who connects, and why a connection ends.
    pub connections: bool,
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
            presence_grace: Duration::from_secs(5),
            members_max: 1_000,
            members_total_max: 20_000,
            member_data_max: 1 << 10,
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
    /// What is told of its life.
    pub tells: Tells,
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
            tells: Tells::default(),
        }
    }

    /// Whether a client with this grant (`None`: without a token) may do this with a channel.
    ///
    /// Who may see the members of a channel may read of their coming and going. Nobody publishes to a reserved channel,
    /// and that of the realm's life has to be named by the rule that opens it.
    #[must_use]
    pub fn may(&self, operation: Operation, channel: &str, grant: Option<&Grant>) -> bool {
        match ChannelKind::of(channel) {
            ChannelKind::Ordinary => self.allows(operation, grant, |pattern| pattern.matches(channel)),
            _ if operation != Operation::Read => false,
            ChannelKind::Presence(watched) if ChannelKind::of(watched).is_reserved() => false,
            ChannelKind::Presence(watched) => {
                self.allows(Operation::Presence, grant, |pattern| pattern.matches(watched))
            }
            ChannelKind::Lifecycle => {
                self.allows(operation, grant, |pattern| matches!(pattern, Pattern::Exact(name) if name == channel))
            }
        }
    }

    /// Whether a client may do this with all channels that a pattern names.
    #[must_use]
    pub fn may_all(&self, operation: Operation, channels: &Pattern, grant: Option<&Grant>) -> bool {
        match channels {
            Pattern::Exact(channel) => self.may(operation, channel, grant),
            _ => self.allows(operation, grant, |pattern| pattern.covers(channels)),
        }
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
    fn reserved_channels_have_rules_of_their_own() {
        let mut realm = realm();
        let everything = Rule {
            channels: vec![Pattern::parse("**")],
            operations: vec![Operation::Read, Operation::Publish],
            everyone: true,
        };
        realm.rules.push(everything);
        realm.rules.push(Rule {
            channels: vec![Pattern::parse("chat/*"), Pattern::parse("*")],
            operations: vec![Operation::Presence],
            everyone: true,
        });
        let watcher = Grant { read: vec![Pattern::parse("@lifecycle")], ..Grant::default() };
        let check = |operation, channel: &str, expected: bool| {
            assert_eq!(realm.may(operation, channel, None), expected, "{operation:?} {channel}");
            assert_eq!(realm.may_all(operation, &Pattern::parse(channel), None), expected, "{operation:?} {channel}");
        };
        check(Operation::Read, "chat/a/@presence", true);
        check(Operation::Publish, "chat/a/@presence", false);
        check(Operation::Read, "news/a/@presence", false);
        check(Operation::Read, "chat/@presence/@presence", false);
        check(Operation::Read, "@lifecycle", false);
        check(Operation::Publish, "@lifecycle", false);
        check(Operation::Presence, "@lifecycle", false);
        check(Operation::Read, "@lifecycle/@presence", false);
        assert!(realm.may(Operation::Read, "@lifecycle", Some(&watcher)));
        assert!(!realm.may(Operation::Publish, "@lifecycle", Some(&watcher)));
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
