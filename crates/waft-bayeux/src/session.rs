//! The state of one client (sections 5 and 11.1 of the protocol).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::patterns_of;

/// Whose habits a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Deliveries stand before the reply to a connect.
    Comet,
    /// They stand after it.
    Faye,
}

/// One client: what it listens to, and how far it has been served in the log of each.
///
/// What the numbers count is up to the user: they are those of the items of a channel, each one more than that before it.
/// A connect is [`Session::connect`]ed, then what it is to be served with is looked up from [`Session::subscriptions`],
/// and told by [`Session::served`].
#[derive(Debug)]
pub struct Session {
    style: Style,
    subscriptions: BTreeMap<Arc<str>, Progress>,
    acks: Option<Box<Acks>>,
    expires: Option<Instant>,
    expiry: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// The number it began after.
    start: u64,
    begun: Instant,
    served: u64,
    acked: u64,
}

/// How far a channel was served by a batch.
type Ends = Vec<(Arc<str>, u64)>;

/// What the acknowledgement extension keeps.
#[derive(Debug, Default)]
struct Acks {
    /// The number of the last batch.
    batch: u64,
    /// Batches that the client has not said it has, with the ends of their channels.
    outstanding: VecDeque<(u64, Ends)>,
}

/// Batches that are told apart while none is acknowledged. Of older ones is only known that they were sent.
const OUTSTANDING_MAX: usize = 16;

impl Session {
    /// A client that has just shaken hands. It is forgotten when no connect of it is held for `expiry`.
    #[must_use]
    pub fn new(now: Instant, style: Style, acks: bool, expiry: Duration) -> Self {
        let acks = acks.then(Box::default);
        Self { style, subscriptions: BTreeMap::new(), acks, expires: Some(now + expiry), expiry }
    }

    /// Whose habits it has.
    #[must_use]
    pub const fn style(&self) -> Style {
        self.style
    }

    /// Whether it uses the acknowledgement extension: it is served by replies to connects alone.
    #[must_use]
    pub const fn has_acks(&self) -> bool {
        self.acks.is_some()
    }

