//! What carries the connect of a client: a request, held or not, or a WebSocket.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use waft_bayeux::{Advice, Reconnect, Reply, Style, parse_batch};
use waft_grip::instruct::ResponseParts;
use waft_hub::{Mode, Position};
use waft_net::Key;
use waft_websocket::close::{self, Close};
use waft_websocket::frame::Opcode;

use super::http::Form;
use super::meta::{Wish, advice, begin_anew, process};
use super::{Client, Lost, News, Pending, Place, State, comma, forms, is_for, lock, put_deliveries, socket_class};
use crate::begin;
use crate::client::Client as Connection;
use crate::deliver::{after, members, paced};
use crate::exchange::Exchange;
use crate::hold::{self, Hold, Timeout};
use crate::realm::feed::{Start, join};
use crate::realm::poll::{self, Poll};
use crate::realm::socket::{Speaks, with_socket};
use crate::service::Answer;
use crate::shard::Shard;
use crate::subscribe::{self, Class, Item, Sub};
use crate::ws::{self, Out};

/// A held request with the connect of a client.
#[derive(Debug)]
pub(crate) struct Connect {
    client: Arc<Client>,
    serial: u64,
    pending: Pending,
    form: Form,
}

/// A WebSocket that carries a client, once it has connected over it.
#[derive(Debug, Default)]
pub(in crate::realm) struct Socket(RefCell<Option<Carried>>);

/// A client on a WebSocket.
#[derive(Clone, Debug)]
struct Carried {
    client: Arc<Client>,
    serial: u64,
    /// A connect that is not answered yet.
    connect: Option<Pending>,
}

/// The reply to a connect for which all is well.
fn fine<'a>(message: &'a waft_bayeux::Message<'a>, client: &Client, pending: &Pending, ack: Option<u64>) -> Reply<'a> {
    let hold = client.tenant.realm().limits.hold;
    Reply::to(message).advice(advice(hold)).ack(ack).timesync(pending.timesync)
}

/// Appends what answers a connect: its reply, and what the client is to be served with.
fn put_answer(client: &Client, state: &mut State, pending: &Pending, news: Result<News, Lost>, out: &mut Vec<u8>) {
    let message = pending.message(client);
    let news = match news {
        Ok(news) if !state.is_gone => news,
        Ok(_) => {
            let stop = Advice { reconnect: Reconnect::None, ..advice(client.tenant.realm().limits.hold) };
            comma(out);
            return Reply::to(&message).advice(stop).write(out);
        }
        Err(Lost) => {
            let error = format!("401:{}:Unknown client", client.id);
            comma(out);
            let anew = begin_anew(client.tenant.realm().limits.hold);
            return Reply::to(&message).failed(error).advice(anew).write(out);
        }
    };
    // What came has nothing for this client: it is not worth the number of a batch.
    let ends = if news.items.is_empty() && state.session.has_acks() { Vec::new() } else { news.ends };
    let ack = state.session.served(ends);
    let reply = |out: &mut Vec<u8>| {
        comma(out);
        fine(&message, client, pending, ack).write(out);
    };
    match state.session.style() {
        Style::Comet => {
            put_deliveries(&news.items, out);
            reply(out);
        }
        Style::Faye => {
            reply(out);
            put_deliveries(&news.items, out);
        }
    }
}

/// A connect has come in a request: answers it if there is something to say or it may not wait. The wish comes back if
/// it is to be held.
pub(super) fn take_connect(shard: &Rc<Shard>, wish: Wish, replies: &mut Vec<u8>, may_wait: bool) -> Option<Wish> {
    let client = Arc::clone(&wish.client);
    let before = leave_place(shard, &client);
    let mut state = lock(&client.state);
    state.session.connect(wish.ack);
    let news = client.news(shard, &state);
    let waits = may_wait && matches!(&news, Ok(news) if news.items.is_empty());
    let is_lost = news.is_err();
    if !waits {
        put_answer(&client, &mut state, &wish.pending, news, replies);
        state.session.release(Instant::now());
    }
    drop(state);
    if is_lost {
        client.forget();
    }
    client.notify(shard, before);
    waits.then_some(wish)
}

/// Takes the client away from whatever carried its connect. If that is a WebSocket of this shard, it says how far it
/// has served it.
fn leave_place(shard: &Rc<Shard>, client: &Arc<Client>) -> Place {
    let before = lock(&client.state).place;
    if let Place::Held(number, key) = before
        && number == shard.number
    {
        note_served(shard, key, client);
    }
    let mut state = lock(&client.state);
    state.serial += 1;
    std::mem::replace(&mut state.place, Place::Away)
}

