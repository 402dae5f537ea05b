//! One channel: its order, who wants it, and what waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::limits::{HubLimits, ITEM_OVERHEAD};
use crate::log::Log;
use crate::stripe::Ledger;
use crate::timers::TimerKey;
use crate::{ListenerCounts, Mode, Observer, Ordered, Outcome, Position, Publish};

/// What one call into the hub is made with.
pub(crate) struct Turn<'a, P> {
    pub(crate) now: Instant,
    pub(crate) observer: Option<&'a dyn Observer<P>>,
    pub(crate) epoch: u64,
    pub(crate) limits: &'a HubLimits,
    pub(crate) totals: &'a Totals,
}

/// Counters over all channels, for the limits that say so.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) log_bytes: AtomicUsize,
    pub(crate) parked_bytes: AtomicUsize,
    pub(crate) remembered: AtomicUsize,
    pub(crate) seen_ids: AtomicUsize,
}

/// The state of a channel. What few channels have is boxed.
#[derive(Debug)]
pub(crate) struct Channel<P> {
    /// The number of the last item.
    pub(crate) end: u64,
    /// One entry a shard that listens.
    interest: Vec<Interest>,
    /// Set while the channel counts as subscribed because a response hold was here lately.
    pub(crate) lingering: Option<TimerKey>,
    pub(crate) log: Option<Box<Log<P>>>,
    sequence: Option<Box<Sequence<P>>>,
}

/// The listeners of one shard.
#[derive(Debug)]
struct Interest {
    shard: u16,
    counts: ListenerCounts,
}

/// What the publisher's ids say about the order.
#[derive(Debug)]
struct Sequence<P> {
    /// The id of the last item delivered in sequence, and its place in the table of remembered channels.
    last_id: Option<(Arc<str>, u64)>,
    /// Items whose predecessor did not come yet, oldest first.
    parked: Vec<Parked<P>>,
    /// The deadline at which the oldest of them is looked at.
    timer: Option<TimerKey>,
}

#[derive(Debug)]
struct Parked<P> {
    since: Instant,
    item: Publish<P>,
}

impl<P> Channel<P> {
    pub(crate) const fn new(end: u64) -> Self {
        Self { end, interest: Vec::new(), lingering: None, log: None, sequence: None }
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        !self.interest.is_empty() || self.lingering.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.is_subscribed() && self.log.is_none() && self.sequence.is_none()
    }

    pub(crate) fn counts(&self) -> ListenerCounts {
        let mut sum = ListenerCounts::default();
        for interest in &self.interest {
            sum += interest.counts;
        }
        sum
    }

    pub(crate) fn last_id(&self) -> Option<&Arc<str>> {
        self.sequence.as_ref()?.last_id.as_ref().map(|(id, _)| id)
    }

    /// Counts a listener in.
    pub(crate) fn add(&mut self, shard: u16, mode: Mode) {
        let place = self.interest.iter().position(|interest| interest.shard == shard).unwrap_or_else(|| {
            // Few shards listen to most channels: no room is kept for more.
            self.interest.reserve_exact(1);
            self.interest.push(Interest { shard, counts: ListenerCounts::default() });
            self.interest.len() - 1
        });
        if let Some(interest) = self.interest.get_mut(place) {
            *interest.counts.of_mode(mode) += 1;
        }
    }

    /// Counts a listener out; false when there was none.
    pub(crate) fn remove(&mut self, shard: u16, mode: Mode) -> bool {
        let Some(place) = self.interest.iter().position(|interest| interest.shard == shard) else { return false };
        let Some(interest) = self.interest.get_mut(place) else { return false };
        let count = interest.counts.of_mode(mode);
        if *count == 0 {
            return false;
        }
        *count -= 1;
        if interest.counts.total() == 0 {
            self.interest.swap_remove(place);
        }
        true
    }

    /// Delivers a new item, or parks it until its predecessor came.
    pub(crate) fn accept(
        &mut self,
        turn: &Turn<'_, P>,
        ledger: &mut Ledger,
        item: Publish<P>,
        deliver: &mut dyn FnMut(u16, &Arc<Ordered<P>>),
    ) -> (Outcome, Option<Position>, usize) {
        if item.no_seq || !self.is_subscribed() {
            let position = self.order(turn, ledger, item, turn.now, deliver);
            return (Outcome::Delivered, Some(position), 0);
        }
        if let (Some(last), Some(prev)) = (self.last_id(), &item.prev_id)
            && last != prev
        {
            return (self.park(turn, ledger, item), None, 0);
        }
        let (position, released) = self.deliver_in_sequence(turn, ledger, item, turn.now, deliver);
        (Outcome::Delivered, Some(position), released)
    }

