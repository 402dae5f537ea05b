//! Who listens on a channel, for the delivery loop of one shard.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU16;
use std::slice;
use std::sync::Arc;

use crate::chunks::Chunks;
use crate::names::NameTable;

/// The listeners of one shard by channel and render class.
///
/// A render class is a number that the owner of the index defines: listeners of one class get the same bytes. `K` names a
/// listener for its shard and is small: a slab key.
///
/// Keys of one class stand side by side, so that a walk reads memory in order. Removal moves the last key into the hole,
/// at a cost that does not depend on the crowd. A walk that is interrupted *pins* the class: as long as it does, keys stay
/// where they are and removed ones are passed over.
///
/// Cost: 24 to 36 bytes a subscription with an eight-byte key, about 80 bytes and its name for a channel with one listener.
///
/// ```
/// use std::sync::Arc;
/// use waft_hub::Listeners;
///
/// let mut listeners = Listeners::new();
/// let news: Arc<str> = Arc::from("news");
/// let first = listeners.add(&news, 0, 7_u64);
/// listeners.add(&news, 0, 8);
/// listeners.remove(first);
/// let channel = listeners.channel("news").unwrap();
/// assert_eq!(listeners.walk(channel, 0, 0, 100).collect::<Vec<_>>(), [8]);
/// ```
#[derive(Debug)]
pub struct Listeners<K> {
    hasher: RandomState,
    names: NameTable,
    channels: Chunks<Channel<K>>,
    subscriptions: Chunks<Placed>,
    generation: NonZeroU16,
}

/// Names one listener's subscription to one channel. It stays valid until it is removed; after that it names nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Subscription {
    place: u32,
    generation: NonZeroU16,
}

/// Names a channel of the index, as long as it has a listener or a class of it is pinned.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ChannelIndex(u32);

#[derive(Debug)]
struct Channel<K> {
    name: Arc<str>,
    body: Body<K>,
}

/// Most channels have one listener, who needs no list.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "a list must take no more room here than a single listener")]
enum Body<K> {
    Many(Box<Vec<Class<K>>>),
    One { class: u8, subscription: u32, key: K },
}

/// The listeners of one class.
#[derive(Debug)]
struct Class<K> {
    class: u8,
    pins: u32,
    holes: u32,
    keys: Vec<K>,
    /// For each key its subscription, or `HOLE`.
    subscriptions: Vec<u32>,
}

/// Where a subscription's key stands.
#[derive(Debug)]
struct Placed {
    channel: u32,
    position: u32,
    generation: NonZeroU16,
    class: u8,
}