/// Holds a request with a connect.
pub(super) fn hold(shard: &Rc<Shard>, connection: Connection, exchange: Exchange, wish: Wish, form: Form) {
    let Wish { client, pending, wait, .. } = wish;
    let mut has_missed = false;
    let serial = {
        let mut state = lock(&client.state);
        state.serial += 1;
        state.serial
    };
    let connect = Connect { client: Arc::clone(&client), serial, pending, form };
    let parts = ResponseParts { code: 200, ..ResponseParts::default() };
    // What it is answered with at the end is made then.
    let template = Timeout { parts, body: Bytes::new() };
    let subscribe = |key| {
        let mut state = lock(&client.state);
        if state.serial == serial {
            state.place = Place::Held(shard.number, key);
            state.session.hold();
        }
        drop(state);
        let (subs, missed) = join_all(shard, key, &client, &[], Mode::Response, |_| Class::Poll);
        has_missed = missed;
        subs
    };
    let key = begin::hold_poll(shard, connection, exchange, Poll::Bayeux(connect), template, wait, subscribe);
    if let Some(key) = key.filter(|_| has_missed) {
        flush_poll(shard, key);
    }
}

/// Subscribes to whatever the client listens to and `known` does not have. Says whether something came meanwhile.
fn join_all(
    shard: &Shard,
    key: Key,
    client: &Client,
    known: &[Arc<str>],
    mode: Mode,
    class: impl Fn(&str) -> Class,
) -> (Vec<Sub>, bool) {
    let wanted: Vec<(Arc<str>, u64)> =
        lock(&client.state).session.subscriptions().map(|(name, at)| (Arc::clone(name), at)).collect();
    let mut subs = Vec::new();
    let mut has_missed = false;
    for (name, served) in wanted {
        let hub_name = client.hub_name(&name);
        if known.iter().any(|known| **known == *hub_name) {
            continue;
        }
        let from = Position { number: served, ..shard.gateway.hub.position(&hub_name) };
        let joined = join(shard, key, &hub_name, class(&name), mode, Start::After(from));
        has_missed |= joined.gap || !joined.missed.is_empty();
        subs.push(joined.sub);
    }
    (subs, has_missed)
}

impl Connect {
    /// The answer when nothing has come, or another connect has taken its place.
    pub(in crate::realm) fn answer_with_nothing(&self) -> Answer {
        let mut batch = b"[".to_vec();
        put_answer(&self.client, &mut lock(&self.client.state), &self.pending, Ok(News::default()), &mut batch);
        batch.push(b']');
        self.form.answer(batch)
    }

    /// The request has been answered, or its client has gone.
    pub(in crate::realm) fn end(&self, _shard: &Rc<Shard>, now: Instant) {
        let mut state = lock(&self.client.state);
        if state.serial == self.serial {
            state.place = Place::Away;
            state.session.release(now);
        }
    }
}

/// Something may have come for the client of a held request.
pub(in crate::realm) fn flush_poll(shard: &Rc<Shard>, key: Key) {
    let held = shard.held.borrow();
    let Some(Hold::Response(response)) = held.get(key) else { return };
    let Some(Poll::Bayeux(connect)) = response.poll.as_deref() else { return };
    let client = Arc::clone(&connect.client);
    let mut state = lock(&client.state);
    let is_current = state.serial == connect.serial && !state.is_gone;
    let news = if is_current { client.news(shard, &state) } else { Ok(News::default()) };
    if is_current && matches!(&news, Ok(news) if news.items.is_empty()) {
        return;
    }
    let is_lost = news.is_err();
    let mut batch = b"[".to_vec();
    put_answer(&client, &mut state, &connect.pending, news, &mut batch);
    drop(state);
    batch.push(b']');
    let keep = response.line.keep_alive && !response.line.half_closed && !shard.is_draining();
    let bytes = poll::response(response, connect.form.answer(batch), keep);
    drop(held);
    shard.metrics.delivered_response.add(1);
    hold::answer_response(shard, key, &bytes);
    if is_lost {
        client.forget();
    }
}

impl Socket {
    fn carried(&self) -> Option<Carried> {
        self.0.borrow().clone()
    }

