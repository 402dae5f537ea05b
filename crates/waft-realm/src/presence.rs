//! Who is in the channels of a realm.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Grant, Limits, presence_channel};

/// The members of the channels of one realm.
///
/// A member is there by leases, one for each connection over which it has entered. When the last lease is
/// [lost](Self::lose), the member stays for a grace, in which it may come back as if nothing had been; when the last one
/// is [given back](Self::leave), it has left at once. Every call says what has to be told, so whoever replays all
/// [`Change`]s has the list of [`members`](Self::members) at any time.
#[derive(Debug, Default)]
pub struct Roster {
    channels: HashMap<Arc<str>, BTreeMap<Arc<str>, Member>>,
    /// Ends of graces.
    due: BTreeSet<(Instant, Arc<str>, Arc<str>)>,
    len: usize,
}

/// What a member is there by. It is to be given back by [`Roster::leave`] or [`Roster::lose`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is dropped leaves its member there for ever"]
pub struct Lease {
    channel: Arc<str>,
    member: Arc<str>,
}

#[derive(Debug)]
struct Member {
    data: Arc<str>,
    leases: usize,
    /// The end of its grace, if it has no lease.
    due: Option<Instant>,
}

/// Something to be told about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The channel that it is a member of.
    pub channel: Arc<str>,
    /// Its name.
    pub member: Arc<str>,
    /// What has happened.
    pub event: Event,
}

/// What has happened to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there from now on, with this JSON text.
    Joined(Arc<str>),
    /// It has gone and said so.
    Left,
    /// Its last connection ended, and it did not come back in time.
    Lost,
    /// It has other data now: this JSON text.
    Updated(Arc<str>),
}

/// Why a client cannot enter a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    /// The channel has `members_max`.
    #[error("the channel has as many members as it may")]
    ChannelFull,
    /// The data is longer than `member_data_max`.
    #[error("the data of a member may have {limit} bytes")]
    DataTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The name is missing or cannot be.
    #[error("a member needs a name of up to {NAME_MAX} bytes: `sub` of the token, or `member`")]
    NoName,
    /// Nobody can enter this channel.
    #[error("nobody can enter this channel")]
    NoChannel,
    /// All channels of the realm together have `members_total_max`.
    #[error("the realm has as many members as it may")]
    RealmFull,
}

/// Bytes of the name of a member.
const NAME_MAX: usize = 128;

/// Stands before the names that clients have given themselves.
const OWN_NAME_MARK: char = '~';

