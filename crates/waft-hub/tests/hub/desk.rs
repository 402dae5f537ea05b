//! A hub with a clock that the test turns, and a record of what each shard was handed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use waft_hub::{Hub, HubLimits, HubTotals, Mode, Ordered, Outcome, Position, Publish, Published, Replay};

/// The epoch of every desk.
pub(crate) const EPOCH: u64 = 77;

pub(crate) struct Desk {
    pub(crate) hub: Hub<&'static str>,
    pub(crate) now: Instant,
    /// Shard and payload, in the order of delivery.
    pub(crate) delivered: Vec<(u16, &'static str)>,
}

impl Desk {
    pub(crate) fn new(limits: HubLimits) -> Self {
        Self { hub: Hub::new(limits, EPOCH), now: Instant::now(), delivered: Vec::new() }
    }

    /// With default limits, and one stream listener of shard 1 on channel `c`.
    pub(crate) fn subscribed() -> Self {
        Self::subscribed_with(HubLimits::default())
    }

    pub(crate) fn subscribed_with(limits: HubLimits) -> Self {
        let desk = Self::new(limits);
        desk.hub.subscribe(desk.now, 1, "c", Mode::Stream);
        desk
    }

    pub(crate) fn publish(&mut self, item: Publish<&'static str>) -> Published {
        self.hub.publish(self.now, item, &mut |shard, item: &Arc<Ordered<_>>| {
            self.delivered.push((shard, item.payload));
        })
    }

    /// Publishes on channel `c`, with the id as the payload.
    pub(crate) fn chain(&mut self, id: &'static str, prev_id: &str) -> Outcome {
        self.publish(item("c", id, prev_id)).outcome
    }

    /// Lets time pass, and the hub do what is due.
    pub(crate) fn pass(&mut self, seconds: f64) -> Option<Instant> {
        self.now += Duration::from_secs_f64(seconds);
        self.hub.expire(self.now, &mut |shard, item| self.delivered.push((shard, item.payload)))
    }

    /// The payloads that shard 1 was handed since the last call.
    pub(crate) fn take(&mut self) -> Vec<&'static str> {
        let delivered = std::mem::take(&mut self.delivered);
        delivered.into_iter().filter(|(shard, _)| *shard == 1).map(|(_, payload)| payload).collect()
    }

    pub(crate) fn last_id(&self, channel: &str) -> Option<String> {
        let seen = self.hub.subscribe(self.now, 9, channel, Mode::Ws);
        self.hub.unsubscribe(self.now, 9, channel, Mode::Ws);
        seen.last_id.map(|id| id.to_string())
    }
}

/// An item whose payload is its id; an empty id or prev-id is none.
pub(crate) fn item(channel: &str, id: &'static str, prev_id: &str) -> Publish<&'static str> {
    let some = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    Publish { channel: channel.into(), id: some(id), prev_id: some(prev_id), no_seq: false, size: 10, payload: id }
}

pub(crate) fn at(number: u64) -> Position {
    Position { epoch: EPOCH, number }
}

/// The verdict and the payloads.
pub(crate) fn said(replay: Replay<&'static str>) -> (&'static str, Vec<&'static str>) {
    let payloads = |items: Vec<Arc<Ordered<&'static str>>>| items.iter().map(|item| item.payload).collect();
    match replay {
        Replay::Gap { available, .. } => ("gap", payloads(available)),
        Replay::Items(items) => ("items", payloads(items)),
        Replay::Unknown => ("unknown", Vec::new()),
    }
}

/// Nothing is left, not even a counter that went astray.
pub(crate) fn assert_empty(hub: &Hub<impl Sized>) {
    assert_eq!(hub.totals(), HubTotals::default());
}
