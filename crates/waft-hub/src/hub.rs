//! The hub: the channels that all shards share.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::channel::{Totals, Turn};
use crate::seen::IdDigest;
use crate::stripe::Stripe;
use crate::{HubLimits, Observer, Ordered, Position, Publish};

/// All channels of the process. Shared by reference between the shards.
///
/// `deliver` is called under the lock of one stripe of the channel map, so that every shard sees the items of a channel in
/// one order. It must only put the item into the inbox of the shard, and must not call the hub.
pub struct Hub<P> {
    limits: HubLimits,
    epoch: u64,
    totals: Totals,
    hasher: RandomState,
    digest: IdDigest,
    observer: OnceLock<Arc<dyn Observer<P>>>,
    stripes: Box<[Mutex<Stripe<P>>]>,
    /// The stripe where the next [`Hub::expire`] begins.
    cursor: AtomicUsize,
}

/// How a listener listens.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mode {
    /// A response hold: it ends with the first item, and its client comes back soon.
    Response,
    /// A stream hold.
    Stream,
    /// A WebSocket.
    Ws,
}

/// What became of a published item.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// It has its place in the order, and was handed to every shard that listens.
    Delivered,
    /// An item with its id was here a short while ago: discarded.
    Duplicate,
    /// It waits for its predecessor.
    Parked,
    /// Its predecessor is missing, and too much waits already: dropped.
    ParkedFull,
    /// Another item waits for the same predecessor: dropped.
    RivalParked,
}

/// The answer to a publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Published {
    /// What became of the item.
    pub outcome: Outcome,
    /// Its place, if it was delivered.
    pub position: Option<Position>,
    /// Listeners that the channel had, if the item was delivered.
    pub listeners: usize,
    /// Items that had waited for this one and were delivered after it.
    pub released: usize,
}

impl Published {
    pub(crate) const fn without_delivery(outcome: Outcome) -> Self {
        Self { outcome, position: None, listeners: 0, released: 0 }
    }
}

/// The answer to a subscription.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscribed {
    /// The channel had no subscription in this process before, not even a lingering one.
    pub first_on_instance: bool,
    /// The channel's name, shared with the hub.
    pub name: Arc<str>,
    /// The id of the last item that was delivered in sequence, if it is known.
    pub last_id: Option<Arc<str>>,
    /// Where the channel stands: the listener gets every item after this one.
    pub position: Position,
}

/// What a reader who comes back has missed.
#[derive(Clone, Debug)]
pub enum Replay<P> {
    /// Something is missing, or may be.
    Gap {
        /// What is still there, oldest first; without a hole up to the end of the channel.
        available: Vec<Arc<Ordered<P>>>,
        /// The position of the first item available; of the last item published, if none is.
        oldest: Position,
    },
    /// Exactly these items, oldest first.
    Items(Vec<Arc<Ordered<P>>>),
    /// The hub never gave out this position, or knows nothing of this id and keeps no items: nothing can be said.
    Unknown,
}

/// What a reader who comes back saw last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Since<'a> {
    /// The item with this id.
    Id(&'a str),
    /// The item at this position.
    Position(Position),
}

/// Listeners of a channel by mode.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ListenerCounts {
    /// Response holds.
    pub response: u32,
    /// Stream holds.
    pub stream: u32,
    /// WebSockets.
    pub ws: u32,
}

impl ListenerCounts {
    /// Listeners of any mode.
    pub const fn total(self) -> usize {
        self.response as usize + self.stream as usize + self.ws as usize
    }

    pub(crate) const fn of_mode(&mut self, mode: Mode) -> &mut u32 {
        match mode {
            Mode::Response => &mut self.response,
            Mode::Stream => &mut self.stream,
            Mode::Ws => &mut self.ws,
        }
    }
}

impl AddAssign for ListenerCounts {
    fn add_assign(&mut self, other: Self) {
        self.response += other.response;
        self.stream += other.stream;
        self.ws += other.ws;
    }
}

