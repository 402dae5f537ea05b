//! WebSockets of plain clients: many channels over one connection, in small JSON messages.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use waft_bayeux::compact;
use waft_hub::{Mode, Position};
use waft_net::Key;
use waft_realm::{Grant, Operation, Rate, is_channel};
use waft_websocket::connection::Event;
use waft_websocket::frame::Opcode;

use super::door::{self, Ask, bucket, full};
use super::feed::{Joined, Start, join};
use super::stay::Guest;
use super::tenant::Tenant;
use super::{bayeux, forms, live, presence, unix_seconds};
use crate::client::Client;
use crate::exchange::Exchange;
use crate::hold::Hold;
use crate::shard::Shard;
use crate::subscribe::{self, Class, Item, Sub};
use crate::ws::{self, Out};

/// The WebSocket of a realm's client.
#[derive(Debug)]
pub(crate) struct RealmSocket {
    pub(super) tenant: Arc<Tenant>,
    pub(super) grant: Option<Grant>,
    pub(super) rate: Rate,
    pub(super) speaks: Speaks,
    /// Lives as long as the connection.
    pub(super) guest: Guest,
}

/// The protocol of a socket.
#[derive(Debug)]
pub(super) enum Speaks {
    Bayeux(bayeux::Socket),
    /// Small messages, and what its address asks for. Beside it is what is followed by addresses.
    Json(Option<Box<First>>, live::Follows),
}

/// What the address of a socket asks for.
#[derive(Debug)]
pub(super) struct First {
    channel: String,
    start: Start,
    /// The name and the data of a member, if the client enters the channel.
    entry: Option<(String, Option<String>)>,
}

impl RealmSocket {
    pub(super) fn new(tenant: Arc<Tenant>, grant: Option<Grant>, speaks: Speaks, guest: Guest) -> Self {
        let rate = bucket(&tenant, Instant::now());
        Self { tenant, grant, rate, speaks, guest }
    }

    /// The longest message of the client.
    pub(crate) fn frame_max(&self) -> u64 {
        match self.speaks {
            Speaks::Bayeux(_) => bayeux::BATCH_MAX as u64,
            // Beside the value there is only its channel and a word.
            Speaks::Json(..) => self.tenant.realm().limits.message_max as u64 + 1024,
        }
    }

    /// The subprotocol that was agreed on, if any.
    pub(crate) const fn protocol(&self) -> Option<&'static str> {
        match &self.speaks {
            Speaks::Json(_, follows) if follows.speaks_lines() => Some(LIVE_RESOURCE),
            _ => None,
        }
    }

    /// What ends with its connection.
    pub(crate) fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// Counts a message that is published. False if there were too many.
    pub(super) fn take_from_rate(&mut self, now: Instant) -> bool {
        self.rate.take(self.tenant.realm().limits.publish_rate, now)
    }
}

/// The subprotocol of LiveResource.
const LIVE_RESOURCE: &str = "liveresource";

/// Opens a WebSocket.
pub(super) async fn serve(shard: &Rc<Shard>, client: Client, exchange: Exchange, ask: Ask) -> Option<Client> {
    let Some(mut guest) = ask.tenant.admit() else { return door::answer(shard, client, &exchange, full()).await };
    guest.tell(&ask.tenant, "websocket", ask.grant.as_ref());
    let start = Start::of(&exchange, &ask);
    let entry = ask.query.get("member").map(|member| (member.clone(), ask.query.get("data").cloned()));
    let first = (!ask.channel.is_empty()).then(|| Box::new(First { channel: ask.channel.clone(), start, entry }));
    let offered = exchange.head.fields_named("sec-websocket-protocol").flat_map(|field| field.split(|b| *b == b','));
    let speaks_lines = offered.map(<[u8]>::trim_ascii).any(|name| name == LIVE_RESOURCE.as_bytes());
    let follows = live::Follows::new(ask.resource.root.clone(), speaks_lines);
    let socket = RealmSocket::new(ask.tenant, ask.grant, Speaks::Json(first, follows), guest);
    ws::accept_in_realm(shard, client, exchange, socket);
    None
}

/// A WebSocket has been accepted: its address may name a channel.
pub(crate) fn socket_begun(shard: &Rc<Shard>, key: Key) {
    let first = with_socket(shard, key, |socket| match &mut socket.speaks {
        Speaks::Json(first, _) => first.take(),
        Speaks::Bayeux(_) => None,
    });
    if let Some(Some(first)) = first {
        let mut out = Out::default();
        subscribe(shard, key, &Value::Null, &first.channel, first.start, &mut out);
        if let Some((member, data)) = &first.entry {
            presence::enter_by_address(shard, key, &first.channel, member, data.as_deref(), &mut out);
        }
        out.flush(shard, key);
    }
}

