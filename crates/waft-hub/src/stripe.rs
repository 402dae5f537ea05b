//! One part of the channel map, behind one lock.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::channel::{Channel, Totals, Turn};
use crate::log::Log;
use crate::seen::SeenIds;
use crate::timers::Timers;
use crate::{
    ChannelCounts, ListenerCounts, Mode, Ordered, Outcome, Position, Publish, Published, Replay, Since, Subscribed,
};

/// Channels whose names hash alike.
#[derive(Debug)]
pub(crate) struct Stripe<P> {
    channels: HashMap<Arc<str>, Channel<P>, RandomState>,
    ledger: Ledger,
}

/// What a stripe keeps beside its channels.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Logs, by the age of their oldest item: exactly the channels that have a log.
    pub(crate) aging: Timers,
    /// Parked items, by the end of their wait: exactly the channels that have some.
    pub(crate) waiting: Timers,
    /// Ends of lingering.
    pub(crate) lingering: Timers,
    /// Channels with a last id, in the order in which they got their first one.
    pub(crate) remembered: BTreeMap<u64, Arc<str>>,
    remembered_serial: u64,
    pub(crate) log_items: usize,
    pub(crate) parked: usize,
    seen: SeenIds,
    /// The highest number that a channel had which is gone. New channels go on from here, so that no position names two
    /// items in one epoch.
    floor: u64,
}

impl Ledger {
    pub(crate) fn remember(&mut self, channel: &Arc<str>) -> u64 {
        let serial = self.remembered_serial;
        self.remembered_serial = serial.wrapping_add(1);
        self.remembered.insert(serial, Arc::clone(channel));
        serial
    }
}