/// The name of a client as a member: what its token says it is (`sub`), or else what it calls itself, with `~` before it,
/// so that nobody passes for the owner of a token.
///
/// # Errors
/// [`EnterError::NoName`].
pub fn member_name(grant: Option<&Grant>, own: Option<&str>) -> Result<String, EnterError> {
    let subject = grant.and_then(|grant| grant.subject.as_deref());
    let name = match (subject, own) {
        (Some(subject), _) if !subject.starts_with(OWN_NAME_MARK) => subject.to_owned(),
        (Some(_), _) | (None, None | Some("")) => return Err(EnterError::NoName),
        (None, Some(own)) => format!("{OWN_NAME_MARK}{own}"),
    };
    let can_be = (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if can_be { Ok(name) } else { Err(EnterError::NoName) }
}

impl Roster {
    /// A client enters a channel under a name, with a JSON text in one line (`null` for no data). What comes with the lease
    /// is to be told, if anything is.
    ///
    /// # Errors
    /// [`EnterError`]; nothing has changed then.
    pub fn enter(
        &mut self,
        limits: &Limits,
        channel: &str,
        member: &str,
        data: &str,
    ) -> Result<(Lease, Option<Change>), EnterError> {
        if presence_channel(channel).is_none() {
            return Err(EnterError::NoChannel);
        }
        if data.len() > limits.member_data_max {
            return Err(EnterError::DataTooLong { limit: limits.member_data_max });
        }
        let found = self.channels.get_key_value(channel);
        let (channel, members) = match found {
            Some((name, members)) => (Arc::clone(name), Some(members)),
            None => (Arc::from(channel), None),
        };
        let known = members.and_then(|members| members.get_key_value(member));
        if known.is_none() && self.len >= limits.members_total_max {
            return Err(EnterError::RealmFull);
        }
        if known.is_none() && members.map_or(0, BTreeMap::len) >= limits.members_max {
            return Err(EnterError::ChannelFull);
        }
        let name = known.map_or_else(|| Arc::from(member), |(name, _)| Arc::clone(name));
        let members = self.channels.entry(Arc::clone(&channel)).or_default();
        let event = match members.get_mut(&name) {
            Some(member) => {
                member.leases += 1;
                if let Some(due) = member.due.take() {
                    self.due.remove(&(due, Arc::clone(&channel), Arc::clone(&name)));
                }
                (*member.data != *data).then(|| {
                    member.data = Arc::from(data);
                    Event::Updated(Arc::clone(&member.data))
                })
            }
            None => {
                let data: Arc<str> = Arc::from(data);
                members.insert(Arc::clone(&name), Member { data: Arc::clone(&data), leases: 1, due: None });
                self.len += 1;
                Some(Event::Joined(data))
            }
        };
        let lease = Lease { channel: Arc::clone(&channel), member: Arc::clone(&name) };
        Ok((lease, event.map(|event| Change { channel, member: name, event })))
    }

    /// A client has said that it leaves.
    pub fn leave(&mut self, lease: Lease) -> Option<Change> {
        let member = self.give_back(&lease)?;
        if member.leases > 0 {
            return None;
        }
        self.remove(lease, Event::Left)
    }

    /// The connection of a client has ended: it may come back within `grace`.
    pub fn lose(&mut self, now: Instant, grace: Duration, lease: Lease) {
        let Some(member) = self.give_back(&lease) else { return };
        if member.leases == 0 {
            let due = now + grace;
            member.due = Some(due);
            self.due.insert((due, lease.channel, lease.member));
        }
    }

    /// A member whose grace is over, if there is one; to be called until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<Change> {
        self.due.first().filter(|(due, ..)| *due <= now)?;
        let (_, channel, member) = self.due.pop_first()?;
        self.remove(Lease { channel, member }, Event::Lost)
    }

    /// When [`expire`](Self::expire) has something next.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// The members of a channel by name, each with its JSON text.
    pub fn members(&self, channel: &str) -> impl ExactSizeIterator<Item = (&str, &str)> {
        static NOBODY: BTreeMap<Arc<str>, Member> = BTreeMap::new();
        let members = self.channels.get(channel).unwrap_or(&NOBODY);
        members.iter().map(|(name, member)| (&**name, &*member.data))
    }

    /// Members of all channels.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody is anywhere.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn give_back(&mut self, lease: &Lease) -> Option<&mut Member> {
        let member = self.channels.get_mut(&lease.channel)?.get_mut(&lease.member)?;
        member.leases = member.leases.saturating_sub(1);
        Some(member)
    }

    fn remove(&mut self, Lease { channel, member }: Lease, event: Event) -> Option<Change> {
        let members = self.channels.get_mut(&channel)?;
        members.remove(&member)?;
        self.len -= 1;
        if members.is_empty() {
            self.channels.remove(&channel);
        }
        Some(Change { channel, member, event })
    }
}

impl Lease {
    /// The channel that was entered.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The name under which.
    #[must_use]
    pub fn member(&self) -> &str {
        &self.member
    }
}

