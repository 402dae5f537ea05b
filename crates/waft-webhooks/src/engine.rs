//! The thread that keeps the queue: takes commands, stores, sends, and takes in what came of it.
//!
//! Everything it knows is in [`Core`]; everything it waits for comes through one mailbox. Whatever is to be stored leaves
//! with the writer at the end of a turn, and what follows from it happens when the writer says that it is done.

mod clean;
mod commit;
mod start;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use tokio::sync::oneshot;
use tracing::{info, warn};
use waft_gateway::Answer;
use waft_grip::item::Item;
use waft_net::Mailbox;
use waft_outbound::Client;
use waft_outbound::zurl::{Kept, NotKept, Receipt};
use waft_store::{Entry, Options, Reader, Room, Writer};

use self::clean::Cleaning;

pub(crate) use self::commit::{Reply, Then, answer_with};
pub(crate) use self::start::{DEFAULT_APP, join, start, token_hash};
use crate::config::WebhooksConfig;
use crate::core::record::Record;
use crate::core::{Core, Notice, Outcome, Turn, filter, id};
use crate::metrics::{Metrics, add, set};
use crate::send::{Rules, Try};
use crate::submit::NewMessage;

/// Commands that may wait; more callers are told to come again.
pub(crate) const COMMANDS_MAX: usize = 50_000;

/// Bytes that may wait for the disk; beyond, messages are refused.
const WRITE_QUEUE_MAX: usize = 128 << 20;

/// How often the rest of the work is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Deliveries that are begun in one turn, so that commands get theirs.
const BEGUN_MAX: usize = 256;

/// How long tries that are under way may take after the order to stop; others begin again with the next start.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Notices that are remembered for `GET /webhooks/events`.
const NOTICES_MAX: usize = 1_000;

/// Who calls the API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Has shown what the port asks of everyone.
    pub(crate) trusted: bool,
    /// The SHA-256 of a bearer token.
    pub(crate) token: Option<[u8; 32]>,
}

/// A call of the API that is answered by this thread.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) caller: Caller,
    pub(crate) method: String,
    /// The path below the prefix, without slashes at its ends.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Vec<u8>,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    Ask(Box<Ask>),
    /// An endpoint has been asked whether it wants to be called.
    Challenged {
        endpoint: String,
        result: Result<(), String>,
        reply: oneshot::Sender<Answer>,
    },
    /// A request to be kept.
    Keep(Box<(Kept, oneshot::Sender<Result<Receipt, NotKept>>)>),
    /// An item of a channel that an endpoint is subscribed to.
    Item(Box<Item>),
    Stop,
    /// The writer has done something.
    Stored,
    Submit {
        caller: Caller,
        messages: Vec<NewMessage>,
        list: bool,
        reply: oneshot::Sender<Answer>,
    },
    Tried {
        turn: Turn,
        host: String,
        outcome: Outcome,
    },
}

/// What the thread shares with those who talk to it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) mailbox: Mailbox<Command>,
    /// Calls and items that wait.
    pub(crate) waiting: AtomicUsize,
    pub(crate) metrics: Metrics,
    /// Channels that endpoints are subscribed to.
    pub(crate) channels: ArcSwap<std::collections::HashSet<String>>,
}

/// A notice as users read it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: u64,
    pub(crate) app: u32,
    pub(crate) kind: &'static str,
    pub(crate) data: serde_json::Value,
}

pub(crate) struct Engine {
    pub(crate) config: WebhooksConfig,
    pub(crate) core: Core,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// What leaves with the writer at the end of the turn.
    entries: Vec<Entry>,
    /// What follows when the entries handed over are done, in their order.
    then: VecDeque<Then>,
    pub(crate) client: Client,
    pub(crate) rules: Rules,
    in_flight: usize,
    cleaning: Option<Cleaning>,
    pub(crate) told: VecDeque<Told>,
    ticked: u64,
}

