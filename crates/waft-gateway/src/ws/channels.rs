//! The channels of a WebSocket.

use std::rc::Rc;
use std::time::Instant;

use tracing::debug;
use waft_grip::filter::Filters;
use waft_hub::{Mode, Replay, Since};
use waft_net::Key;

use super::handshake::class;
use super::{Out, ToTarget, deliver};
use crate::hold::{Hold, Member};
use crate::shard::Shard;
use crate::subscribe::{self, Item, Sub};

/// Subscribes a WebSocket to a channel that its route names. The prefix of the route is not added.
pub(super) fn join_implicit(shard: &Rc<Shard>, key: Key, name: &str) {
    add(shard, key, name, Filters::default(), None, None, true);
}

/// Subscribes a WebSocket to a channel that its target names, or changes the filters of a subscription. With an id
/// that the client has seen, what came after it is put up first.
pub(super) fn join(
    shard: &Rc<Shard>,
    key: Key,
    channel: &str,
    filters: &[String],
    last_id: Option<&str>,
    prev_id: Option<&str>,
    out: &mut Out,
) {
    let name = match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) if !hold.close_sent => format!("{}{channel}", hold.route.options.prefix),
        _ => return,
    };
    let filters = Filters::from_names(filters.iter().map(String::as_str));
    if let Some(place) = place_of(shard, key, &name) {
        return change(shard, key, place, filters);
    }
    let explicit = match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => hold.subs.iter().filter(|sub| !sub.implicit).count(),
        _ => return,
    };
    let limit = shard.gateway.settings().limits.subscriptions_max;
    if explicit >= limit {
        return debug!(channel, limit, "A WebSocket has as many channels as it may; raise limits.subscriptions_max.");
    }
    let seen = last_id.or(prev_id);
    match add(shard, key, &name, filters, seen, prev_id, false) {
        Some(Replay::Items(items)) => {
            shard.metrics.replayed.add(items.len() as u64);
            for item in &items {
                deliver::put(shard, key, item, out);
            }
        }
        Some(Replay::Gap { .. } | Replay::Unknown) => {
            if let Some(id) = seen {
                tell_gap(shard, key, channel, id);
            }
        }
        None => {}
    }
}

fn add(
    shard: &Rc<Shard>,
    key: Key,
    name: &str,
    filters: Filters,
    seen: Option<&str>,
    prev_id: Option<&str>,
    implicit: bool,
) -> Option<Replay<crate::payload::Payload>> {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return None };
    let (now, hub) = (Instant::now(), &shard.gateway.hub);
    let (subscribed, replay) = match seen.filter(|_| hold.route.options.log) {
        Some(id) => {
            let (subscribed, replay) = hub.subscribe_since(now, shard.number, name, Mode::Ws, Since::Id(id));
            // A target that names the latest item has missed nothing, whether or not the log has it.
            let latest = subscribed.last_id.as_deref() == Some(id);
            let replay = if latest { Replay::Items(Vec::new()) } else { replay };
            (subscribed, Some(replay))
        }
        None => (hub.subscribe(now, shard.number, name, Mode::Ws), None),
    };
    // What is replayed moves the position on, item by item, so it has to start where the target said.
    let position = prev_id.map(Box::from);
    let careful = position.is_some() || filters != Filters::default();
    let member = Member { key, since: subscribed.position.number };
    let subscription = shard.listeners.borrow_mut().add(&subscribed.name, class(hold, careful) as u8, member);
    // Most have one channel: no room for four.
    hold.subs.reserve_exact(1);
    hold.subs.push(Sub { subscription, filters, prev_id: position, active: false, implicit });
    replay
}

/// Gives a subscription other filters.
fn change(shard: &Rc<Shard>, key: Key, place: usize, filters: Filters) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return };
    let careful = filters != Filters::default() || hold.subs.get(place).is_some_and(|sub| sub.prev_id.is_some());
    let class = class(hold, careful) as u8;
    let Some(sub) = hold.subs.get_mut(place) else { return };
    let mut listeners = shard.listeners.borrow_mut();
    if listeners.class_of(sub.subscription) != Some(class)
        && let Some(name) = listeners.name_of(sub.subscription).cloned()
        && let Some(member) = listeners.remove(sub.subscription)
    {
        sub.subscription = listeners.add(&name, class, member);
    }
    sub.filters = filters;
}

/// Ends a subscription that the target asked for.
pub(super) fn leave(shard: &Rc<Shard>, key: Key, channel: &str) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return };
    let name = format!("{}{channel}", hold.route.options.prefix);
    let place =
        place_in(shard, &hold.subs, &name).filter(|place| hold.subs.get(*place).is_some_and(|sub| !sub.implicit));
    if let Some(place) = place {
        let sub = hold.subs.remove(place);
        hold.subs.shrink_to_fit();
        drop(held);
        subscribe::leave(shard, Mode::Ws, [&sub]);
    }
}

fn place_of(shard: &Shard, key: Key, name: &str) -> Option<usize> {
    match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => place_in(shard, &hold.subs, name),
        _ => None,
    }
}

/// Where the subscription to a channel stands.
pub(super) fn place_in(shard: &Shard, subs: &[Sub], name: &str) -> Option<usize> {
    let listeners = shard.listeners.borrow();
    subs.iter().position(|sub| listeners.name_of(sub.subscription).is_some_and(|known| **known == *name))
}

/// Tells the target with its next request that items of a channel after `id` are missing.
pub(super) fn tell_gap(shard: &Shard, key: Key, channel: &str, id: &str) {
    shard.metrics.gaps_told.add(1);
    if let Some(Hold::Ws(hold)) = shard.held.borrow().get(key)
        && let ToTarget::OverHttp(link) = &hold.target
    {
        return link.note_gap(channel, id);
    }
    debug!(channel, id, "Items of a WebSocket are missing, and its target has no way to be told.");
}

/// What was published between a position and an item, if the log has it.
pub(super) fn between(shard: &Shard, position: &str, item: &Item) -> Option<Vec<Item>> {
    match shard.gateway.hub.since_id(&item.channel, position) {
        Replay::Items(items) if items.first().is_some_and(|first| first.prev_id.as_deref() == Some(position)) => {
            Some(items)
        }
        Replay::Items(_) | Replay::Gap { .. } | Replay::Unknown => None,
    }
}
