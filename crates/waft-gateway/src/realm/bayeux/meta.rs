//! What messages ask for, and their replies (section 4 of the protocol).

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use waft_bayeux::{
    Advice, CONNECTION_TYPES, Kind, Message, Reconnect, Reply, Session, Style, compact, read_publish, read_subscription,
};
use waft_realm::{Grant, Operation, Pattern, Reason};

use super::{Client, Pending, Place, State, comma, is_pattern, lock};
use crate::realm::door::{self, bucket};
use crate::realm::presence::{self, Membership, Wish as Wished};
use crate::realm::stay::Stay;
use crate::realm::tenant::Tenant;
use crate::realm::unix_seconds;
use crate::shard::Shard;

/// A connect that is to be answered when there is something, or its time is over.
pub(super) struct Wish {
    pub(super) client: Arc<Client>,
    pub(super) pending: Pending,
    pub(super) wait: Duration,
    pub(super) ack: Option<u64>,
    /// What comes goes over a stream of events, so that this is only a sign of life.
    pub(super) by_events: bool,
}

/// What came of a batch.
pub(super) struct Done {
    /// The replies but that to the connect, as a list that is not closed yet.
    pub(super) replies: Vec<u8>,
    pub(super) wish: Option<Wish>,
    /// A client has said goodbye.
    pub(super) is_over: bool,
}

/// Members of `ext` that may carry a token.
const TOKENS: [&str; 3] = ["auth.token", "auth_token", "token"];

/// The advice of a realm to a client for which all is well.
pub(super) fn advice(hold: Duration) -> Advice {
    Advice { reconnect: Reconnect::Retry, interval: Duration::ZERO, timeout: hold }
}

/// The advice to begin anew.
pub(super) fn begin_anew(hold: Duration) -> Advice {
    Advice { reconnect: Reconnect::Handshake, ..advice(hold) }
}

/// Does what the messages of a batch ask for, in their order.
pub(super) fn process(shard: &Rc<Shard>, tenant: &Arc<Tenant>, batch: &[Message<'_>]) -> Done {
    let mut done = Done { replies: b"[".to_vec(), wish: None, is_over: false };
    for message in batch {
        let client = message.client_id.as_deref().and_then(|id| tenant.sessions().get(id));
        let turn = Turn { shard, tenant, message, client, now: Instant::now() };
        if let Some(client) = &turn.client {
            lock(&client.state).session.renew(turn.now);
        }
        match message.channel.as_deref() {
            Some("/meta/handshake") => turn.handshake(&mut done),
            Some("/meta/connect") => turn.connect(&mut done),
            Some("/meta/subscribe") => turn.subscribe(&mut done, true),
            Some("/meta/unsubscribe") => turn.subscribe(&mut done, false),
            Some("/meta/disconnect") => turn.disconnect(&mut done),
            channel => turn.publish(&mut done, channel.unwrap_or_default()),
        }
    }
    done
}

impl Done {
    fn reply(&mut self, reply: &Reply<'_>) {
        comma(&mut self.replies);
        reply.write(&mut self.replies);
    }
}

/// One message.
struct Turn<'a> {
    shard: &'a Rc<Shard>,
    tenant: &'a Arc<Tenant>,
    message: &'a Message<'a>,
    client: Option<Arc<Client>>,
    now: Instant,
}