impl Engine {
    /// Runs until it is told to stop, then waits for what is under way.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut commands = Vec::new();
        let mut stopping: Option<Instant> = None;
        while stopping.is_none_or(|since| self.in_flight > 0 && since.elapsed() < STOP_PATIENCE) {
            shared.mailbox.try_receive(&mut commands);
            if commands.is_empty() {
                let pause = self.pause();
                if !pause.is_zero() {
                    let _timeout = tokio::time::timeout(pause, shared.mailbox.receive(&mut commands)).await;
                }
            }
            for command in commands.drain(..) {
                if matches!(command, Command::Stop) {
                    stopping = Some(Instant::now());
                }
                self.take(command);
            }
            self.settle();
            if stopping.is_none() {
                self.dispatch();
            }
            self.tick();
            self.writer.push(&mut self.entries);
            // Tries that were begun get their turn.
            tokio::task::yield_now().await;
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Ask(ask) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                self.ask(*ask);
            }
            Command::Challenged { endpoint, result, reply } => self.challenged(&endpoint, result, reply),
            Command::Item(item) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                self.take_item(&item);
            }
            Command::Keep(keep) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                let (request, reply) = *keep;
                self.keep(request, reply);
            }
            Command::Stop | Command::Stored => {}
            Command::Submit { caller, messages, list, reply } => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                self.submit(caller, messages, list, reply);
            }
            Command::Tried { turn, host, outcome } => self.tried(turn, &host, &outcome),
        }
    }

    /// How long there is nothing to do if nobody says anything.
    fn pause(&self) -> Duration {
        if self.is_cleaning_now() {
            return Duration::ZERO;
        }
        match self.core.deadline().filter(|_| self.in_flight < self.config.in_flight_max) {
            Some(at) => Duration::from_millis(at.saturating_sub(now_ms())).min(TICK),
            None => TICK,
        }
    }

    /// Begins what is due.
    fn dispatch(&mut self) {
        let now = now_ms();
        for _ in 0..BEGUN_MAX {
            if self.in_flight >= self.config.in_flight_max {
                return;
            }
            let Some((turn, place)) = self.core.next(now) else { return };
            self.in_flight += 1;
            let Some(endpoint) = self.core.endpoints.get(&turn.endpoint) else {
                self.tried(turn, "", &Outcome { at: now, ..Outcome::default() });
                continue;
            };
            let host = endpoint.host();
            let stored = self.reader.read(place);
            let record = stored.as_ref().map(|bytes| Record::decode(bytes));
            let attempt = match &record {
                Ok(Ok(Record::Message(message))) => {
                    let id = id::message_id(turn.seq, self.core.mark);
                    Try::new(endpoint, message, &id, &self.rules, now)
                }
                _ => None,
            };
            let Some(attempt) = attempt else {
                warn!(seq = turn.seq, "A message cannot be read from the disk; it is not delivered.");
                let outcome =
                    Outcome { at: now, status: 410, cause: "the message is damaged".into(), ..Outcome::default() };
                // Its endpoint must not pay for it.
                self.tried(turn, &host, &Outcome { status: 0, denied: true, ..outcome });
                continue;
            };
            let (client, shared) = (self.client.clone(), Arc::clone(&self.shared));
            tokio::task::spawn_local(async move {
                let outcome = attempt.run(client, now).await;
                shared.mailbox.send(Command::Tried { turn, host, outcome });
            });
        }
    }

    fn tried(&mut self, turn: Turn, host: &str, outcome: &Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let counter = match outcome.status {
            200..=299 => &self.shared.metrics.delivered,
            _ if outcome.denied => &self.shared.metrics.denied,
            _ => &self.shared.metrics.failed,
        };
        add(counter, 1);
        let consequence = self.core.finish(turn, host, outcome, now_ms(), fastrand::f64());
        if let Some(record) = consequence.record {
            self.store(record, false, Room::Reserve, Then::Attempt(turn.seq));
        }
        for notice in consequence.notices {
            self.notice(&notice);
        }
    }

    /// Hands a record to the writer.
    pub(crate) fn store(&mut self, record: Vec<u8>, durable: bool, room: Room, then: Then) {
        self.entries.push(Entry { record, durable, room, token: 0 });
        self.then.push_back(then);
    }

    /// Tells an owner of something, in the log, by `GET /webhooks/events`, and as a message to whoever wants such.
    fn notice(&mut self, notice: &Notice) {
        let (number, kind, data) = match notice {
            Notice::HostDown { host } => {
                info!(host, "A host does not answer webhooks; it is asked rarely until it does.");
                return;
            }
            Notice::Stopped { endpoint, reason } => {
                let Some(known) = self.core.endpoints.get(endpoint) else { return };
                let stored = known.stored.clone();
                warn!(endpoint = stored.id, url = %known.target, reason, "Stopped a webhook endpoint.");
                let data = serde_json::json!({ "endpoint": stored.id, "url": stored.settings.url, "reason": reason });
                let record = Record::Endpoint(&serde_json::to_vec(&stored).unwrap_or_default()).encode();
                self.store(record, true, Room::Reserve, Then::EndpointMoved(*endpoint, false));
                (*endpoint, "webhooks.endpoint.stopped", data)
            }
            Notice::Dead { endpoint, seq } => {
                add(&self.shared.metrics.died, 1);
                let Some(known) = self.core.endpoints.get(endpoint) else { return };
                let message = id::message_id(*seq, self.core.mark);
                let data = serde_json::json!({ "endpoint": known.stored.id, "message": message });
                (*endpoint, "webhooks.message.dead", data)
            }
        };
        let Some(app) = self.core.endpoints.get(&number).map(|endpoint| endpoint.stored.app) else { return };
        let about_own =
            matches!(notice, Notice::Dead { seq, .. } if self.kind_of(*seq).is_none_or(|kind| filter::is_own(&kind)));
        self.told.push_back(Told { at: now_ms(), app, kind, data: data.clone() });
        if self.told.len() > NOTICES_MAX {
            self.told.pop_front();
        }
        let wanted = self.core.apps.get(&app).is_some_and(|app| {
            let wants = |number: &u32| {
                let endpoint = self.core.endpoints.get(number);
                endpoint
                    .is_some_and(|endpoint| endpoint.takes() && filter::wants(&endpoint.stored.settings.types, kind))
            };
            app.endpoints.iter().any(wants)
        });
        // A notice that cannot be delivered brings no further notice.
        if wanted && !about_own {
            self.submit_own(app, kind, &data);
        }
    }

    /// The event type of a message.
    fn kind_of(&self, seq: u64) -> Option<String> {
        self.kind_and_request(seq).map(|(kind, _)| kind)
    }

    /// The event type of a message that other endpoints may want, too: no request to a URL.
    pub(crate) fn posted_kind(&self, seq: u64) -> Option<String> {
        self.kind_and_request(seq).filter(|(_, is_request)| !is_request).map(|(kind, _)| kind)
    }

    fn kind_and_request(&self, seq: u64) -> Option<(String, bool)> {
        let bytes = self.reader.read(self.core.message(seq)?.place).ok()?;
        match Record::decode(&bytes) {
            Ok(Record::Message(message)) => Some((message.kind.to_owned(), message.request.is_some())),
            _ => None,
        }
    }

    /// What is done once a second, and cleaning as long as there is some.
    fn tick(&mut self) {
        self.clean();
        let now = now_ms();
        if now.abs_diff(self.ticked) < 1_000 {
            return;
        }
        self.ticked = now;
        let usage = self.writer.usage();
        // The last segment is a reserve that messages do not get.
        let ordinary = self.config.disk_max.saturating_sub(u64::from(Options::default().segment_bytes));
        let pressed = usage.bytes > ordinary / 10 * 7;
        let (_, lost) = self.core.forget(now, pressed);
        if lost > 0 {
            warn!(messages = lost, "Messages were too old to be delivered any more and are forgotten.");
        }
        self.begin_cleaning(&usage, pressed);
        self.client.sweep(Instant::now());
        let (totals, metrics) = (self.core.totals(), &self.shared.metrics);
        set(&metrics.open, totals.open);
        set(&metrics.dead, totals.dead);
        set(&metrics.kept, totals.messages);
        set(&metrics.in_flight, self.in_flight);
        set(&metrics.breakers_open, self.core.open_breakers());
        metrics.disk_bytes.store(usage.bytes, Ordering::Relaxed);
        metrics.syncs.store(usage.syncs, Ordering::Relaxed);
    }

    /// Lets the gateway know whose items are wanted.
    pub(crate) fn publish_channels(&self) {
        let endpoints = self.core.endpoints.values().filter(|endpoint| endpoint.takes());
        let channels = endpoints.flat_map(|endpoint| endpoint.stored.settings.channels.iter().cloned()).collect();
        self.shared.channels.store(Arc::new(channels));
    }
}

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Bytes that nobody can predict.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if rand::fill(&mut bytes).is_err() {
        // The system has no randomness to give, which it does not do once it has started.
        bytes.iter_mut().for_each(|byte| *byte = fastrand::u8(..));
    }
    bytes
}
