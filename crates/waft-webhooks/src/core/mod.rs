//! The rules of delivery without IO: time and randomness are arguments, what is to be stored comes out as records.
//!
//! [`Core`] knows all applications, endpoints and messages. It is built from the records of the store
//! ([`Core::replay`], then [`Core::start`]). A message is judged ([`Core::prepare`]), stored, and then taken in
//! ([`Core::accept`]). [`Core::next`] says what to send; whoever sends it tells what came of it ([`Core::finish`]) and
//! stores the record that comes back.

mod breaker;
mod endpoint;
pub mod filter;
pub mod id;
mod lanes;
mod message;
mod messages;
mod rate;
pub mod record;
mod replay;
pub mod schedule;
mod search;
pub mod sign;
#[cfg(test)]
mod tests;
mod tidy;

use std::collections::{BTreeMap, HashMap, VecDeque};

use waft_store::Place;

pub use self::endpoint::{
    Challenge, Endpoint, EndpointSettings, SECRETS_MAX, Secret, SettingsError, Stopped, StoredApp, StoredEndpoint,
    TlsSettings,
};
use self::id::Mark;
pub use self::lanes::Turn;
use self::lanes::{HostNews, LaneSettings, Lanes};
pub use self::message::{Delivery, Few, Message, State};
use self::messages::Messages;
use self::record::{Attempt, Record};
pub use self::search::{Found, Search};
pub use self::tidy::Survivor;

/// Limits of the queue.
#[derive(Clone, Debug)]
pub struct CoreLimits {
    /// Deliveries that may wait. Default 2,000,000, about 300 MB of memory; more messages are refused.
    pub queue_max: usize,
    /// How long messages that are finished are kept, in milliseconds. Default 3 days.
    pub keep_ms: u64,
    /// How many of them are kept at most. Default 500,000; the oldest go first.
    pub keep_max: usize,
    /// How long messages are tried or kept as dead letters, in milliseconds. Default 30 days.
    pub queue_age_ms: u64,
    /// How long an idempotency key is known, in milliseconds. Default a day.
    pub idempotency_ms: u64,
    /// How many of them are known at most. Default 1,000,000.
    pub idempotency_max: usize,
    /// Pauses before each try, in milliseconds.
    pub schedule: Vec<u64>,
    /// How long every delivery to an endpoint must have failed before it is stopped, in milliseconds. Default 5 days.
    pub disable_after_ms: u64,
    /// Calls under way to one host. Default 100.
    pub host_concurrency_max: u32,
    /// Endpoints of one application. Default 10,000.
    pub endpoints_max: usize,
    /// Whether endpoints must be reached by TLS.
    pub https_only: bool,
}

impl Default for CoreLimits {
    fn default() -> Self {
        const DAY: u64 = 86_400_000;
        Self {
            queue_max: 2_000_000,
            keep_ms: 3 * DAY,
            keep_max: 500_000,
            queue_age_ms: 30 * DAY,
            idempotency_ms: DAY,
            idempotency_max: 1_000_000,
            schedule: schedule::STANDARD.to_vec(),
            disable_after_ms: 5 * DAY,
            host_concurrency_max: 100,
            endpoints_max: 10_000,
            https_only: false,
        }
    }
}

/// An application with its endpoints.
#[derive(Debug)]
pub struct App {
    /// What is stored.
    pub stored: StoredApp,
    /// Where that lies; none while it is on its way.
    pub place: Option<Place>,
    /// Its endpoints.
    pub endpoints: Vec<u32>,
}

/// How many of everything there are, for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Deliveries to be made.
    pub open: usize,
    /// Deliveries that failed for good and are still kept.
    pub dead: usize,
    /// Messages in memory.
    pub messages: usize,
    /// Bytes on disk of everything that is still wanted.
    pub live_bytes: u64,
}

/// The state of all webhooks.
#[derive(Debug)]
pub struct Core {
    limits: CoreLimits,
    /// What tells the messages of this store from others.
    pub mark: Mark,
    pub(crate) mark_place: Option<Place>,
    pub(crate) apps: BTreeMap<u32, App>,
    pub(crate) endpoints: BTreeMap<u32, Endpoint>,
    endpoint_ids: HashMap<String, u32>,
    /// Endpoints that were made for an origin, by application and URL.
    origins: HashMap<(u32, String), u32>,
    messages: Messages,
    /// Messages by idempotency key.
    keys: HashMap<(u32, u64), u64>,
    /// The same in the order of time, to forget them.
    key_order: VecDeque<(u64, (u32, u64))>,
    lanes: Lanes,
    last_seq: u64,
    last_number: u32,
    totals: Totals,
    /// Messages without an open delivery, the oldest first; some have gone or are open again.
    finished: VecDeque<u64>,
}

