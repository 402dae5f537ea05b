//! Members of channels: how clients enter and leave, and what others see of it.
//!
//! The rules are those of [`Roster`]; here is what they need of the world. A member's lease is kept with its connection
//! (`stay.rs`), whatever that is, and is lost when that is let go of. Each change is published to the channel for it while
//! the roster is locked, so that a list of members with the position of that channel is true for exactly that position.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use waft_hub::Position;
use waft_net::Key;
use waft_realm::{
    Change, ChannelKind, EnterError, Event, Grant, Lease, Operation, Roster, member_json, member_name, presence_channel,
};

use super::door::{self, Ask, json_text, refusal};
use super::socket::{Refused, Said, may, tell, tell_error, with_socket};
use super::tenant::Tenant;
use crate::exchange::Exchange;
use crate::gateway::Gateway;
use crate::service::Answer;
use crate::shard::Shard;
use crate::ws::Out;

/// The members of a realm's channels.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<Roster>);

/// A client as a member of a channel. Lost when it is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    tenant: Arc<Tenant>,
    /// Empty once it was given back.
    lease: Option<Lease>,
}

impl Members {
    fn lock(&self) -> MutexGuard<'_, Roster> {
        // Nothing under this lock leaves a half-done change behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Members of one channel.
    pub(super) fn count(&self, channel: &str) -> usize {
        self.lock().members(channel).len()
    }
}

impl Membership {
    pub(super) fn channel(&self) -> &str {
        self.lease.as_ref().map_or("", Lease::channel)
    }

    pub(super) fn member(&self) -> &str {
        self.lease.as_ref().map_or("", Lease::member)
    }

    /// The client has said that it leaves.
    pub(super) fn leave(mut self, gateway: &Gateway) {
        let Some(lease) = self.lease.take() else { return };
        let mut roster = self.tenant.members().lock();
        if let Some(change) = roster.leave(lease) {
            publish(gateway, &self.tenant, Instant::now(), &change);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let grace = self.tenant.realm().limits.presence_grace;
            self.tenant.members().lock().lose(Instant::now(), grace, lease);
        }
    }
}

/// A client enters a channel. The position is that of the channel that tells of it, after this.
pub(super) fn enter(
    gateway: &Gateway,
    tenant: &Arc<Tenant>,
    channel: &str,
    member: &str,
    data: &str,
) -> Result<(Membership, Position), EnterError> {
    let name = presence_channel(channel).ok_or(EnterError::NoChannel)?;
    let realm = tenant.realm();
    let mut roster = tenant.members().lock();
    let (lease, change) = roster.enter(&realm.limits, channel, member, data)?;
    if let Some(change) = change {
        publish(gateway, tenant, Instant::now(), &change);
    }
    let position = gateway.hub.position(&tenant.hub_name(&name));
    Ok((Membership { tenant: Arc::clone(tenant), lease: Some(lease) }, position))
}

/// Tells of a change. The roster is locked, or the order of changes would be lost.
fn publish(gateway: &Gateway, tenant: &Tenant, now: Instant, change: &Change) {
    let Some(name) = presence_channel(&change.channel) else { return };
    let metrics = gateway.realm_metrics();
    match change.event {
        Event::Joined(_) => metrics.members_joined.add(1),
        Event::Left | Event::Lost => metrics.members_left.add(1),
        Event::Updated(_) => {}
    }
    gateway.publish_in(tenant, now, door::item(&name, change.to_json()));
}

/// Tells of the members that have not come back in time.
pub(super) fn tick(gateway: &Gateway, tenant: &Tenant, now: Instant) {
    let mut roster = tenant.members().lock();
    while let Some(change) = roster.expire(now) {
        publish(gateway, tenant, now, &change);
    }
}

/// What there is to see of a channel: `members`, how many `listeners` it has, and the `position` of the channel that tells
/// of changes, after which those begin that are not in the list. JSON members, without braces.
fn seen(gateway: &Gateway, tenant: &Tenant, channel: &str) -> (String, Position) {
    let name = presence_channel(channel).unwrap_or_default();
    let listeners = gateway.hub.counts(&tenant.hub_name(channel)).total();
    let mut out = String::from("\"members\":[");
    let roster = tenant.members().lock();
    for (number, (member, data)) in roster.members(channel).enumerate() {
        out.push_str(if number > 0 { "," } else { "" });
        out.push_str(&member_json(member, data));
    }
    let position = gateway.hub.position(&tenant.hub_name(&name));
    drop(roster);
    // Writing to a text cannot fail.
    let _written = write!(out, "],\"listeners\":{listeners},\"position\":\"{position}\"");
    (out, position)
}

