//! The channels a hold listens to.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use waft_grip::filter::{ChannelPosition, Filters};
use waft_grip::instruct::ChannelRef;
use waft_hub::{Mode, Ordered, Position, Replay, Since, Subscription};
use waft_net::Key;
use waft_route::{Route, Target};

use crate::gateway::Message;
use crate::hold::Member;
use crate::payload::Payload;
use crate::settings::Settings;
use crate::shard::Shard;

/// An item in its place.
pub(crate) type Item = Arc<Ordered<Payload>>;

/// Which listeners get the same bytes. The numbers are the hub's render classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// Streams in chunks that need nothing of their own.
    Chunked = 0,
    /// Streams to the end of the connection that need nothing of their own.
    Raw = 1,
    /// Streams that are looked at one by one: filters, positions, links.
    Stream = 2,
    /// Long-polls.
    Response = 3,
    /// WebSockets that need nothing of their own.
    Ws = 4,
    /// WebSockets that are looked at one by one: filters, positions, compression.
    WsCareful = 5,
    /// Event streams of realms, in chunks.
    SseChunked = 6,
    /// Event streams of realms, to the end of the connection.
    SseRaw = 7,
    /// JSON lines of realms, in chunks.
    LinesChunked = 8,
    /// JSON lines of realms, to the end of the connection.
    LinesRaw = 9,
    /// Polls of realms, and Bayeux clients that are answered like them.
    Poll = 10,
    /// Sockets of plain clients of realms.
    Events = 11,
    /// Sockets of Bayeux clients.
    Bayeux = 12,
    /// Sockets and event streams of Bayeux clients that listen to channels by more than one name.
    BayeuxCareful = 13,
    /// Event streams of Bayeux clients, in chunks.
    BayeuxEventsChunked = 14,
    /// Event streams of Bayeux clients, to the end of the connection.
    BayeuxEventsRaw = 15,
    /// Sockets of clients that found them by a link of LiveResource.
    Live = 16,
}

impl Class {
    /// The first class that only clients of realms have.
    pub(crate) const FIRST_OF_REALMS: u8 = Self::SseChunked as u8;
}

/// One channel of a hold.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) subscription: Subscription,
    pub(crate) filters: Filters,
    /// The id after which the next item must come, if the target gave one.
    pub(crate) prev_id: Option<Box<str>>,
    /// Whether an item came since the link timer was set.
    pub(crate) active: bool,
    /// From the route, not from the target: it stays whatever the target says.
    pub(crate) implicit: bool,
}

/// A channel that is to be subscribed to, under its full name.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) prev_id: Option<String>,
    pub(crate) filters: Filters,
    pub(crate) implicit: bool,
}

/// The channels an instruct asks for, with those of the target, without repetition.
pub(crate) fn wanted(
    settings: &Settings,
    route: &Route,
    target: Option<&Target>,
    channels: &[ChannelRef],
) -> Vec<Wanted> {
    let prefix = &route.options.prefix;
    let named = channels.iter().take(settings.limits.subscriptions_max).map(|channel| Wanted {
        name: format!("{prefix}{}", channel.name),
        prev_id: channel.prev_id.clone(),
        filters: Filters::from_names(channel.filters.iter().map(String::as_str)),
        implicit: false,
    });
    let implicit = target.into_iter().flat_map(|target| &target.subs).map(|name| Wanted {
        name: name.clone(),
        prev_id: None,
        filters: Filters::default(),
        implicit: true,
    });
    let mut out: Vec<Wanted> = Vec::new();
    for channel in named.chain(implicit) {
        match out.iter_mut().find(|other| other.name == channel.name) {
            // The last word on a channel counts.
            Some(other) if !channel.implicit => *other = channel,
            Some(_) => {}
            None => out.push(channel),
        }
    }
    out
}

/// What is known of what a client has seen before.
#[derive(Debug, Default)]
pub(crate) struct Seen<'a> {
    /// Positions up to which this hold was served before it was made anew.
    pub(crate) served: &'a [(Arc<str>, Position)],
    /// The id the client says it saw last, on any of its channels.
    pub(crate) last_event_id: Option<&'a str>,
}

/// What subscribing found.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) subs: Vec<Sub>,
    /// Items the client missed, oldest first.
    pub(crate) missed: Vec<Item>,
    /// Channels whose items after the given id are no longer there.
    pub(crate) conflict: bool,
    /// The client's last id is not in any log: what it missed cannot be told.
    pub(crate) gap: bool,
}