impl Turn<'_> {
    fn hold(&self) -> Duration {
        self.tenant.realm().limits.hold
    }

    /// The client that the message names; an error if it names none, or one that is not known.
    fn known(&self) -> Result<&Arc<Client>, String> {
        match (&self.client, self.message.client_id.as_deref()) {
            (Some(client), _) => Ok(client),
            (None, Some(id)) => Err(format!("401:{id}:Unknown client")),
            (None, None) => Err("402:clientId:Missing required parameter".to_owned()),
        }
    }

    /// What the token of this message allows; that of the handshake otherwise.
    fn grant(&self) -> Result<Option<Grant>, String> {
        match TOKENS.iter().find_map(|path| self.message.ext_text(path)) {
            Some(token) => self
                .tenant
                .realm()
                .grant(&token, unix_seconds())
                .map(Some)
                .map_err(|_refused| "403::Authentication required".to_owned()),
            None => Ok(self.client.as_ref().and_then(|client| lock(&client.state).grant.clone())),
        }
    }

    fn handshake(&self, done: &mut Done) {
        let (message, hold) = (self.message, self.hold());
        let refuse = |error: String, advice| Reply::to(message).handshake(None).failed(error).advice(advice);
        let missing = |field| Some(format!("402:{field}:Missing required parameter"));
        let error = match &message.connection_types {
            _ if !message.has_version => missing("version"),
            None => missing("supportedConnectionTypes"),
            Some(types) if !types.iter().any(|name| CONNECTION_TYPES.contains(&name.as_str())) => {
                Some(format!("301:{}:Connection types not supported", types.join(",")))
            }
            Some(_) => None,
        };
        if let Some(error) = error {
            return done.reply(&refuse(error, begin_anew(hold)));
        }
        let grant = match self.grant() {
            Ok(grant) => grant,
            Err(error) => return done.reply(&refuse(error, Advice { reconnect: Reconnect::None, ..advice(hold) })),
        };
        let style = if message.has_minimum_version || message.wants_acks() { Style::Comet } else { Style::Faye };
        let session = Session::new(self.now, style, message.wants_acks(), Client::expiry(hold));
        let state = State {
            session,
            grant,
            rate: bucket(self.tenant, self.now),
            serial: 0,
            place: Place::Away,
            is_gone: false,
            stay: Stay::default(),
        };
        let Some(id) = new_id() else {
            return done.reply(&refuse("500::Internal server error".to_owned(), begin_anew(hold)));
        };
        let client = Arc::new(Client { id, tenant: Arc::clone(self.tenant), state: Mutex::new(state) });
        if !self.tenant.sessions().add(&client, self.tenant.realm().limits.sessions_max) {
            let later = Advice { interval: Duration::from_secs(5), ..begin_anew(hold) };
            return done.reply(&refuse("403::Too many clients".to_owned(), later));
        }
        client.tell();
        let mut reply = Reply::to(message).handshake(Some(&client.id)).advice(advice(hold)).timesync(self.timesync());
        if message.wants_acks() {
            reply = reply.acks();
        }
        done.reply(&reply);
    }

    fn timesync(&self) -> Option<(u64, u64)> {
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some((self.message.timesync()?, u64::try_from(ours.as_millis()).unwrap_or(u64::MAX)))
    }

    fn connect(&self, done: &mut Done) {
        let hold = self.hold();
        let client = self.known().and_then(|client| match self.message.connection_type.as_deref() {
            None => Err("402:connectionType:Missing required parameter".to_owned()),
            Some(name) if !CONNECTION_TYPES.contains(&name) => {
                Err(format!("301:{name}:Connection types not supported"))
            }
            Some(_) => Ok(client),
        });
        let client = match client {
            Ok(client) => Arc::clone(client),
            Err(error) => return done.reply(&Reply::to(self.message).failed(error).advice(begin_anew(hold))),
        };
        let pending = Pending { id: self.message.id.map(str::to_owned), timesync: self.timesync() };
        let wait = self.message.timeout_ms.map_or(hold, |asked| Duration::from_millis(asked).min(hold));
        if done.wish.is_some() {
            // Two connects in one batch make no sense; the later one is that which is answered in its time.
            done.reply(&Reply::to(self.message).advice(advice(hold)));
            return;
        }
        // With acknowledgements everything goes with the replies to connects.
        let by_events =
            self.message.connection_type.as_deref() == Some("eventsource") && !lock(&client.state).session.has_acks();
        done.wish = Some(Wish { client, pending, wait, ack: self.message.ack(), by_events });
    }

    fn subscribe(&self, done: &mut Done, begins: bool) {
        let message = self.message;
        let text = message.subscription.as_ref().map_or("[]", |subscription| subscription.text);
        let outcome = self.known().and_then(|client| {
            let subscription = message.subscription.as_ref();
            let subscription = subscription.ok_or("402:subscription:Missing required parameter")?;
            let names =
                subscription.names.iter().map(|name| self.judge(name, begins)).collect::<Result<Vec<_>, _>>()?;
            let changed = if begins {
                let entered = self.enter(&names)?;
                let changed = self.begin(client, &names)?;
                client.keep(self.shard, entered);
                changed
            } else {
                self.end(client, &names)
            };
            Ok((client, changed))
        });
        match outcome {
            Ok((client, changed)) => {
                done.reply(&Reply::to(message).subscription(text));
                let place = lock(&client.state).place;
                if changed {
                    client.notify(self.shard, place);
                }
            }
            Err(error) => {
                let mut reply = Reply::to(message).subscription(text).failed(error);
                if self.client.is_none() && message.client_id.is_some() {
                    reply = reply.advice(begin_anew(self.hold()));
                }
                done.reply(&reply);
            }
        }
    }

    /// The name of a channel that may be subscribed to; none for one that nothing will come from.
    fn judge<'n>(&self, text: &'n str, begins: bool) -> Result<Option<&'n str>, String> {
        let target = read_subscription(text).ok_or_else(|| format!("405:{text}:Invalid channel"))?;
        let forbidden = || Err(format!("403:{text}:Forbidden channel"));
        match target.kind {
            Kind::Meta => return forbidden(),
            Kind::Service => return Ok(None),
            Kind::Broadcast => {}
        }
        if begins {
            let (realm, grant) = (self.tenant.realm(), self.grant()?);
            if !realm.may_all(Operation::Read, &Pattern::parse(target.name), grant.as_ref()) {
                return forbidden();
            }
        }
        Ok(Some(target.name))
    }

    /// Makes the client a member of these channels, if its message asks for that.
    fn enter(&self, names: &[Option<&str>]) -> Result<Vec<Membership>, String> {
        let Some(wish) = self.message.ext.get("presence") else { return Ok(Vec::new()) };
        let (realm, grant) = (self.tenant.realm(), self.grant()?);
        let names: Vec<&str> = names.iter().flatten().copied().collect();
        let forbidden = |name: &str| format!("403:/{name}:Forbidden channel");
        let is_refused = |name: &&&str| is_pattern(name) || !realm.may(Operation::Presence, name, grant.as_ref());
        if let Some(name) = names.iter().find(is_refused) {
            return Err(forbidden(name));
        }
        let gateway = &self.shard.gateway;
        let entered =
            presence::enter_by_extension(gateway, self.tenant, &Wished::of(wish.get()), grant.as_ref(), &names);
        entered.map_err(|error| format!("403::Not entered: {error}"))
    }

    /// Subscribes to all of these, or to none. Says whether anything is new.
    fn begin(&self, client: &Client, names: &[Option<&str>]) -> Result<bool, String> {
        let limit = self.tenant.realm().limits.subscriptions_max;
        let mut state = lock(&client.state);
        let mut fresh: Vec<&str> = Vec::new();
        for name in names.iter().flatten() {
            if !state.session.listens_to(name) && !fresh.contains(name) {
                fresh.push(name);
            }
        }
        if let Some(name) = fresh.first().filter(|_| state.session.len() + fresh.len() > limit) {
            return Err(format!("403:/{name}:Forbidden channel"));
        }
        for name in &fresh {
            if is_pattern(name) {
                // From here on what is published shows in it.
                self.tenant.patterns().add(name);
            }
            let at = self.shard.gateway.hub.position(&client.hub_name(name)).number;
            state.session.subscribe(Instant::now(), Arc::from(*name), at);
        }
        Ok(!fresh.is_empty())
    }

    fn end(&self, client: &Client, names: &[Option<&str>]) -> bool {
        for name in names.iter().flatten() {
            let membership = lock(&client.state).stay.give_back(name);
            if let Some(membership) = membership {
                membership.leave(&self.shard.gateway);
            }
        }
        let mut state = lock(&client.state);
        let mut changed = false;
        for name in names.iter().flatten() {
            if state.session.unsubscribe(name) {
                changed = true;
                if is_pattern(name) {
                    self.tenant.patterns().remove(name);
                }
            }
        }
        changed
    }

    fn disconnect(&self, done: &mut Done) {
        match self.known() {
            Ok(client) => {
                client.leave_all(self.shard);
                client.forget(Reason::Closed);
                let place = std::mem::replace(&mut lock(&client.state).place, Place::Away);
                done.reply(&Reply::to(self.message));
                done.is_over = true;
                client.notify(self.shard, place);
            }
            Err(error) => done.reply(&Reply::to(self.message).failed(error).advice(begin_anew(self.hold()))),
        }
    }

    fn publish(&self, done: &mut Done, channel: &str) {
        let reply = Reply::to(self.message);
        match self.try_publish(channel) {
            Ok(()) => done.reply(&reply),
            Err(error) => {
                let unknown = self.client.is_none() && self.message.client_id.is_some();
                let reply = reply.failed(error);
                done.reply(&if unknown { reply.advice(begin_anew(self.hold())) } else { reply });
            }
        }
    }

    fn try_publish(&self, channel: &str) -> Result<(), String> {
        let target = read_publish(channel).ok_or_else(|| format!("405:{channel}:Invalid channel"))?;
        let data = self.message.data.ok_or("402:data:Missing required parameter")?;
        if self.message.client_id.is_some() {
            self.known()?;
        }
        let forbidden = || Err(format!("403:{channel}:Forbidden channel"));
        match target.kind {
            Kind::Meta => return forbidden(),
            // It has come, and there is nobody else whom it is for.
            Kind::Service => return Ok(()),
            Kind::Broadcast => {}
        }
        let realm = self.tenant.realm();
        if !realm.may(Operation::Publish, target.name, self.grant()?.as_ref()) {
            return forbidden();
        }
        let limits = &realm.limits;
        let in_rate = match &self.client {
            Some(client) => lock(&client.state).rate.take(limits.publish_rate, self.now),
            None => self.tenant.take_from_rate(self.now),
        };
        if data.len() > limits.message_max || !in_rate {
            return Err(format!("407:{channel}:Failed to publish"));
        }
        self.shard.gateway.publish_in(self.tenant, self.now, door::item(target.name, compact(data)));
        Ok(())
    }
}

/// A name for a client that nobody can guess; none if the system gives no randomness.
fn new_id() -> Option<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(
        bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32))).map(|letter| char::from(*letter)).collect(),
    )
}
