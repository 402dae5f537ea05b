//! Whose turn it is: a lane for each endpoint, served in turn, so that none waits for another.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use super::breaker::{Admission, Breaker};
use super::rate::Rate;

/// The lanes of all endpoints, and what is known of their hosts. Times are Unix milliseconds.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: HashMap<u32, Lane>,
    hosts: HashMap<Arc<str>, Host>,
    /// Lanes that may have something to send now, each at most once.
    ring: VecDeque<u32>,
    /// When lanes that wait are to be looked at again.
    timers: BTreeSet<(u64, u32)>,
    host_concurrency_max: u32,
}

/// What an endpoint allows.
#[derive(Clone, Debug)]
pub(super) struct LaneSettings {
    /// The host whose breaker counts.
    pub(super) host: String,
    /// Deliveries under way at once.
    pub(super) concurrency_max: u32,
    /// Deliveries a second.
    pub(super) rate_per_s: Option<f64>,
    /// Whether messages with the same order key go one after the other.
    pub(super) ordered: bool,
    /// Whether anything is sent at all.
    pub(super) open: bool,
}

#[derive(Debug)]
struct Lane {
    /// What is to be sent: when, and which message.
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    /// Messages behind the one of their order key that is in the queue or under way.
    behind: HashMap<u64, VecDeque<u64>>,
    settings: LaneSettings,
    host: Arc<str>,
    rate: Rate,
    in_flight: u32,
    /// The receiver has asked for a pause until then.
    hold_until: u64,
    in_ring: bool,
    timer: Option<u64>,
}

#[derive(Debug, Default)]
struct Host {
    breaker: Breaker,
    in_flight: u32,
    lanes: u32,
    /// Lanes to be looked at when a call to this host ends.
    waiting: Vec<u32>,
}

/// What became of a call, as far as it tells something of its host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HostNews {
    /// It answered.
    Alive,
    /// It did not, or said that it is out of order.
    Down,
    /// Nothing is known.
    Nothing,
}

/// A delivery whose turn has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Turn {
    /// The endpoint.
    pub endpoint: u32,
    /// The message.
    pub seq: u64,
    /// When it was due.
    pub due: u64,
}

impl Lanes {
    /// Without lanes.
    pub(super) fn new(host_concurrency_max: u32) -> Self {
        Self {
            lanes: HashMap::new(),
            hosts: HashMap::new(),
            ring: VecDeque::new(),
            timers: BTreeSet::new(),
            host_concurrency_max,
        }
    }

    /// Gives an endpoint a lane, or its lane other settings; what is in it stays.
    pub(super) fn set(&mut self, endpoint: u32, settings: LaneSettings) {
        let host: Arc<str> = settings.host.as_str().into();
        self.hosts.entry(Arc::clone(&host)).or_default().lanes += 1;
        let rate = Rate::per_second(settings.rate_per_s);
        match self.lanes.entry(endpoint) {
            Entry::Occupied(mut lane) => {
                let lane = lane.get_mut();
                let old = std::mem::replace(&mut lane.host, host);
                if lane.settings.rate_per_s != settings.rate_per_s {
                    lane.rate = rate;
                }
                lane.settings = settings;
                self.leave_host(&old);
            }
            Entry::Vacant(entry) => {
                entry.insert(Lane {
                    queue: BinaryHeap::new(),
                    behind: HashMap::new(),
                    settings,
                    host,
                    rate,
                    in_flight: 0,
                    hold_until: 0,
                    in_ring: false,
                    timer: None,
                });
            }
        }
        self.ring(endpoint);
    }

    /// Takes a lane away, with everything in it.
    pub(super) fn remove(&mut self, endpoint: u32) {
        if let Some(lane) = self.lanes.remove(&endpoint) {
            if let Some(at) = lane.timer {
                self.timers.remove(&(at, endpoint));
            }
            self.leave_host(&lane.host);
        }
    }

    fn leave_host(&mut self, name: &Arc<str>) {
        if let Some(host) = self.hosts.get_mut(name) {
            host.lanes = host.lanes.saturating_sub(1);
            if host.lanes == 0 && host.in_flight == 0 {
                self.hosts.remove(name);
            }
        }
    }

