//! Numbers as JSON, for people and scripts.

use serde::Serialize;
use waft_gateway::{Answer, Gateway};
use waft_hub::{ChannelCounts, ListenerCounts};

use crate::totals::Totals;

/// Channels in one answer. More are counted and left out; the request may ask for up to this many with `limit`.
pub(crate) const CHANNELS_MAX: usize = 100_000;

/// Channels in one answer when the request does not say.
pub(crate) const CHANNELS_DEFAULT: usize = 1_000;

/// Totals of this process.
#[derive(Debug, Serialize)]
struct Stats {
    version: &'static str,
    draining: bool,
    shards: usize,
    connections: Connections,
    requests: u64,
    holds: Holds,
    channels: usize,
    published: Published,
    delivered: Delivered,
    dropped: u64,
    log: Kept,
    parked: Kept,
    bytes: Bytes,
}

#[derive(Debug, Serialize)]
struct Connections {
    open: i64,
    idle: i64,
    accepted: u64,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct Holds {
    response: i64,
    stream: i64,
    ws: i64,
}

#[derive(Debug, Serialize)]
struct Published {
    items: u64,
    duplicates: u64,
    parked: u64,
    dropped: u64,
}

#[derive(Debug, Serialize)]
struct Delivered {
    response: u64,
    stream: u64,
    ws: u64,
}

#[derive(Debug, Serialize)]
struct Kept {
    items: usize,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct Bytes {
    received: u64,
    sent: u64,
    queued: i64,
}

/// The answer to `GET /stats`.
pub(crate) fn stats(gateway: &Gateway) -> Answer {
    let totals = Totals::of(gateway);
    let hub = gateway.hub().totals();
    let publish = gateway.publish_metrics();
    json(&Stats {
        version: env!("CARGO_PKG_VERSION"),
        draining: gateway.is_draining(),
        shards: gateway.shards(),
        connections: Connections {
            open: totals.level(|shard| &shard.connections),
            idle: totals.level(|shard| &shard.connections_idle),
            accepted: totals.count(|shard| &shard.connections_accepted),
            refused: totals.count(|shard| &shard.connections_refused),
        },
        requests: totals.count(|shard| &shard.requests),
        holds: Holds {
            response: totals.level(|shard| &shard.holds_response),
            stream: totals.level(|shard| &shard.holds_stream),
            ws: totals.level(|shard| &shard.holds_ws),
        },
        channels: hub.channels,
        published: Published {
            items: publish.items.value(),
            duplicates: publish.duplicates.value(),
            parked: publish.parked.value(),
            dropped: publish.dropped.value(),
        },
        delivered: Delivered {
            response: totals.count(|shard| &shard.delivered_response),
            stream: totals.count(|shard| &shard.delivered_stream),
            ws: totals.count(|shard| &shard.delivered_ws),
        },
        dropped: totals.count(|shard| &shard.dropped_slow)
            + totals.count(|shard| &shard.dropped_mismatch)
            + totals.count(|shard| &shard.dropped_updating)
            + totals.count(|shard| &shard.dropped_filter_error),
        log: Kept { items: hub.log_items, bytes: hub.log_bytes },
        parked: Kept { items: hub.parked, bytes: hub.parked_bytes },
        bytes: Bytes {
            received: totals.count(|shard| &shard.bytes_received),
            sent: totals.count(|shard| &shard.bytes_sent),
            queued: totals.level(|shard| &shard.queued_bytes),
        },
    })
}

#[derive(Debug, Serialize)]
struct Channels<'a> {
    /// Subscribed channels, those left out included.
    total: usize,
    channels: Vec<Channel<'a>>,
}

#[derive(Debug, Serialize)]
struct Channel<'a> {
    name: &'a str,
    listeners: usize,
    response: u32,
    stream: u32,
    ws: u32,
    lingering: bool,
}

/// The answer to `GET /channels`: the channels that have listeners, or had long-polls a moment ago. The query may narrow
/// it down with `prefix` and `limit`.
pub(crate) fn channels(gateway: &Gateway, query: &str) -> Answer {
    let mut prefix = None;
    let mut limit = CHANNELS_DEFAULT;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "prefix" => prefix = Some(value),
            "limit" => match value.parse::<usize>() {
                Ok(asked) => limit = asked.min(CHANNELS_MAX),
                Err(_not_a_number) => return Answer::text(400, &b"Invalid limit: give a whole number.\n"[..]),
            },
            _ => {}
        }
    }
    let matches = |channel: &ChannelCounts| prefix.as_ref().is_none_or(|prefix| channel.name.starts_with(&**prefix));
    let mut total = 0;
    let mut channels = Vec::new();
    for channel in gateway.hub().channels().filter(matches) {
        total += 1;
        if channels.len() < limit {
            channels.push(channel);
        }
    }
    channels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    json(&Channels { total, channels: channels.iter().map(Channel::from).collect() })
}

impl<'a> From<&'a ChannelCounts> for Channel<'a> {
    fn from(channel: &'a ChannelCounts) -> Self {
        let ListenerCounts { response, stream, ws } = channel.listeners;
        Self {
            listeners: channel.listeners.total(),
            name: &channel.name,
            response,
            stream,
            ws,
            lingering: channel.lingering,
        }
    }
}

/// An answer in JSON, ended by a line feed.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    // Maps here have names that are text, so there is nothing that the serializer refuses.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    let mut answer = Answer::new(200, "application/json", body);
    answer.fields.push("Cache-Control", "no-store");
    answer
}
