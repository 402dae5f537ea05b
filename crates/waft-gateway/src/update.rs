//! Held clients that have to hear from their target again: long-polls are asked anew, streams
//! fetch their next link.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::warn;
use waft_grip::instruct::{HoldMode, Instruct};
use waft_http1::Version;
use waft_hub::{Mode, Position};
use waft_net::Key;
use waft_route::Route;

use crate::ask;
use crate::begin::{BodyFilter, asks_network};
use crate::body::RequestBody;
use crate::deliver;
use crate::exchange::{self, Exchange};
use crate::hold::{self, Hold, Next, StreamHold, keep_alive_due};
use crate::link::{self, Page};
use crate::place::Base;
use crate::shard::Shard;
use crate::subscribe::{self, Class, Item, Seen, Sub, Wanted};

/// How soon an update is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// At once.
    High,
    /// With others, ten times a second.
    Low,
}

/// Updates that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    /// Each hold once, however often it was asked for.
    high: RefCell<HashSet<Key>>,
    low: RefCell<VecDeque<Key>>,
    queued: RefCell<HashSet<Key>>,
    asked: Notify,
}

/// Between two batches of updates that are not urgent.
const PAUSE: Duration = Duration::from_millis(100);
/// Holds in one batch.
const BATCH: usize = 100;

/// Asks for an update of a hold. Streams without next link have nothing to be updated from.
pub(crate) fn request(shard: &Rc<Shard>, key: Key, urgency: Urgency) {
    match shard.held.borrow_mut().get_mut(key) {
        Some(Hold::Response(hold)) if hold.poll.is_none() => {}
        Some(Hold::Stream(hold)) => match &mut hold.next {
            Some(next) if next.updating => {
                next.again = true;
                return;
            }
            Some(_) => {}
            None => return,
        },
        _ => return,
    }
    if urgency == Urgency::High {
        shard.updates.high.borrow_mut().insert(key);
    } else if shard.updates.queued.borrow_mut().insert(key) {
        shard.updates.low.borrow_mut().push_back(key);
    } else {
        return;
    }
    shard.updates.asked.notify_one();
}

/// Every held request is to hear from its target again.
pub(crate) fn recover_all(shard: &Rc<Shard>) {
    let keys: Vec<Key> = shard.held.borrow().keys().collect();
    for key in keys {
        request(shard, key, Urgency::Low);
    }
}

/// Every hold on a channel is to hear from its target again.
pub(crate) fn channel(shard: &Rc<Shard>, name: &str) {
    let keys: Vec<Key> = {
        let listeners = shard.listeners.borrow();
        let Some(index) = listeners.channel(name) else { return };
        let of = |class: Class| listeners.walk(index, class as u8, 0, listeners.slots(index, class as u8));
        of(Class::Response).chain(of(Class::Stream)).map(|member| member.key).collect()
    };
    for key in keys {
        request(shard, key, Urgency::Low);
    }
}

/// Carries updates out, for as long as the shard lives.
pub(crate) async fn run(shard: Rc<Shard>) {
    let mut next_batch = Instant::now();
    loop {
        let low = !shard.updates.low.borrow().is_empty();
        tokio::select! {
            biased;
            () = shard.updates.asked.notified() => {}
            () = tokio::time::sleep_until(next_batch.into()), if low => {
                let batch: Vec<Key> = {
                    let mut low = shard.updates.low.borrow_mut();
                    let count = low.len().min(BATCH);
                    low.drain(..count).collect()
                };
                for key in &batch {
                    shard.updates.queued.borrow_mut().remove(key);
                }
                update(&shard, batch);
                next_batch = Instant::now() + PAUSE;
            }
        }
        let urgent = std::mem::take(&mut *shard.updates.high.borrow_mut());
        update(&shard, urgent.into_iter().collect());
        if !low {
            next_batch = Instant::now() + PAUSE;
        }
    }
}

/// A fetch that several streams share: they want the same of the same target.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Wish {
    route: Arc<str>,
    base: Base,
    uri: String,
    last: Vec<(String, String)>,
}

fn update(shard: &Rc<Shard>, keys: Vec<Key>) {
    let mut fetches: HashMap<Wish, (Arc<Route>, Vec<Key>)> = HashMap::new();
    for key in keys {
        // What is being asked about has its place before whatever the target says.
        if ask::put_off_update(shard, key) {
            continue;
        }
        let mut held = shard.held.borrow_mut();
        match held.get_mut(key) {
            Some(Hold::Response(_)) => {
                drop(held);
                retry(shard, key, None);
            }
            Some(Hold::Stream(hold)) => {
                let positions = subscribe::positions(shard, &hold.route.options.prefix, &hold.subs);
                let Some(next) = hold.next.as_mut().filter(|next| !next.updating) else { continue };
                next.updating = true;
                let wish = Wish {
                    route: Arc::clone(&hold.route.id),
                    base: next.base.clone(),
                    uri: next.uri.clone(),
                    last: last_of(positions),
                };
                fetches.entry(wish).or_insert_with(|| (Arc::clone(&hold.route), Vec::new())).1.push(key);
            }
            _ => {}
        }
    }
    for (wish, (route, keys)) in fetches {
        tokio::task::spawn_local(fetch(Rc::clone(shard), route, wish, keys));
    }
}