/// Whether a request asks for the list of members: it is for the channel of their changes, and for none of those.
pub(super) fn wants_list(ask: &Ask) -> bool {
    matches!(ChannelKind::of(&ask.channel), ChannelKind::Presence(_))
        && !ask.query.contains_key("since")
        && !ask.query.contains_key("after")
}

/// The list of members of the channel that a request is for.
pub(super) fn list(shard: &Shard, ask: &Ask) -> Answer {
    let ChannelKind::Presence(channel) = ChannelKind::of(&ask.channel) else {
        return Answer::text(404, "There is no such channel.\n");
    };
    let (members, position) = seen(&shard.gateway, &ask.tenant, channel);
    let mut answer = Answer::new(200, "application/json", format!("{{{members}}}\n"));
    answer.fields.push("Cache-Control", "no-cache");
    answer.fields.push("Link", format!("<{}?after={position}>; rel=\"changes changes-wait\"", ask.resource.path));
    answer.fields.push("Changes-Id", position.to_string());
    answer
}

/// Makes the client of a request a member of its channel, if the query has `member`.
pub(super) fn enter_by_request(shard: &Shard, exchange: &Exchange, ask: &Ask) -> Result<Option<Membership>, Answer> {
    let Some(own) = ask.query.get("member").filter(|_| exchange.head.method() == "GET") else { return Ok(None) };
    if let Some(refused) = refusal(ask, &ask.channel, Operation::Presence) {
        return Err(refused);
    }
    let data = match ask.query.get("data") {
        Some(text) => compact(text).ok_or_else(|| Answer::text(400, "The data of a member is not valid JSON.\n"))?,
        None => told_by(ask.grant.as_ref()),
    };
    let entered = member_name(ask.grant.as_ref(), Some(own))
        .and_then(|name| enter(&shard.gateway, &ask.tenant, &ask.channel, &name, &data));
    entered.map(|(membership, _)| Some(membership)).map_err(|error| {
        let status = match error {
            EnterError::ChannelFull | EnterError::RealmFull => 503,
            EnterError::DataTooLong { .. } => 413,
            _ => 400,
        };
        let mut answer = Answer::text(status, format!("Not entered: {error}.\n"));
        if status == 503 {
            answer.fields.push("Retry-After", "5");
        }
        answer
    })
}

/// Makes a Bayeux client a member of the channels that it subscribes to, if the extension `presence` of its message asks
/// for that: `{"member": NAME, "data": VALUE}`, both if wanted. The memberships are to be kept with the client.
pub(super) fn enter_by_extension(
    gateway: &Gateway,
    tenant: &Arc<Tenant>,
    wish: &Wish,
    grant: Option<&Grant>,
    channels: &[&str],
) -> Result<Vec<Membership>, EnterError> {
    let name = member_name(grant, wish.member.as_deref())?;
    let data = wish.data.as_ref().map_or_else(|| told_by(grant), Value::to_string);
    channels.iter().map(|channel| enter(gateway, tenant, channel, &name, &data).map(|(entered, _)| entered)).collect()
}

/// What the extension `presence` of a Bayeux subscription says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wish {
    member: Option<String>,
    data: Option<Value>,
}

