//! What a client listens to, and what comes, brought to where the client is: a held request, a WebSocket, or a stream of
//! events.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use waft_hub::{Mode, Position};
use waft_net::Key;
use waft_realm::Reason;

use super::carry::{answer_held, carried, flush_poll, leave_client, put_lost};
use super::{Client, Lost, forms, is_for, is_pattern, lock, put_deliveries, stream};
use crate::deliver::{self, after, members, paced};
use crate::hold::{self, Hold};
use crate::realm::feed::{Start, join};
use crate::realm::poll::Poll;
use crate::realm::tenant::PATTERN_MARK;
use crate::shard::Shard;
use crate::subscribe::{self, Class, Item, Sub};
use crate::ws::{self, Out};

/// What carries a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Request,
    Socket,
    Stream { is_chunked: bool },
}

impl Carrier {
    const fn mode(self) -> Mode {
        match self {
            Self::Request => Mode::Response,
            Self::Socket => Mode::Ws,
            Self::Stream { .. } => Mode::Stream,
        }
    }

    /// The class of its listener on a channel or pattern.
    fn class(self, name: &str, has_acks: bool) -> Class {
        match self {
            Self::Request => Class::Poll,
            Self::Socket if has_acks => Class::Poll,
            Self::Socket | Self::Stream { .. } if is_pattern(name) => Class::BayeuxCareful,
            Self::Socket => Class::Bayeux,
            Self::Stream { is_chunked: true } => Class::BayeuxEventsChunked,
            Self::Stream { is_chunked: false } => Class::BayeuxEventsRaw,
        }
    }
}

/// What a client listens to has changed, or another connection has taken its place.
pub(crate) fn on_change(shard: &Rc<Shard>, key: Key, client: &Arc<Client>) {
    let (carrier, own) = match shard.held.borrow().get(key) {
        Some(Hold::Response(hold)) => match hold.poll.as_deref() {
            Some(Poll::Bayeux(connect)) if connect.carries(client) => (Carrier::Request, Some(connect.serial())),
            _ => return,
        },
        Some(Hold::Stream(hold)) => match hold.bayeux.as_deref() {
            Some(stream) if stream.carries(client) => (Carrier::Stream { is_chunked: false }, Some(stream.serial())),
            _ => return,
        },
        Some(Hold::Ws(_)) => (Carrier::Socket, None),
        _ => return,
    };
    let own = match own {
        Some(own) => own,
        None => match carried(shard, key) {
            Some(carried) if Arc::ptr_eq(&carried.client, client) => carried.serial,
            _ => return,
        },
    };
    let is_current = {
        let state = lock(&client.state);
        state.serial == own && !state.is_gone
    };
    let mut out = Out::default();
    match carrier {
        _ if is_current => sync(shard, key, client, &mut out),
        Carrier::Request => flush_poll(shard, key),
        Carrier::Socket => leave_client(shard, key),
        Carrier::Stream { .. } => hold::end_stream(shard, key),
    }
    if carrier == Carrier::Socket {
        out.flush(shard, key);
    }
}

/// Brings the subscriptions of a hold to what its client listens to.
pub(super) fn sync(shard: &Rc<Shard>, key: Key, client: &Arc<Client>, out: &mut Out) {
    let (carrier, known): (Carrier, Vec<Arc<str>>) = {
        let held = shard.held.borrow();
        let (carrier, subs) = match held.get(key) {
            Some(Hold::Ws(hold)) => (Carrier::Socket, hold.subs()),
            Some(Hold::Response(hold)) => (Carrier::Request, &*hold.subs),
            Some(Hold::Stream(hold)) => (stream::carrier(hold), &*hold.subs),
            _ => return,
        };
        let listeners = shard.listeners.borrow();
        (carrier, subs.iter().filter_map(|sub| listeners.name_of(sub.subscription).map(Arc::clone)).collect())
    };
    let (wanted, has_acks) = {
        let state = lock(&client.state);
        let wanted: Vec<String> = state.session.subscriptions().map(|(name, _)| client.hub_name(name)).collect();
        (wanted, state.session.has_acks())
    };
    let (fresh, has_missed) = join_all(shard, key, client, &known, carrier);
    if has_missed {
        // What the walk has brought by the names known before is not to come again with what was missed by the new ones.
        note_served(shard, key, client);
    }
    let old = exchange_subs(shard, key, fresh, &wanted);
    subscribe::leave(shard, carrier.mode(), &old);
    match carrier {
        Carrier::Request if has_missed => flush_poll(shard, key),
        Carrier::Socket if has_acks => {
            let has_news = {
                let state = lock(&client.state);
                !client.news(shard, &state).is_ok_and(|news| news.items.is_empty())
            };
            if has_news {
                answer_held(shard, key, out);
            }
        }
        Carrier::Socket if has_missed => put_missed(shard, key, client, out),
        Carrier::Stream { .. } if has_missed => stream::put_missed(shard, key, client),
        _ => {}
    }
}