/// The positions that a target is told.
fn last_of(positions: Vec<(String, Option<String>)>) -> Vec<(String, String)> {
    let mut last: Vec<_> = positions.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
    last.sort();
    last
}

/// Makes the request of a long-poll again. `hint` is the item that asked for it, if one did.
pub(crate) fn retry(shard: &Rc<Shard>, key: Key, hint: Option<&Item>) {
    let Some(retried) = hold::take_response(shard, key) else { return };
    let hold::Retried { client, route, request, positions, seat } = retried;
    let settings = shard.gateway.settings();
    let route = settings.table.by_id(&route.id).map_or(route, Arc::clone);
    let served = positions
        .iter()
        .map(|(name, _)| {
            let name: Arc<str> = format!("{}{name}", route.options.prefix).into();
            let position = match hint {
                Some(item) if *item.channel == *name => item.position,
                _ => shard.gateway.hub.position(&name),
            };
            (name, position)
        })
        .collect::<Vec<(Arc<str>, Position)>>();
    shard.metrics.hold_retries.add(1);
    let exchange = Exchange {
        body: RequestBody::replay(request.body),
        head: request.head,
        route,
        settings,
        secure: client.secure,
        trusted: request.trusted,
        last: last_of(positions),
        peer: client.peer.clone(),
        started: Instant::now(),
        retry: true,
        served,
        dress: request.dress,
        seat,
        guest: None,
    };
    let shard = Rc::clone(shard);
    tokio::task::spawn_local(async move {
        if let Some(client) = exchange::proxy(&shard, client, exchange).await {
            shard.serve(client);
        }
    });
}

/// Fetches a next link for the streams `keys`, and gives each what it led to.
async fn fetch(shard: Rc<Shard>, route: Arc<Route>, wish: Wish, keys: Vec<Key>) {
    let Wish { base, uri, last, .. } = wish;
    let page = match link::fetch_again(&shard, &route, &base, &uri, &last).await {
        Ok(page) => page,
        Err(error) => {
            warn!(route = %route.id, uri, %error, streams = keys.len(), "A next link could not be retrieved; its streams end.");
            return give_up(&shard, &route, &keys, "Failed to retrieve next link.");
        }
    };
    let Page { base, instruct, mut body } = page;
    if instruct.hold == Some(HoldMode::Response) {
        body.release(&shard);
        return give_up(&shard, &route, &keys, "Next link returned non-stream hold.");
    }
    let channels = subscribe::wanted(&shard.gateway.settings(), &route, None, &instruct.channels);
    let mut filter = match BodyFilter::new(&channels, &route.options.prefix, &instruct.meta) {
        Ok(filter) => filter,
        Err(error) => {
            body.release(&shard);
            return give_up(&shard, &route, &keys, &format!("filter error: {error}"));
        }
    };
    let mut any = false;
    loop {
        let piece = match body.next(&shard).await {
            Ok(Some(piece)) => {
                shard.tally(&route, |traffic| traffic.target_received.content_bytes += body.count(&piece));
                filter.feed(piece)
            }
            Ok(None) => match filter.finish() {
                Ok(()) => break,
                Err(error) => Err(error),
            },
            Err(error) => Err(error.to_string()),
        };
        match piece {
            Ok(piece) => {
                any |= !piece.is_empty();
                shard.tally(&route, |traffic| traffic.client_sent.content_bytes += (piece.len() * keys.len()) as u64);
                append(&shard, &keys, &piece).await;
            }
            Err(error) => {
                body.release(&shard);
                warn!(route = %route.id, uri, error, streams = keys.len(), "A next link broke off; its streams end.");
                for key in keys {
                    hold::end(&shard, key);
                }
                return;
            }
        }
    }
    body.release(&shard);
    for key in keys {
        settle(&shard, key, &base, &instruct, &channels, any);
    }
}

/// Ends streams whose next link leads nowhere.
fn give_up(shard: &Rc<Shard>, route: &Route, keys: &[Key], text: &str) {
    for key in keys {
        if route.options.debug {
            let version = match shard.held.borrow().get(*key) {
                Some(Hold::Stream(hold)) => hold.line.version,
                _ => continue,
            };
            hold::send(shard, *key, &hold::framed(version, format!("\n\n{text}\n").as_bytes()));
        }
        hold::end_stream(shard, *key);
    }
}

/// Appends a piece of a fetched body to streams, and waits for the slower ones.
async fn append(shard: &Rc<Shard>, keys: &[Key], piece: &Bytes) {
    if piece.is_empty() {
        return;
    }
    let chunk = hold::framed(Version::Http11, piece);
    for key in keys {
        let version = match shard.held.borrow().get(*key) {
            Some(Hold::Stream(hold)) => hold.line.version,
            _ => continue,
        };
        hold::send(shard, *key, if version == Version::Http11 { &chunk } else { piece });
    }
    // A client that takes nothing is cut off by the sweep, so that this ends.
    while keys.iter().any(|key| shard.held.borrow().is_waiting(*key)) {
        let (drained, sweep) = (shard.drained.notified(), shard.sweep.notified());
        tokio::select! {
            () = drained => {}
            () = sweep => {}
        }
    }
}