    /// The connection ends: what was written counts as served.
    pub(in crate::realm) fn end(&self, shard: &Rc<Shard>, subs: &[Sub], now: Instant) {
        let Some(carried) = self.0.borrow_mut().take() else { return };
        let ends = served(shard, subs);
        let mut state = lock(&carried.client.state);
        if state.serial == carried.serial {
            if !state.session.has_acks() {
                state.session.served(ends);
            }
            state.place = Place::Away;
            state.session.release(now);
        }
    }
}

/// How far the walk has served these subscriptions of a socket.
fn served(shard: &Shard, subs: &[Sub]) -> Vec<(Arc<str>, u64)> {
    let listeners = shard.listeners.borrow();
    let delivered = shard.realm.delivered.borrow();
    let end = |sub: &Sub| {
        let name = listeners.name_of(sub.subscription)?;
        let begun = listeners.get(sub.subscription)?.since;
        let own = forms::own_name(name);
        let number = delivered.get(name).map_or(begun, |number| (*number).max(begun));
        Some((Arc::from(own.strip_prefix(crate::realm::tenant::PATTERN_MARK).unwrap_or(own)), number))
    };
    subs.iter().filter_map(end).collect()
}

/// Notes how far the WebSocket of a key has served its client.
fn note_served(shard: &Shard, key: Key, client: &Client) {
    let held = shard.held.borrow();
    let Some(Hold::Ws(hold)) = held.get(key) else { return };
    let ends = served(shard, hold.subs());
    let mut state = lock(&client.state);
    if !state.session.has_acks() {
        state.session.served(ends);
    }
}

/// A batch has come over a WebSocket.
pub(in crate::realm) fn on_text(shard: &Rc<Shard>, key: Key, text: &[u8], out: &mut Out) {
    let Some(tenant) = with_socket(shard, key, |socket| Arc::clone(&socket.tenant)) else { return };
    // What is no Bayeux is passed over, as Faye does.
    let Ok(batch) = parse_batch(text) else { return };
    let done = process(shard, &tenant, &batch);
    let mut replies = done.replies;
    let has_replies = replies.len() > 1;
    if has_replies || batch.is_empty() {
        replies.push(b']');
        out.client_frame(Opcode::Text, true, &replies);
    }
    if let Some(wish) = done.wish {
        connect(shard, key, wish, out);
    }
    if done.is_over {
        out.close(shard, key, &Close::new(close::NORMAL, ""));
    }
}

/// A connect has come over a WebSocket, which carries the client from now on.
fn connect(shard: &Rc<Shard>, key: Key, wish: Wish, out: &mut Out) {
    let Wish { client, pending, wait, ack } = wish;
    let here = Place::Held(shard.number, key);
    let is_here = lock(&client.state).place == here;
    if !is_here {
        let before = leave_place(shard, &client);
        client.notify(shard, before);
        leave_client(shard, key);
        let mut state = lock(&client.state);
        state.serial += 1;
        state.place = here;
        let serial = state.serial;
        drop(state);
        set_carried(shard, key, Some(Carried { client: Arc::clone(&client), serial, connect: None }));
    }
    answer_held(shard, key, out);
    {
        let mut state = lock(&client.state);
        state.session.connect(ack);
        state.session.hold();
    }
    with_carried(shard, key, |carried| carried.connect = Some(pending));
    sync(shard, key, &client, out);
    if wait.is_zero() {
        answer_held(shard, key, out);
    }
    let due = carried(shard, key).and_then(|carried| carried.connect).map(|_| Instant::now() + wait);
    set_due(shard, key, due);
}

fn carried(shard: &Shard, key: Key) -> Option<Carried> {
    with_socket(shard, key, |socket| match &socket.speaks {
        Speaks::Bayeux(bayeux) => bayeux.carried(),
        Speaks::Json(_) => None,
    })?
}

fn set_carried(shard: &Shard, key: Key, carried: Option<Carried>) {
    with_socket(shard, key, |socket| {
        if let Speaks::Bayeux(bayeux) = &socket.speaks {
            *bayeux.0.borrow_mut() = carried;
        }
    });
}

fn with_carried(shard: &Shard, key: Key, change: impl FnOnce(&mut Carried)) {
    with_socket(shard, key, |socket| {
        if let Speaks::Bayeux(bayeux) = &socket.speaks
            && let Some(carried) = &mut *bayeux.0.borrow_mut()
        {
            change(carried);
        }
    });
}

fn set_due(shard: &Shard, key: Key, due: Option<Instant>) {
    if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.set_connect_due(due);
    }
    ws::rearm(shard, key);
}

