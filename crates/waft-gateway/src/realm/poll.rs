//! Long-polls: the value of a channel, and what has changed since a position.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waft_http1::{Fields, Version};
use waft_hub::{Mode, Position, Replay};

use super::bayeux;
use super::door::{self, Ask, Resource, cross_origin, newest, position, wished_wait};
use super::feed::{Start, join};
use super::{forms, live, timeout};
use crate::begin;
use crate::client::Client;
use crate::deliver::after;
use crate::exchange::Exchange;
use crate::hold::{self, Hold, Member, ResponseHold};
use crate::respond::{self, Frame};
use crate::service::Answer;
use crate::shard::Shard;
use crate::subscribe::{Class, Item};

/// What answers a held request of a realm's client.
#[derive(Debug)]
pub(crate) enum Poll {
    /// A Bayeux client, with whatever its channels have.
    Bayeux(bayeux::Connect),
    /// The next items of a channel.
    Channel(ChannelPoll),
    /// The next items of any of several channels.
    Many(live::ManyPoll),
}

/// A poll for one channel.
#[derive(Debug)]
pub(crate) struct ChannelPoll {
    kind: Kind,
    /// The fields that all answers have, which is what differs between clients.
    fields: Arc<Fields>,
    resource: Arc<Resource>,
}

/// What a poll is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A list of changes with the cursor to go on from.
    Changes,
    /// The changes alone, the way to go on in a link.
    List,
    /// The newest value.
    Value,
}

/// Items in one answer.
const ITEMS_MAX: usize = 200;

/// The tag of the value at a position.
pub(super) fn tag(position: Position) -> String {
    format!("\"{position}\"")
}

/// Links to the other ways to follow a channel, for clients that find their way by them.
pub(super) fn put_links(fields: &mut Fields, resource: &Resource, at: Position) {
    let Resource { path, root } = resource;
    fields.push(
        "Link",
        format!(
            "<{path}>; rel=\"value-wait value-stream\", <{path}?after={at}>; rel=\"changes changes-wait\", \
             <{root}>; rel=\"multiplex-wait multiplex-ws multiplex-socket\""
        ),
    );
}

/// Answers a request for the value of a channel, or its changes: at once, or when there is something.
pub(super) async fn serve(shard: &Rc<Shard>, client: Client, mut exchange: Exchange, mut ask: Ask) -> Option<Client> {
    let limits = ask.tenant.realm().limits.clone();
    let wait = wished_wait(&exchange.head, &ask.query, limits.hold).filter(|_| exchange.head.method() == "GET");
    let name = ask.tenant.hub_name(&ask.channel);
    let hub = &shard.gateway.hub;
    let (kind, seen) = match (ask.query.get("since"), ask.query.get("after")) {
        (Some(since), _) => (Kind::Changes, Some(since.clone())),
        (None, Some(after)) => (Kind::List, Some(after.clone())),
        (None, None) => {
            let known = exchange.head.field("if-none-match").and_then(|tag| str::from_utf8(tag).ok());
            (Kind::Value, known.map(str::to_owned))
        }
    };
    let end = hub.position(&name);
    let mut fields = Fields::new();
    fields.push("Content-Type", "application/json");
    fields.push("Cache-Control", "no-cache");
    cross_origin(&exchange.head, &mut fields);
    let poll = ChannelPoll { kind, fields: Arc::new(fields), resource: Arc::clone(&ask.resource) };
    let (now, from) = match poll.look(shard, &name, seen.as_deref()) {
        Ok(found) => found,
        Err(StartOver) => return door::answer(shard, client, &exchange, poll.start_over(end)).await,
    };
    let (at_the_end, wait) = match (now, wait) {
        (Now::Answer(answer), _) | (Now::Unchanged(answer), None) => {
            let done = exchange.body.is_done();
            return crate::exchange::answer(shard, client, &exchange, answer, done).await;
        }
        (Now::Unchanged(answer), Some(wait)) => (answer, wait),
    };
    if shard.is_draining() {
        let done = exchange.body.is_done();
        return crate::exchange::answer(shard, client, &exchange, at_the_end, done).await;
    }
    exchange.guest = match ask.tenant.admit() {
        Some(mut guest) => {
            guest.keep_all(ask.membership.take());
            Some(guest)
        }
        None => return door::answer(shard, client, &exchange, door::full()).await,
    };
    let from = from.filter(|from| from.epoch == end.epoch).unwrap_or(end);
    hold_for(shard, client, exchange, poll, &name, from, at_the_end, wait);
    None
}

/// What there is to say at once.
pub(super) enum Now {
    /// This, whether or not the client would wait.
    Answer(Answer),
    /// This, unless the client waits for news.
    Unchanged(Answer),
}