/// Puts what a fetched instruct says into force for one stream.
fn settle(shard: &Rc<Shard>, key: Key, base: &Base, instruct: &Instruct, channels: &[Wanted], any: bool) {
    let now = Instant::now();
    if instruct.hold.is_none() && instruct.next.is_none() {
        return hold::end_stream(shard, key);
    }
    let (old, route) = match shard.held.borrow_mut().get_mut(key) {
        Some(Hold::Stream(hold)) => (std::mem::take(&mut hold.subs), Arc::clone(&hold.route)),
        _ => return,
    };
    let (subs, conflict) =
        if instruct.hold.is_some() { resubscribe(shard, key, &route, old, channels) } else { (old.into_vec(), false) };
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Stream(hold)) = held.get_mut(key) else {
        drop(held);
        return subscribe::leave(shard, Mode::Stream, &subs);
    };
    hold.subs = subs.into();
    let (pending, again) = replace_link(hold, base, instruct, now);
    hold.meta = shard.templates.meta(instruct.meta.clone());
    hold.place = asks_network(channels).then(|| Box::new(base.clone()));
    if instruct.hold.is_some() {
        hold.keep_alive = instruct.keep_alive.clone().map(|keep_alive| shard.templates.keep_alive(keep_alive));
    }
    if any || hold.keep_due.is_none() {
        hold.keep_due = hold.keep_alive.as_ref().map(|keep_alive| keep_alive_due(keep_alive, now));
    }
    let due = hold.due();
    held.set_deadline(key, due);
    drop(held);
    if instruct.hold.is_none() {
        // Page after page, until one is a stream again or names no next.
        return request(shard, key, Urgency::High);
    }
    for item in pending.iter().skip_while(|item| !follows(shard, key, item)) {
        deliver::to_stream(shard, key, item);
    }
    if conflict || again {
        request(shard, key, Urgency::Low);
    }
}

/// Replaces the next link of a stream; returns what waited for that.
fn replace_link(hold: &mut StreamHold, base: &Base, instruct: &Instruct, now: Instant) -> (Vec<Item>, bool) {
    let before = hold.next.take();
    hold.next = instruct.next.as_ref().map(|next| {
        Box::new(Next {
            base: base.clone(),
            uri: next.uri.clone(),
            timeout: next.timeout,
            due: now + next.timeout,
            updating: false,
            pending: Vec::new(),
            again: false,
        })
    });
    before.map_or((Vec::new(), false), |before| (before.pending, before.again))
}

/// Whether an item that waited comes after what the stream now has.
fn follows(shard: &Shard, key: Key, item: &Item) -> bool {
    let held = shard.held.borrow();
    let Some(Hold::Stream(hold)) = held.get(key) else { return false };
    let listeners = shard.listeners.borrow();
    let sub =
        hold.subs.iter().find(|sub| listeners.name_of(sub.subscription).is_some_and(|name| **name == *item.channel));
    sub.is_some_and(|sub| sub.prev_id.is_none() || sub.prev_id.as_deref() == item.prev_id.as_deref())
}

/// Changes the channels of a stream to those that are wanted now. Channels that stay are not left
/// in between, so that nothing is lost.
fn resubscribe(shard: &Rc<Shard>, key: Key, route: &Route, old: Box<[Sub]>, channels: &[Wanted]) -> (Vec<Sub>, bool) {
    let mut old: Vec<(Option<Arc<str>>, Sub)> = {
        let listeners = shard.listeners.borrow();
        old.into_vec().into_iter().map(|sub| (listeners.name_of(sub.subscription).map(Arc::clone), sub)).collect()
    };
    let mut subs = Vec::with_capacity(channels.len());
    let mut fresh = Vec::new();
    let mut conflict = false;
    for channel in channels {
        let place = old.iter().position(|(name, _)| name.as_deref() == Some(&*channel.name));
        let Some(place) = place else {
            fresh.push(channel.clone());
            continue;
        };
        let (_, mut sub) = old.swap_remove(place);
        sub.filters = channel.filters;
        sub.prev_id = channel.prev_id.as_deref().map(Box::from);
        if let (Some(position), Some(last)) = (&sub.prev_id, shard.gateway.hub.last_id(&channel.name))
            && **position != *last
        {
            shard.gateway.hub.forget_last_id(&channel.name);
            conflict = true;
        }
        subs.push(sub);
    }
    let (implicit, gone): (Vec<_>, Vec<_>) = old.into_iter().map(|(_, sub)| sub).partition(|sub| sub.implicit);
    subs.extend(implicit);
    subscribe::leave(shard, Mode::Stream, &gone);
    let joined = subscribe::join(shard, key, Class::Stream, route, &fresh, &Seen::default());
    conflict |= joined.conflict;
    subs.extend(joined.subs);
    (subs, conflict)
}