impl Change {
    /// The change as JSON text: `event`, `id` and `data` or `reason`.
    #[must_use]
    pub fn to_json(&self) -> String {
        match &self.event {
            Event::Joined(data) => format!(r#"{{"event":"join",{}}}"#, fields(&self.member, data)),
            Event::Updated(data) => format!(r#"{{"event":"update",{}}}"#, fields(&self.member, data)),
            Event::Left => format!(r#"{{"event":"leave","id":{},"reason":"left"}}"#, quoted(&self.member)),
            Event::Lost => format!(r#"{{"event":"leave","id":{},"reason":"lost"}}"#, quoted(&self.member)),
        }
    }
}

/// A member as a JSON object: `id`, and `data` if it has any.
#[must_use]
pub fn member_json(member: &str, data: &str) -> String {
    format!("{{{}}}", fields(member, data))
}

fn fields(member: &str, data: &str) -> String {
    let id = quoted(member);
    if data == "null" { format!(r#""id":{id}"#) } else { format!(r#""id":{id},"data":{data}"#) }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn limits() -> Limits {
        Limits { members_max: 2, members_total_max: 3, member_data_max: 10, ..Limits::default() }
    }

    fn enter(roster: &mut Roster, channel: &str, member: &str, data: &str) -> (Lease, Option<Value>) {
        let (lease, change) = roster.enter(&limits(), channel, member, data).unwrap();
        (lease, change.map(|change| shown(&change)))
    }

    fn shown(change: &Change) -> Value {
        serde_json::from_str(&change.to_json()).unwrap()
    }

    fn list(roster: &Roster, channel: &str) -> Vec<(String, String)> {
        roster.members(channel).map(|(name, data)| (name.to_owned(), data.to_owned())).collect()
    }

    #[test]
    fn who_comes_back_in_time_has_not_been_away() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let (lease, change) = enter(&mut roster, "c", "ann", "1");
        assert_eq!(change, Some(json!({ "event": "join", "id": "ann", "data": 1 })));
        roster.lose(now, GRACE, lease);
        assert_eq!(roster.next_due(), Some(now + GRACE));
        assert_eq!(roster.expire(now + GRACE / 2), None);
        let (lease, change) = enter(&mut roster, "c", "ann", "1");
        assert_eq!((change, roster.next_due()), (None, None));
        assert_eq!(roster.expire(now + 2 * GRACE), None);
        roster.lose(now, GRACE, lease);
        let gone = roster.expire(now + GRACE).unwrap();
        assert_eq!(shown(&gone), json!({ "event": "leave", "id": "ann", "reason": "lost" }));
        assert!(roster.is_empty() && roster.members("c").len() == 0 && roster.channels.is_empty());
    }

    #[test]
    fn a_member_of_two_connections_leaves_with_the_last_one() {
        let mut roster = Roster::default();
        let (first, _) = enter(&mut roster, "c", "ann", "1");
        let (second, change) = enter(&mut roster, "c", "ann", "2");
        assert_eq!(change, Some(json!({ "event": "update", "id": "ann", "data": 2 })));
        assert_eq!((first.channel(), first.member()), ("c", "ann"));
        assert_eq!(roster.leave(first), None);
        assert_eq!(list(&roster, "c"), [("ann".to_owned(), "2".to_owned())]);
        let left = roster.leave(second).unwrap();
        assert_eq!(shown(&left), json!({ "event": "leave", "id": "ann", "reason": "left" }));
        assert_eq!(roster.len(), 0);
    }

    #[test]
    fn limits_hold_and_change_nothing() {
        let mut roster = Roster::default();
        let mut leases = Vec::new();
        let mut check = |channel: &str, member: &str, data: &str, expected: Result<(), EnterError>| {
            let before = roster.len();
            let entered = roster.enter(&limits(), channel, member, data);
            let is_refused = entered.is_err();
            assert_eq!(entered.map(|(lease, _)| leases.push(lease)), expected, "{channel} {member}");
            assert!(!is_refused || roster.len() == before);
        };
        check("c", "a", "null", Ok(()));
        check("c", "b", "0123456789", Ok(()));
        check("c", "c", "null", Err(EnterError::ChannelFull));
        check("c", "b", "01234567890", Err(EnterError::DataTooLong { limit: 10 }));
        check("c", "b", "1", Ok(()));
        check("d", "a", "null", Ok(()));
        check("d", "b", "null", Err(EnterError::RealmFull));
        check("d/@presence", "b", "null", Err(EnterError::NoChannel));
    }

    #[test]
    fn nobody_passes_for_the_owner_of_a_token() {
        let check = |subject: Option<&str>, own: Option<&str>, expected: Option<&str>| {
            let grant = Grant { subject: subject.map(str::to_owned), ..Grant::default() };
            assert_eq!(member_name(Some(&grant), own).ok().as_deref(), expected, "{subject:?} {own:?}");
        };
        check(Some("ann"), Some("bob"), Some("ann"));
        check(None, Some("ann"), Some("~ann"));
        check(Some("~ann"), None, None);
        check(Some(""), Some("a"), None);
        check(None, None, None);
        check(None, Some(""), None);
        check(None, Some("a\n"), None);
        check(None, Some(&"a".repeat(128)), None);
        assert_eq!(member_name(None, Some("a")).as_deref(), Ok("~a"));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Enter(u8, u8, u8),
        Leave(usize),
        Lose(usize),
        Wait(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..2_u8, 0..3_u8, 0..3_u8).prop_map(|(channel, member, data)| Act::Enter(channel, member, data)),
            any::<usize>().prop_map(Act::Leave),
            any::<usize>().prop_map(Act::Lose),
            (0..8_u64).prop_map(Act::Wait),
        ]
    }

    /// The members that the changes make.
    type Replica = BTreeMap<(String, String), String>;

    fn replay(replica: &mut Replica, change: Option<Change>) {
        let Some(change) = change else { return };
        let key = (change.channel.to_string(), change.member.to_string());
        match change.event {
            Event::Joined(data) => assert!(replica.insert(key, data.to_string()).is_none(), "joined twice"),
            Event::Updated(data) => {
                assert!(replica.insert(key, data.to_string()).is_some(), "updated before it joined")
            }
            Event::Left | Event::Lost => assert!(replica.remove(&key).is_some(), "left twice"),
        }
    }

    proptest! {
        #[test]
        fn replayed_changes_are_the_list_of_members(acts in prop::collection::vec(act(), 0..80)) {
            let limits = Limits::default();
            let (mut roster, mut now) = (Roster::default(), Instant::now());
            let (mut leases, mut replica): (Vec<Lease>, Replica) = (Vec::new(), Replica::new());
            for act in acts {
                match act {
                    Act::Enter(channel, member, data) => {
                        let (channel, member) = (format!("c{channel}"), format!("m{member}"));
                        let (lease, change) = roster.enter(&limits, &channel, &member, &data.to_string()).unwrap();
                        leases.push(lease);
                        replay(&mut replica, change);
                    }
                    Act::Leave(_) | Act::Lose(_) if leases.is_empty() => {}
                    Act::Leave(which) => {
                        let lease = leases.swap_remove(which % leases.len());
                        replay(&mut replica, roster.leave(lease));
                    }
                    Act::Lose(which) => {
                        let lease = leases.swap_remove(which % leases.len());
                        roster.lose(now, GRACE, lease);
                    }
                    Act::Wait(seconds) => {
                        now += Duration::from_secs(seconds);
                        while let Some(change) = roster.expire(now) {
                            replay(&mut replica, Some(change));
                        }
                    }
                }
                let members: Replica = ["c0", "c1"]
                    .into_iter()
                    .flat_map(|channel| {
                        roster.members(channel).map(move |(name, data)| ((channel.to_owned(), name.to_owned()), data.to_owned()))
                    })
                    .collect();
                prop_assert_eq!(&members, &replica);
                prop_assert_eq!(members.len(), roster.len());
                for lease in &leases {
                    prop_assert!(replica.contains_key(&(lease.channel().to_owned(), lease.member().to_owned())));
                }
            }
            for lease in leases {
                roster.lose(now, GRACE, lease);
            }
            while let Some(change) = roster.expire(now + GRACE) {
                replay(&mut replica, Some(change));
            }
            prop_assert!(replica.is_empty() && roster.is_empty() && roster.channels.is_empty() && roster.due.is_empty());
        }
    }
}
