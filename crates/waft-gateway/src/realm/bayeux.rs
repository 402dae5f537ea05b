//! Faye and CometD: clients that shake hands, connect, and are served wherever their last connect came in.
//!
//! A client has no queue here. Its [`Session`] says how far it was served in the log of each of its channels, and whatever
//! carries its connect looks up what came since: a held request (`carry`), or a WebSocket or a `stream` of events, to which
//! the frames of the plain walk go without a look at the session. So what a client missed while its network was away is in the log, and a
//! client whose log has moved on is told to begin anew. `meta` judges messages, `http` and `carry` answer them, and `sync`
//! brings what a client listens to, and what comes, to where it is.

mod carry;
mod http;
mod meta;
mod stream;
mod sync;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use waft_bayeux::{Message, Session};
use waft_hub::{Position, Replay};
use waft_net::Key;
use waft_realm::{Grant, Rate, Reason};

use super::forms;
use super::lifecycle::Told;
use super::presence::Membership;
use super::stay::Stay;
use super::tenant::Tenant;
use crate::shard::Shard;
use crate::subscribe::Item;

pub(crate) use self::carry::on_connect_due;
pub(super) use self::carry::{Connect, Socket, flush_poll, flush_socket, on_text};
pub(super) use self::http::serve;
pub(crate) use self::stream::{Stream, stream_ended};
pub(super) use self::sync::deliver;
pub(crate) use self::sync::{on_change, too_slow};

/// Bytes of one batch of messages.
pub(super) const BATCH_MAX: usize = 1 << 20;

/// A Bayeux client of a realm.
#[derive(Debug)]
pub(crate) struct Client {
    id: String,
    tenant: Arc<Tenant>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: Session,
    grant: Option<Grant>,
    rate: Rate,
    /// What carries its connect. The number tells one from those before it.
    serial: u64,
    place: Place,
    /// It has said goodbye, or was forgotten.
    is_gone: bool,
    /// What ends with it.
    stay: Stay,
}

/// Where the connect of a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: between two requests, or away.
    Away,
    /// In this place of the held set of this shard.
    Held(u16, Key),
}

/// The Bayeux clients of a realm by their ids.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Client>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks leaves a half-done change behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    fn get(&self, id: &str) -> Option<Arc<Client>> {
        lock(&self.0).get(id).map(Arc::clone)
    }

    /// Takes in a client, if there may be one more.
    fn add(&self, client: &Arc<Client>, limit: usize) -> bool {
        let mut clients = lock(&self.0);
        let fits = clients.len() < limit;
        if fits {
            clients.insert(client.id.clone(), Arc::clone(client));
        }
        fits
    }
}

/// Forgets the clients of a realm that have not been heard of for too long.
pub(super) fn sweep(tenant: &Tenant, now: Instant) {
    let over: Vec<Arc<Client>> = {
        let clients = lock(&tenant.sessions().0);
        clients.values().filter(|client| lock(&client.state).session.is_over(now)).map(Arc::clone).collect()
    };
    for client in over {
        client.forget(Reason::Expired);
    }
}

/// Something is missing from the log of a channel: the client has to begin anew.
#[derive(Debug)]
struct Lost;

/// What a client is to be served with.
#[derive(Debug, Default)]
struct News {
    items: Vec<Item>,
    /// How far each channel goes with them.
    ends: Vec<(Arc<str>, u64)>,
}

impl Client {
    /// How long a client lives without a connect.
    fn expiry(hold: Duration) -> Duration {
        (hold * 8 / 5).max(Duration::from_secs(10))
    }

    /// Its name of a channel or pattern, as the hub has it. No channel has the mark of patterns in its name.
    fn hub_name(&self, name: &str) -> String {
        if is_pattern(name) { self.tenant.pattern_name(name) } else { self.tenant.hub_name(name) }
    }

