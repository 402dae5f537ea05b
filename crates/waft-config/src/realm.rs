//! Realms as the native file writes them.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use waft_realm::{Key, Operation, Pattern, is_realm_name};

use crate::mistake::Mistake;
use crate::section::section;
use crate::value::{Allowed, Audience, ByteSize, Duration, Told};

section! {
    /// A realm of the push service: a tenant with channels of its own. The table may stand many times. A route with
    /// `realm = "..."` is where its clients connect; publishers use `/realm/NAME/publish/` of the control API.
    RealmEntry {
        /// Its name in paths, tokens and routes: letters, digits, `-` and `_`.
        name: String = "default".to_owned();
        /// Keys that sign the tokens of publishers and clients: `base64:` and bytes, or a text. Any of them is taken, so
        /// that a new one can be added before the old one is taken away.
        keys: Vec<String> = Vec::new();
        /// Opaque tokens of publishers, as Fastly's API has them.
        publish_tokens: Vec<String> = Vec::new();
        /// Further keys that sign tokens of clients only: public keys in PEM, or as `keys`.
        client_keys: Vec<String> = Vec::new();
        /// File with a set of JSON web keys that sign tokens of clients, beside the process's directory.
        jwks_file: Option<PathBuf> = None, as "\"/etc/waft/jwks.json\"";
        /// What clients may do, as in `{ channels = ["news/**"], allow = ["read"], to = "everyone" }`. `allow` is any of
        /// `read`, `publish` and `presence`; `to` is `everyone` or `clients` (who have a token of the realm). What
        /// neither a rule nor the client's token allows is refused.
        access: Vec<AccessEntry> = Vec::new();
        /// Origin headers that are let in. Empty: all.
        origins: Vec<String> = Vec::new();
        /// Connections held at a time. More are answered with 503.
        connections_max: NonZeroUsize = NonZeroUsize::new(10_000).unwrap_or(NonZeroUsize::MIN);
        /// Bayeux clients at a time. More handshakes are refused.
        sessions_max: NonZeroUsize = NonZeroUsize::new(10_000).unwrap_or(NonZeroUsize::MIN);
        /// Channels that one client may be subscribed to.
        subscriptions_max: NonZeroUsize = NonZeroUsize::new(200).unwrap_or(NonZeroUsize::MIN);
        /// Messages that one client may publish in a second.
        publish_rate: u32 = 50;
        /// Bytes of one message of a client.
        message_max: ByteSize = ByteSize(64 << 10);
        /// How long a poll is held before it is answered with nothing.
        hold: Duration = Duration::from_secs(45);
        /// How long a member of a channel may be away before the others are told, and how long a channel may be without
        /// listeners before that is. An `EventSource` comes back after two seconds.
        presence_grace: Duration = Duration::from_secs(5);
        /// Members of one channel. More are refused.
        members_max: NonZeroUsize = NonZeroUsize::new(1_000).unwrap_or(NonZeroUsize::MIN);
        /// Members of all channels together. More are refused.
        members_total_max: NonZeroUsize = NonZeroUsize::new(20_000).unwrap_or(NonZeroUsize::MIN);
        /// Bytes of the data of one member.
        member_data_max: ByteSize = ByteSize(1 << 10);
        /// What is published to the channel `@lifecycle`: `channels` (which are occupied and vacated) and `connections`
        /// (who connects, and why a connection ends). Empty: nothing, at no cost.
        lifecycle: Vec<Told> = Vec::new();
    }
}

/// One rule of what clients may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessEntry {
    /// Channels, or patterns of them.
    pub channels: Vec<String>,
    /// What is allowed.
    pub allow: Vec<Allowed>,
    /// To whom.
    #[serde(default = "clients")]
    pub to: Audience,
}

const fn clients() -> Audience {
    Audience::Clients
}