/// A message that may be stored.
#[derive(Debug, PartialEq)]
pub enum Prepared {
    /// It is here already, under this number.
    Known(u64),
    /// It gets this number, and goes to these endpoints.
    New {
        /// The number.
        seq: u64,
        /// The deliveries.
        deliveries: Vec<Delivery>,
    },
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Too much waits.
    #[error("the queue is full; send again later")]
    QueueFull,
}

/// What became of a try.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// When it began, in Unix milliseconds.
    pub at: u64,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// How long it took, in milliseconds.
    pub latency_ms: u32,
    /// The pause that the receiver asks for, in milliseconds.
    pub retry_after: Option<u64>,
    /// Why there was no answer.
    pub cause: String,
    /// The policy refused the call, which says nothing of the host.
    pub denied: bool,
    /// The beginning of the answer's body.
    pub answer: Vec<u8>,
}

/// What follows from a try.
#[derive(Debug, Default)]
pub struct Consequence {
    /// What is to be stored; none if the message has gone.
    pub record: Option<Vec<u8>>,
    /// What its owner may want to know.
    pub notices: Vec<Notice>,
}

/// What the owner of an application may want to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// An endpoint is stopped.
    Stopped {
        /// The endpoint.
        endpoint: u32,
        /// Why.
        reason: &'static str,
    },
    /// A delivery failed for good.
    Dead {
        /// The endpoint.
        endpoint: u32,
        /// The message.
        seq: u64,
    },
    /// A host is asked rarely.
    HostDown {
        /// The host.
        host: String,
    },
}

impl Core {
    /// Without anything in it.
    pub fn new(limits: CoreLimits) -> Self {
        let lanes = Lanes::new(limits.host_concurrency_max);
        Self {
            limits,
            mark: Mark::default(),
            mark_place: None,
            apps: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            endpoint_ids: HashMap::new(),
            origins: HashMap::new(),
            messages: Messages::default(),
            keys: HashMap::new(),
            key_order: VecDeque::new(),
            lanes,
            last_seq: 0,
            last_number: 0,
            totals: Totals::default(),
            finished: VecDeque::new(),
        }
    }

    /// The limits.
    pub const fn limits(&self) -> &CoreLimits {
        &self.limits
    }

    /// How many of everything there are.
    pub fn totals(&self) -> Totals {
        Totals { messages: self.messages.len(), ..self.totals }
    }

    /// Hosts that are asked rarely.
    pub fn open_breakers(&self) -> usize {
        self.lanes.open_breakers()
    }

    /// A number that nothing in this store has.
    pub fn new_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    /// An application by its name.
    pub fn app(&self, id: &str) -> Option<&App> {
        self.apps.values().find(|app| app.stored.id == id)
    }

    /// The application whose token has this SHA-256.
    pub fn app_of_token(&self, token: &[u8; 32]) -> Option<&App> {
        self.apps.values().find(|app| app.stored.token.as_ref() == Some(token))
    }