    /// What has come since it was last served.
    fn news(&self, shard: &Shard, state: &State) -> Result<News, Lost> {
        let hub = &shard.gateway.hub;
        let mut news = News::default();
        for (name, served) in state.session.subscriptions() {
            let hub_name = self.hub_name(name);
            let from = Position { number: served, ..hub.position(&hub_name) };
            let Replay::Items(items) = hub.since_position(&hub_name, from) else { return Err(Lost) };
            let Some(last) = items.last() else { continue };
            news.ends.push((Arc::clone(name), last.position.number));
            news.items.extend(items.into_iter().filter(|item| is_for(&state.session, name, item)));
        }
        // No order between channels is promised, but it is what one expects.
        news.items.sort_by_key(|item| forms::original(item).received);
        Ok(news)
    }

    /// It exists no more.
    fn forget(&self, reason: Reason) {
        lock(&self.tenant.sessions().0).remove(&self.id);
        // What ends with it is let go of last, when nothing is locked any more.
        let mut stay = Stay::default();
        let mut state = lock(&self.state);
        std::mem::swap(&mut stay, &mut state.stay);
        stay.set_reason(reason);
        if !std::mem::replace(&mut state.is_gone, true) {
            for (name, _) in state.session.subscriptions().filter(|(name, _)| is_pattern(name)) {
                self.tenant.patterns().remove(name);
            }
        }
    }

    /// Tells that it is there, if its realm does that.
    fn tell(&self) {
        let mut state = lock(&self.state);
        state.stay = Stay::told(Told::begin(&self.tenant, "bayeux", state.grant.as_ref()));
    }

    /// It is a member of these channels for as long as it listens to them.
    fn keep(&self, shard: &Shard, memberships: Vec<Membership>) {
        for membership in memberships {
            let before = lock(&self.state).stay.keep(membership);
            if let Some(before) = before {
                before.leave(&shard.gateway);
            }
        }
    }

    /// It leaves the channels that it is a member of.
    fn leave_all(&self, shard: &Shard) {
        let memberships = lock(&self.state).stay.give_back_all();
        memberships.into_iter().for_each(|membership| membership.leave(&shard.gateway));
    }

    /// Tells whatever carries its connect that something has changed.
    fn notify(self: &Arc<Self>, shard: &Rc<Shard>, place: Place) {
        match place {
            Place::Held(number, key) if number == shard.number => on_change(shard, key, self),
            Place::Held(number, key) => {
                shard.gateway.send(number, crate::gateway::Message::Bayeux(key, Arc::clone(self)));
            }
            Place::Away => {}
        }
    }
}

/// Whether an item that came by this name is for a client: it has a value, and comes by no narrower name.
fn is_for(session: &Session, name: &str, item: &Item) -> bool {
    let original = forms::original(item);
    forms::value(item).is_some()
        && !session.is_doubled(name, forms::channel(original), original.position.number, original.received)
}

fn is_pattern(name: &str) -> bool {
    name.ends_with('*')
}

/// A connect as far as its reply needs it.
#[derive(Clone, Debug)]
struct Pending {
    id: Option<String>,
    /// The client's clock as it said it and ours, in milliseconds.
    timesync: Option<(u64, u64)>,
}

impl Pending {
    fn message<'a>(&'a self, client: &'a Client) -> Message<'a> {
        Message {
            channel: Some("/meta/connect".to_owned()),
            id: self.id.as_deref(),
            client_id: Some(client.id.clone()),
            ..Message::default()
        }
    }
}

/// Appends the deliveries of some items, with commas between them and before them if something stands there.
fn put_deliveries(items: &[Item], out: &mut Vec<u8>) {
    for message in items.iter().filter_map(forms::bayeux) {
        let content = message.content();
        comma(out);
        // The frame has a batch of one.
        out.extend_from_slice(content.get(1..content.len().saturating_sub(1)).unwrap_or_default());
    }
}

fn comma(out: &mut Vec<u8>) {
    if out.last().is_some_and(|last| *last != b'[') {
        out.push(b',');
    }
}