impl RealmEntry {
    /// The realm that is meant, without the keys of its file.
    ///
    /// # Errors
    /// A sentence about the first thing that cannot be.
    pub fn to_realm(&self) -> Result<waft_realm::Realm, String> {
        if !is_realm_name(&self.name) {
            return Err(format!("`{}` cannot name a realm; use letters, digits, `-` and `_`", self.name));
        }
        let keys = |texts: &[String], what| -> Result<Vec<Key>, String> {
            let read =
                |text: &String| Key::parse(text).map_err(|error| format!("realm `{}`: {what}: {error}", self.name));
            texts.iter().map(read).collect()
        };
        let mut realm = waft_realm::Realm::new(&self.name);
        realm.keys = keys(&self.keys, "keys")?;
        realm.client_keys = keys(&self.client_keys, "client_keys")?;
        realm.publish_tokens.clone_from(&self.publish_tokens);
        if realm.publish_tokens.iter().any(String::is_empty) {
            return Err(format!("realm `{}`: publish_tokens: an empty token lets nobody in; remove it", self.name));
        }
        realm.rules = self.access.iter().map(AccessEntry::to_rule).collect();
        realm.origins.clone_from(&self.origins);
        realm.limits = waft_realm::Limits {
            connections_max: self.connections_max.get(),
            sessions_max: self.sessions_max.get(),
            subscriptions_max: self.subscriptions_max.get(),
            publish_rate: self.publish_rate,
            message_max: self.message_max.as_usize(),
            hold: self.hold.0,
            presence_grace: self.presence_grace.0,
            members_max: self.members_max.get(),
            members_total_max: self.members_total_max.get(),
            member_data_max: self.member_data_max.as_usize(),
        };
        realm.tells = waft_realm::Tells {
            channels: self.lifecycle.contains(&Told::Channels),
            connections: self.lifecycle.contains(&Told::Connections),
        };
        Ok(realm)
    }
}

impl AccessEntry {
    fn to_rule(&self) -> waft_realm::Rule {
        waft_realm::Rule {
            channels: self.channels.iter().map(|text| Pattern::parse(text)).collect(),
            operations: self
                .allow
                .iter()
                .map(|allowed| match allowed {
                    Allowed::Presence => Operation::Presence,
                    Allowed::Publish => Operation::Publish,
                    Allowed::Read => Operation::Read,
                })
                .collect(),
            everyone: self.to == Audience::Everyone,
        }
    }
}

/// Judges all realms, and that routes name known ones.
pub(crate) fn judge<'a>(
    realms: &[RealmEntry],
    named: impl Iterator<Item = &'a str>,
    place: &str,
    mistakes: &mut Vec<Mistake>,
) {
    let mut refuse = |text: String| mistakes.push(Mistake { place: place.to_owned(), text });
    for (number, entry) in realms.iter().enumerate() {
        if let Err(text) = entry.to_realm() {
            refuse(text);
        }
        if realms.iter().take(number).any(|other| other.name == entry.name) {
            refuse(format!("realm `{}` stands twice; keep one of them", entry.name));
        }
    }
    for name in named {
        if !realms.iter().any(|entry| entry.name == name) {
            refuse(format!("route.realm: there is no realm `{name}`; add a [[realm]] with that name"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::native::{Sources, load};

    fn read(text: &str) -> Result<crate::Plan, String> {
        let sources = Sources { file: Some("waft.toml".into()), ..Sources::default() };
        load(&sources, &|_| Ok(text.to_owned())).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn a_realm_is_read_with_its_rules() {
        let text = "[[realm]]\nname = \"demo\"\nkeys = [\"base64:c2VjcmV0\"]\n\
                    access = [{ channels = [\"/news/**\"], allow = [\"read\"], to = \"everyone\" }]\n\
                    [[route]]\nrealm = \"demo\"\n";
        let plan = read(text).unwrap();
        let realm = plan.realms[0].to_realm().unwrap();
        assert!(realm.may(waft_realm::Operation::Read, "news/a", None));
        assert_eq!(plan.routes[0].options.realm.as_deref(), Some("demo"));
        assert_eq!(plan.routes[0].options.prefix, "realm:demo:");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, expected) in [
            ("[[realm]]\nname = \"a/b\"\n", "cannot name a realm"),
            ("[[realm]]\n[[realm]]\n", "realm `default` stands twice"),
            ("[[realm]]\nkeys = [\"\"]\n", "key is empty"),
            ("[[realm]]\npublish_tokens = [\"\"]\n", "an empty token"),
            ("[[realm]]\nkies = []\n", "did you mean `keys`"),
            ("[[realm]]\naccess = [{ channels = [], allow = [\"write\"] }]\n", "`write` is not"),
            ("[[route]]\nrealm = \"x\"\n", "there is no realm `x`"),
        ] {
            let mistakes = read(text).unwrap_err();
            assert!(mistakes.contains(expected), "{text}\n{mistakes}");
        }
    }
}