impl Wish {
    /// What is said by this JSON text; nothing, if that is no object.
    pub(super) fn of(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// JSON in one line without white space, if that is what a text is.
fn compact(text: &str) -> Option<String> {
    json_text(text).and_then(|text| String::from_utf8(text).ok())
}

/// What a token tells others of its owner.
fn told_by(grant: Option<&Grant>) -> String {
    grant.and_then(|grant| grant.info.as_ref()).map_or_else(|| "null".to_owned(), Value::to_string)
}

/// A client on a WebSocket enters or leaves a channel, or wants to see who is there.
pub(super) fn on_message(shard: &Rc<Shard>, key: Key, said: &Said<'_>, out: &mut Out) {
    match said.action.as_str() {
        "enter" => enter_by_socket(shard, key, said, out),
        "leave" => leave_by_socket(shard, key, said, out),
        "members" => {
            let tenant = match may(shard, key, Operation::Presence, &said.channel) {
                Ok(tenant) => tenant,
                Err(Refused { code, text }) => return tell_error(&said.id, code, text, out),
            };
            let (members, _) = seen(&shard.gateway, &tenant, &said.channel);
            let start = json!({ "type": "presence", "action": "members", "id": said.id, "channel": said.channel });
            tell_with(&start, &members, out);
        }
        _ => tell_error(&said.id, "malformed", "the action is none of enter, leave and members", out),
    }
}

/// Puts a message up for the client with more members, which are JSON text.
fn tell_with(start: &Value, more: &str, out: &mut Out) {
    let mut start = start.clone();
    if let Some(members) = start.as_object_mut() {
        members.retain(|name, value| name != "id" || !value.is_null());
    }
    let text = start.to_string();
    let text = format!("{},{more}}}", text.strip_suffix('}').unwrap_or_default());
    out.client_frame(waft_websocket::frame::Opcode::Text, true, text.as_bytes());
}

/// A client enters the channel that the address of its WebSocket names.
pub(super) fn enter_by_address(
    shard: &Rc<Shard>,
    key: Key,
    channel: &str,
    member: &str,
    data: Option<&str>,
    out: &mut Out,
) {
    let data = match data.map(serde_json::from_str::<&RawValue>) {
        Some(Err(_)) => return tell_error(&Value::Null, "malformed", "the data of a member is not valid JSON", out),
        Some(Ok(data)) => Some(data),
        None => None,
    };
    let (channel, member) = (channel.to_owned(), Some(member.to_owned()));
    enter_by_socket(shard, key, &Said::of_member(channel, member, data), out);
}

fn enter_by_socket(shard: &Rc<Shard>, key: Key, said: &Said<'_>, out: &mut Out) {
    let tenant = match may(shard, key, Operation::Presence, &said.channel) {
        Ok(tenant) => tenant,
        Err(Refused { code, text }) => return tell_error(&said.id, code, text, out),
    };
    let now = Instant::now();
    let found = with_socket(shard, key, |socket| {
        let count = socket.guest.memberships().filter(|membership| membership.channel() != said.channel).count();
        (socket.take_from_rate(now), count, socket.grant.clone())
    });
    let Some((is_in_rate, count, grant)) = found else { return };
    if !is_in_rate {
        return tell_error(&said.id, "too-fast", "more messages were published than the realm allows in a second", out);
    }
    if count >= tenant.realm().limits.subscriptions_max {
        let text = "this connection is a member of as many channels as it may";
        return tell_error(&said.id, "too-many-subscriptions", text, out);
    }
    let data = match said.data {
        Some(data) => compact(data.get()).unwrap_or_else(|| "null".to_owned()),
        None => told_by(grant.as_ref()),
    };
    let entered = member_name(grant.as_ref(), said.member.as_deref())
        .and_then(|name| enter(&shard.gateway, &tenant, &said.channel, &name, &data));
    match entered {
        Ok((membership, position)) => {
            let member = membership.member().to_owned();
            // Who enters again has two leases for a moment, so nobody sees it leave.
            let before = with_socket(shard, key, |socket| socket.guest.keep(membership));
            if let Some(Some(before)) = before {
                before.leave(&shard.gateway);
            }
            let position = position.to_string();
            tell(
                &json!({
                    "type": "presence", "action": "entered", "id": said.id, "channel": said.channel,
                    "member": member, "position": position,
                }),
                out,
            );
        }
        Err(error) => {
            let code = match error {
                EnterError::ChannelFull | EnterError::RealmFull => "full",
                EnterError::DataTooLong { .. } => "too-large",
                _ => "malformed",
            };
            tell_error(&said.id, code, &error.to_string(), out);
        }
    }
}

fn leave_by_socket(shard: &Rc<Shard>, key: Key, said: &Said<'_>, out: &mut Out) {
    let membership = with_socket(shard, key, |socket| socket.guest.give_back(&said.channel));
    match membership {
        Some(Some(membership)) => {
            membership.leave(&shard.gateway);
            tell(&json!({ "type": "presence", "action": "left", "id": said.id, "channel": said.channel }), out);
        }
        Some(None) => tell_error(&said.id, "not-member", "this connection has not entered the channel", out),
        None => {}
    }
}
