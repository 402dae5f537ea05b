//! Deliveries at no more than a rate, where the configuration asks for one (GRIP section 11.7).
//!
//! Without a rate nothing here is used. With one, each delivery of an item to a listener waits in the queue of its
//! route, and the queues take turns. Each shard has queues of its own, but all share the rate, and what may wait of a
//! route.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::warn;
use waft_net::Key;

use crate::deliver::{self, AT_ONCE, Answers, members};
use crate::payload::Payload;
use crate::settings::Pace;
use crate::shard::Shard;
use crate::subscribe::{Class, Item};
use crate::ws;

/// Deliveries are let through in slices of this length.
const SLICE: Duration = Duration::from_millis(25);
const SLICES_A_SECOND: u64 = 40;

/// What all shards may deliver in the present slice, and how much of each route waits in them.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    slice: Mutex<Slice>,
    waiting: Mutex<HashMap<RouteName, usize>>,
}

/// The written id of a route; all that have none go together.
type RouteName = Option<Arc<str>>;

#[derive(Debug, Default)]
struct Slice {
    began: Option<Instant>,
    used: u64,
}

impl Allowance {
    /// Takes `weight` out of what may be delivered, if anything is left of it.
    fn take(&self, now: Instant, per_second: u64, weight: u64) -> bool {
        // A thread that panicked left whole numbers behind.
        self.slice.lock().unwrap_or_else(PoisonError::into_inner).take(now, per_second, weight)
    }

    /// Takes a place in the queues of a route, if less than `limit` are taken.
    fn take_place(&self, route: &RouteName, limit: usize) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(route) {
            Some(count) if *count >= limit => return false,
            Some(count) => *count += 1,
            None => {
                waiting.insert(route.clone(), 1);
            }
        }
        true
    }

    fn give_place_back(&self, route: &RouteName) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(route) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(route);
            }
        }
    }
}

impl Slice {
    fn take(&mut self, now: Instant, per_second: u64, weight: u64) -> bool {
        let share = per_second.div_ceil(SLICES_A_SECOND);
        let since = self.began.map_or(Duration::MAX, |began| now.saturating_duration_since(began));
        if since >= SLICE {
            // What one heavy delivery took too much is paid by the slices after it.
            let passed = u64::try_from(since.as_millis() / SLICE.as_millis()).unwrap_or(u64::MAX);
            self.used = self.used.saturating_sub(share.saturating_mul(passed));
            self.began = Some(now);
        }
        let free = self.used < share;
        if free {
            self.used = self.used.saturating_add(weight);
        }
        free
    }
}

/// The queues of one shard, by the written ids of routes.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    waiting: RefCell<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    routes: HashMap<RouteName, VecDeque<Delivery>>,
    /// Whose turn it is: every route with something waiting, once.
    turns: VecDeque<RouteName>,
}

#[derive(Debug)]
struct Delivery {
    key: Key,
    kind: Kind,
    item: Item,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Response,
    Stream,
    Ws,
}

impl Waiting {
    fn push(&mut self, route: RouteName, delivery: Delivery) {
        let queue = self.routes.entry(route.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(route);
        }
        queue.push_back(delivery);
    }

    fn pop(&mut self) -> Option<(RouteName, Delivery)> {
        let route = self.turns.pop_front()?;
        let queue = self.routes.get_mut(&route)?;
        let delivery = queue.pop_front()?;
        if queue.is_empty() {
            self.routes.remove(&route);
        } else {
            self.turns.push_back(route.clone());
        }
        Some((route, delivery))
    }

    fn front_weight(&self, unit: Option<u64>) -> Option<u64> {
        let delivery = self.routes.get(self.turns.front()?)?.front()?;
        Some(unit.map_or(1, |unit| weight(&delivery.item.payload, delivery.kind, unit)))
    }
}

fn weight(payload: &Payload, kind: Kind, unit: u64) -> u64 {
    match kind {
        Kind::Response => payload.response_blocks(unit),
        Kind::Stream => payload.stream_blocks(unit),
        Kind::Ws => payload.ws_blocks(unit),
    }
}

/// Puts up items of one channel for its listeners; returns how many those were.
pub(crate) fn queue(shard: &Rc<Shard>, items: &[Item], pace: Pace) -> usize {
    let Some(first) = items.first() else { return 0 };
    let mut served = 0;
    for (kind, classes) in [
        (Kind::Stream, &[Class::Chunked, Class::Raw, Class::Stream][..]),
        (Kind::Response, &[Class::Response][..]),
        (Kind::Ws, &[Class::Ws, Class::WsCareful][..]),
    ] {
        let crowd: Vec<_> = classes.iter().flat_map(|class| members(shard, &first.channel, *class)).collect();
        served += crowd.len();
        for item in items.iter().filter(|item| has_format(&item.payload, kind)) {
            let mut dropped = HashMap::<_, usize>::new();
            for member in crowd.iter().filter(|member| item.position.number > member.since) {
                let route = shard.held.borrow().get(member.key).and_then(|hold| hold.shown_route().cloned());
                if shard.gateway.allowance.take_place(&route, pace.queue_max) {
                    let delivery = Delivery { key: member.key, kind, item: Arc::clone(item) };
                    shard.pace.waiting.borrow_mut().push(route, delivery);
                } else {
                    *dropped.entry(route).or_default() += 1;
                }
            }
            for (route, count) in dropped {
                shard.metrics.dropped_rate.add(count as u64);
                warn!(channel = %item.channel, route = route.as_deref(), limit = pace.queue_max, dropped = count, "The queue of deliveries is full and an item was dropped; raise limits.delivery_rate or limits.delivery_queue (message_rate and message_hwm of Pushpin).");
            }
        }
    }
    shard.pace.filled.notify_one();
    served
}

