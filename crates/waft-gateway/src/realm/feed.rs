//! Streams: server-sent events and JSON lines.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waft_grip::filter::Filters;
use waft_grip::instruct::{HoldMode, Instruct};
use waft_grip::keepalive::{KeepAlive, Mode as KeepAliveMode};
use waft_http1::Fields;
use waft_hub::{Mode, Position, Replay, Since};
use waft_net::Key;

use super::door::{Ask, cross_origin, position};
use super::{forms, header_list, poll};
use crate::begin;
use crate::client::Client;
use crate::exchange::Exchange;
use crate::hold::{GAP_NOTICE, Member};
use crate::shard::Shard;
use crate::subscribe::{Class, Item, Sub};

/// The form of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Events,
    Lines,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// After the item at this position.
    After(Position),
    /// With so many of the newest items.
    Last(usize),
    /// With what comes.
    Now,
    /// After something that was never a position here: a gap, and what there is.
    Unknown,
}

/// How often a stream that is quiet is told that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long an event source waits before it comes back, in milliseconds.
const RETRY: &[u8] = b"retry: 2000\n\n";
/// What a stream of lines is told when items are missing.
const GAP_LINE: &[u8] = b"{\"gap\":true}\n";

impl Start {
    /// Where a request wants to begin. What a client says it has seen goes before what its address says, which stays the
    /// same when it comes back.
    pub(super) fn of(exchange: &Exchange, ask: &Ask) -> Self {
        let seen = exchange.head.field("last-event-id").and_then(|id| str::from_utf8(id).ok());
        let of_query = |name| ask.query.get(name).map(String::as_str);
        let seen = seen.or_else(|| of_query("lastEventId")).or_else(|| of_query("last-event-id"));
        let seen = seen.filter(|id| !id.is_empty()).or_else(|| of_query("since"));
        match seen {
            Some("start") => Self::Last(usize::MAX),
            Some(text) => position(text).map_or(Self::Unknown, Self::After),
            None => of_query("last").and_then(|count| count.parse().ok()).map_or(Self::Now, Self::Last),
        }
    }
}

/// What joining a channel found.
pub(super) struct Joined {
    pub(super) sub: Sub,
    pub(super) missed: Vec<Item>,
    pub(super) gap: bool,
    pub(super) position: Position,
}

/// Subscribes a hold to a channel, given by its name in the hub.
pub(super) fn join(shard: &Shard, key: Key, name: &str, class: Class, mode: Mode, start: Start) -> Joined {
    let (now, hub) = (Instant::now(), &shard.gateway.hub);
    let beginning = || Position { number: 0, ..hub.position(name) };
    let since = match start {
        Start::After(position) => Some(position),
        Start::Last(1..) => Some(beginning()),
        Start::Last(0) | Start::Now => None,
        Start::Unknown => Some(Position { epoch: hub.position(name).epoch.wrapping_add(1), number: 0 }),
    };
    let (subscribed, replay) = match since {
        Some(position) => hub.subscribe_since(now, shard.number, name, mode, Since::Position(position)),
        None => (hub.subscribe(now, shard.number, name, mode), Replay::Items(Vec::new())),
    };
    let (mut missed, mut gap) = match replay {
        Replay::Items(items) => (items, false),
        Replay::Gap { available, .. } => (available, true),
        Replay::Unknown => (Vec::new(), true),
    };
    if let Start::Last(count) = start {
        // Who asks for the newest items has not said that it had any of them.
        gap = false;
        missed.drain(..missed.len().saturating_sub(count));
    }
    let member = Member { key, since: subscribed.position.number };
    let subscription = shard.listeners.borrow_mut().add(&subscribed.name, class as u8, member);
    let sub = Sub { subscription, filters: Filters::default(), prev_id: None, active: false, implicit: false };
    Joined { sub, missed, gap, position: subscribed.position }
}

/// Opens a stream.
pub(super) async fn serve(
    shard: &Rc<Shard>,
    client: Client,
    exchange: Exchange,
    ask: &Ask,
    form: Form,
) -> Option<Client> {
    let start = Start::of(&exchange, ask);
    let name = ask.tenant.hub_name(&ask.channel);
    let mut fields = Fields::new();
    let (kind, comment): (_, &'static [u8]) = match form {
        Form::Events => ("text/event-stream", b":\n\n"),
        Form::Lines => ("application/x-ndjson", b"\n"),
    };
    fields.push("Content-Type", kind);
    fields.push("Cache-Control", "no-cache");
    poll::put_links(&mut fields, &ask.resource, shard.gateway.hub.position(&name));
    cross_origin(&exchange.head, &mut fields);
    let mut instruct = Instruct::default();
    instruct.hold = Some(HoldMode::Stream);
    instruct.response.code = 200;
    instruct.response.reason = "OK".to_owned();
    instruct.response.headers = header_list(&fields);
    instruct.keep_alive =
        Some(KeepAlive { data: Bytes::from_static(comment), timeout: KEEP_ALIVE, mode: KeepAliveMode::Idle });
    let shard_of_join = Rc::clone(shard);
    let join = move |key, chunked| {
        let shard = &shard_of_join;
        let class = match (form, chunked) {
            (Form::Events, true) => Class::SseChunked,
            (Form::Events, false) => Class::SseRaw,
            (Form::Lines, true) => Class::LinesChunked,
            (Form::Lines, false) => Class::LinesRaw,
        };
        let joined = join(shard, key, &name, class, Mode::Stream, start);
        let mut first = Vec::new();
        if form == Form::Events {
            first.extend_from_slice(RETRY);
        }
        if joined.gap {
            shard.metrics.gaps_told.add(1);
            first.extend_from_slice(if form == Form::Events { GAP_NOTICE } else { GAP_LINE });
        }
        shard.metrics.replayed.add(joined.missed.len() as u64);
        for item in &joined.missed {
            let framed = if form == Form::Events { forms::sse(item) } else { forms::line(item) };
            first.extend_from_slice(framed.map_or(&[], |framed| framed.content()));
        }
        (vec![joined.sub], first)
    };
    begin::feed(shard, client, exchange, instruct, join).await
}