impl<K: Copy> Listeners<K> {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            names: NameTable::new(),
            channels: Chunks::new(),
            subscriptions: Chunks::new(),
            generation: NonZeroU16::MIN,
        }
    }

    /// Adds a listener. The same key may listen several times; each is a subscription of its own.
    pub fn add(&mut self, channel: &Arc<str>, class: u8, key: K) -> Subscription {
        let generation = self.generation;
        self.generation = generation.checked_add(1).unwrap_or(NonZeroU16::MIN);
        let place = self.subscriptions.insert(Placed { channel: HOLE, position: 0, generation, class });
        let hash = self.hash(channel);
        let (index, position) = match self.find(hash, channel) {
            Some(index) => {
                let list = self.channels.get_mut(index).map(|channel| channel.class_mut(class));
                (index, list.map_or(0, |list| list.push(place, key)))
            }
            None => {
                let body = Body::One { class, subscription: place, key };
                let index = self.channels.insert(Channel { name: Arc::clone(channel), body });
                self.names.insert(hash, index);
                (index, 0)
            }
        };
        if let Some(placed) = self.subscriptions.get_mut(place) {
            placed.channel = index;
            placed.position = position;
        }
        Subscription { place, generation }
    }

    /// Removes a subscription and returns its key, or nothing if it was removed before. No other subscription is
    /// affected: what moves is found again by itself.
    pub fn remove(&mut self, subscription: Subscription) -> Option<K> {
        self.placed(subscription)?;
        let Placed { channel, position, class, .. } = self.subscriptions.remove(subscription.place)?;
        let body = &mut self.channels.get_mut(channel)?.body;
        let lists = match body {
            Body::One { key, .. } => {
                let key = *key;
                self.drop_channel(channel);
                return Some(key);
            }
            Body::Many(lists) => lists,
        };
        let list = lists.iter_mut().find(|list| list.class == class)?;
        let key = list.keys.get(position as usize).copied();
        list.take(position as usize, &mut self.subscriptions);
        self.settle(channel);
        key
    }

    /// The channel with this name, if anybody listens.
    pub fn channel(&self, name: &str) -> Option<ChannelIndex> {
        self.find(self.hash(name), name).map(ChannelIndex)
    }

    /// The keys of a class that stand in the places from `from` up to `from + count`, those of removed listeners left
    /// out. With [`slots`](Self::slots) as the end, every listener is met once if nothing changes, or if the class is
    /// pinned.
    pub fn walk(
        &self,
        channel: ChannelIndex,
        class: u8,
        from: usize,
        count: usize,
    ) -> impl Iterator<Item = K> + Clone + '_ {
        let (keys, subscriptions) = self.lists(channel, class);
        let end = from.saturating_add(count).min(keys.len());
        let keys = keys.get(from..end).unwrap_or_default();
        let subscriptions = subscriptions.get(from..end).unwrap_or_default();
        keys.iter().zip(subscriptions).filter(|(_, place)| **place != HOLE).map(|(key, _)| *key)
    }

    /// Begins a walk that takes several calls, and tells how many places it has to visit: whoever is added later stands
    /// behind them. Nothing is pinned, and nothing to unpin, when nobody of this class listens.
    pub fn pin(&mut self, channel: ChannelIndex, class: u8) -> Option<usize> {
        if self.slots(channel, class) == 0 {
            return None;
        }
        let list = self.channels.get_mut(channel.0)?.class_mut(class);
        list.pins += 1;
        Some(list.keys.len())
    }

    /// Ends a walk that began with [`pin`](Self::pin). The channel may be gone after this.
    pub fn unpin(&mut self, channel: ChannelIndex, class: u8) {
        let Some(Body::Many(lists)) = self.channels.get_mut(channel.0).map(|channel| &mut channel.body) else { return };
        let Some(list) = lists.iter_mut().find(|list| list.class == class && list.pins > 0) else { return };
        list.pins -= 1;
        if list.pins == 0 {
            list.close_holes(&mut self.subscriptions);
            self.settle(channel.0);
        }
    }

    /// Places of a class that a walk has to visit: its listeners, and the holes while it is pinned.
    pub fn slots(&self, channel: ChannelIndex, class: u8) -> usize {
        self.lists(channel, class).0.len()
    }

    /// Listeners of a class.
    pub fn len_of(&self, channel: ChannelIndex, class: u8) -> usize {
        self.classes(channel).find(|(found, _)| *found == class).map_or(0, |(_, len)| len)
    }

    /// The classes of a channel that have listeners, each with their number.
    pub fn classes(&self, channel: ChannelIndex) -> impl Iterator<Item = (u8, usize)> + '_ {
        let body = self.channels.get(channel.0).map(|channel| &channel.body);
        let (one, many): (_, &[_]) = match body {
            Some(Body::One { class, .. }) => (Some((*class, 1)), &[]),
            Some(Body::Many(lists)) => (None, lists),
            None => (None, &[]),
        };
        one.into_iter().chain(many.iter().map(|list| (list.class, list.len())).filter(|(_, len)| *len > 0))
    }

    /// The listener of a subscription.
    pub fn get(&self, subscription: Subscription) -> Option<&K> {
        let placed = self.placed(subscription)?;
        self.lists(ChannelIndex(placed.channel), placed.class).0.get(placed.position as usize)
    }

    /// The name of the channel that a subscription is for.
    pub fn name_of(&self, subscription: Subscription) -> Option<&Arc<str>> {
        self.name(self.channel_of(subscription)?)
    }

    /// The channel that a subscription is for.
    pub fn channel_of(&self, subscription: Subscription) -> Option<ChannelIndex> {
        self.placed(subscription).map(|placed| ChannelIndex(placed.channel))
    }

    /// The class that a subscription was made with.
    pub fn class_of(&self, subscription: Subscription) -> Option<u8> {
        self.placed(subscription).map(|placed| placed.class)
    }

    /// The name of a channel.
    pub fn name(&self, channel: ChannelIndex) -> Option<&Arc<str>> {
        self.channels.get(channel.0).map(|channel| &channel.name)
    }

    /// Subscriptions on all channels.
    pub const fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether nobody listens.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels with a listener, or with a pinned class.
    pub const fn channels_len(&self) -> usize {
        self.channels.len()
    }

    fn placed(&self, subscription: Subscription) -> Option<&Placed> {
        self.subscriptions.get(subscription.place).filter(|placed| placed.generation == subscription.generation)
    }

    fn lists(&self, channel: ChannelIndex, wanted: u8) -> (&[K], &[u32]) {
        match self.channels.get(channel.0).map(|channel| &channel.body) {
            Some(Body::One { class, subscription, key }) if *class == wanted => {
                (slice::from_ref(key), slice::from_ref(subscription))
            }
            Some(Body::Many(lists)) => lists
                .iter()
                .find(|list| list.class == wanted)
                .map_or((&[], &[]), |list| (list.keys.as_slice(), list.subscriptions.as_slice())),
            Some(Body::One { .. }) | None => (&[], &[]),
        }
    }

    /// Gives back what a channel needs no more, down to the channel itself.
    fn settle(&mut self, channel: u32) {
        let Some(Channel { body, .. }) = self.channels.get_mut(channel) else { return };
        let Body::Many(lists) = body else { return };
        lists.retain(|list| list.pins > 0 || !list.keys.is_empty());
        match lists.as_slice() {
            [] => self.drop_channel(channel),
            [Class { pins: 0, class, keys, subscriptions, .. }] => {
                if let ([key], [subscription]) = (keys.as_slice(), subscriptions.as_slice()) {
                    *body = Body::One { class: *class, subscription: *subscription, key: *key };
                }
            }
            _ => {}
        }
    }

    fn drop_channel(&mut self, index: u32) {
        if let Some(channel) = self.channels.remove(index) {
            self.names.remove(self.hash(&channel.name), index);
        }
    }

    fn find(&self, hash: u32, name: &str) -> Option<u32> {
        self.names.find(hash, |place| self.channels.get(place).is_some_and(|channel| *channel.name == *name))
    }

    /// Keyed, because clients may choose names; half of it is enough for a table of this size.
    fn hash(&self, name: &str) -> u32 {
        (self.hasher.hash_one(name) >> 32) as u32
    }
}