/// A WebSocket ends, or is to get nothing more.
pub(crate) fn socket_ended(shard: &Rc<Shard>, socket: &RealmSocket, subs: &[Sub]) {
    if let Speaks::Bayeux(bayeux) = &socket.speaks {
        bayeux.end(shard, subs, Instant::now());
    }
}

/// Does something with the socket of a key.
pub(super) fn with_socket<T>(shard: &Shard, key: Key, act: impl FnOnce(&mut RealmSocket) -> T) -> Option<T> {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return None };
    hold.realm_socket().map(act)
}

/// A client has sent something.
pub(crate) fn on_socket_event(shard: &Rc<Shard>, key: Key, event: &Event, out: &mut Out) {
    let is_bayeux = with_socket(shard, key, |socket| matches!(socket.speaks, Speaks::Bayeux(_)));
    match (event, is_bayeux) {
        (Event::Text(text), Some(true)) => bayeux::on_text(shard, key, text, out),
        (Event::Text(text), Some(false)) => on_text(shard, key, text, out),
        (Event::Binary(_), Some(_)) => ws::refuse_binary(shard, key, out),
        _ => {}
    }
}

/// A message of a client.
#[derive(Default, Deserialize)]
pub(super) struct Said<'a> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    pub(super) id: Value,
    #[serde(default)]
    pub(super) channel: String,
    #[serde(default)]
    pub(super) action: String,
    pub(super) member: Option<String>,
    /// A resource of LiveResource, in the place of a channel.
    uri: Option<String>,
    /// What is wanted of that: `value` or `changes`.
    mode: Option<String>,
    since: Option<String>,
    last: Option<usize>,
    token: Option<String>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

impl<'a> Said<'a> {
    /// A client enters a channel, as if it had said so.
    pub(super) fn of_member(channel: String, member: Option<String>, data: Option<&'a RawValue>) -> Self {
        Self { channel, member, data, ..Self::default() }
    }
}

fn on_text(shard: &Rc<Shard>, key: Key, text: &[u8], out: &mut Out) {
    if live::is_line(shard, key, text) {
        return live::on_line(shard, key, text, out);
    }
    let said: Said<'_> = match serde_json::from_slice(text) {
        Ok(said) => said,
        Err(_) => return tell_error(&Value::Null, "malformed", "the message is no JSON object with a type", out),
    };
    let start = match (said.since.as_deref(), said.last) {
        (Some("start"), _) => Start::Last(usize::MAX),
        (Some(text), _) => door::position(text).map_or(Start::Unknown, Start::After),
        (None, Some(count)) => Start::Last(count),
        (None, None) => Start::Now,
    };
    if let Some(uri) = &said.uri {
        match said.kind.as_str() {
            "subscribe" => {
                let changes = said.mode.as_deref() == Some("changes");
                return live::subscribe(shard, key, &said.id, uri, changes, out);
            }
            "unsubscribe" => return live::unsubscribe(shard, key, &said.id, uri, out),
            _ => {}
        }
    }
    match said.kind.as_str() {
        "subscribe" => subscribe(shard, key, &said.id, &said.channel, start, out),
        "unsubscribe" => unsubscribe(shard, key, &said.id, &said.channel, out),
        "publish" => publish(shard, key, &said, out),
        "auth" => authenticate(shard, key, &said, out),
        "presence" => presence::on_message(shard, key, &said, out),
        "ping" => tell(&json!({ "type": "pong", "id": said.id }), out),
        _ => tell_error(
            &said.id,
            "unknown-type",
            "the type is none of subscribe, unsubscribe, publish, presence, auth and ping",
            out,
        ),
    }
}

/// Puts a message up for the client; an id that it has not given is not told.
pub(super) fn tell(message: &Value, out: &mut Out) {
    let mut message = message.clone();
    if let Some(members) = message.as_object_mut() {
        members.retain(|name, value| name != "id" || !value.is_null());
    }
    out.client_frame(Opcode::Text, true, message.to_string().as_bytes());
}

pub(super) fn tell_error(id: &Value, code: &str, text: &str, out: &mut Out) {
    tell(&json!({ "type": "error", "id": id, "code": code, "text": text }), out);
}

/// Why a client does not get what it asked for: a code that never changes its meaning, and a text for people.
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) text: &'static str,
}

/// The realm of a socket, if its client may do this there.
pub(super) fn may(shard: &Shard, key: Key, operation: Operation, channel: &str) -> Result<Arc<Tenant>, Refused> {
    let found = with_socket(shard, key, |socket| {
        let tenant = Arc::clone(&socket.tenant);
        (tenant.realm().may(operation, channel, socket.grant.as_ref()), tenant)
    });
    match found {
        Some((true, tenant)) if is_channel(channel) => Ok(tenant),
        _ => Err(Refused { code: "forbidden", text: "neither a rule of the realm nor the token allows this" }),
    }
}

/// What a socket begins with on a channel.
pub(super) struct Begun {
    pub(super) missed: Vec<Item>,
    pub(super) gap: bool,
    position: Position,
}