    /// An endpoint by its name.
    pub fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        self.endpoints.get(self.endpoint_ids.get(id)?)
    }

    /// Takes in a new or changed application.
    pub fn put_app(&mut self, stored: StoredApp, place: Option<Place>) {
        self.last_number = self.last_number.max(stored.number);
        let endpoints = self.apps.remove(&stored.number).map(|app| app.endpoints).unwrap_or_default();
        self.apps.insert(stored.number, App { stored, place, endpoints });
    }

    /// Takes an application away, with its endpoints.
    pub fn remove_app(&mut self, number: u32) {
        if let Some(app) = self.apps.remove(&number) {
            app.endpoints.into_iter().for_each(|endpoint| self.forget_endpoint(endpoint));
        }
    }

    /// Takes in a new or changed endpoint.
    pub fn put_endpoint(&mut self, endpoint: Endpoint) {
        let (number, app) = (endpoint.stored.number, endpoint.stored.app);
        self.last_number = self.last_number.max(number);
        self.endpoint_ids.insert(endpoint.stored.id.clone(), number);
        if endpoint.stored.origin {
            self.origins.insert((app, endpoint.stored.settings.url.clone()), number);
        }
        self.lanes.set(number, lane_settings(&endpoint));
        self.endpoints.insert(number, endpoint);
        if let Some(app) = self.apps.get_mut(&app)
            && !app.endpoints.contains(&number)
        {
            app.endpoints.push(number);
        }
    }

    /// Takes an endpoint away; what waits for it lies with the dead letters from now on.
    pub fn remove_endpoint(&mut self, number: u32, now: u64) {
        self.forget_endpoint(number);
        for (seq, message) in self.messages.iter_mut() {
            let Some(delivery) = message.delivery_mut(number).filter(|delivery| delivery.state.is_open()) else {
                continue;
            };
            (delivery.state, delivery.due) = (State::Dead, now);
            self.totals.open = self.totals.open.saturating_sub(1);
            self.totals.dead += 1;
            if message.is_finished() {
                self.finished.push_back(seq);
            }
        }
    }

    pub(super) fn forget_endpoint(&mut self, number: u32) {
        if let Some(endpoint) = self.endpoints.remove(&number) {
            self.endpoint_ids.remove(&endpoint.stored.id);
            self.origins.remove(&(endpoint.stored.app, endpoint.stored.settings.url));
            self.lanes.remove(number);
            if let Some(app) = self.apps.get_mut(&endpoint.stored.app) {
                app.endpoints.retain(|other| *other != number);
            }
        }
    }

    /// Judges a message. `key` is the hash of its idempotency key, 0 for none; `only` are the endpoints it is meant for,
    /// if not for all that want its type. A message that is prepared must be accepted or given up.
    pub fn prepare(
        &mut self,
        now: u64,
        app: u32,
        kind: &str,
        key: u64,
        only: Option<&[u32]>,
    ) -> Result<Prepared, Refused> {
        if key != 0
            && let Some(seq) = self.keys.get(&(app, key))
        {
            return Ok(Prepared::Known(*seq));
        }
        let deliveries: Vec<Delivery> = self
            .receivers(app, kind, only)
            .map(|endpoint| {
                let due = now.saturating_add(self.schedule_of(endpoint).first().copied().unwrap_or(0));
                Delivery { endpoint, attempts: 0, state: State::Pending, due }
            })
            .collect();
        if self.totals.open + deliveries.len() > self.limits.queue_max {
            return Err(Refused::QueueFull);
        }
        let seq = id::next_seq(self.last_seq, now);
        self.last_seq = seq;
        self.totals.open += deliveries.len();
        self.remember_key(app, key, seq);
        Ok(Prepared::New { seq, deliveries })
    }

    /// The endpoints of an application that want a type, or those of `only`.
    fn receivers<'a>(&'a self, app: u32, kind: &'a str, only: Option<&'a [u32]>) -> impl Iterator<Item = u32> + 'a {
        let all = self.apps.get(&app).map(|app| app.endpoints.as_slice()).unwrap_or_default();
        only.unwrap_or(all).iter().copied().filter(move |number| {
            let wants = |endpoint: &Endpoint| match only {
                Some(_) => endpoint.stored.app == app,
                None => endpoint.wants(kind),
            };
            self.endpoints.get(number).is_some_and(|endpoint| endpoint.takes() && wants(endpoint))
        })
    }

    /// The endpoint that was made for an origin, by its URL.
    pub fn origin(&self, app: u32, url: &str) -> Option<u32> {
        self.origins.get(&(app, url.to_owned())).copied()
    }

    /// Forgets an origin that nothing waits for and nothing came for of late. Returns its number.
    pub fn forget_unused_origin(&mut self, app: u32, now: u64) -> Option<u32> {
        const UNUSED_MS: u64 = 3_600_000;
        let unused = |number: &&u32| {
            let endpoint = self.endpoints.get(number);
            endpoint.is_some_and(|known| known.stored.origin && now.saturating_sub(known.used) > UNUSED_MS)
                && self.lanes.is_idle(**number)
        };
        let number = *self.apps.get(&app)?.endpoints.iter().find(unused)?;
        self.forget_endpoint(number);
        Some(number)
    }

    /// Takes in a message that is stored: its deliveries begin.
    pub fn accept(&mut self, seq: u64, place: Place, app: u32, order: u64, deliveries: Vec<Delivery>, now: u64) {
        let mut deliveries = deliveries;
        for delivery in &mut deliveries {
            if self.endpoints.contains_key(&delivery.endpoint) {
                self.lanes.put(delivery.endpoint, seq, delivery.due, order);
            } else {
                // It went while the message was stored.
                (delivery.state, delivery.due) = (State::Dead, now);
                self.totals.open = self.totals.open.saturating_sub(1);
                self.totals.dead += 1;
            }
        }
        let message = Message { place, app, order, deliveries: deliveries.into(), attempts: Few::None };
        self.totals.live_bytes += message.disk_bytes();
        if message.is_finished() {
            self.finished.push_back(seq);
        }
        self.messages.insert(seq, message);
    }

    /// Gives up a message that was prepared and could not be stored.
    pub fn give_up(&mut self, seq: u64, app: u32, key: u64, deliveries: usize) {
        self.totals.open = self.totals.open.saturating_sub(deliveries);
        if self.keys.get(&(app, key)) == Some(&seq) {
            self.keys.remove(&(app, key));
        }
    }

    /// The next delivery to be made now, and where its message lies.
    pub fn next(&mut self, now: u64) -> Option<(Turn, Place)> {
        loop {
            let turn = self.lanes.next(now)?;
            let due = self.messages.get_mut(turn.seq).and_then(|message| {
                let place = message.place;
                let delivery = message.delivery_mut(turn.endpoint)?;
                // An entry of a lane may be older than what happened to its delivery.
                let is_due = delivery.state == State::Pending && delivery.due <= now;
                is_due.then(|| {
                    delivery.state = State::Sending;
                    place
                })
            });
            match due {
                Some(place) => return Some((turn, place)),
                None => {
                    let order = self.messages.get(turn.seq).map_or(0, |message| message.order);
                    let host = self.host_of(turn.endpoint);
                    self.lanes.skip(turn.endpoint, &host, now);
                    self.lanes.release(turn.endpoint, order, now);
                }
            }
        }
    }

    /// When [`Core::next`] may have something if nothing else happens.
    pub fn deadline(&self) -> Option<u64> {
        self.lanes.deadline()
    }

    /// Takes in what became of a try. `host` is where it went, `random` lies in `0.0..1.0`.
    pub fn finish(&mut self, turn: Turn, host: &str, outcome: &Outcome, now: u64, random: f64) -> Consequence {
        let mut consequence = Consequence::default();
        let verdict = Verdict::of(outcome);
        let hold = outcome.retry_after.filter(|_| matches!(outcome.status, 429 | 503)).map(|pause| now + pause);
        if self.lanes.done(turn.endpoint, host, verdict.host, hold, now) {
            consequence.notices.push(Notice::HostDown { host: host.to_owned() });
        }
        let schedule: Vec<u64> = self.schedule_of(turn.endpoint).to_vec();
        let endpoint_is_there = self.endpoints.contains_key(&turn.endpoint);
        let Some(message) = self.messages.get_mut(turn.seq) else { return consequence };
        let order = message.order;
        let Some(delivery) = message.delivery_mut(turn.endpoint) else { return consequence };
        if delivery.state != State::Sending {
            // It was given to the queue again, or its endpoint has gone, while it was under way.
            self.lanes.release(turn.endpoint, order, now);
            return consequence;
        }
        if verdict.good {
            (delivery.state, delivery.due) = (State::Delivered, now);
        } else {
            delivery.attempts = delivery.attempts.saturating_add(1);
            let pause = schedule::pause(&schedule, delivery.attempts, outcome.retry_after, random);
            match pause.filter(|_| !verdict.gone && endpoint_is_there) {
                Some(pause) => (delivery.state, delivery.due) = (State::Pending, now.saturating_add(pause)),
                None => (delivery.state, delivery.due) = (State::Dead, now),
            }
        }
        let delivery = *delivery;
        let attempt = Attempt {
            seq: turn.seq,
            delivery,
            moved: false,
            at: outcome.at,
            status: outcome.status,
            latency_ms: outcome.latency_ms,
            cause: &outcome.cause,
            answer: &outcome.answer,
        };
        consequence.record = Some(Record::Attempt(attempt).encode());
        if delivery.state == State::Pending {
            self.lanes.put_back(turn.endpoint, turn.seq, delivery.due);
        } else {
            self.close(turn, order, delivery.state, now, &mut consequence.notices);
        }
        self.judge_endpoint(turn.endpoint, &verdict, now, &mut consequence.notices);
        consequence
    }

    /// A delivery has come to its end.
    fn close(&mut self, turn: Turn, order: u64, state: State, now: u64, notices: &mut Vec<Notice>) {
        self.totals.open = self.totals.open.saturating_sub(1);
        if state == State::Dead {
            self.totals.dead += 1;
            notices.push(Notice::Dead { endpoint: turn.endpoint, seq: turn.seq });
        }
        self.lanes.release(turn.endpoint, order, now);
        if self.messages.get(turn.seq).is_some_and(Message::is_finished) {
            self.finished.push_back(turn.seq);
        }
    }

    /// What a try says about its endpoint.
    fn judge_endpoint(&mut self, number: u32, verdict: &Verdict, now: u64, notices: &mut Vec<Notice>) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        let stored = &mut endpoint.stored;
        if verdict.good {
            stored.failing_since = None;
            return;
        }
        if stored.origin {
            // One URL of many says nothing of the others, and nobody would start it again.
            return;
        }
        let since = *stored.failing_since.get_or_insert(now);
        let failing = now.saturating_sub(since) >= self.limits.disable_after_ms;
        if stored.stopped.is_none() && (verdict.gone || failing) {
            let reason = if verdict.gone { "gone" } else { "failing" };
            stored.stopped = Some(Stopped { reason: reason.to_owned(), at: now });
            notices.push(Notice::Stopped { endpoint: number, reason });
            let settings = lane_settings(endpoint);
            self.lanes.set(number, settings);
        }
    }

    /// Gives a delivery to the queue again, as if it was new. Returns the record to be stored; none if it is waiting
    /// already or cannot be delivered.
    pub fn resend(&mut self, seq: u64, endpoint: u32, now: u64) -> Option<Vec<u8>> {
        if !self.endpoints.get(&endpoint)?.takes() || self.totals.open >= self.limits.queue_max {
            return None;
        }
        let message = self.messages.get_mut(seq)?;
        if let Some(known) = message.delivery(endpoint) {
            if known.state.is_open() {
                return None;
            }
            self.totals.dead -= usize::from(known.state == State::Dead && self.totals.dead > 0);
        }
        let delivery = Delivery { endpoint, attempts: 0, state: State::Pending, due: now };
        message.put(delivery);
        let order = message.order;
        self.totals.open += 1;
        self.lanes.put(endpoint, seq, now, order);
        Some(Record::Delivery { seq, delivery }.encode())
    }

    /// A try is stored at this place.
    pub fn attempt_stored(&mut self, seq: u64, place: Place) {
        if let Some(message) = self.messages.get_mut(seq) {
            message.add_attempt(place);
            self.totals.live_bytes += place.disk_bytes();
        }
    }

    fn schedule_of(&self, endpoint: u32) -> &[u64] {
        let own = self.endpoints.get(&endpoint).and_then(|endpoint| endpoint.schedule.as_deref());
        own.unwrap_or(&self.limits.schedule)
    }

    fn host_of(&self, endpoint: u32) -> String {
        self.endpoints.get(&endpoint).map(Endpoint::host).unwrap_or_default()
    }

    pub(super) fn remember_key(&mut self, app: u32, key: u64, seq: u64) {
        if key != 0 && self.keys.insert((app, key), seq) != Some(seq) {
            self.key_order.push_back((seq, (app, key)));
        }
    }
}

/// What an outcome means.
#[derive(Debug)]
struct Verdict {
    good: bool,
    /// The endpoint does not want to be called any more.
    gone: bool,
    host: HostNews,
}

impl Verdict {
    fn of(outcome: &Outcome) -> Self {
        let good = matches!(outcome.status, 200..=299);
        let host = match outcome.status {
            _ if outcome.denied => HostNews::Nothing,
            0 | 502..=504 => HostNews::Down,
            _ => HostNews::Alive,
        };
        Self { good, gone: outcome.status == 410, host }
    }
}

fn lane_settings(endpoint: &Endpoint) -> LaneSettings {
    let settings = &endpoint.stored.settings;
    LaneSettings {
        host: endpoint.host(),
        concurrency_max: settings.concurrency_max,
        rate_per_s: settings.rate_per_s,
        ordered: settings.ordered,
        open: endpoint.is_open(),
    }
}