    /// What it listens to, and the number of the last item that it was served with.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.subscriptions.iter().map(|(name, progress)| (name, progress.served))
    }

    /// Number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether it listens to nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Whether it listens to this name.
    #[must_use]
    pub fn listens_to(&self, name: &str) -> bool {
        self.subscriptions.contains_key(name)
    }

    /// It listens to another channel, whose last item had the number `at` just before `now`. False if it did already.
    pub fn subscribe(&mut self, now: Instant, name: Arc<str>, at: u64) -> bool {
        let mut is_new = false;
        self.subscriptions.entry(name).or_insert_with(|| {
            is_new = true;
            Progress { start: at, begun: now, served: at, acked: at }
        });
        is_new
    }

    /// Whether an item that comes by the pattern `via` comes to this client by a narrower name as well, and so must not
    /// be delivered twice. `number` is that of the item in its own channel, and `received` when it was published.
    #[must_use]
    pub fn is_doubled(&self, via: &str, channel: &str, number: u64, received: Instant) -> bool {
        if via == channel || self.subscriptions.len() < 2 {
            return false;
        }
        let by_name = self.subscriptions.get(channel).is_some_and(|progress| progress.start < number);
        by_name
            || patterns_of(channel)
                .take_while(|pattern| pattern != via)
                .any(|pattern| self.subscriptions.get(&*pattern).is_some_and(|progress| progress.begun < received))
    }

    /// It listens to this no more. False if it did not.
    pub fn unsubscribe(&mut self, name: &str) -> bool {
        self.subscriptions.remove(name).is_some()
    }

    /// A connect has come, with the last batch that the client has. What it does not have will be served again.
    pub fn connect(&mut self, ack: Option<u64>) {
        let Some(acks) = &mut self.acks else { return };
        // Without the number nothing can be said to be missing.
        let Some(ack) = ack else { return };
        while acks.outstanding.front().is_some_and(|(batch, _)| *batch <= ack) {
            for (name, end) in acks.outstanding.pop_front().into_iter().flat_map(|(_, ends)| ends) {
                if let Some(progress) = self.subscriptions.get_mut(&name) {
                    progress.acked = progress.acked.max(end);
                }
            }
        }
        for progress in self.subscriptions.values_mut() {
            progress.served = progress.acked;
        }
    }

    /// The reply to a connect goes out, with items up to these numbers. Returns what its extension says.
    pub fn served(&mut self, ends: Ends) -> Option<u64> {
        for (name, end) in &ends {
            if let Some(progress) = self.subscriptions.get_mut(name) {
                progress.served = progress.served.max(*end);
                if self.acks.is_none() {
                    progress.acked = progress.served;
                }
            }
        }
        let acks = self.acks.as_deref_mut()?;
        if !ends.is_empty() {
            acks.batch += 1;
            acks.outstanding.push_back((acks.batch, ends));
            if acks.outstanding.len() > OUTSTANDING_MAX {
                acks.outstanding.pop_front();
            }
        }
        Some(acks.batch)
    }

    /// A connect is held: the client lives for as long as it is.
    pub fn hold(&mut self) {
        self.expires = None;
    }

    /// No connect is held from now on, or there is another sign of life of a client of which none is.
    pub fn release(&mut self, now: Instant) {
        self.expires = Some(now + self.expiry);
    }

    /// Another sign of life.
    pub fn renew(&mut self, now: Instant) {
        if self.expires.is_some() {
            self.release(now);
        }
    }

    /// Whether it is to be forgotten.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXPIRY: Duration = Duration::from_secs(72);

    fn session(acks: bool) -> Session {
        let mut session = Session::new(Instant::now(), Style::Comet, acks, EXPIRY);
        let now = Instant::now();
        assert!(session.subscribe(now, "a".into(), 10));
        assert!(!session.subscribe(now, "a".into(), 12), "twice is once");
        session
    }

    fn served_to(session: &Session) -> u64 {
        session.subscriptions().next().map(|(_, number)| number).unwrap()
    }

    #[test]
    fn what_was_not_acknowledged_is_served_again() {
        let mut session = session(true);
        session.connect(Some(0));
        assert_eq!(session.served(vec![("a".into(), 11)]), Some(1));
        // The reply is lost.
        session.connect(Some(0));
        assert_eq!(served_to(&session), 10);
        assert_eq!(session.served(vec![("a".into(), 12)]), Some(2));
        session.connect(Some(2));
        assert_eq!(served_to(&session), 12);
        assert_eq!(session.served(Vec::new()), Some(2), "a reply without deliveries repeats the number");
        // A reply that was late and not lost counts as far as it went.
        session.served(vec![("a".into(), 13)]);
        session.connect(Some(2));
        session.served(vec![("a".into(), 14)]);
        session.connect(Some(3));
        assert_eq!(served_to(&session), 13);
    }

    #[test]
    fn without_acknowledgements_what_was_sent_is_served() {
        let mut session = session(false);
        session.connect(None);
        assert_eq!(session.served(vec![("a".into(), 11)]), None);
        session.connect(Some(0));
        assert_eq!(served_to(&session), 11);
    }

    #[test]
    fn a_client_without_a_held_connect_is_forgotten_in_time() {
        let now = Instant::now();
        let mut session = Session::new(now, Style::Faye, false, EXPIRY);
        assert!(!session.is_over(now) && session.is_over(now + EXPIRY));
        session.renew(now + EXPIRY / 2);
        assert!(!session.is_over(now + EXPIRY));
        session.hold();
        session.renew(now);
        assert!(!session.is_over(now + 9 * EXPIRY));
        session.release(now);
        assert!(session.is_over(now + EXPIRY));
    }

    #[test]
    fn an_item_comes_by_the_narrowest_name_alone() {
        let now = Instant::now();
        let mut session = Session::new(now, Style::Faye, false, EXPIRY);
        for name in ["a/b", "a/*", "**"] {
            session.subscribe(now, name.into(), 5);
        }
        let later = now + Duration::from_secs(1);
        let check = |via: &str, channel: &str, number, received, expected: bool| {
            assert_eq!(session.is_doubled(via, channel, number, received), expected, "{channel} by {via}");
        };
        check("a/b", "a/b", 6, later, false);
        check("a/*", "a/b", 6, later, true);
        check("a/*", "a/b", 5, later, false);
        check("**", "a/b", 5, later, true);
        check("**", "a/c", 1, later, true);
        check("**", "a/c", 1, now, false);
        check("**", "c", 1, later, false);
    }

    proptest! {
        /// A client whose requests and replies are lost at random has, in the end, every item once and in order.
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(steps in prop::collection::vec((0_u64..4, any::<bool>(), any::<bool>()), 1..60)) {
            let mut session = Session::new(Instant::now(), Style::Comet, true, EXPIRY);
            session.subscribe(Instant::now(), "a".into(), 0);
            let mut published = 0_u64;
            let (mut got, mut acked): (Vec<u64>, u64) = (Vec::new(), 0);
            let quiet = [(0, false, false), (0, false, false)];
            for (more, request_lost, reply_lost) in steps.into_iter().chain(quiet) {
                published += more;
                if request_lost {
                    continue;
                }
                session.connect(Some(acked));
                let from = served_to(&session);
                let ends = if published > from { vec![(Arc::from("a"), published)] } else { Vec::new() };
                let number = session.served(ends).unwrap();
                if !reply_lost {
                    got.extend(from + 1..=published);
                    acked = number;
                }
            }
            prop_assert_eq!(got, (1..=published).collect::<Vec<_>>());
        }
    }
}