/// Subscribes a socket to a channel; returns the name of that in the hub, too.
pub(super) fn begin(
    shard: &Rc<Shard>,
    key: Key,
    channel: &str,
    class: Class,
    start: Start,
) -> Result<(Begun, String), Refused> {
    let tenant = may(shard, key, Operation::Read, channel)?;
    let name = tenant.hub_name(channel);
    let gone = Refused { code: "forbidden", text: "the connection has ended" };
    let (count, known) = match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => (hold.subs().len(), ws::place_in(shard, hold.subs(), &name)),
        _ => return Err(gone),
    };
    if known.is_some() {
        return Err(Refused { code: "subscribed", text: "the channel is subscribed to already" });
    }
    if count >= tenant.realm().limits.subscriptions_max {
        return Err(Refused { code: "too-many-subscriptions", text: "this connection has as many channels as it may" });
    }
    let Joined { sub, missed, gap, position } = join(shard, key, &name, class, Mode::Ws, start);
    if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.add_sub(sub);
    }
    if gap {
        shard.metrics.gaps_told.add(1);
    }
    Ok((Begun { missed, gap, position }, name))
}

/// Ends the subscription of a socket to a channel, given by its name in the hub. False if there was none.
pub(super) fn end(shard: &Rc<Shard>, key: Key, name: &str) -> bool {
    let sub = match shard.held.borrow_mut().get_mut(key) {
        Some(Hold::Ws(hold)) => ws::place_in(shard, hold.subs(), name).map(|place| hold.remove_sub(place)),
        _ => None,
    };
    let Some(sub) = sub else { return false };
    subscribe::leave(shard, Mode::Ws, [&sub]);
    with_socket(shard, key, |socket| match &mut socket.speaks {
        Speaks::Json(_, follows) => follows.forget(name),
        Speaks::Bayeux(_) => {}
    });
    true
}

fn subscribe(shard: &Rc<Shard>, key: Key, id: &Value, channel: &str, start: Start, out: &mut Out) {
    let begun = match begin(shard, key, channel, Class::Events, start) {
        Ok((begun, _)) => begun,
        Err(Refused { code, text }) => return tell_error(id, code, text, out),
    };
    let position = begun.position.to_string();
    tell(&json!({ "type": "subscribed", "id": id, "channel": channel, "position": position }), out);
    if begun.gap {
        tell(&json!({ "type": "gap", "channel": channel }), out);
    }
    shard.metrics.replayed.add(begun.missed.len() as u64);
    for item in &begun.missed {
        if let Some(message) = forms::event(item) {
            out.client_bytes(message.plain());
        }
    }
}

fn unsubscribe(shard: &Rc<Shard>, key: Key, id: &Value, channel: &str, out: &mut Out) {
    let Some(name) = with_socket(shard, key, |socket| socket.tenant.hub_name(channel)) else { return };
    if end(shard, key, &name) {
        tell(&json!({ "type": "unsubscribed", "id": id, "channel": channel }), out);
    } else {
        tell_error(id, "not-subscribed", "the channel is not subscribed to", out);
    }
}

fn publish(shard: &Rc<Shard>, key: Key, said: &Said<'_>, out: &mut Out) {
    let tenant = match may(shard, key, Operation::Publish, &said.channel) {
        Ok(tenant) => tenant,
        Err(Refused { code, text }) => return tell_error(&said.id, code, text, out),
    };
    let Some(data) = said.data else {
        return tell_error(&said.id, "malformed", "a message to be published needs data", out);
    };
    if data.get().len() > tenant.realm().limits.message_max {
        return tell_error(&said.id, "too-large", "the message is longer than the realm allows", out);
    }
    let now = Instant::now();
    if with_socket(shard, key, |socket| socket.take_from_rate(now)) != Some(true) {
        return tell_error(&said.id, "too-fast", "more messages were published than the realm allows in a second", out);
    }
    let item = door::item(&said.channel, compact(data.get()));
    let published = shard.gateway.publish_in(&tenant, now, item);
    let position = published.position.map(|position| position.to_string());
    tell(&json!({ "type": "published", "id": said.id, "channel": said.channel, "position": position }), out);
}

fn authenticate(shard: &Rc<Shard>, key: Key, said: &Said<'_>, out: &mut Out) {
    let Some(tenant) = with_socket(shard, key, |socket| Arc::clone(&socket.tenant)) else { return };
    match tenant.realm().grant(said.token.as_deref().unwrap_or_default(), unix_seconds()) {
        Ok(grant) => {
            let expires = grant.expires;
            with_socket(shard, key, |socket| socket.grant = Some(grant));
            tell(&json!({ "type": "authenticated", "id": said.id, "expires": expires }), out);
        }
        Err(error) => tell_error(&said.id, "unauthorized", &error.to_string(), out),
    }
}