    /// Delivers an item, makes it the last one, and lets those follow that waited for it. Tells how many did.
    fn deliver_in_sequence(
        &mut self,
        turn: &Turn<'_, P>,
        ledger: &mut Ledger,
        item: Publish<P>,
        received: Instant,
        deliver: &mut dyn FnMut(u16, &Arc<Ordered<P>>),
    ) -> (Position, usize) {
        let channel = Arc::clone(&item.channel);
        let mut last_id = item.id.clone();
        let first = self.order(turn, ledger, item, received, deliver);
        let mut released = 0;
        while let Some(next) = last_id.as_deref().and_then(|last| self.unpark_after(turn, ledger, last)) {
            last_id.clone_from(&next.item.id);
            self.order(turn, ledger, next.item, next.since, deliver);
            released += 1;
        }
        self.remember(turn, ledger, &channel, last_id);
        (first, released)
    }

    /// Gives an item the next number, hands it to the shards that listen, and keeps it in the log.
    fn order(
        &mut self,
        turn: &Turn<'_, P>,
        ledger: &mut Ledger,
        item: Publish<P>,
        received: Instant,
        deliver: &mut dyn FnMut(u16, &Arc<Ordered<P>>),
    ) -> Position {
        self.end += 1;
        let position = Position { epoch: turn.epoch, number: self.end };
        let Publish { channel, id, prev_id, no_seq: _, size, payload } = item;
        let item = Arc::new(Ordered { channel, position, id, prev_id, size, payload, received });
        for interest in &self.interest {
            deliver(interest.shard, &item);
        }
        if let Some(observer) = turn.observer {
            observer.ordered(&item, self.counts());
        }
        if turn.limits.log_items_max > 0 {
            self.keep(turn, ledger, item);
        }
        position
    }

    fn keep(&mut self, turn: &Turn<'_, P>, ledger: &mut Ledger, item: Arc<Ordered<P>>) {
        let log = self.log.get_or_insert_with(|| Box::new(Log::new()));
        if log.timer.is_none() {
            log.timer = Some(ledger.aging.arm(item.received + turn.limits.log_age_max, &item.channel));
        }
        let (len, bytes) = (log.len(), log.bytes());
        log.push(item);
        while log.is_over(turn.limits) {
            log.pop();
        }
        ledger.log_items = ledger.log_items + log.len() - len;
        // A full log often swaps one item for another of its size: then the counter that all threads share stays untouched.
        let (totals, after) = (&turn.totals.log_bytes, log.bytes());
        if after > bytes {
            totals.fetch_add(after - bytes, Ordering::Relaxed);
        } else if after < bytes {
            totals.fetch_sub(bytes - after, Ordering::Relaxed);
        }
        self.drop_empty_log(ledger);
    }

    /// Takes the oldest item out of the log; false when there is no log.
    pub(crate) fn shed(&mut self, totals: &Totals, ledger: &mut Ledger) -> bool {
        let Some(log) = &mut self.log else { return false };
        let bytes = log.bytes();
        log.pop();
        ledger.log_items -= 1;
        totals.log_bytes.fetch_sub(bytes - log.bytes(), Ordering::Relaxed);
        self.drop_empty_log(ledger);
        true
    }

    /// Takes out of the log what is too old, after its deadline was taken.
    pub(crate) fn age(&mut self, turn: &Turn<'_, P>, ledger: &mut Ledger, name: &Arc<str>) {
        if let Some(log) = &mut self.log {
            log.timer = None;
        }
        while self.log.as_ref().and_then(|log| log.due(turn.limits)).is_some_and(|due| due <= turn.now)
            && self.shed(turn.totals, ledger)
        {}
        if let Some(log) = &mut self.log {
            log.timer = log.due(turn.limits).map(|due| ledger.aging.arm(due, name));
        }
    }

    fn drop_empty_log(&mut self, ledger: &mut Ledger) {
        if self.log.as_ref().is_some_and(|log| log.len() == 0)
            && let Some(log) = self.log.take()
            && let Some(timer) = log.timer
        {
            ledger.aging.disarm(timer);
        }
    }

    fn park(&mut self, turn: &Turn<'_, P>, ledger: &mut Ledger, item: Publish<P>) -> Outcome {
        let sequence = self.sequence.get_or_insert_with(|| Box::new(Sequence::new()));
        if sequence.parked.iter().any(|parked| parked.item.prev_id == item.prev_id) {
            return Outcome::RivalParked;
        }
        let cost = cost(&item);
        let bytes = turn.totals.parked_bytes.fetch_add(cost, Ordering::Relaxed);
        if sequence.parked.len() >= turn.limits.parked_max
            || bytes.saturating_add(cost) > turn.limits.parked_total_bytes_max
        {
            turn.totals.parked_bytes.fetch_sub(cost, Ordering::Relaxed);
            return Outcome::ParkedFull;
        }
        if sequence.timer.is_none() {
            sequence.timer = Some(ledger.waiting.arm(turn.now + turn.limits.message_wait, &item.channel));
        }
        ledger.parked += 1;
        sequence.parked.push(Parked { since: turn.now, item });
        Outcome::Parked
    }

