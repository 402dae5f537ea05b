//! The realms of a gateway, and what each has at the moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use waft_realm::{Rate, Realm, channel_prefix};

use super::bayeux::Sessions;
use super::forms;
use super::lifecycle::Life;
use super::presence::Members;
use super::stay::Guest;

/// The realms by name. Shared by all shards.
#[derive(Debug, Default)]
pub struct Realms {
    known: ArcSwap<HashMap<String, Arc<Tenant>>>,
    /// Whether some realm tells of the life of its channels.
    tells_channels: AtomicBool,
}

/// A realm at work: its rules, and what its clients take at the moment.
#[derive(Debug)]
pub struct Tenant {
    prefix: String,
    rules: ArcSwap<Realm>,
    connections: Arc<AtomicUsize>,
    /// Messages published by requests, one each.
    rate: Mutex<Option<Rate>>,
    patterns: Patterns,
    sessions: Sessions,
    members: Members,
    life: Life,
    /// Tells names of connections from those of another run.
    run: u32,
}

/// The patterns of channels that Bayeux clients of a realm listen to.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    count: AtomicUsize,
    users: Mutex<HashMap<String, usize>>,
}

/// Stands before the names of patterns, and never in the name of a channel.
pub(super) const PATTERN_MARK: char = '\u{1}';

impl Realms {
    /// The realm of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Tenant>> {
        self.known.load().get(name).map(Arc::clone)
    }

    /// The realm whose channel this is in the hub.
    pub(crate) fn of(&self, hub_name: &str) -> Option<Arc<Tenant>> {
        let name = hub_name.strip_prefix("realm:")?.split(':').next()?;
        self.get(name)
    }

    /// All realms, in no order.
    pub fn all(&self) -> Vec<Arc<Tenant>> {
        self.known.load().values().map(Arc::clone).collect()
    }

    /// A channel of the hub has its first listener or has lost the last one: that is noted, if its realm tells of it.
    pub(crate) fn note(&self, hub_name: &str, is_occupied: bool) {
        if self.tells_channels.load(Ordering::Relaxed)
            && let Some(tenant) = self.of(hub_name).filter(|tenant| tenant.rules.load().tells.channels)
        {
            tenant.life.note(forms::own_name(hub_name), is_occupied);
        }
    }

    /// Puts these realms in the place of those that were. One that stays keeps its clients.
    pub fn replace(&self, realms: &[Realm]) {
        let before = self.known.load();
        let tenant = |realm: &Realm| match before.get(&realm.name) {
            Some(tenant) => {
                tenant.rules.store(Arc::new(realm.clone()));
                Arc::clone(tenant)
            }
            None => Arc::new(Tenant::new(realm.clone())),
        };
        let known = realms.iter().map(|realm| (realm.name.clone(), tenant(realm))).collect();
        self.known.store(Arc::new(known));
        self.tells_channels.store(realms.iter().any(|realm| realm.tells.channels), Ordering::Relaxed);
    }
}

impl Patterns {
    /// Somebody listens to a pattern from now on.
    pub(crate) fn add(&self, pattern: &str) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        *users.entry(pattern.to_owned()).or_insert(0) += 1;
        self.count.store(users.len(), Ordering::Release);
    }

    /// Somebody listens no more.
    pub(crate) fn remove(&self, pattern: &str) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(pattern) {
            *count -= 1;
            if *count == 0 {
                users.remove(pattern);
            }
        }
        self.count.store(users.len(), Ordering::Release);
    }

    /// The patterns that show a channel to somebody.
    pub(crate) fn showing(&self, channel: &str) -> Vec<String> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        waft_bayeux::patterns_of(channel).filter(|pattern| users.contains_key(pattern)).collect()
    }
}

impl Tenant {
    fn new(realm: Realm) -> Self {
        Self {
            prefix: channel_prefix(&realm.name),
            rules: ArcSwap::from_pointee(realm),
            connections: Arc::default(),
            rate: Mutex::default(),
            patterns: Patterns::default(),
            sessions: Sessions::default(),
            members: Members::default(),
            life: Life::default(),
            run: fastrand::u32(..),
        }
    }

    /// Counts a message that is published by a single request. False if there were too many.
    pub(crate) fn take_from_rate(&self, now: Instant) -> bool {
        let limit = self.rules.load().limits.publish_rate;
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.get_or_insert_with(|| Rate::full(limit, now)).take(limit, now)
    }

    /// What holds in it now.
    pub fn realm(&self) -> Arc<Realm> {
        self.rules.load_full()
    }

    /// What its channels are called in the hub.
    pub fn hub_name(&self, channel: &str) -> String {
        [&self.prefix, channel].concat()
    }

    /// What a pattern of its channels is called in the hub, where it has a log of its own.
    pub(crate) fn pattern_name(&self, pattern: &str) -> String {
        let mut name = self.prefix.clone();
        name.push(PATTERN_MARK);
        name.push_str(pattern);
        name
    }

    /// Connections held for its clients.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    pub(super) fn run(&self) -> u32 {
        self.run
    }

    /// Members of all its channels.
    pub fn members_total(&self) -> usize {
        self.members.len()
    }

    /// Members of one of its channels.
    pub fn members_of(&self, channel: &str) -> usize {
        self.members.count(channel)
    }

    /// Bayeux clients that there are.
    pub fn bayeux_clients(&self) -> usize {
        self.sessions.len()
    }

    /// Counts one more held connection, if there may be one.
    pub(crate) fn admit(&self) -> Option<Guest> {
        let limit = self.rules.load().limits.connections_max;
        let counted = self
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < limit).then_some(count + 1));
        counted.ok().map(|_| Guest::counted(&self.connections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_that_stays_keeps_its_clients() {
        let realms = Realms::default();
        let mut realm = Realm::new("a");
        realm.limits.connections_max = 2;
        realms.replace(&[realm.clone(), Realm::new("b")]);
        let tenant = realms.get("a").unwrap();
        let first = tenant.admit().unwrap();
        let _second = tenant.admit().unwrap();
        assert!(tenant.admit().is_none());
        realm.limits.connections_max = 3;
        realms.replace(&[realm]);
        assert!(realms.get("b").is_none());
        let again = realms.get("a").unwrap();
        assert_eq!(again.connections(), 2);
        let _third = again.admit().unwrap();
        assert!(again.admit().is_none());
        drop(first);
        assert_eq!(again.connections(), 2);
        assert_eq!(again.hub_name("c/d"), "realm:a:c/d");
    }
}