    /// Puts a message into a lane. Those with the same order key, if it is not 0, keep the order of their coming.
    pub(super) fn put(&mut self, endpoint: u32, seq: u64, due: u64, order: u64) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        if lane.settings.ordered && order != 0 {
            match lane.behind.entry(order) {
                Entry::Occupied(mut behind) => return behind.get_mut().push_back(seq),
                Entry::Vacant(entry) => entry.insert(VecDeque::new()),
            };
        }
        lane.queue.push(Reverse((due, seq)));
        self.ring(endpoint);
    }

    /// Puts a message back that is to be tried again; it is still the first of its order key.
    pub(super) fn put_back(&mut self, endpoint: u32, seq: u64, due: u64) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.queue.push(Reverse((due, seq)));
            self.ring(endpoint);
        }
    }

    /// Lets the message behind one go that will not be tried any more.
    pub(super) fn release(&mut self, endpoint: u32, order: u64, now: u64) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let Entry::Occupied(mut behind) = lane.behind.entry(order) else { return };
        match behind.get_mut().pop_front() {
            Some(seq) => lane.queue.push(Reverse((now, seq))),
            None => {
                behind.remove();
            }
        }
        self.ring(endpoint);
    }

    /// The next delivery to be made now. Whoever takes it tells of its end by [`Lanes::done`].
    pub(super) fn next(&mut self, now: u64) -> Option<Turn> {
        while let Some((at, endpoint)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, endpoint));
            if let Some(lane) = self.lanes.get_mut(&endpoint) {
                lane.timer = None;
            }
            self.ring(endpoint);
        }
        while let Some(endpoint) = self.ring.pop_front() {
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            lane.in_ring = false;
            let Some(Reverse((due, seq))) = lane.queue.peek().copied() else { continue };
            // A lane that may not send is looked at again when that changes.
            if !lane.settings.open || lane.in_flight >= lane.settings.concurrency_max {
                continue;
            }
            let mut wait_until = due.max(lane.hold_until);
            if wait_until <= now {
                let host = self.hosts.entry(Arc::clone(&lane.host)).or_default();
                if host.in_flight >= self.host_concurrency_max {
                    host.waiting.push(endpoint);
                    continue;
                }
                match lane.rate.admit(now).err() {
                    Some(from) => wait_until = from,
                    None => match host.breaker.admit(now) {
                        Admission::Open => {
                            host.in_flight += 1;
                            lane.in_flight += 1;
                            lane.queue.pop();
                            self.ring(endpoint);
                            return Some(Turn { endpoint, seq, due });
                        }
                        Admission::NotBefore(at) => wait_until = at,
                        Admission::Probing => {
                            host.waiting.push(endpoint);
                            continue;
                        }
                    },
                }
            }
            lane.timer = Some(wait_until);
            self.timers.insert((wait_until, endpoint));
        }
        None
    }

    /// A delivery has ended. Says whether its host is asked rarely from now on and was not before.
    pub(super) fn done(
        &mut self,
        endpoint: u32,
        host: &str,
        news: HostNews,
        hold_until: Option<u64>,
        now: u64,
    ) -> bool {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
            lane.hold_until = lane.hold_until.max(hold_until.unwrap_or(0));
        }
        let mut opened = false;
        let mut waiting = Vec::new();
        if let Some(known) = self.hosts.get_mut(host) {
            known.in_flight = known.in_flight.saturating_sub(1);
            match news {
                HostNews::Alive => known.breaker.succeeded(),
                HostNews::Down => opened = known.breaker.failed(now),
                HostNews::Nothing => known.breaker.undecided(),
            }
            waiting = std::mem::take(&mut known.waiting);
            if known.lanes == 0 && known.in_flight == 0 {
                self.hosts.remove(host);
            }
        }
        self.ring(endpoint);
        waiting.into_iter().for_each(|endpoint| self.ring(endpoint));
        opened
    }

    /// A turn that was taken for a message that has gone or is not to be sent any more.
    pub(super) fn skip(&mut self, endpoint: u32, host: &str, now: u64) {
        self.done(endpoint, host, HostNews::Nothing, None, now);
    }

    /// Whether nothing waits in a lane, and nothing of it is under way.
    pub(super) fn is_idle(&self, endpoint: u32) -> bool {
        let idle = |lane: &Lane| lane.queue.is_empty() && lane.behind.is_empty() && lane.in_flight == 0;
        self.lanes.get(&endpoint).is_none_or(idle)
    }

    /// When something is to be done next if nothing happens; none if nothing waits.
    pub(super) fn deadline(&self) -> Option<u64> {
        if !self.ring.is_empty() {
            return Some(0);
        }
        self.timers.first().map(|(at, _)| *at)
    }

    /// Hosts that are asked rarely.
    pub(super) fn open_breakers(&self) -> usize {
        self.hosts.values().filter(|host| host.breaker.is_open()).count()
    }

    fn ring(&mut self, endpoint: u32) {
        if let Some(lane) = self.lanes.get_mut(&endpoint)
            && !lane.in_ring
        {
            if let Some(at) = lane.timer.take() {
                self.timers.remove(&(at, endpoint));
            }
            lane.in_ring = true;
            self.ring.push_back(endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(host: &str) -> LaneSettings {
        LaneSettings { host: host.to_owned(), concurrency_max: 2, rate_per_s: None, ordered: false, open: true }
    }

    #[test]
    fn a_lane_with_much_to_send_does_not_slow_another() {
        let mut lanes = Lanes::new(100);
        lanes.set(1, LaneSettings { concurrency_max: 1_000, ..settings("a") });
        lanes.set(2, settings("b"));
        (0..10_000).for_each(|seq| lanes.put(1, seq, 0, 0));
        lanes.put(2, 10_000, 0, 0);
        let endpoints: Vec<u32> = (0..3).filter_map(|_| lanes.next(0)).map(|turn| turn.endpoint).collect();
        assert!(endpoints.contains(&2), "{endpoints:?}");
    }

    #[test]
    fn limits_of_lanes_and_hosts_are_kept() {
        let mut lanes = Lanes::new(3);
        for endpoint in [1, 2] {
            lanes.set(endpoint, settings("a"));
            (0..5).for_each(|seq| lanes.put(endpoint, seq, 0, 0));
        }
        let turns: Vec<Turn> = std::iter::from_fn(|| lanes.next(0)).collect();
        assert_eq!(turns.len(), 3);
        lanes.done(turns[0].endpoint, "a", HostNews::Alive, None, 0);
        assert!(lanes.next(0).is_some());
        assert!(lanes.next(0).is_none());
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept_by_the_whole_lane() {
        let mut lanes = Lanes::new(10);
        lanes.set(1, settings("a"));
        (0..5).for_each(|seq| lanes.put(1, seq, 0, 0));
        lanes.next(0).unwrap();
        lanes.done(1, "a", HostNews::Alive, Some(500), 0);
        assert_eq!((lanes.next(499), lanes.deadline()), (None, Some(500)));
        assert!(lanes.next(500).is_some());
    }

    #[test]
    fn a_lane_that_is_closed_keeps_what_it_has() {
        let mut lanes = Lanes::new(10);
        lanes.set(1, LaneSettings { open: false, ..settings("a") });
        lanes.put(1, 7, 0, 0);
        assert_eq!((lanes.next(0), lanes.deadline()), (None, None));
        lanes.set(1, settings("b"));
        assert_eq!(lanes.next(0).map(|turn| turn.seq), Some(7));
        lanes.remove(1);
        lanes.done(1, "b", HostNews::Alive, None, 0);
        assert!(lanes.hosts.is_empty());
    }

    proptest! {
        /// Any mixture of successes, failures and pauses: in the end everything was sent, and what has an order key came
        /// in its order.
        #[test]
        fn everything_gets_its_turn_and_order_is_kept(
            messages in proptest::collection::vec((1u32..4, 0u64..4), 1..60),
            outcomes in proptest::collection::vec((any::<bool>(), 0u64..3_000), 1..40),
            rate in proptest::option::of(1.0..50.0f64),
        ) {
            let mut lanes = Lanes::new(3);
            for endpoint in 1..4 {
                lanes.set(endpoint, LaneSettings { ordered: true, rate_per_s: rate, ..settings("host") });
            }
            for (seq, (endpoint, order)) in messages.iter().enumerate() {
                lanes.put(*endpoint, seq as u64, 0, *order);
            }
            let (mut now, mut flying, mut tries) = (0, Vec::new(), 0);
            let mut sent: HashMap<(u32, u64), Vec<u64>> = HashMap::new();
            let mut outcomes = outcomes.iter().cycle();
            loop {
                flying.extend(std::iter::from_fn(|| lanes.next(now)));
                if let Some(turn) = flying.pop() {
                    let (good, pause) = outcomes.next().unwrap();
                    tries += 1;
                    // Failures end some time, as schedules do.
                    let good = *good || tries > 500;
                    lanes.done(turn.endpoint, "host", if good { HostNews::Alive } else { HostNews::Down }, None, now);
                    let order = messages[turn.seq as usize].1;
                    if good {
                        sent.entry((turn.endpoint, order)).or_default().push(turn.seq);
                        lanes.release(turn.endpoint, order, now);
                    } else {
                        lanes.put_back(turn.endpoint, turn.seq, now + pause);
                    }
                } else if let Some(at) = lanes.deadline() {
                    prop_assert!(at > now, "nothing happens at {now}");
                    now = at;
                } else {
                    break;
                }
            }
            prop_assert_eq!(sent.values().map(Vec::len).sum::<usize>(), messages.len());
            for ((_, order), seqs) in sent {
                prop_assert!(order == 0 || seqs.is_sorted(), "{seqs:?}");
            }
        }
    }
}
