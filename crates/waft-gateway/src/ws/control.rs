//! The control messages by which a target steers the WebSocket of a client.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::debug;
use waft_net::Key;
use waft_websocket::close::{self, Close};
use waft_websocket::control::{ControlMessage, KeepAliveMode, MessageType, Scheduled};
use waft_websocket::frame::Opcode;
use waft_websocket::negotiate::Params;

use super::{Out, Schedule, ToTarget, channels, direct, keep_alive_due, rearm};
use crate::hold::Hold;
use crate::shard::Shard;

/// Does what a control message says.
pub(super) fn obey(shard: &Rc<Shard>, key: Key, message: ControlMessage, out: &mut Out) {
    match message {
        ControlMessage::Detach => detach(shard, key),
        ControlMessage::FlushDelayed => flush_delayed(shard, key, out),
        ControlMessage::KeepAlive { message, mode } => keep_alive(shard, key, message, mode),
        ControlMessage::SendDelayed(message) => {
            flush_delayed(shard, key, out);
            let due = Instant::now() + Duration::from_secs(u64::from(message.timeout_s));
            schedule(shard, key, |schedule| schedule.delayed = Some((message, due)));
        }
        ControlMessage::SetMeta { name, value } => set_meta(shard, key, name, value),
        ControlMessage::Subscribe { channel, filters, last_id, prev_id } => {
            channels::join(shard, key, &channel, &filters, last_id.as_deref(), prev_id.as_deref(), out);
        }
        ControlMessage::Unsubscribe { channel } => channels::leave(shard, key, &channel),
        other => debug!(message = ?other, "A control message has no meaning here and was ignored."),
    }
}

fn detach(shard: &Rc<Shard>, key: Key) {
    let direct = match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => match &hold.target {
            ToTarget::OverHttp(link) => {
                link.session.borrow_mut().detach();
                false
            }
            ToTarget::Direct(_) | ToTarget::Worker(_) => true,
            ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) => false,
        },
        _ => false,
    };
    if direct {
        direct::detach(shard, key, &Close::new(close::NORMAL, ""));
    }
}

/// Changes the schedule of a connection that is open.
fn schedule(shard: &Rc<Shard>, key: Key, change: impl FnOnce(&mut Schedule)) {
    if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key)
        && !hold.close_sent
    {
        change(hold.schedule.get_or_insert_default());
    }
    rearm(shard, key);
}

fn keep_alive(shard: &Rc<Shard>, key: Key, message: Option<Scheduled>, mode: KeepAliveMode) {
    let due = message.as_ref().map(|message| keep_alive_due(message, Instant::now()));
    schedule(shard, key, |schedule| {
        schedule.keep_alive = message.zip(due).map(|(message, due)| (message, mode, due));
    });
}

fn flush_delayed(shard: &Rc<Shard>, key: Key, out: &mut Out) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return };
    let deflate = hold.deflate;
    let waiting = hold.schedule.as_deref_mut().and_then(|schedule| schedule.delayed.take());
    drop(held);
    if let Some((message, _)) = waiting {
        put(shard, deflate.as_ref(), &message, out);
    }
}

/// Puts a message that was waiting up for the client.
pub(super) fn put(shard: &Shard, deflate: Option<&Params>, message: &Scheduled, out: &mut Out) {
    let opcode = match message.message_type {
        MessageType::Binary => Opcode::Binary,
        MessageType::Ping => Opcode::Ping,
        MessageType::Pong => Opcode::Pong,
        MessageType::Text => Opcode::Text,
    };
    let content: &Bytes = &message.content;
    let fits = if opcode.is_control() { content.len().min(waft_websocket::frame::CONTROL_MAX) } else { content.len() };
    out.message(shard, deflate, opcode, content.get(..fits).unwrap_or_default());
}

fn set_meta(shard: &Rc<Shard>, key: Key, name: String, value: Option<String>) {
    /// Metadata of one connection, in bytes; more is ignored.
    const META_MAX: usize = 16 << 10;
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return };
    let mut meta = hold.meta.0.clone();
    meta.retain(|(known, _)| *known != name);
    meta.extend(value.map(|value| (name, value)));
    if meta.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > META_MAX {
        return debug!("Metadata of a WebSocket exceeds 16 KiB; the newest was ignored.");
    }
    hold.meta = shard.templates.meta(meta);
}