/// A position is not known, or the log has let go of what came after it.
pub(super) struct StartOver;

impl Now {
    fn of(answer: Option<Answer>, unchanged: impl FnOnce() -> Answer) -> Self {
        answer.map_or_else(|| Self::Unchanged(unchanged()), Self::Answer)
    }
}

fn value_now(shard: &Shard, name: &str, poll: &ChannelPoll, known: Option<Position>, beginning: Position) -> Now {
    let items = match shard.gateway.hub.since_position(name, beginning) {
        Replay::Items(items) | Replay::Gap { available: items, .. } => items,
        Replay::Unknown => Vec::new(),
    };
    match (newest(&items), known) {
        (Some(item), Some(known)) if item.position == known => Now::Unchanged(poll.nothing(known, Some(304))),
        (Some(_), _) => Now::of(poll.answer(&items, beginning), || poll.nothing(beginning, None)),
        // Nothing is known to differ from what the client has.
        (None, Some(known)) if known.epoch == beginning.epoch => Now::Unchanged(poll.nothing(known, Some(304))),
        (None, _) => Now::Unchanged(poll.nothing(beginning, None)),
    }
}

#[expect(clippy::too_many_arguments, reason = "each is decided by another part of the request")]
fn hold_for(
    shard: &Rc<Shard>,
    client: Client,
    exchange: Exchange,
    poll: ChannelPoll,
    name: &str,
    from: Position,
    at_the_end: Answer,
    wait: Duration,
) {
    let template = timeout(at_the_end);
    let mut missed = Vec::new();
    let subscribe = |key| {
        let joined = join(shard, key, name, Class::Poll, Mode::Response, Start::After(from));
        missed = joined.missed;
        vec![joined.sub]
    };
    let key = begin::hold_poll(shard, client, exchange, Poll::Channel(poll), template, wait, subscribe);
    // What came between the look and the subscription.
    if let Some(key) = key.filter(|_| !missed.is_empty()) {
        deliver(shard, Member { key, since: 0 }, &missed, &mut Answers::default());
    }
}

impl ChannelPoll {
    pub(super) fn new(kind: Kind, fields: Arc<Fields>, resource: Arc<Resource>) -> Self {
        Self { kind, fields, resource }
    }

    /// What there is to say at once to who has seen so much, and the position from which it may wait.
    pub(super) fn look(
        &self,
        shard: &Shard,
        name: &str,
        seen: Option<&str>,
    ) -> Result<(Now, Option<Position>), StartOver> {
        let hub = &shard.gateway.hub;
        let end = hub.position(name);
        let beginning = Position { number: 0, ..end };
        let from = match seen {
            Some("start") if self.kind != Kind::Value => Some(beginning),
            Some(text) => position(text),
            None => None,
        };
        if self.kind == Kind::Value {
            return Ok((value_now(shard, name, self, from, beginning), from));
        }
        let from = from.ok_or(StartOver)?;
        match hub.since_position(name, from) {
            Replay::Items(items) => Ok((Now::of(self.answer(&items, end), || self.nothing(from, None)), Some(from))),
            Replay::Gap { available, .. } if seen == Some("start") => {
                Ok((Now::of(self.answer(&available, end), || self.nothing(end, None)), Some(from)))
            }
            Replay::Gap { .. } | Replay::Unknown => Err(StartOver),
        }
    }

    /// The answer to who has seen nothing that is known here.
    pub(super) fn start_over(&self, at: Position) -> Answer {
        let mut answer = Answer::text(404, "The position is too old or unknown; start over.\n");
        put_links(&mut answer.fields, &self.resource, at);
        answer
    }

    /// The answer that items make; none if they have no value.
    pub(super) fn answer(&self, items: &[Item], end: Position) -> Option<Answer> {
        let newest = newest(items)?;
        let (body, at) = match self.kind {
            Kind::Value => (forms::value(newest).cloned().unwrap_or_default(), newest.position),
            Kind::Changes | Kind::List => {
                let some: Vec<&Item> =
                    items.iter().filter(|item| forms::value(item).is_some()).take(ITEMS_MAX).collect();
                let at = some.last().map_or(end, |item| item.position);
                (self.list(&some, at).into(), at)
            }
        };
        Some(Answer { status: 200, fields: self.fields_at(at), body })
    }

    fn list(&self, items: &[&Item], at: Position) -> Vec<u8> {
        let mut out: Vec<u8> = if self.kind == Kind::List { b"[".to_vec() } else { b"{\"items\":[".to_vec() };
        for (number, item) in items.iter().enumerate() {
            let value = forms::value(item).map_or(&b"null"[..], |value| value);
            out.extend_from_slice(if number > 0 { b"," } else { b"" });
            if self.kind == Kind::List {
                out.extend_from_slice(value);
            } else {
                out.extend_from_slice(&forms::entry(item, value));
            }
        }
        out.extend_from_slice(b"]");
        if self.kind == Kind::Changes {
            out.extend_from_slice(format!(",\"last_cursor\":\"{at}\"}}").as_bytes());
        }
        out
    }