fn has_format(payload: &Payload, kind: Kind) -> bool {
    match kind {
        Kind::Response => payload.formats.http_response.is_some(),
        Kind::Stream => payload.formats.http_stream.is_some(),
        Kind::Ws => payload.formats.ws_message.is_some(),
    }
}

/// Lets deliveries through at the rate, for as long as the shard lives.
pub(crate) async fn run(shard: Rc<Shard>) {
    loop {
        let left = let_through(&shard).await;
        if left {
            tokio::time::sleep(SLICE).await;
        } else {
            shard.pace.filled.notified().await;
        }
    }
}

/// Delivers what the present slice allows; says whether something is left.
async fn let_through(shard: &Rc<Shard>) -> bool {
    let mut answers = Answers::default();
    let mut done = 0_usize;
    loop {
        let settings = shard.gateway.settings();
        let next = shard.pace.waiting.borrow().front_weight(settings.pace.and_then(|pace| pace.unit));
        let Some(weight) = next else { return false };
        // Once there is no rate any more, everything goes.
        let allowed =
            settings.pace.is_none_or(|pace| shard.gateway.allowance.take(Instant::now(), pace.per_second, weight));
        if !allowed {
            return true;
        }
        let Some((route, delivery)) = shard.pace.waiting.borrow_mut().pop() else { return false };
        shard.gateway.allowance.give_place_back(&route);
        match delivery.kind {
            Kind::Response => deliver::to_response(shard, delivery.key, &delivery.item, &mut answers),
            Kind::Stream => deliver::to_stream(shard, delivery.key, &delivery.item),
            Kind::Ws => ws::deliver_to(shard, delivery.key, &delivery.item),
        }
        done += 1;
        if done.is_multiple_of(AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use waft_grip::item::{Formats, HttpStream};
    use waft_hub::{Hub, HubLimits, Mode, Publish};

    use super::*;

    #[test]
    fn a_slice_lets_its_share_through_and_a_heavy_delivery_is_paid_later() {
        let (mut slice, began) = (Slice::default(), Instant::now());
        let mut take = |ms, weight| slice.take(began + Duration::from_millis(ms), 80, weight);
        assert_eq!([take(0, 1), take(1, 1), take(2, 1)], [true, true, false]);
        assert_eq!([take(25, 6), take(26, 1)], [true, false]);
        // Six for a share of two: three slices are used up.
        assert_eq!([take(50, 1), take(75, 1), take(100, 1)], [false, false, true]);
        // Idle time is not saved up.
        assert_eq!([take(10_000, 1), take(10_001, 1), take(10_002, 1)], [true, true, false]);
    }

    fn delivery(number: u32) -> Delivery {
        let (hub, now) = (Hub::new(HubLimits::default(), 1), Instant::now());
        hub.subscribe(now, 0, "c", Mode::Stream);
        let formats = Formats { http_stream: Some(HttpStream::default()), ..Formats::default() };
        let payload = Payload::new(waft_grip::item::Item::new("c", formats));
        let publish = Publish { channel: "c".into(), id: None, prev_id: None, no_seq: false, size: 0, payload };
        let mut found = None;
        hub.publish(now, publish, &mut |_, item| found = Some(Arc::clone(item)));
        Delivery { key: Key::from_bits(u64::from(number)), kind: Kind::Stream, item: found.unwrap() }
    }

    fn route(name: &str) -> RouteName {
        Some(name.into())
    }

    #[test]
    fn routes_take_turns() {
        let mut waiting = Waiting::default();
        for (name, number) in [("a", 1), ("a", 2), ("b", 10), ("a", 3)] {
            waiting.push(route(name), delivery(number));
        }
        let order: Vec<u64> =
            std::iter::from_fn(|| waiting.pop()).map(|(_, delivery)| delivery.key.to_bits()).collect();
        assert_eq!(order, [1, 10, 2, 3]);
        assert!(waiting.routes.is_empty() && waiting.turns.is_empty());
    }

    #[test]
    fn a_route_has_as_many_places_as_it_may_have_waiting() {
        let allowance = Allowance::default();
        let take = |name| allowance.take_place(&route(name), 2);
        assert_eq!([take("a"), take("a"), take("a"), take("b")], [true, true, false, true]);
        allowance.give_place_back(&route("a"));
        assert_eq!([take("a"), take("a")], [true, false]);
        for name in ["a", "a", "b"] {
            allowance.give_place_back(&route(name));
        }
        assert!(allowance.waiting.lock().unwrap().is_empty());
    }
}
