//! The push service: clients of realms, who get what is published from waft itself.
//!
//! A request of a route with a realm comes to `door`, which finds out what it asks for. `feed` opens streams, `poll`
//! answers long-polls, `socket` serves WebSockets of plain clients, and `bayeux` serves Faye and CometD. All of them make
//! holds like those that targets ask for, and get what is published from the same walk; `live` lets clients of LiveResource
//! follow many channels at once, by a poll or a WebSocket; `forms` makes the bytes, once for
//! all who get them. `tenant` has what each realm has at the moment, and `watch` shows items to patterns of channels.
//! `presence` has the members of channels, `lifecycle` tells who comes and goes, and `stay` keeps what ends with a connection.

mod bayeux;
mod door;
mod feed;
pub(crate) mod forms;
mod lifecycle;
mod live;
mod poll;
mod presence;
mod socket;
mod stay;
mod tenant;
mod watch;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use waft_grip::header::HeaderList;
use waft_grip::instruct::ResponseParts;
use waft_http1::Fields;

pub(crate) use self::bayeux::{
    Client as BayeuxClient, Stream as BayeuxStream, on_change, on_connect_due, stream_ended, too_slow,
};
pub(crate) use self::door::{serve, serves};
pub(crate) use self::forms::Forms;
pub(crate) use self::lifecycle::reason_of;
pub(crate) use self::poll::{Poll, answer_at_the_end, poll_ended};
pub(crate) use self::socket::{RealmSocket, on_socket_event, socket_begun, socket_ended};
pub(crate) use self::stay::Guest;
pub use self::tenant::{Realms, Tenant};
pub(crate) use self::watch::Watch;
use crate::deliver::{self, members, paced};
use crate::gateway::Gateway;
use crate::hold::Timeout;
use crate::service::Answer;
use crate::shard::Shard;
use crate::subscribe::{Class, Item};
use crate::ws;

/// What a shard keeps for the clients of realms.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The last item of a channel that went to the sockets of Bayeux clients here.
    delivered: RefCell<HashMap<Arc<str>, u64>>,
}

/// Delivers items of one channel to the clients of realms; returns to how many.
pub(crate) async fn deliver(shard: &Rc<Shard>, items: &[Item]) -> usize {
    let Some(first) = items.first() else { return 0 };
    let name = &first.channel;
    let mut served = 0;
    for class in [Class::SseChunked, Class::SseRaw, Class::LinesChunked, Class::LinesRaw] {
        let crowd = members(shard, name, class);
        if !crowd.is_empty() {
            served += crowd.len();
            deliver::plain(shard, items, class, &crowd).await;
        }
    }
    let crowd = members(shard, name, Class::Events);
    if !crowd.is_empty() {
        served += crowd.len();
        ws::deliver_form(shard, items, &crowd, forms::event).await;
    }
    served += bayeux::deliver(shard, items).await;
    served += live::deliver(shard, items).await;
    let crowd = members(shard, name, Class::Poll);
    served += crowd.len();
    let mut answers = poll::Answers::default();
    for member in paced(crowd) {
        match member {
            Some(member) => poll::deliver(shard, member, items, &mut answers),
            None => tokio::task::yield_now().await,
        }
    }
    served
}

/// Once a second: forgets Bayeux clients that have not been heard of.
pub(crate) fn sweep(shard: &Rc<Shard>, now: Instant) {
    for tenant in shard.gateway.realms().all() {
        bayeux::sweep(&tenant, now);
    }
}

/// Ten times a second, on one shard: tells what there is to tell of members and lives.
pub(crate) fn tick(gateway: &Gateway, now: Instant) {
    for tenant in gateway.realms().all() {
        presence::tick(gateway, &tenant, now);
        lifecycle::tick(gateway, &tenant, now);
    }
}

/// Fields as the parts of a response have them.
fn header_list(fields: &Fields) -> HeaderList {
    let mut list = HeaderList::default();
    for (name, value) in fields.iter() {
        list.push(name, value);
    }
    list
}

/// This answer, for a poll to which nothing comes.
fn timeout(answer: Answer) -> Timeout {
    let Answer { status, fields, body } = answer;
    let reason = waft_http1::reason_phrase(status).to_owned();
    Timeout { parts: ResponseParts { code: status, reason, headers: header_list(&fields), body: None }, body }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
