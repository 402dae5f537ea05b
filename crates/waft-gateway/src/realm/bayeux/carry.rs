//! What carries the connect of a client: a request, held or not, or a WebSocket.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waft_bayeux::{Advice, Reconnect, Reply, Style, parse_batch};
use waft_grip::instruct::ResponseParts;
use waft_hub::Mode;
use waft_net::Key;
use waft_realm::Reason;
use waft_websocket::close::{self, Close};
use waft_websocket::frame::Opcode;

use super::http::Form;
use super::meta::{Wish, advice, begin_anew, process};
use super::sync::{Carrier, forget_delivered, join_all, note_served, served, sync};
use super::{Client, Lost, News, Pending, Place, State, comma, lock, put_deliveries};
use crate::begin;
use crate::client::Client as Connection;
use crate::exchange::Exchange;
use crate::hold::{self, Hold, Timeout};
use crate::realm::poll::{self, Poll};
use crate::realm::socket::{Speaks, with_socket};
use crate::service::Answer;
use crate::shard::Shard;
use crate::subscribe::{self, Sub};
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
pub(super) struct Carried {
    pub(super) client: Arc<Client>,
    pub(super) serial: u64,
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
        client.forget(Reason::Behind);
    }
    client.notify(shard, before);
    waits.then_some(wish)
}

/// Takes the client away from whatever carried its connect. If that is a WebSocket of this shard, it says how far it
/// has served it.
pub(super) fn leave_place(shard: &Rc<Shard>, client: &Arc<Client>) -> Place {
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
        let (subs, missed) = join_all(shard, key, &client, &[], Carrier::Request);
        has_missed = missed;
        subs
    };
    let key = begin::hold_poll(shard, connection, exchange, Poll::Bayeux(connect), template, wait, subscribe);
    if let Some(key) = key.filter(|_| has_missed) {
        flush_poll(shard, key);
    }
}

impl Connect {
    pub(super) fn carries(&self, client: &Arc<Client>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    pub(super) const fn serial(&self) -> u64 {
        self.serial
    }

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
        client.forget(Reason::Behind);
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
    let Wish { client, pending, wait, ack, .. } = wish;
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

pub(super) fn carried(shard: &Shard, key: Key) -> Option<Carried> {
    with_socket(shard, key, |socket| match &socket.speaks {
        Speaks::Bayeux(bayeux) => bayeux.carried(),
        Speaks::Json(..) => None,
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
pub(super) fn leave_client(shard: &Rc<Shard>, key: Key) {
    let mut subs = Vec::new();
    if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
        while !hold.subs().is_empty() {
            subs.push(hold.remove_sub(0));
        }
    }
    with_socket(shard, key, |socket| match &socket.speaks {
        Speaks::Bayeux(bayeux) => bayeux.end(shard, &subs, Instant::now()),
        Speaks::Json(..) => {}
    });
    subscribe::leave(shard, Mode::Ws, &subs);
    forget_delivered(shard);
}

/// Answers the connect that is held on a WebSocket, if one is.
pub(super) fn answer_held(shard: &Rc<Shard>, key: Key, out: &mut Out) {
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

/// Tells a client on a WebSocket, if its connect is held, that something is missing from the log.
pub(super) fn put_lost(shard: &Shard, key: Key, client: &Client, out: &mut Out) {
    let Some(pending) = carried(shard, key).and_then(|carried| carried.connect) else { return };
    with_carried(shard, key, |carried| carried.connect = None);
    let mut batch = b"[".to_vec();
    put_answer(client, &mut lock(&client.state), &pending, Err(Lost), &mut batch);
    batch.push(b']');
    out.client_frame(Opcode::Text, true, &batch);
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

/// A connect of a client that gets everything over a stream of events: it says that the client lives, and when it is to
/// say so again.
pub(super) fn answer_sign_of_life(wish: &Wish, replies: &mut Vec<u8>) {
    let hold = wish.client.tenant.realm().limits.hold;
    let message = wish.pending.message(&wish.client);
    let advice = Advice { interval: hold, timeout: Duration::ZERO, ..advice(hold) };
    comma(replies);
    Reply::to(&message).advice(advice).timesync(wish.pending.timesync).write(replies);
}