/// Ends the subscriptions of a WebSocket and takes its client away.
fn leave_client(shard: &Rc<Shard>, key: Key) {
    let mut subs = Vec::new();
    if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
        while !hold.subs().is_empty() {
            subs.push(hold.remove_sub(0));
        }
    }
    with_socket(shard, key, |socket| match &socket.speaks {
        Speaks::Bayeux(bayeux) => bayeux.end(shard, &subs, Instant::now()),
        Speaks::Json(_) => {}
    });
    subscribe::leave(shard, Mode::Ws, &subs);
    forget_delivered(shard);
}

/// Answers the connect that is held on a WebSocket, if one is.
fn answer_held(shard: &Rc<Shard>, key: Key, out: &mut Out) {
    let Some(Carried { client, connect: Some(pending), .. }) = carried(shard, key) else { return };
    with_carried(shard, key, |carried| carried.connect = None);
    let mut batch = b"[".to_vec();
    {
        let mut state = lock(&client.state);
        let news = if state.session.has_acks() { client.news(shard, &state) } else { Ok(News::default()) };
        put_answer(&client, &mut state, &pending, news, &mut batch);
        state.session.release(Instant::now());
    }
    batch.push(b']');
    out.client_frame(Opcode::Text, true, &batch);
    set_due(shard, key, None);
}

/// The time of a connect on a WebSocket is over.
pub(crate) fn on_connect_due(shard: &Rc<Shard>, key: Key, out: &mut Out) {
    answer_held(shard, key, out);
}

/// Something may have come for a client with acknowledgements on a WebSocket.
pub(in crate::realm) fn flush_socket(shard: &Rc<Shard>, key: Key) {
    let Some(Carried { client, connect: Some(_), .. }) = carried(shard, key) else { return };
    let has_news = {
        let state = lock(&client.state);
        client.news(shard, &state).is_ok_and(|news| !news.items.is_empty())
    };
    if has_news {
        let mut out = Out::default();
        answer_held(shard, key, &mut out);
        shard.metrics.delivered_ws.add(1);
        out.flush(shard, key);
    }
}

/// What a client listens to has changed, or another connection has taken its place.
pub(crate) fn on_change(shard: &Rc<Shard>, key: Key, client: &Arc<Client>) {
    let kind = match shard.held.borrow().get(key) {
        Some(Hold::Response(hold)) => match hold.poll.as_deref() {
            Some(Poll::Bayeux(connect)) if Arc::ptr_eq(&connect.client, client) => Some(connect.serial),
            _ => return,
        },
        Some(Hold::Ws(_)) => None,
        _ => return,
    };
    let (serial, is_gone) = {
        let state = lock(&client.state);
        (state.serial, state.is_gone)
    };
    match kind {
        Some(own) if own == serial && !is_gone => {
            let mut out = Out::default();
            sync(shard, key, client, &mut out);
        }
        Some(_) => flush_poll(shard, key),
        None => {
            let Some(carried) = carried(shard, key).filter(|carried| Arc::ptr_eq(&carried.client, client)) else {
                return;
            };
            let mut out = Out::default();
            if carried.serial == serial && !is_gone {
                sync(shard, key, client, &mut out);
            } else {
                leave_client(shard, key);
            }
            out.flush(shard, key);
        }
    }
}