impl<P> Stripe<P> {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self { channels: HashMap::with_hasher(hasher), ledger: Ledger::default() }
    }

    pub(crate) fn publish(
        &mut self,
        turn: &Turn<'_, P>,
        item: Publish<P>,
        digest: Option<u128>,
        deliver: &mut dyn FnMut(u16, &Arc<Ordered<P>>),
    ) -> Published {
        if digest.is_some_and(|digest| !self.is_first_sight(turn, digest)) {
            return Published::without_delivery(Outcome::Duplicate);
        }
        let channel = match self.channels.entry(Arc::clone(&item.channel)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if turn.limits.log_items_max == 0 => {
                self.ledger.floor += 1;
                let position = Position { epoch: turn.epoch, number: self.ledger.floor };
                return Published { outcome: Outcome::Delivered, position: Some(position), listeners: 0, released: 0 };
            }
            Entry::Vacant(entry) => entry.insert(Channel::new(self.ledger.floor)),
        };
        let name = Arc::clone(&item.channel);
        let listeners = channel.counts().total();
        let (outcome, position, released) = channel.accept(turn, &mut self.ledger, item, deliver);
        let is_empty = channel.is_empty();
        if is_empty {
            self.tidy(&name);
        }
        self.keep_totals(turn);
        Published { outcome, position, listeners: if position.is_some() { listeners } else { 0 }, released }
    }

    pub(crate) fn subscribe(&mut self, turn: &Turn<'_, P>, shard: u16, channel: &str, mode: Mode) -> Subscribed {
        let name = match self.channels.get_key_value(channel) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(channel),
        };
        let state = self.channels.entry(Arc::clone(&name)).or_insert_with(|| Channel::new(self.ledger.floor));
        let first_on_instance = !state.is_subscribed();
        state.add(shard, mode);
        if mode == Mode::Response
            && let Some(timer) = state.lingering.take()
        {
            self.ledger.lingering.disarm(timer);
        }
        if let Some(observer) = turn.observer {
            if first_on_instance {
                observer.subscribed(&name, true);
            }
            observer.counted(&name, mode, *state.counts().of_mode(mode), false);
        }
        let position = Position { epoch: turn.epoch, number: state.end };
        Subscribed { first_on_instance, name, last_id: state.last_id().cloned(), position }
    }

    pub(crate) fn unsubscribe(&mut self, turn: &Turn<'_, P>, shard: u16, channel: &str, mode: Mode) {
        let Some((name, _)) = self.channels.get_key_value(channel) else { return };
        let name = Arc::clone(name);
        let Some(state) = self.channels.get_mut(channel) else { return };
        if !state.remove(shard, mode) {
            return;
        }
        let is_last_poll = mode == Mode::Response && state.counts().response == 0;
        if is_last_poll && !turn.limits.linger.is_zero() {
            state.lingering = Some(self.ledger.lingering.arm(turn.now + turn.limits.linger, &name));
        }
        if let Some(observer) = turn.observer {
            let lingering = mode == Mode::Response && state.lingering.is_some();
            observer.counted(&name, mode, *state.counts().of_mode(mode), lingering);
            if !state.is_subscribed() {
                observer.subscribed(&name, false);
            }
        }
        if !state.is_subscribed() {
            state.end_sequence(turn, &mut self.ledger);
            self.tidy(&name);
            self.keep_totals(turn);
        }
    }

    pub(crate) fn forget_last_id(&mut self, totals: &Totals, channel: &str) {
        if let Some(state) = self.channels.get_mut(channel) {
            state.forget(totals, &mut self.ledger);
        }
    }

    pub(crate) fn forget_all_last_ids(&mut self, totals: &Totals) {
        while self.forget_oldest_last_id(totals) {}
    }

    pub(crate) fn replay(&self, epoch: u64, channel: &str, since: Since<'_>) -> Replay<P> {
        let state = self.channels.get(channel);
        let number = state.map_or(self.ledger.floor, |state| state.end);
        let end = Position { epoch, number };
        Log::replay(state.and_then(|state| state.log.as_deref()), end, since)
    }

    pub(crate) fn find(&self, channel: &str, id: &str) -> Option<Arc<Ordered<P>>> {
        self.channels.get(channel)?.log.as_deref()?.find(id)
    }

    pub(crate) fn last_id(&self, channel: &str) -> Option<Arc<str>> {
        self.channels.get(channel)?.last_id().map(Arc::clone)
    }

    pub(crate) fn is_subscribed(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(Channel::is_subscribed)
    }

    pub(crate) fn counts(&self, channel: &str) -> ListenerCounts {
        self.channels.get(channel).map(Channel::counts).unwrap_or_default()
    }

    pub(crate) fn end(&self, channel: &str) -> u64 {
        self.channels.get(channel).map_or(self.ledger.floor, |state| state.end)
    }

    /// Does what is due, at most about `budget` steps of it, and tells how many steps are left and what is next.
    pub(crate) fn expire(
        &mut self,
        turn: &Turn<'_, P>,
        mut budget: usize,
        deliver: &mut dyn FnMut(u16, &Arc<Ordered<P>>),
    ) -> (usize, Option<Instant>) {
        // Releases come before the end of lingering, so that what waited its time is in order before the order ends.
        while budget > 0
            && let Some(name) = self.ledger.waiting.pop_due(turn.now)
        {
            budget -= 1;
            if let Some(state) = self.channels.get_mut(&name) {
                state.release_due(turn, &mut self.ledger, &name, deliver);
            }
        }
        while budget > 0
            && let Some(name) = self.ledger.lingering.pop_due(turn.now)
        {
            budget -= 1;
            if let Some(state) = self.channels.get_mut(&name) {
                state.lingering = None;
                if let Some(observer) = turn.observer {
                    observer.counted(&name, Mode::Response, 0, false);
                    if !state.is_subscribed() {
                        observer.subscribed(&name, false);
                    }
                }
                if !state.is_subscribed() {
                    state.end_sequence(turn, &mut self.ledger);
                }
                self.tidy(&name);
            }
        }
        while budget > 0
            && let Some(name) = self.ledger.aging.pop_due(turn.now)
        {
            budget -= 1;
            if let Some(state) = self.channels.get_mut(&name) {
                state.age(turn, &mut self.ledger, &name);
                self.tidy(&name);
            }
        }
        let forgotten = self.ledger.seen.expire(turn.now, turn.limits.id_cache_ttl, budget);
        turn.totals.seen_ids.fetch_sub(forgotten, Ordering::Relaxed);
        self.keep_totals(turn);
        let next = [
            self.ledger.waiting.next(),
            self.ledger.lingering.next(),
            self.ledger.aging.next(),
            self.ledger.seen.next(turn.limits.id_cache_ttl),
        ];
        (budget - forgotten, next.into_iter().flatten().min())
    }

    /// Adds the channels of this stripe that have listeners.
    pub(crate) fn subscribed_channels(&self) -> Vec<ChannelCounts> {
        let subscribed = self.channels.iter().filter(|(_, state)| state.is_subscribed());
        subscribed
            .map(|(name, state)| ChannelCounts {
                name: Arc::clone(name),
                listeners: state.counts(),
                lingering: state.lingering.is_some(),
            })
            .collect()
    }

    /// Channels, items in logs, parked items.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.channels.len(), self.ledger.log_items, self.ledger.parked)
    }

    fn is_first_sight(&mut self, turn: &Turn<'_, P>, digest: u128) -> bool {
        let forgotten = self.ledger.seen.expire(turn.now, turn.limits.id_cache_ttl, usize::MAX);
        turn.totals.seen_ids.fetch_sub(forgotten, Ordering::Relaxed);
        let new = self.ledger.seen.insert(turn.now, digest);
        if new {
            let count = turn.totals.seen_ids.fetch_add(1, Ordering::Relaxed);
            if count >= turn.limits.id_cache_max && self.ledger.seen.drop_oldest() {
                turn.totals.seen_ids.fetch_sub(1, Ordering::Relaxed);
            }
        }
        new
    }

    /// Brings what was just added back under the limits that count all channels.
    fn keep_totals(&mut self, turn: &Turn<'_, P>) {
        while turn.totals.remembered.load(Ordering::Relaxed) > turn.limits.remembered_channels_max
            && self.forget_oldest_last_id(turn.totals)
        {}
        while turn.totals.log_bytes.load(Ordering::Relaxed) > turn.limits.log_total_bytes_max {
            let Some(name) = self.ledger.aging.first().cloned() else { break };
            let Some(state) = self.channels.get_mut(&name) else { break };
            if !state.shed(turn.totals, &mut self.ledger) {
                break;
            }
            self.tidy(&name);
        }
    }

    fn forget_oldest_last_id(&mut self, totals: &Totals) -> bool {
        let Some((_, name)) = self.ledger.remembered.first_key_value() else { return false };
        let name = Arc::clone(name);
        let Some(state) = self.channels.get_mut(&name) else { return false };
        state.forget(totals, &mut self.ledger);
        true
    }

    /// Removes a channel that has nothing left.
    fn tidy(&mut self, name: &Arc<str>) {
        let Some(state) = self.channels.get(name).filter(|state| state.is_empty()) else { return };
        self.ledger.floor = self.ledger.floor.max(state.end);
        self.channels.remove(name);
        if self.channels.capacity() > 64 && self.channels.len() < self.channels.capacity() / 4 {
            self.channels.shrink_to(self.channels.len() * 2);
        }
    }
}