/// Gives a hold these subscriptions too; returns those that it had and that are not wanted any more.
fn exchange_subs(shard: &Shard, key: Key, fresh: Vec<Sub>, wanted: &[String]) -> Vec<Sub> {
    let mut held = shard.held.borrow_mut();
    let listeners = shard.listeners.borrow();
    let is_old = |sub: &Sub| {
        listeners.name_of(sub.subscription).is_none_or(|name| !wanted.iter().any(|wanted| **wanted == **name))
    };
    let subs = match held.get_mut(key) {
        Some(Hold::Ws(hold)) => {
            fresh.into_iter().for_each(|sub| hold.add_sub(sub));
            let mut old = Vec::new();
            while let Some(place) = hold.subs().iter().position(is_old) {
                old.push(hold.remove_sub(place));
            }
            return old;
        }
        Some(Hold::Response(hold)) => &mut hold.subs,
        Some(Hold::Stream(hold)) => &mut hold.subs,
        _ => return fresh,
    };
    let all = std::mem::take(subs).into_vec().into_iter().chain(fresh);
    let (old, kept): (Vec<Sub>, Vec<Sub>) = all.partition(is_old);
    *subs = kept.into();
    old
}

/// Subscribes to whatever the client listens to and `known` does not have. Says whether something came meanwhile.
pub(super) fn join_all(
    shard: &Shard,
    key: Key,
    client: &Client,
    known: &[Arc<str>],
    carrier: Carrier,
) -> (Vec<Sub>, bool) {
    let (wanted, has_acks): (Vec<(Arc<str>, u64)>, bool) = {
        let state = lock(&client.state);
        let wanted = state.session.subscriptions().map(|(name, at)| (Arc::clone(name), at)).collect();
        (wanted, state.session.has_acks())
    };
    let mut subs = Vec::new();
    let mut has_missed = false;
    for (name, served) in wanted {
        let hub_name = client.hub_name(&name);
        if known.iter().any(|known| **known == *hub_name) {
            continue;
        }
        let from = Position { number: served, ..shard.gateway.hub.position(&hub_name) };
        let class = carrier.class(&name, has_acks);
        let joined = join(shard, key, &hub_name, class, carrier.mode(), Start::After(from));
        has_missed |= joined.gap || !joined.missed.is_empty();
        subs.push(joined.sub);
    }
    (subs, has_missed)
}

/// Puts up what a client has missed before its WebSocket carried it.
fn put_missed(shard: &Rc<Shard>, key: Key, client: &Arc<Client>, out: &mut Out) {
    let news = {
        let mut state = lock(&client.state);
        let news = client.news(shard, &state);
        if let Ok(news) = &news {
            state.session.served(news.ends.clone());
        }
        news
    };
    match news {
        Ok(news) => {
            shard.metrics.replayed.add(news.items.len() as u64);
            for message in news.items.iter().filter_map(forms::bayeux) {
                out.client_bytes(message.plain());
            }
        }
        Err(Lost) => {
            put_lost(shard, key, client, out);
            client.forget(Reason::Behind);
            leave_client(shard, key);
        }
    }
}

/// How far the walk has served these subscriptions of a WebSocket or a stream.
pub(super) fn served(shard: &Shard, subs: &[Sub]) -> Vec<(Arc<str>, u64)> {
    let listeners = shard.listeners.borrow();
    let delivered = shard.realm.delivered.borrow();
    let end = |sub: &Sub| {
        let name = listeners.name_of(sub.subscription)?;
        let begun = listeners.get(sub.subscription)?.since;
        let own = forms::own_name(name);
        let number = delivered.get(name).map_or(begun, |number| (*number).max(begun));
        Some((Arc::from(own.strip_prefix(PATTERN_MARK).unwrap_or(own)), number))
    };
    subs.iter().filter_map(end).collect()
}

