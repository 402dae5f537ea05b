//! The channels of a WebSocket.

use std::rc::Rc;
use std::time::Instant;

use tracing::debug;
use waft_grip::filter::Filters;
use waft_hub::{Mode, Replay, Since};
use waft_net::Key;
use waft_websocket::close::Close;
use waft_websocket::frame::Opcode;

use super::handshake::class;
use super::{Out, ToTarget, close_after, deliver};
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
                tell_gap(shard, key, channel, id, out);
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
        None => {
            let subscribed = hub.subscribe(now, shard.number, name, Mode::Ws);
            // Without a log, what came after the last item seen is lost. What a target takes for the latest is judged
            // by the next item.
            let lost = seen.filter(|id| prev_id.is_none() && subscribed.last_id.as_deref() != Some(id));
            (subscribed, lost.map(|_id| Replay::Unknown))
        }
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
pub(crate) fn place_in(shard: &Shard, subs: &[Sub], name: &str) -> Option<usize> {
    let listeners = shard.listeners.borrow();
    subs.iter().position(|sub| listeners.name_of(sub.subscription).is_some_and(|known| **known == *name))
}

/// Tells that items of a channel after `id` are missing: the target with its next request, and the client where its
/// route says how. True if that closes the client.
pub(super) fn tell_gap(shard: &Rc<Shard>, key: Key, channel: &str, id: &str, out: &mut Out) -> bool {
    shard.metrics.gaps_told.add(1);
    let held = shard.held.borrow();
    let Some(Hold::Ws(hold)) = held.get(key) else { return false };
    let notice = &hold.route.options.websocket.gap;
    match &hold.target {
        ToTarget::OverHttp(link) => link.note_gap(channel, id),
        _ if notice.is_given() => {}
        ToTarget::Direct(_) | ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) | ToTarget::Worker(_) => {
            debug!(channel, id, "Items of a WebSocket are missing, and nobody is told: its route has no gap_message.");
        }
    }
    if hold.close_sent {
        return true;
    }
    if let Some(message) = &notice.message {
        out.message(shard, hold.deflate.as_ref(), Opcode::Text, told(message, channel, id).as_bytes());
    }
    let Some(code) = notice.close else { return false };
    drop(held);
    close_after(shard, key, &Close::new(code, "items are missing"), out);
    true
}

/// The message about a gap, its placeholders filled.
fn told(message: &str, channel: &str, id: &str) -> String {
    let escaped = |text: &str| {
        let quoted = serde_json::Value::from(text).to_string();
        quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
    };
    // One pass, so that a channel named like a placeholder stays what it is.
    let mut filled = String::with_capacity(message.len() + channel.len() + id.len());
    let mut rest = message;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        rest = if let Some(after) = from.strip_prefix("{channel}") {
            filled.push_str(&escaped(channel));
            after
        } else if let Some(after) = from.strip_prefix("{last-id}") {
            filled.push_str(&escaped(id));
            after
        } else {
            filled.push('{');
            from.get(1..).unwrap_or_default()
        };
    }
    filled + rest
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_about_a_gap_is_filled_and_stays_json() {
        let check = |message: &str, expected: &str| assert_eq!(told(message, "a\"b", "{channel}\n"), expected);
        check("gap", "gap");
        check(
            "{\"gap\": \"{channel}\", \"after\": \"{last-id}\"}",
            "{\"gap\": \"a\\\"b\", \"after\": \"{channel}\\n\"}",
        );
        check("{{channel}} {other} {", "{a\\\"b} {other} {");
    }
}