    /// Takes the parked item out that names `last` as its predecessor.
    fn unpark_after(&mut self, turn: &Turn<'_, P>, ledger: &mut Ledger, last: &str) -> Option<Parked<P>> {
        let place = self.sequence.as_ref()?.parked_after(last)?;
        self.unpark(turn, ledger, place)
    }

    fn unpark(&mut self, turn: &Turn<'_, P>, ledger: &mut Ledger, place: usize) -> Option<Parked<P>> {
        let sequence = self.sequence.as_mut().filter(|sequence| place < sequence.parked.len())?;
        let parked = sequence.parked.remove(place);
        ledger.parked -= 1;
        turn.totals.parked_bytes.fetch_sub(cost(&parked.item), Ordering::Relaxed);
        if sequence.parked.is_empty() {
            sequence.parked = Vec::new();
            if let Some(timer) = sequence.timer.take() {
                ledger.waiting.disarm(timer);
            }
        }
        Some(parked)
    }

    /// Delivers the parked items that waited long enough, after their deadline was taken.
    pub(crate) fn release_due(
        &mut self,
        turn: &Turn<'_, P>,
        ledger: &mut Ledger,
        name: &Arc<str>,
        deliver: &mut dyn FnMut(u16, &Arc<Ordered<P>>),
    ) {
        if let Some(sequence) = &mut self.sequence {
            sequence.timer = None;
        }
        while self.parked_due(turn).is_some_and(|due| due <= turn.now) {
            let Some(place) = self.sequence.as_ref().map(|sequence| sequence.head_of_oldest()) else { break };
            let Some(parked) = self.unpark(turn, ledger, place) else { break };
            self.deliver_in_sequence(turn, ledger, parked.item, parked.since, deliver);
        }
        let due = self.parked_due(turn);
        if let Some(sequence) = &mut self.sequence {
            sequence.timer = due.map(|due| ledger.waiting.arm(due, name));
        }
    }

    fn parked_due(&self, turn: &Turn<'_, P>) -> Option<Instant> {
        let oldest = self.sequence.as_ref()?.parked.first()?;
        Some(oldest.since + turn.limits.message_wait)
    }

    /// The last subscription is gone: the last id means nothing any more, and nobody waits for an order. What is parked
    /// goes to the log, because its publishers were told that it is accepted.
    pub(crate) fn end_sequence(&mut self, turn: &Turn<'_, P>, ledger: &mut Ledger) {
        self.forget(turn.totals, ledger);
        while let Some(parked) = self.unpark(turn, ledger, 0) {
            self.order(turn, ledger, parked.item, parked.since, &mut |_, _| {});
        }
        self.sequence = None;
    }

    fn remember(&mut self, turn: &Turn<'_, P>, ledger: &mut Ledger, name: &Arc<str>, id: Option<Arc<str>>) {
        let Some(id) = id else { return self.forget(turn.totals, ledger) };
        if turn.limits.remembered_channels_max == 0 {
            return;
        }
        let sequence = self.sequence.get_or_insert_with(|| Box::new(Sequence::new()));
        let place = sequence.last_id.take().map_or_else(
            || {
                turn.totals.remembered.fetch_add(1, Ordering::Relaxed);
                ledger.remember(name)
            },
            |(_, place)| place,
        );
        sequence.last_id = Some((id, place));
    }

    /// Forgets the last id, so that the next item is delivered whatever its predecessor is.
    pub(crate) fn forget(&mut self, totals: &Totals, ledger: &mut Ledger) {
        let Some(sequence) = &mut self.sequence else { return };
        if let Some((_, place)) = sequence.last_id.take() {
            ledger.remembered.remove(&place);
            totals.remembered.fetch_sub(1, Ordering::Relaxed);
        }
        if sequence.parked.is_empty() {
            self.sequence = None;
        }
    }
}

impl<P> Sequence<P> {
    const fn new() -> Self {
        Self { last_id: None, parked: Vec::new(), timer: None }
    }

    fn parked_after(&self, last: &str) -> Option<usize> {
        self.parked.iter().position(|parked| parked.item.prev_id.as_deref() == Some(last))
    }

    /// Where the chain begins that the oldest parked item belongs to: a predecessor that came later goes first. Ids may
    /// form a ring, so the way back is no longer than there are items.
    fn head_of_oldest(&self) -> usize {
        let mut place = 0;
        for _ in 0..self.parked.len() {
            let prev = self.parked.get(place).and_then(|parked| parked.item.prev_id.as_deref());
            let before = self.parked.iter().position(|parked| prev.is_some() && parked.item.id.as_deref() == prev);
            match before {
                Some(before) => place = before,
                None => break,
            }
        }
        place
    }
}

fn cost<P>(item: &Publish<P>) -> usize {
    item.size.saturating_add(ITEM_OVERHEAD)
}
