//! WebSockets of plain clients: many channels over one connection, in small JSON messages.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use waft_bayeux::compact;
use waft_hub::Mode;
use waft_net::Key;
use waft_realm::{Grant, Operation, Rate, is_channel};
use waft_websocket::connection::Event;
use waft_websocket::frame::Opcode;

use super::door::{self, Ask, bucket, full};
use super::feed::{Start, join};
use super::tenant::{Guest, Tenant};
use super::{bayeux, forms, unix_seconds};
use crate::client::Client;
use crate::exchange::Exchange;
use crate::hold::Hold;
use crate::shard::Shard;
use crate::subscribe::{self, Class, Sub};
use crate::ws::{self, Out};

/// The WebSocket of a realm's client.
#[derive(Debug)]
pub(crate) struct RealmSocket {
    pub(super) tenant: Arc<Tenant>,
    pub(super) grant: Option<Grant>,
    pub(super) rate: Rate,
    pub(super) speaks: Speaks,
    /// Lives as long as the connection.
    _guest: Guest,
}

/// The protocol of a socket.
#[derive(Debug)]
pub(super) enum Speaks {
    Bayeux(bayeux::Socket),
    /// Small messages; the channel is the one that its address names.
    Json(Option<(String, Start)>),
}

impl RealmSocket {
    pub(super) fn new(tenant: Arc<Tenant>, grant: Option<Grant>, speaks: Speaks, guest: Guest) -> Self {
        let rate = bucket(&tenant, Instant::now());
        Self { tenant, grant, rate, speaks, _guest: guest }
    }

    /// The longest message of the client.
    pub(crate) fn frame_max(&self) -> u64 {
        match self.speaks {
            Speaks::Bayeux(_) => bayeux::BATCH_MAX as u64,
            // Beside the value there is only its channel and a word.
            Speaks::Json(_) => self.tenant.realm().limits.message_max as u64 + 1024,
        }
    }

    /// Counts a message that is published. False if there were too many.
    pub(super) fn take_from_rate(&mut self, now: Instant) -> bool {
        self.rate.take(self.tenant.realm().limits.publish_rate, now)
    }
}

/// Opens a WebSocket.
pub(super) async fn serve(shard: &Rc<Shard>, client: Client, exchange: Exchange, ask: Ask) -> Option<Client> {
    let Some(guest) = ask.tenant.admit() else { return door::answer(shard, client, &exchange, full()).await };
    let start = Start::of(&exchange, &ask);
    let channel = (!ask.channel.is_empty()).then(|| (ask.channel.clone(), start));
    let socket = RealmSocket::new(ask.tenant, ask.grant, Speaks::Json(channel), guest);
    ws::accept_in_realm(shard, client, exchange, socket);
    None
}

/// A WebSocket has been accepted: its address may name a channel.
pub(crate) fn socket_begun(shard: &Rc<Shard>, key: Key) {
    let channel = with_socket(shard, key, |socket| match &mut socket.speaks {
        Speaks::Json(channel) => channel.take(),
        Speaks::Bayeux(_) => None,
    });
    if let Some(Some((channel, start))) = channel {
        let mut out = Out::default();
        subscribe(shard, key, &Value::Null, &channel, start, &mut out);
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
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    id: Value,
    #[serde(default)]
    channel: String,
    since: Option<String>,
    last: Option<usize>,
    token: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

fn on_text(shard: &Rc<Shard>, key: Key, text: &[u8], out: &mut Out) {
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
    match said.kind.as_str() {
        "subscribe" => subscribe(shard, key, &said.id, &said.channel, start, out),
        "unsubscribe" => unsubscribe(shard, key, &said.id, &said.channel, out),
        "publish" => publish(shard, key, &said, out),
        "auth" => authenticate(shard, key, &said, out),
        "ping" => tell(&json!({ "type": "pong", "id": said.id }), out),
        _ => tell_error(
            &said.id,
            "unknown-type",
            "the type is none of subscribe, unsubscribe, publish, auth and ping",
            out,
        ),
    }
}

/// Puts a message up for the client; an id that it has not given is not told.
fn tell(message: &Value, out: &mut Out) {
    let mut message = message.clone();
    if let Some(members) = message.as_object_mut() {
        members.retain(|name, value| name != "id" || !value.is_null());
    }
    out.client_frame(Opcode::Text, true, message.to_string().as_bytes());
}

fn tell_error(id: &Value, code: &str, text: &str, out: &mut Out) {
    tell(&json!({ "type": "error", "id": id, "code": code, "text": text }), out);
}

/// Whether the client may do this; if not, it is told.
fn may(shard: &Shard, key: Key, operation: Operation, id: &Value, channel: &str, out: &mut Out) -> Option<Arc<Tenant>> {
    let found = with_socket(shard, key, |socket| {
        let tenant = Arc::clone(&socket.tenant);
        (tenant.realm().may(operation, channel, socket.grant.as_ref()), tenant)
    });
    match found {
        Some((true, tenant)) if is_channel(channel) => Some(tenant),
        Some(_) => {
            tell_error(id, "forbidden", "neither a rule of the realm nor the token allows this", out);
            None
        }
        None => None,
    }
}

fn subscribe(shard: &Rc<Shard>, key: Key, id: &Value, channel: &str, start: Start, out: &mut Out) {
    let Some(tenant) = may(shard, key, Operation::Read, id, channel, out) else { return };
    let name = tenant.hub_name(channel);
    let count = match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => (hold.subs().len(), ws::place_in(shard, hold.subs(), &name)),
        _ => return,
    };
    match count {
        (_, Some(_)) => return tell_error(id, "subscribed", "the channel is subscribed to already", out),
        (count, None) if count >= tenant.realm().limits.subscriptions_max => {
            return tell_error(id, "too-many-subscriptions", "this connection has as many channels as it may", out);
        }
        _ => {}
    }
    let joined = join(shard, key, &name, Class::Events, Mode::Ws, start);
    if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.add_sub(joined.sub);
    }
    let position = joined.position.to_string();
    tell(&json!({ "type": "subscribed", "id": id, "channel": channel, "position": position }), out);
    if joined.gap {
        shard.metrics.gaps_told.add(1);
        tell(&json!({ "type": "gap", "channel": channel }), out);
    }
    shard.metrics.replayed.add(joined.missed.len() as u64);
    for item in &joined.missed {
        if let Some(message) = forms::event(item) {
            out.client_bytes(message.plain());
        }
    }
}

fn unsubscribe(shard: &Rc<Shard>, key: Key, id: &Value, channel: &str, out: &mut Out) {
    let Some(tenant) = with_socket(shard, key, |socket| Arc::clone(&socket.tenant)) else { return };
    let name = tenant.hub_name(channel);
    let sub = match shard.held.borrow_mut().get_mut(key) {
        Some(Hold::Ws(hold)) => {
            let place = ws::place_in(shard, hold.subs(), &name);
            place.map(|place| hold.remove_sub(place))
        }
        _ => return,
    };
    match sub {
        Some(sub) => {
            subscribe::leave(shard, Mode::Ws, [&sub]);
            tell(&json!({ "type": "unsubscribed", "id": id, "channel": channel }), out);
        }
        None => tell_error(id, "not-subscribed", "the channel is not subscribed to", out),
    }
}

fn publish(shard: &Rc<Shard>, key: Key, said: &Said<'_>, out: &mut Out) {
    let Some(tenant) = may(shard, key, Operation::Publish, &said.id, &said.channel, out) else { return };
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