/// Subscribes the hold `key` to `channels`. From here on every item is kept for it or delivered.
pub(crate) fn join(
    shard: &Rc<Shard>,
    key: Key,
    class: Class,
    route: &Route,
    channels: &[Wanted],
    seen: &Seen<'_>,
) -> Joined {
    let now = Instant::now();
    let hub = &shard.gateway.hub;
    let mode = if class == Class::Response { Mode::Response } else { Mode::Stream };
    let log = route.options.log;
    // The last item the client saw, wherever it was published.
    let last = seen
        .last_event_id
        .filter(|_| log)
        .and_then(|id| channels.iter().find_map(|channel| hub.find(&channel.name, id)));
    let mut joined = Joined::default();
    let mut unplaced = false;
    for channel in channels {
        let served = seen.served.iter().find(|(name, _)| **name == *channel.name).map(|(_, position)| *position);
        let since = match (&channel.prev_id, served, &last) {
            (Some(id), _, _) if log => Some(Since::Id(id)),
            (None, Some(position), _) if log => Some(Since::Position(position)),
            (None, None, Some(item)) if *item.channel == *channel.name => Some(Since::Position(item.position)),
            (None, None, Some(_)) => Some(Since::Position(Position { number: 0, ..hub.position(&channel.name) })),
            _ => None,
        };
        let (subscribed, replay) = match since {
            Some(since) => hub.subscribe_since(now, shard.number, &channel.name, mode, since),
            None => (hub.subscribe(now, shard.number, &channel.name, mode), Replay::Unknown),
        };
        let stale =
            channel.prev_id.as_deref().is_some_and(|id| subscribed.last_id.as_deref().is_some_and(|last| last != id));
        let mut position = channel.prev_id.as_deref().map(Box::from);
        match replay {
            Replay::Items(items) => joined.missed.extend(items),
            Replay::Gap { available, .. } if channel.prev_id.is_none() && served.is_none() => {
                let after = last.as_ref().map(|item| item.received);
                joined
                    .missed
                    .extend(available.into_iter().filter(|item| after.is_some_and(|after| item.received > after)));
            }
            Replay::Gap { .. } | Replay::Unknown => {
                joined.conflict |= stale;
                joined.gap |= served.is_some();
                unplaced |= channel.prev_id.is_none() && served.is_none();
            }
        }
        if stale && joined.conflict {
            hub.forget_last_id(&channel.name);
            position = channel.prev_id.as_deref().map(Box::from);
        }
        let member = Member { key, since: subscribed.position.number };
        let subscription = shard.listeners.borrow_mut().add(&subscribed.name, class as u8, member);
        if subscribed.first_on_instance && mode != Mode::Ws {
            announce_first(shard, &subscribed.name);
        }
        joined.subs.push(Sub {
            subscription,
            filters: channel.filters,
            prev_id: position,
            active: false,
            implicit: channel.implicit,
        });
    }
    joined.gap |= log && seen.last_event_id.is_some() && last.is_none() && unplaced;
    joined.missed.sort_by_key(|item| item.received);
    joined
}

/// A channel has its first listener: where the settings ask for it, holds are updated a moment later.
fn announce_first(shard: &Rc<Shard>, channel: &Arc<str>) {
    const DELAY: std::time::Duration = std::time::Duration::from_secs(1);
    if !shard.gateway.settings().update_on_first_subscription {
        return;
    }
    let (shard, channel) = (Rc::clone(shard), Arc::clone(channel));
    tokio::task::spawn_local(async move {
        tokio::time::sleep(DELAY).await;
        for number in 0..shard.gateway.mailboxes.len() {
            shard.gateway.send(u16::try_from(number).unwrap_or(u16::MAX), Message::Update(Arc::clone(&channel)));
        }
    });
}

/// Ends subscriptions.
pub(crate) fn leave<'a>(shard: &Shard, mode: Mode, subs: impl IntoIterator<Item = &'a Sub>) {
    let now = Instant::now();
    for sub in subs {
        let name = shard.listeners.borrow().name_of(sub.subscription).map(Arc::clone);
        if shard.listeners.borrow_mut().remove(sub.subscription).is_some()
            && let Some(name) = name
        {
            shard.gateway.hub.unsubscribe(now, shard.number, &name, mode);
        }
    }
}

/// The names and positions of channels as the target knows them, for filters and `Grip-Last`.
pub(crate) fn positions(shard: &Shard, prefix: &str, subs: &[Sub]) -> Vec<(String, Option<String>)> {
    let listeners = shard.listeners.borrow();
    subs.iter()
        .filter_map(|sub| {
            let name = listeners.name_of(sub.subscription)?;
            let name = name.strip_prefix(prefix).unwrap_or(name).to_owned();
            Some((name, sub.prev_id.as_deref().map(str::to_owned)))
        })
        .collect()
}

/// [`positions`] as the filters take them.
pub(crate) fn as_filter_positions(positions: &[(String, Option<String>)]) -> Vec<ChannelPosition<'_>> {
    positions.iter().map(|(name, id)| ChannelPosition { name, prev_id: id.as_deref() }).collect()
}
