//! Bayeux over server-sent events (section 10 of the protocol): deliveries come in a stream, and what the client says, its
//! connects too, in requests that are answered at once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waft_grip::instruct::{HoldMode, Instruct};
use waft_grip::keepalive::{KeepAlive, Mode as KeepAliveMode};
use waft_http1::{Fields, Version};
use waft_net::Key;
use waft_realm::Reason;

use super::carry::leave_place;
use super::sync::{Carrier, event, forget_delivered, join_all, served};
use super::{Client, Lost, Place, lock};
use crate::begin;
use crate::client::Client as Connection;
use crate::deliver;
use crate::exchange::Exchange;
use crate::hold::{self, Hold, StreamHold};
use crate::realm::door::{self, full};
use crate::realm::header_list;
use crate::realm::tenant::Tenant;
use crate::service::Answer;
use crate::shard::Shard;
use crate::subscribe::{Item, Sub};

/// A stream that carries a client.
#[derive(Debug)]
pub(crate) struct Stream {
    client: Arc<Client>,
    serial: u64,
}

/// What a stream begins with: how long the browser waits before it comes back, in milliseconds.
const RETRY: &[u8] = b"retry: 5000\r\n\r\n";
/// How often a stream that is quiet is told that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

impl Stream {
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    pub(super) fn carries(&self, client: &Arc<Client>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    pub(super) const fn serial(&self) -> u64 {
        self.serial
    }
}

/// Opens the stream of the client that the path names.
pub(super) async fn serve(
    shard: &Rc<Shard>,
    connection: Connection,
    mut exchange: Exchange,
    tenant: &Arc<Tenant>,
) -> Option<Connection> {
    let id = exchange.head.path().rsplit('/').next().unwrap_or_default();
    let known = tenant.sessions().get(id).filter(|client| {
        let state = lock(&client.state);
        !state.session.has_acks() && client.news(shard, &state).is_ok()
    });
    let Some(client) = known else {
        // The browser does not come back after this, and the next connect of the client is told to begin anew.
        if let Some(client) = tenant.sessions().get(id).filter(|client| !lock(&client.state).session.has_acks()) {
            client.forget(Reason::Behind);
        }
        let unknown = Answer::text(404, "There is no such Bayeux client.\n");
        return door::answer(shard, connection, &exchange, unknown).await;
    };
    exchange.guest = tenant.admit();
    if exchange.guest.is_none() {
        return door::answer(shard, connection, &exchange, full()).await;
    }
    let mut fields = Fields::new();
    fields.push("Content-Type", "text/event-stream");
    fields.push("Cache-Control", "no-cache, no-store");
    fields.push("X-Content-Type-Options", "nosniff");
    door::cross_origin(&exchange.head, &mut fields);
    let mut instruct = Instruct::default();
    instruct.hold = Some(HoldMode::Stream);
    instruct.response.code = 200;
    instruct.response.reason = "OK".to_owned();
    instruct.response.headers = header_list(&fields);
    let data = Bytes::from_static(b":\r\n\r\n");
    instruct.keep_alive = Some(KeepAlive { data, timeout: KEEP_ALIVE, mode: KeepAliveMode::Idle });
    let shard_of_join = Rc::clone(shard);
    let join = move |key, is_chunked| bind(&shard_of_join, key, &client, Carrier::Stream { is_chunked });
    begin::feed(shard, connection, exchange, instruct, join).await
}

/// Lets the stream of a key carry a client; returns its subscriptions, and what comes first.
fn bind(shard: &Rc<Shard>, key: Key, client: &Arc<Client>, carrier: Carrier) -> (Vec<Sub>, Vec<u8>) {
    let before = leave_place(shard, client);
    client.notify(shard, before);
    let serial = {
        let mut state = lock(&client.state);
        state.serial += 1;
        state.place = Place::Held(shard.number, key);
        state.session.hold();
        state.serial
    };
    if let Some(Hold::Stream(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.bayeux = Some(Box::new(Stream { client: Arc::clone(client), serial }));
    }
    let (subs, has_missed) = join_all(shard, key, client, &[], carrier);
    let mut first = RETRY.to_vec();
    if has_missed {
        let items = missed(shard, client);
        if !items.is_empty() {
            first.extend_from_slice(&event(&items));
        }
    }
    (subs, first)
}

/// What a client has missed, which counts as served from here on. One whose log has moved on is forgotten.
fn missed(shard: &Shard, client: &Client) -> Vec<Item> {
    let mut state = lock(&client.state);
    match client.news(shard, &state) {
        Ok(news) => {
            state.session.served(news.ends);
            shard.metrics.replayed.add(news.items.len() as u64);
            news.items
        }
        Err(Lost) => {
            drop(state);
            client.forget(Reason::Behind);
            Vec::new()
        }
    }
}

/// Writes what a client has missed to its stream, or ends that if nobody can say what it is.
pub(super) fn put_missed(shard: &Rc<Shard>, key: Key, client: &Client) {
    let items = missed(shard, client);
    if lock(&client.state).is_gone {
        return hold::end_stream(shard, key);
    }
    if !items.is_empty() {
        put(shard, key, &items);
    }
}

/// Writes items to a stream.
pub(super) fn put(shard: &Rc<Shard>, key: Key, items: &[Item]) {
    let version = match shard.held.borrow().get(key) {
        Some(Hold::Stream(hold)) => hold.line.version,
        _ => return,
    };
    if hold::send(shard, key, &hold::framed(version, &event(items))) {
        shard.metrics.delivered_stream.add(items.len() as u64);
        deliver::put_off_keep_alive(shard, key);
    }
}

/// How a stream carries its client.
pub(super) fn carrier(hold: &StreamHold) -> Carrier {
    Carrier::Stream { is_chunked: hold.line.version == Version::Http11 }
}

/// A stream ends: what was written counts as served.
pub(crate) fn stream_ended(shard: &Shard, stream: &Stream, subs: &[Sub]) {
    let ends = served(shard, subs);
    {
        let mut state = lock(&stream.client.state);
        if state.serial == stream.serial {
            state.session.served(ends);
            state.place = Place::Away;
            state.session.release(Instant::now());
        }
    }
    forget_delivered(shard);
}