/// Notes how far the WebSocket or the stream of a key has served its client.
pub(super) fn note_served(shard: &Shard, key: Key, client: &Client) {
    let held = shard.held.borrow();
    let ends = match held.get(key) {
        Some(Hold::Ws(hold)) => served(shard, hold.subs()),
        Some(Hold::Stream(hold)) => served(shard, &hold.subs),
        _ => return,
    };
    let mut state = lock(&client.state);
    if !state.session.has_acks() {
        state.session.served(ends);
    }
}

/// Something for a client did not fit into its queue, or it took nothing for too long: it has to begin anew, so that it
/// knows.
pub(crate) fn too_slow(shard: &Shard, key: Key) {
    let client = match shard.held.borrow().get(key) {
        Some(Hold::Stream(hold)) => hold.bayeux.as_deref().map(stream::Stream::client),
        Some(Hold::Ws(_)) => None,
        _ => return,
    };
    // With acknowledgements it will say what it has.
    let client = client.or_else(|| carried(shard, key).map(|carried| carried.client));
    if let Some(client) = client.filter(|client| !lock(&client.state).session.has_acks()) {
        client.forget(Reason::Slow);
    }
}

/// Delivers items of one channel to the WebSockets and streams of Bayeux clients that need no look at their sessions, and
/// to those that may get an item by more than one name.
pub(in crate::realm) async fn deliver(shard: &Rc<Shard>, items: &[Item]) -> usize {
    let Some(first) = items.first() else { return 0 };
    let name = &first.channel;
    let mut reached = 0;
    let sockets = members(shard, name, Class::Bayeux);
    if !sockets.is_empty() {
        reached += sockets.len();
        ws::deliver_form(shard, items, &sockets, forms::bayeux).await;
    }
    for class in [Class::BayeuxEventsChunked, Class::BayeuxEventsRaw] {
        let streams = members(shard, name, class);
        if !streams.is_empty() {
            reached += streams.len();
            deliver::plain(shard, items, class, &streams).await;
        }
    }
    let careful = members(shard, name, Class::BayeuxCareful);
    reached += careful.len();
    if reached == 0 {
        return 0;
    }
    let own = forms::own_name(name);
    let own = own.strip_prefix(PATTERN_MARK).unwrap_or(own);
    for member in paced(careful) {
        match member {
            Some(member) => deliver_careful(shard, member.key, after(items, member.since), own),
            None => tokio::task::yield_now().await,
        }
    }
    if let Some(last) = items.last() {
        shard.realm.delivered.borrow_mut().insert(Arc::clone(name), last.position.number);
    }
    reached
}

/// Delivers to a client that may get an item by more than one name, of which `own` is that of this walk.
fn deliver_careful(shard: &Rc<Shard>, key: Key, items: &[Item], own: &str) {
    let of_stream = match shard.held.borrow().get(key) {
        Some(Hold::Stream(hold)) => hold.bayeux.as_deref().map(stream::Stream::client),
        _ => None,
    };
    let is_stream = of_stream.is_some();
    let Some(client) = of_stream.or_else(|| carried(shard, key).map(|carried| carried.client)) else { return };
    let own: Vec<Item> = {
        let state = lock(&client.state);
        items.iter().filter(|item| is_for(&state.session, own, item)).cloned().collect()
    };
    if own.is_empty() {
        return;
    }
    if is_stream {
        return stream::put(shard, key, &own);
    }
    let mut bytes = BytesMut::new();
    for message in own.iter().filter_map(forms::bayeux) {
        bytes.extend_from_slice(message.plain());
    }
    if ws::deliver_bytes(shard, key, &bytes.freeze()) {
        shard.metrics.delivered_ws.add(own.len() as u64);
    }
}

/// Some items as one event.
pub(super) fn event(items: &[Item]) -> Bytes {
    let mut batch = b"[".to_vec();
    put_deliveries(items, &mut batch);
    batch.push(b']');
    waft_bayeux::event(&batch).into()
}

/// Forgets how far channels were served that nobody here listens to any more.
pub(super) fn forget_delivered(shard: &Shard) {
    let listeners = shard.listeners.borrow();
    let mut delivered = shard.realm.delivered.borrow_mut();
    if delivered.len() > 2 * listeners.channels_len() + 64 {
        delivered.retain(|name, _| listeners.channel(name).is_some());
    }
}
