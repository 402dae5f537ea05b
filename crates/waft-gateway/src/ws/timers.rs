//! The timers of a WebSocket: pings, keep-alives, delayed messages, requests to come, and closes that are overdue.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::debug;
use waft_net::Key;
use waft_websocket::control::{KeepAliveMode, Scheduled};
use waft_websocket::frame::Opcode;

use super::{CLOSE_LIMIT, Out, PING_CONTENT, ToTarget, WsHold, control, over_http};
use crate::hold::{self, Hold};
use crate::realm;
use crate::shard::Shard;

/// Pings without a sign of life in between after which a client counts as lost.
const UNANSWERED_MAX: u8 = 2;

/// A frame reached the client: keep-alives that wait for silence wait anew.
pub(super) fn put_off_keep_alive(shard: &Shard, key: Key) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return };
    let Some(schedule) = hold.schedule.as_deref_mut() else { return };
    if let Some((message, KeepAliveMode::Idle, due)) = &mut schedule.keep_alive {
        *due = keep_alive_due(message, Instant::now());
    }
}

/// When the next keep-alive is due: a little early, at random, so that a crowd does not stay in step.
pub(super) fn keep_alive_due(message: &Scheduled, now: Instant) -> Instant {
    let early = Duration::from_millis(fastrand::u64(0..1000));
    now + Duration::from_secs(u64::from(message.timeout_s)).saturating_sub(early)
}

/// Sets the timer of a WebSocket to what is due first.
pub(crate) fn rearm(shard: &Shard, key: Key) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get(key) else { return };
    let due = hold.due();
    held.set_deadline(key, due);
}

impl WsHold {
    pub(super) fn due(&self) -> Option<Instant> {
        let ping = self.ping_due().filter(|_| !self.close_sent);
        let request = match &self.target {
            ToTarget::OverHttp(link) => link.session.borrow().poll_timeout(),
            ToTarget::Direct(_) | ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) | ToTarget::Worker(_) => None,
        };
        let schedule = self.schedule.as_deref();
        let keep_alive = schedule.and_then(|schedule| schedule.keep_alive.as_ref().map(|(_, _, due)| *due));
        let delayed = schedule.and_then(|schedule| schedule.delayed.as_ref().map(|(_, due)| *due));
        let close = schedule.and_then(|schedule| schedule.close_by);
        let connect = schedule.and_then(|schedule| schedule.connect);
        [ping, request, keep_alive, delayed, close, connect].into_iter().flatten().min()
    }

    fn ping_due(&self) -> Option<Instant> {
        let interval = self.route.options.websocket.ping_interval?;
        self.heard.checked_add(interval.saturating_mul(u32::from(self.pings_unanswered) + 1))
    }
}

/// The timer of a WebSocket has come.
pub(crate) fn on_deadline(shard: &Rc<Shard>, key: Key, now: Instant) {
    let mut out = Out::default();
    let mut held = shard.held.borrow_mut();
    let waiting = held.is_waiting(key);
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return };
    let mut dead = false;
    if hold.paused {
        // What it answers is not read now, so that its silence means nothing.
        hold.heard = now;
    }
    if !hold.close_sent && hold.ping_due().is_some_and(|due| due <= now) {
        dead = hold.pings_unanswered >= UNANSWERED_MAX;
        hold.pings_unanswered = hold.pings_unanswered.saturating_add(1);
        // A client that has not taken what was sent before would not see the ping either.
        if !waiting {
            out.client_frame(Opcode::Ping, true, PING_CONTENT);
        }
    }
    let deflate = hold.deflate;
    let mut connect = None;
    if let Some(schedule) = hold.schedule.as_deref_mut() {
        if let Some(by) = schedule.close_by.as_mut().filter(|by| **by <= now) {
            // One that has not yet read the close frame cannot answer it; if it reads nothing at all, it is cut off
            // for that.
            dead |= !waiting;
            *by = now + CLOSE_LIMIT;
        }
        if let Some((message, _, due)) = &mut schedule.keep_alive
            && *due <= now
        {
            if !waiting {
                control::put(shard, deflate.as_ref(), message, &mut out);
            }
            *due = keep_alive_due(message, now);
        }
        connect = schedule.connect.take_if(|due| *due <= now);
        if let Some((message, _)) = schedule.delayed.take_if(|(_, due)| *due <= now) {
            control::put(shard, deflate.as_ref(), &message, &mut out);
        }
    }
    drop(held);
    if dead {
        debug!("A WebSocket client showed no sign of life and was cut off.");
        return hold::end(shard, key);
    }
    if connect.is_some() {
        realm::on_connect_due(shard, key, &mut out);
    }
    out.flush(shard, key);
    over_http::pump(shard, key);
    rearm(shard, key);
}