    /// The answer that says that nothing has come since a position.
    fn nothing(&self, at: Position, status: Option<u16>) -> Answer {
        match (self.kind, status) {
            (Kind::Value, Some(status)) => {
                let mut fields = self.fields_at(at);
                fields.remove("Content-Type");
                Answer { status, fields, body: Bytes::new() }
            }
            (Kind::Value, None) => {
                let mut answer = Answer::text(404, "The channel has no value.\n");
                for (name, value) in
                    self.fields_at(at).iter().filter(|(name, _)| !name.starts_with("Content") && *name != "ETag")
                {
                    answer.fields.push(name, value);
                }
                answer
            }
            (Kind::Changes | Kind::List, _) => {
                Answer { status: 200, fields: self.fields_at(at), body: self.list(&[], at).into() }
            }
        }
    }

    fn fields_at(&self, at: Position) -> Fields {
        let mut fields = (*self.fields).clone();
        if self.kind == Kind::Value {
            fields.push("ETag", tag(at));
        }
        put_links(&mut fields, &self.resource, at);
        fields.push("Changes-Id", at.to_string());
        fields
    }
}

/// Answers made for one run of items: polls that differ in nothing get the same bytes.
#[derive(Debug, Default)]
pub(super) struct Answers {
    made: HashMap<AnswerKey, Option<Bytes>>,
}

/// Kind, path, what differs between clients, kind of connection, and the first item.
type AnswerKey = (Kind, Arc<Resource>, Vec<u8>, bool, bool, u64);

/// Delivers items to one poll.
pub(super) fn deliver(shard: &Rc<Shard>, member: Member, items: &[Item], answers: &mut Answers) {
    let items = after(items, member.since);
    let Some(first) = items.first() else { return };
    let held = shard.held.borrow();
    let answer = match held.get(member.key) {
        Some(Hold::Response(hold)) => match hold.poll.as_deref() {
            Some(Poll::Channel(poll)) => {
                let keep = hold.line.keep_alive && !hold.line.half_closed && !shard.is_draining();
                let origin = poll.fields.get("Access-Control-Allow-Origin").unwrap_or_default().to_vec();
                let is_11 = hold.line.version == Version::Http11;
                let key = (poll.kind, Arc::clone(&poll.resource), origin, is_11, keep, first.position.number);
                let made = answers.made.entry(key).or_insert_with(|| {
                    let answer = poll.answer(items, first.position)?;
                    Some(response(hold, answer, keep))
                });
                made.clone()
            }
            Some(Poll::Many(many)) => {
                let keep = hold.line.keep_alive && !hold.line.half_closed && !shard.is_draining();
                many.answer(&first.channel, items).map(|answer| response(hold, answer, keep))
            }
            Some(Poll::Bayeux(_)) => {
                drop(held);
                return bayeux::flush_poll(shard, member.key);
            }
            None => return,
        },
        Some(Hold::Ws(_)) => {
            drop(held);
            return bayeux::flush_socket(shard, member.key);
        }
        _ => return,
    };
    drop(held);
    if let Some(answer) = answer {
        shard.metrics.delivered_response.add(1);
        hold::answer_response(shard, member.key, &answer);
    }
}

/// The bytes of an answer.
pub(super) fn response(hold: &ResponseHold, answer: Answer, keep_alive: bool) -> Bytes {
    let Answer { status, fields, body } = answer;
    let frame = if matches!(status, 204 | 304) { Frame::None } else { Frame::Length(body.len()) };
    let reason = waft_http1::reason_phrase(status);
    let mut out = respond::head(status, reason, &fields, frame, hold.line.version, keep_alive);
    out.extend_from_slice(&body);
    out.into()
}

/// The answer to a poll whose time is over, where it is not prepared.
pub(crate) fn answer_at_the_end(hold: &ResponseHold, poll: &Poll, last: bool) -> Option<Bytes> {
    match poll {
        Poll::Bayeux(connect) => {
            let keep = hold.line.keep_alive && !hold.line.half_closed && !last;
            Some(response(hold, connect.answer_with_nothing(), keep))
        }
        Poll::Channel(_) | Poll::Many(_) => None,
    }
}

/// A held request has been answered, or its client has gone.
pub(crate) fn poll_ended(shard: &Rc<Shard>, poll: &Poll) {
    if let Poll::Bayeux(connect) = poll {
        connect.end(shard, Instant::now());
    }
}