/// Brings the subscriptions of a hold to what its client listens to.
fn sync(shard: &Rc<Shard>, key: Key, client: &Arc<Client>, out: &mut Out) {
    let (is_socket, known): (bool, Vec<Arc<str>>) = {
        let held = shard.held.borrow();
        let (is_socket, subs) = match held.get(key) {
            Some(Hold::Ws(hold)) => (true, hold.subs()),
            Some(Hold::Response(hold)) => (false, &*hold.subs),
            _ => return,
        };
        let listeners = shard.listeners.borrow();
        (is_socket, subs.iter().filter_map(|sub| listeners.name_of(sub.subscription).map(Arc::clone)).collect())
    };
    let (wanted, has_acks) = {
        let state = lock(&client.state);
        let wanted: Vec<String> = state.session.subscriptions().map(|(name, _)| client.hub_name(name)).collect();
        (wanted, state.session.has_acks())
    };
    let mode = if is_socket { Mode::Ws } else { Mode::Response };
    let by_walk = is_socket && !has_acks;
    let class = |name: &str| if by_walk { socket_class(name) } else { Class::Poll };
    let (fresh, has_missed) = join_all(shard, key, client, &known, mode, class);
    let old: Vec<Sub> = {
        let mut held = shard.held.borrow_mut();
        let listeners = shard.listeners.borrow();
        let is_old = |sub: &Sub| {
            listeners.name_of(sub.subscription).is_none_or(|name| !wanted.iter().any(|wanted| **wanted == **name))
        };
        match held.get_mut(key) {
            Some(Hold::Ws(hold)) => {
                fresh.into_iter().for_each(|sub| hold.add_sub(sub));
                let mut old = Vec::new();
                while let Some(place) = hold.subs().iter().position(is_old) {
                    old.push(hold.remove_sub(place));
                }
                old
            }
            Some(Hold::Response(hold)) => {
                let all = std::mem::take(&mut hold.subs).into_vec().into_iter().chain(fresh);
                let (old, kept): (Vec<Sub>, Vec<Sub>) = all.partition(is_old);
                hold.subs = kept.into();
                old
            }
            _ => return,
        }
    };
    subscribe::leave(shard, mode, &old);
    match (is_socket, by_walk) {
        (false, _) if has_missed => flush_poll(shard, key),
        (true, true) if has_missed => put_missed(shard, key, client, out),
        (true, false) => {
            let has_news = {
                let state = lock(&client.state);
                !client.news(shard, &state).is_ok_and(|news| news.items.is_empty())
            };
            if has_news {
                answer_held(shard, key, out);
            }
        }
        _ => {}
    }
}

/// Puts up what a client has missed before its WebSocket carried it.
fn put_missed(shard: &Rc<Shard>, key: Key, client: &Arc<Client>, out: &mut Out) {
    let mut state = lock(&client.state);
    match client.news(shard, &state) {
        Ok(news) => {
            shard.metrics.replayed.add(news.items.len() as u64);
            for message in news.items.iter().filter_map(forms::bayeux) {
                out.client_bytes(message.plain());
            }
            state.session.served(news.ends);
        }
        Err(Lost) => {
            let pending = carried(shard, key).and_then(|carried| carried.connect);
            let mut batch = b"[".to_vec();
            if let Some(pending) = &pending {
                put_answer(client, &mut state, pending, Err(Lost), &mut batch);
            }
            drop(state);
            batch.push(b']');
            with_carried(shard, key, |carried| carried.connect = None);
            out.client_frame(Opcode::Text, true, &batch);
            client.forget();
            leave_client(shard, key);
        }
    }
}

/// Delivers items of one channel to the WebSockets of Bayeux clients that need no look at their sessions, and to those
/// that may get an item by more than one name.
pub(in crate::realm) async fn deliver(shard: &Rc<Shard>, items: &[Item]) -> usize {
    let Some(first) = items.first() else { return 0 };
    let name = &first.channel;
    let plain = members(shard, name, Class::Bayeux);
    let careful = members(shard, name, Class::BayeuxCareful);
    let served = plain.len() + careful.len();
    if served == 0 {
        return 0;
    }
    if !plain.is_empty() {
        ws::deliver_form(shard, items, &plain, forms::bayeux).await;
    }
    let own = forms::own_name(name);
    let own = own.strip_prefix(crate::realm::tenant::PATTERN_MARK).unwrap_or(own);
    for member in paced(careful) {
        let Some(member) = member else {
            tokio::task::yield_now().await;
            continue;
        };
        let Some(carried) = carried(shard, member.key) else { continue };
        let frames: Vec<Item> = {
            let state = lock(&carried.client.state);
            after(items, member.since).iter().filter(|item| is_for(&state.session, own, item)).cloned().collect()
        };
        let mut bytes = BytesMut::new();
        for message in frames.iter().filter_map(forms::bayeux) {
            bytes.extend_from_slice(message.plain());
        }
        if !bytes.is_empty() && ws::deliver_bytes(shard, member.key, &bytes.freeze()) {
            shard.metrics.delivered_ws.add(frames.len() as u64);
        }
    }
    if let Some(last) = items.last() {
        shard.realm.delivered.borrow_mut().insert(Arc::clone(name), last.position.number);
    }
    served
}

/// Forgets how far channels were served that no WebSocket here listens to any more.
fn forget_delivered(shard: &Shard) {
    let listeners = shard.listeners.borrow();
    let mut delivered = shard.realm.delivered.borrow_mut();
    if delivered.len() > 2 * listeners.channels_len() + 64 {
        delivered.retain(|name, _| listeners.channel(name).is_some());
    }
}