impl<K: Copy> Default for Listeners<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy> Channel<K> {
    /// The list of a class, made if there is none.
    #[expect(clippy::indexing_slicing, reason = "the list was found or pushed at this place just before")]
    fn class_mut(&mut self, wanted: u8) -> &mut Class<K> {
        if let Body::One { class, subscription, key } = self.body {
            let mut list = Class::new(class);
            list.push(subscription, key);
            self.body = Body::Many(Box::new(vec![list]));
        }
        let lists = match &mut self.body {
            Body::Many(lists) => lists,
            Body::One { .. } => unreachable!("a single listener was made a list above"),
        };
        let place = lists.iter().position(|list| list.class == wanted).unwrap_or(lists.len());
        if place == lists.len() {
            lists.reserve_exact(1);
            lists.push(Class::new(wanted));
        }
        &mut lists[place]
    }
}

impl<K: Copy> Class<K> {
    const fn new(class: u8) -> Self {
        Self { class, pins: 0, holes: 0, keys: Vec::new(), subscriptions: Vec::new() }
    }

    const fn len(&self) -> usize {
        self.keys.len() - self.holes as usize
    }

    fn push(&mut self, subscription: u32, key: K) -> u32 {
        self.keys.push(key);
        self.subscriptions.push(subscription);
        self.keys.len() as u32 - 1
    }

    fn take(&mut self, position: usize, placed: &mut Chunks<Placed>) {
        if self.pins > 0 {
            if let Some(subscription) = self.subscriptions.get_mut(position) {
                *subscription = HOLE;
                self.holes += 1;
            }
            return;
        }
        self.swap_remove(position, placed);
        self.shrink();
    }

    fn swap_remove(&mut self, position: usize, placed: &mut Chunks<Placed>) {
        if position >= self.keys.len() {
            return;
        }
        self.keys.swap_remove(position);
        self.subscriptions.swap_remove(position);
        let moved = self.subscriptions.get(position).and_then(|moved| placed.get_mut(*moved));
        if let Some(moved) = moved {
            moved.position = position as u32;
        }
    }

    /// From the end, so that no hole is moved into a hole.
    fn close_holes(&mut self, placed: &mut Chunks<Placed>) {
        let mut position = self.keys.len();
        while self.holes > 0 && position > 0 {
            position -= 1;
            if self.subscriptions.get(position) == Some(&HOLE) {
                self.swap_remove(position, placed);
                self.holes -= 1;
            }
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.keys.capacity() > 16 && self.keys.len() < self.keys.capacity() / 4 {
            self.keys.shrink_to(self.keys.len() * 2);
            self.subscriptions.shrink_to(self.keys.len() * 2);
        }
    }
}

/// Stands in a list for a subscription that was removed while the class was pinned.
const HOLE: u32 = u32::MAX;

const _: () = assert!(size_of::<Subscription>() == 8);
const _: () = assert!(size_of::<Placed>() == 12 && size_of::<Channel<u64>>() == 32);