/// A subscribed channel, for statistics.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChannelCounts {
    /// The channel's name.
    pub name: Arc<str>,
    /// Its listeners.
    pub listeners: ListenerCounts,
    /// It counts as subscribed for a while because a response hold was here lately.
    pub lingering: bool,
}

/// What the hub holds, for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HubTotals {
    /// Channels with a listener, a log, or waiting items.
    pub channels: usize,
    /// Items in logs.
    pub log_items: usize,
    /// Their bytes.
    pub log_bytes: usize,
    /// Items that wait for their predecessor.
    pub parked: usize,
    /// Their bytes.
    pub parked_bytes: usize,
    /// Channels whose last id is known.
    pub remembered_channels: usize,
    /// Ids remembered against duplicates.
    pub seen_ids: usize,
}

impl<P> Hub<P> {
    /// An empty hub. `epoch` is drawn at random by each process, so that positions of an earlier run are recognised.
    pub fn new(limits: HubLimits, epoch: u64) -> Self {
        let hasher = RandomState::new();
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::new(hasher.clone()))).collect();
        Self {
            limits,
            epoch,
            totals: Totals::default(),
            hasher,
            digest: IdDigest::default(),
            observer: OnceLock::new(),
            stripes,
            cursor: AtomicUsize::new(0),
        }
    }

    /// The same hub, with someone who hears what happens to its channels.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer<P>>) -> Self {
        self.observe(observer);
        self
    }

    /// Tells `observer` what happens from now on. There can be one; a second one is not heard of.
    pub fn observe(&self, observer: Arc<dyn Observer<P>>) {
        // Whoever was first stays.
        let _first = self.observer.set(observer);
    }

    /// The limits it was made with.
    pub const fn limits(&self) -> &HubLimits {
        &self.limits
    }

    /// Gives an item its place and hands it to the shards that listen.
    pub fn publish(&self, now: Instant, item: Publish<P>, deliver: &mut dyn FnMut(u16, &Arc<Ordered<P>>)) -> Published {
        let checked = item.id.as_ref().filter(|_| !self.limits.id_cache_ttl.is_zero());
        let digest = checked.map(|id| self.digest.of(&item.channel, id));
        self.stripe(&item.channel).publish(&self.turn(now), item, digest, deliver)
    }

    /// Counts a listener in. Every item after the answer's position is handed to its shard.
    pub fn subscribe(&self, now: Instant, shard: u16, channel: &str, mode: Mode) -> Subscribed {
        self.stripe(channel).subscribe(&self.turn(now), shard, channel, mode)
    }

    /// Counts a listener in and says what it missed, with nothing lost or doubled between the two.
    pub fn subscribe_since(
        &self,
        now: Instant,
        shard: u16,
        channel: &str,
        mode: Mode,
        since: Since<'_>,
    ) -> (Subscribed, Replay<P>) {
        let turn = self.turn(now);
        let mut stripe = self.stripe(channel);
        let replay = stripe.replay(self.epoch, channel, since);
        (stripe.subscribe(&turn, shard, channel, mode), replay)
    }

    /// Counts a listener out. A subscription that is not there is no error.
    pub fn unsubscribe(&self, now: Instant, shard: u16, channel: &str, mode: Mode) {
        self.stripe(channel).unsubscribe(&self.turn(now), shard, channel, mode);
    }

    /// Forgets the last id of a channel, after a listener found that it differs from its own.
    pub fn forget_last_id(&self, channel: &str) {
        self.stripe(channel).forget_last_id(&self.totals, channel);
    }

    /// Forgets the last ids of all channels, for the command to recover.
    pub fn forget_all_last_ids(&self) {
        for stripe in &self.stripes {
            lock(stripe).forget_all_last_ids(&self.totals);
        }
    }

    /// What was published after `position`.
    pub fn since_position(&self, channel: &str, position: Position) -> Replay<P> {
        self.stripe(channel).replay(self.epoch, channel, Since::Position(position))
    }

    /// What was published after the item with this id.
    pub fn since_id(&self, channel: &str, id: &str) -> Replay<P> {
        self.stripe(channel).replay(self.epoch, channel, Since::Id(id))
    }

    /// The item with this id, if the channel's log still has it.
    pub fn find(&self, channel: &str, id: &str) -> Option<Arc<Ordered<P>>> {
        self.stripe(channel).find(channel, id)
    }

    /// The id of the last item that was delivered in sequence, if it is known.
    pub fn last_id(&self, channel: &str) -> Option<Arc<str>> {
        self.stripe(channel).last_id(channel)
    }

    /// Where a channel stands.
    pub fn position(&self, channel: &str) -> Position {
        Position { epoch: self.epoch, number: self.stripe(channel).end(channel) }
    }

    /// Releases items that waited long enough, ends lingering, and forgets what is old. Returns when to call again;
    /// call once a second at the least, because other calls set earlier deadlines. One call does bounded work, and
    /// answers `now` if more is due.
    pub fn expire(&self, now: Instant, deliver: &mut dyn FnMut(u16, &Arc<Ordered<P>>)) -> Option<Instant> {
        let turn = self.turn(now);
        let first = self.cursor.fetch_add(1, Ordering::Relaxed);
        let mut budget = EXPIRE_BUDGET;
        let mut next: Option<Instant> = None;
        for step in 0..STRIPES {
            let place = first.wrapping_add(step) % STRIPES;
            let Some(stripe) = self.stripes.get(place) else { continue };
            let (left, due) = lock(stripe).expire(&turn, budget, deliver);
            budget = left;
            next = next.into_iter().chain(due).min();
        }
        next
    }

    /// Whether a channel has a subscription, be it a lingering one.
    pub fn is_subscribed(&self, channel: &str) -> bool {
        self.stripe(channel).is_subscribed(channel)
    }

    /// The listeners of a channel.
    pub fn counts(&self, channel: &str) -> ListenerCounts {
        self.stripe(channel).counts(channel)
    }

    /// The subscribed channels. One part of the map at a time is copied, so the whole is no picture of one moment.
    pub fn channels(&self) -> impl Iterator<Item = ChannelCounts> + '_ {
        self.stripes.iter().flat_map(|stripe| lock(stripe).subscribed_channels())
    }

    /// What the hub holds.
    pub fn totals(&self) -> HubTotals {
        let mut totals = HubTotals {
            log_bytes: self.totals.log_bytes.load(Ordering::Relaxed),
            parked_bytes: self.totals.parked_bytes.load(Ordering::Relaxed),
            remembered_channels: self.totals.remembered.load(Ordering::Relaxed),
            seen_ids: self.totals.seen_ids.load(Ordering::Relaxed),
            ..HubTotals::default()
        };
        for stripe in &self.stripes {
            let (channels, log_items, parked) = lock(stripe).sizes();
            totals.channels += channels;
            totals.log_items += log_items;
            totals.parked += parked;
        }
        totals
    }

    fn turn(&self, now: Instant) -> Turn<'_, P> {
        let observer = self.observer.get().map(|observer| &**observer);
        Turn { now, observer, epoch: self.epoch, limits: &self.limits, totals: &self.totals }
    }

    #[expect(clippy::indexing_slicing, reason = "the place is taken modulo the fixed number of stripes")]
    fn stripe(&self, channel: &str) -> MutexGuard<'_, Stripe<P>> {
        let hash = self.hasher.hash_one(channel);
        // The maps inside the stripes use the same hash: its lowest bits choose the bucket and its highest seven tell
        // neighbours apart, so the stripe is chosen by bits from the middle.
        lock(&self.stripes[(hash >> 40) as usize % STRIPES])
    }
}

impl<P> fmt::Debug for Hub<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("limits", &self.limits).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// A panic in another thread's delivery leaves a channel with an item that some shards did not get, which is no reason to
/// stop all others.
fn lock<P>(stripe: &Mutex<Stripe<P>>) -> MutexGuard<'_, Stripe<P>> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Parts of the channel map. Many more than threads, so that two publishes seldom meet at one lock.
const STRIPES: usize = 256;

/// Steps of one call of [`Hub::expire`].
const EXPIRE_BUDGET: usize = 4_096;
