//! What is told of the life of channels and connections.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// Which channels of a realm have listeners, without the flutter of clients that come back at once.
///
/// A channel is told as occupied when its first listener comes, and as vacated when it has had none for a grace.
#[derive(Debug, Default)]
pub struct Occupancy {
    /// Channels that were told as occupied, with the end of their grace if nobody listens.
    channels: HashMap<Arc<str>, Option<Instant>>,
    due: BTreeSet<(Instant, Arc<str>)>,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifecycle<'a> {
    /// A client has connected.
    Connected(&'a Visitor),
    /// A client has gone, after so many seconds.
    Disconnected(&'a Visitor, Reason, u64),
    /// A channel has its first listener.
    Occupied(&'a str),
    /// A channel has lost its last listener.
    Vacated(&'a str),
}

/// A connection as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// Its name, the same when it goes.
    pub id: String,
    /// How the client is connected: `sse`, `ndjson`, `websocket`, `bayeux`.
    pub transport: &'static str,
    /// What its token says it is, if it says so.
    pub user: Option<String>,
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// What it was to get next was no longer in the log.
    Behind,
    /// The client has ended it.
    Closed,
    /// Its time was over.
    Expired,
    /// The process stops.
    GoingAway,
    /// It broke off, or the client showed no sign of life.
    Lost,
    /// The client broke the rules of its protocol.
    Refused,
    /// The client read too slowly.
    Slow,
}

impl Reason {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::GoingAway => "going-away",
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::Slow => "slow",
        }
    }
}

impl Lifecycle<'_> {
    /// It as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let value = match self {
            Self::Connected(visitor) => Value::Object(visitor.fields("connect")),
            Self::Disconnected(visitor, reason, seconds) => {
                let mut fields = visitor.fields("disconnect");
                fields.insert("reason".to_owned(), reason.as_str().into());
                fields.insert("seconds".to_owned(), (*seconds).into());
                Value::Object(fields)
            }
            Self::Occupied(channel) => json!({ "event": "occupied", "channel": channel }),
            Self::Vacated(channel) => json!({ "event": "vacated", "channel": channel }),
        };
        value.to_string()
    }
}

impl Visitor {
    fn fields(&self, event: &str) -> Map<String, Value> {
        let told = [("event", event), ("connection", &self.id), ("transport", self.transport)];
        let user = self.user.as_deref().map(|user| ("user", user));
        told.into_iter().chain(user).map(|(name, text)| (name.to_owned(), text.into())).collect()
    }
}

impl Occupancy {
    /// A channel has listeners from now on, or none. True if it is to be told as occupied.
    pub fn note(&mut self, now: Instant, grace: Duration, channel: &Arc<str>, is_occupied: bool) -> bool {
        match self.channels.get_mut(channel) {
            None if is_occupied => {
                self.channels.insert(Arc::clone(channel), None);
                return true;
            }
            None => {}
            Some(due) if is_occupied => {
                if let Some(due) = due.take() {
                    self.due.remove(&(due, Arc::clone(channel)));
                }
            }
            Some(Some(_)) => {}
            Some(due @ None) => {
                *due = Some(now + grace);
                self.due.insert((now + grace, Arc::clone(channel)));
            }
        }
        false
    }

    /// A channel that is to be told as vacated, if there is one; to be called until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<Arc<str>> {
        self.due.first().filter(|(due, _)| *due <= now)?;
        let (_, channel) = self.due.pop_first()?;
        self.channels.remove(&channel);
        Some(channel)
    }

    /// When [`expire`](Self::expire) has something next.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(2);

    #[test]
    fn a_flutter_is_not_told() {
        let (mut occupancy, now, channel) = (Occupancy::default(), Instant::now(), Arc::from("c"));
        assert!(!occupancy.note(now, GRACE, &channel, false), "it was never occupied");
        assert!(occupancy.note(now, GRACE, &channel, true));
        assert!(!occupancy.note(now, GRACE, &channel, false));
        assert_eq!(occupancy.next_due(), Some(now + GRACE));
        assert_eq!(occupancy.expire(now), None);
        assert!(!occupancy.note(now + GRACE / 2, GRACE, &channel, true));
        assert_eq!(occupancy.expire(now + GRACE), None);
        assert!(!occupancy.note(now + GRACE, GRACE, &channel, false));
        assert_eq!(occupancy.expire(now + GRACE * 2).as_deref(), Some("c"));
        assert!(occupancy.note(now + GRACE * 2, GRACE, &channel, true));
    }

    #[test]
    fn events_are_objects() {
        let visitor = Visitor { id: "7".to_owned(), transport: "sse", user: Some("ann".to_owned()) };
        let check = |event: &Lifecycle<'_>, expected: Value| {
            assert_eq!(serde_json::from_str::<Value>(&event.to_json()).unwrap(), expected);
        };
        check(
            &Lifecycle::Connected(&visitor),
            json!({ "event": "connect", "connection": "7", "transport": "sse", "user": "ann" }),
        );
        let visitor = Visitor { user: None, ..visitor };
        check(
            &Lifecycle::Disconnected(&visitor, Reason::GoingAway, 3),
            json!({ "event": "disconnect", "connection": "7", "transport": "sse", "reason": "going-away", "seconds": 3 }),
        );
        check(&Lifecycle::Occupied("a\"b"), json!({ "event": "occupied", "channel": "a\"b" }));
        check(&Lifecycle::Vacated("c"), json!({ "event": "vacated", "channel": "c" }));
    }

    proptest! {
        #[test]
        fn what_is_told_changes_in_turn_and_ends_with_what_is(
            notes in prop::collection::vec((0..3_u8, any::<bool>(), 0..3_u64), 0..60),
        ) {
            let (mut occupancy, mut now) = (Occupancy::default(), Instant::now());
            let (mut told, mut last): (BTreeMap<Arc<str>, bool>, BTreeMap<Arc<str>, bool>) = Default::default();
            let vacate = |occupancy: &mut Occupancy, told: &mut BTreeMap<Arc<str>, bool>, now| {
                while let Some(channel) = occupancy.expire(now) {
                    assert_eq!(told.insert(channel, false), Some(true));
                }
            };
            for (channel, is_occupied, wait) in notes {
                now += Duration::from_secs(wait);
                vacate(&mut occupancy, &mut told, now);
                let channel: Arc<str> = Arc::from(format!("c{channel}"));
                if occupancy.note(now, GRACE, &channel, is_occupied) {
                    assert_ne!(told.insert(Arc::clone(&channel), true), Some(true));
                }
                last.insert(channel, is_occupied);
            }
            vacate(&mut occupancy, &mut told, now + GRACE);
            last.retain(|_, is_occupied| *is_occupied);
            told.retain(|_, is_occupied| *is_occupied);
            prop_assert_eq!(told, last);
        }
    }
}
