//! The calls of the API: who may do what, what is found, what is changed.

mod challenge;
mod endpoints;
mod show;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use url::form_urlencoded;
use waft_gateway::Answer;
use waft_store::Room;

use crate::answers::{json_answer, ok, refuse};
use crate::core::record::Record;
use crate::core::{Search, State, StoredApp, id};
use crate::engine::{Ask, Caller, Engine, Then, answer_with, now_ms, random, token_hash};

/// Messages in one answer: as many as asked for, up to this.
const PAGE_MAX: usize = 200;

/// Messages in one answer if nothing is said.
const PAGE: usize = 50;

/// Deliveries that one call can give to the queue again; it can be repeated.
const RESEND_MAX: usize = 100_000;

/// Who acts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Actor {
    /// The application of this number.
    App(u32),
    /// Whoever may do everything.
    Operator,
}

/// What a call of many resends says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Resend {
    app: Option<String>,
    endpoint: Option<String>,
    /// `dead` unless it is said otherwise.
    state: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ResendOne {
    endpoint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewApp {
    id: String,
}

impl Engine {
    /// Answers a call.
    pub(crate) fn ask(&mut self, ask: Ask) {
        let Ask { caller, method, path, query, body, reply } = ask;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let answer = match (method.as_str(), parts.as_slice()) {
            ("GET" | "HEAD", ["keys", id]) => self.published_keys(id),
            _ => match self.actor(caller) {
                Ok(actor) => match self.route(actor, &method, &parts, &query, &body, reply) {
                    Ok(()) => return,
                    Err((reply, answer)) => return answer_with(reply, answer),
                },
                Err(answer) => answer,
            },
        };
        answer_with(reply, answer);
    }

    fn route(
        &mut self,
        actor: Actor,
        method: &str,
        parts: &[&str],
        query: &str,
        body: &[u8],
        reply: oneshot::Sender<Answer>,
    ) -> Result<(), (oneshot::Sender<Answer>, Answer)> {
        let result = match (method, parts) {
            ("GET" | "HEAD", ["status"]) => Ok(self.status()),
            ("GET" | "HEAD", ["messages"]) => self.list(actor, query, None),
            ("GET" | "HEAD", ["dead"]) => self.list(actor, query, Some(State::Dead)),
            ("GET" | "HEAD", ["messages", id]) => self.show_message(actor, id),
            ("GET" | "HEAD", ["messages", id, "attempts"]) => self.show_attempts(actor, id),
            ("POST", ["messages", id, "resend"]) => return self.resend_one(actor, id, body, reply),
            ("POST", ["resend"]) => return self.resend_many(actor, body, None, reply),
            ("GET" | "HEAD", ["events"]) => Ok(self.events(actor)),
            ("GET" | "HEAD", ["apps"]) => self.list_apps(actor),
            ("POST", ["apps"]) => return self.create_app(actor, body, reply),
            ("POST", ["apps", id, "token"]) => return self.renew_token(actor, id, reply),
            ("DELETE", ["apps", id]) => return self.remove_app(actor, id, reply),
            ("GET" | "HEAD", ["endpoints"]) => self.list_endpoints(actor, query),
            ("POST", ["endpoints"]) => return self.create_endpoint(actor, body, reply),
            ("GET" | "HEAD", ["endpoints", id]) => self.show_endpoint(actor, id),
            ("PUT", ["endpoints", id]) => return self.change_endpoint(actor, id, body, reply),
            ("DELETE", ["endpoints", id]) => return self.delete_endpoint(actor, id, reply),
            ("POST", ["endpoints", id, "replay"]) => return self.resend_many(actor, body, Some(id), reply),
            ("POST", ["endpoints", id, action]) => return self.act_on_endpoint(actor, id, action, body, reply),
            (_, ["messages" | "resend" | "apps" | "endpoints" | "events" | "status" | "dead" | "keys", ..]) => {
                Err(refuse(405, "this method does not work here"))
            }
            _ => Err(refuse(404, "there is nothing here; docs/webhooks.md lists the paths")),
        };
        answer_with(reply, result.unwrap_or_else(|refused| refused));
        Ok(())
    }

    /// Who a caller is.
    pub(crate) fn actor(&self, caller: Caller) -> Result<Actor, Answer> {
        let app = caller.token.as_ref().and_then(|token| self.core.app_of_token(token));
        match app {
            Some(app) => Ok(Actor::App(app.stored.number)),
            None if caller.trusted => Ok(Actor::Operator),
            None => Err(refuse(401, "show the token of an application, or that of the control API, as a bearer token")),
        }
    }

    /// The application that a caller acts for.
    pub(crate) fn acting_app(&self, caller: Caller, named: Option<&str>) -> Result<u32, Answer> {
        self.app_for(self.actor(caller)?, named)
    }

    /// The application that an actor acts for: its own, or the one it names.
    fn app_for(&self, actor: Actor, named: Option<&str>) -> Result<u32, Answer> {
        let name = named.unwrap_or(crate::engine::DEFAULT_APP);
        match (actor, self.core.app(name)) {
            (Actor::App(number), _) if named.is_none() => Ok(number),
            (Actor::App(number), Some(app)) if app.stored.number == number => Ok(number),
            (Actor::Operator, Some(app)) => Ok(app.stored.number),
            (Actor::App(_) | Actor::Operator, _) => Err(refuse(404, &format!("there is no application `{name}`"))),
        }
    }

    fn status(&self) -> Answer {
        let totals = self.core.totals();
        let usage = self.writer.usage();
        ok(&json!({
            "pending": totals.open, "dead": totals.dead, "messages": totals.messages,
            "endpoints": self.core.endpoints.len(), "apps": self.core.apps.len(),
            "disk_bytes": usage.bytes, "live_bytes": totals.live_bytes, "hosts_down": self.core.open_breakers(),
        }))
    }

    fn events(&self, actor: Actor) -> Answer {
        let is_his = |app: u32| actor == Actor::Operator || actor == Actor::App(app);
        let events = self.told.iter().rev().filter(|told| is_his(told.app));
        let events: Vec<Value> = events
            .take(PAGE_MAX)
            .map(|told| json!({ "type": told.kind, "timestamp_ms": told.at, "data": told.data }))
            .collect();
        ok(&json!({ "events": events }))
    }

    fn list(&self, actor: Actor, query: &str, state: Option<State>) -> Result<Answer, Answer> {
        let mut search = Search { app: self.own(actor), state, ..Search::default() };
        let mut limit = PAGE;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "app" => search.app = Some(self.app_for(actor, Some(&value))?),
                "endpoint" => search.endpoint = Some(self.known_endpoint(actor, &value)?),
                "status" => search.state = Some(state_of(&value)?),
                "before" => {
                    let before = id::parse_message_id(&value, self.core.mark);
                    search.before = Some(before.ok_or_else(|| refuse(400, "`before` must be the id of a message"))?);
                }
                "since_ms" => search.since = id::first_seq(number(&value)?),
                "until_ms" => search.before = Some(id::first_seq(number(&value)?)),
                "limit" => limit = usize::try_from(number(&value)?).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX),
                other => return Err(refuse(400, &format!("the query parameter `{other}` is unknown"))),
            }
        }
        let found = self.core.search(&search, limit);
        let messages: Vec<Value> = found.seqs.iter().filter_map(|seq| self.message_in_short(*seq)).collect();
        let next = found.next.map(|seq| id::message_id(seq, self.core.mark));
        Ok(ok(&json!({ "messages": messages, "next": next })))
    }

    /// The application that an actor is limited to.
    fn own(&self, actor: Actor) -> Option<u32> {
        match actor {
            Actor::App(number) => Some(number),
            Actor::Operator => None,
        }
    }

    /// The number of an endpoint that an actor may see.
    fn known_endpoint(&self, actor: Actor, id: &str) -> Result<u32, Answer> {
        let endpoint =
            self.core.endpoint(id).filter(|endpoint| self.own(actor).is_none_or(|app| endpoint.stored.app == app));
        endpoint
            .map(|endpoint| endpoint.stored.number)
            .ok_or_else(|| refuse(404, &format!("there is no endpoint `{id}`")))
    }

    /// The number of a message that an actor may see.
    fn known_message(&self, actor: Actor, id: &str) -> Result<u64, Answer> {
        let seq = id::parse_message_id(id, self.core.mark);
        let is_his = |seq: &u64| {
            self.core.message(*seq).is_some_and(|message| self.own(actor).is_none_or(|app| message.app == app))
        };
        seq.filter(is_his)
            .ok_or_else(|| refuse(404, &format!("there is no message `{id}`; it may be forgotten by now")))
    }

    fn resend_one(
        &mut self,
        actor: Actor,
        id: &str,
        body: &[u8],
        reply: oneshot::Sender<Answer>,
    ) -> Result<(), (oneshot::Sender<Answer>, Answer)> {
        let meant = self.known_message(actor, id).and_then(|seq| {
            let ResendOne { endpoint } = parse(body)?;
            let only = endpoint.map(|id| self.known_endpoint(actor, &id)).transpose()?;
            let all = self.core.message(seq).map(|message| message.deliveries.to_vec()).unwrap_or_default();
            let endpoints: Vec<u32> = match only {
                Some(only) => vec![only],
                None => all.iter().map(|delivery| delivery.endpoint).collect(),
            };
            Ok((seq, endpoints))
        });
        let (seq, endpoints) = match meant {
            Ok(meant) => meant,
            Err(answer) => return Err((reply, answer)),
        };
        let pairs = endpoints.into_iter().map(|endpoint| (seq, endpoint)).collect();
        self.give_again(pairs, None, reply);
        Ok(())
    }

    /// Gives deliveries to the queue again: those that failed, or those of an endpoint since a time (`replay`).
    fn resend_many(
        &mut self,
        actor: Actor,
        body: &[u8],
        replay: Option<&str>,
        reply: oneshot::Sender<Answer>,
    ) -> Result<(), (oneshot::Sender<Answer>, Answer)> {
        match self.find_again(actor, body, replay) {
            Ok((pairs, next)) => {
                self.give_again(pairs, next, reply);
                Ok(())
            }
            Err(answer) => Err((reply, answer)),
        }
    }

    /// The deliveries that a call of many resends means, and where the next call goes on.
    #[expect(clippy::type_complexity, reason = "pairs of message and endpoint, and a number")]
    fn find_again(
        &self,
        actor: Actor,
        body: &[u8],
        replay: Option<&str>,
    ) -> Result<(Vec<(u64, u32)>, Option<u64>), Answer> {
        let call: Resend = parse(body)?;
        let app = match &call.app {
            Some(app) => Some(self.app_for(actor, Some(app))?),
            None => self.own(actor),
        };
        let endpoint = match call.endpoint.as_deref().or(replay) {
            Some(id) => Some(self.known_endpoint(actor, id)?),
            None => None,
        };
        let state = match (&call.state, replay) {
            (Some(state), _) => Some(state_of(state)?),
            (None, None) => Some(State::Dead),
            (None, Some(_)) => None,
        };
        if replay.is_some() && call.since_ms.is_none() {
            return Err(refuse(400, "a replay needs `since_ms`"));
        }
        let search = Search {
            app: app
                .or_else(|| endpoint.and_then(|number| self.core.endpoints.get(&number)).map(|known| known.stored.app)),
            // A replay also brings messages that the endpoint never got.
            endpoint: endpoint.filter(|_| replay.is_none() || state.is_some()),
            state,
            before: call.until_ms.map(id::first_seq),
            since: call.since_ms.map_or(0, id::first_seq),
        };
        let found = self.core.search(&search, RESEND_MAX);
        let mut pairs = Vec::with_capacity(found.seqs.len());
        for seq in found.seqs.iter().rev() {
            let Some(message) = self.core.message(*seq) else { continue };
            match endpoint.filter(|_| replay.is_some()) {
                Some(endpoint) => {
                    let wanted = message.delivery(endpoint).is_some() || self.would_want(endpoint, *seq);
                    pairs.extend(wanted.then_some((*seq, endpoint)));
                }
                None => {
                    let meant = message.deliveries.iter().filter(|delivery| search.means(delivery));
                    pairs.extend(meant.map(|delivery| (*seq, delivery.endpoint)));
                }
            }
        }
        Ok((pairs, found.next))
    }

    fn would_want(&self, endpoint: u32, seq: u64) -> bool {
        let known = self.core.endpoints.get(&endpoint);
        known.is_some_and(|known| self.posted_kind(seq).is_some_and(|kind| known.wants(&kind)))
    }

    fn give_again(&mut self, pairs: Vec<(u64, u32)>, next: Option<u64>, reply: oneshot::Sender<Answer>) {
        let now = now_ms();
        let mut count = 0;
        for (seq, endpoint) in pairs {
            if let Some(record) = self.core.resend(seq, endpoint, now) {
                count += 1;
                self.store(record, true, Room::Reserve, Then::Nothing);
            }
        }
        let next_ms = next.map(id::taken_at);
        let answer = json_answer(202, &json!({ "resent": count, "until_ms": next_ms }));
        self.store(Vec::new(), true, Room::Ordinary, Then::Answer(reply, answer));
    }

    fn list_apps(&self, actor: Actor) -> Result<Answer, Answer> {
        operator_only(actor)?;
        let apps: Vec<Value> = self
            .core
            .apps
            .values()
            .map(|app| {
                let stored = &app.stored;
                json!({ "id": stored.id, "created_ms": stored.created, "has_token": stored.token.is_some(),
                "endpoints": app.endpoints.len(), "configured": stored.configured })
            })
            .collect();
        Ok(ok(&json!({ "apps": apps })))
    }

    fn create_app(
        &mut self,
        actor: Actor,
        body: &[u8],
        reply: oneshot::Sender<Answer>,
    ) -> Result<(), (oneshot::Sender<Answer>, Answer)> {
        let judged = operator_only(actor).and_then(|()| {
            let NewApp { id } = parse(body)?;
            let is_name = (1..=64).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if !is_name {
                return Err(refuse(400, "the id of an application has 1 to 64 letters, digits, `-`, `_` and `.`"));
            }
            if self.core.app(&id).is_some() {
                return Err(refuse(409, &format!("there is an application `{id}` already")));
            }
            Ok(id)
        });
        match judged {
            Ok(id) => {
                let number = self.core.new_number();
                let app = StoredApp { number, id, created: now_ms(), token: None, configured: false };
                self.store_app_with_token(app, 201, reply);
                Ok(())
            }
            Err(answer) => Err((reply, answer)),
        }
    }

    fn renew_token(
        &mut self,
        actor: Actor,
        id: &str,
        reply: oneshot::Sender<Answer>,
    ) -> Result<(), (oneshot::Sender<Answer>, Answer)> {
        match operator_only(actor).and_then(|()| self.changeable_app(id)) {
            Ok(app) => {
                self.store_app_with_token(app, 200, reply);
                Ok(())
            }
            Err(answer) => Err((reply, answer)),
        }
    }

    /// Gives an application a new token, which is shown once.
    fn store_app_with_token(&mut self, app: StoredApp, status: u16, reply: oneshot::Sender<Answer>) {
        let token = id::random_id("whapp_", random());
        let app = StoredApp { token: Some(token_hash(token.as_bytes())), ..app };
        let answer = json_answer(status, &json!({ "id": app.id, "token": token }));
        let record = Record::App(&serde_json::to_vec(&app).unwrap_or_default()).encode();
        self.store(record, true, Room::Ordinary, Then::App(app, reply, answer));
    }

    fn remove_app(
        &mut self,
        actor: Actor,
        id: &str,
        reply: oneshot::Sender<Answer>,
    ) -> Result<(), (oneshot::Sender<Answer>, Answer)> {
        match operator_only(actor).and_then(|()| self.changeable_app(id)) {
            Ok(app) => {
                let record = Record::AppGone(app.number).encode();
                self.store(record, true, Room::Reserve, Then::AppGone(app.number, reply));
                Ok(())
            }
            Err(answer) => Err((reply, answer)),
        }
    }

    fn changeable_app(&self, id: &str) -> Result<StoredApp, Answer> {
        let app = self.core.app(id).ok_or_else(|| refuse(404, &format!("there is no application `{id}`")))?;
        if app.stored.configured && id != crate::engine::DEFAULT_APP {
            return Err(refuse(409, "this application stands in the configuration; change it there"));
        }
        Ok(app.stored.clone())
    }
}

fn operator_only(actor: Actor) -> Result<(), Answer> {
    match actor {
        Actor::Operator => Ok(()),
        Actor::App(_) => Err(refuse(403, "only operators may do this")),
    }
}

fn state_of(text: &str) -> Result<State, Answer> {
    match text {
        "pending" => Ok(State::Pending),
        "delivered" => Ok(State::Delivered),
        "dead" => Ok(State::Dead),
        _ => Err(refuse(400, "a status is `pending`, `delivered` or `dead`")),
    }
}

fn number(text: &str) -> Result<u64, Answer> {
    text.parse().map_err(|_cause| refuse(400, &format!("`{}` is no number", text.escape_debug())))
}

/// A body of JSON; an empty one says nothing.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| refuse(400, &format!("the call cannot be read: {error}")))
}
