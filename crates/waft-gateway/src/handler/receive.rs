//! What handlers send, on its way to the connections.

use std::rc::Rc;
use std::sync::Arc;

use tracing::warn;
use waft_mongrel2::{Response, ResponseError};

use super::book::Order;
use super::desk::{Link, Opened};
use crate::gateway::Message;
use crate::shard::Shard;

/// A response with connections of more than one shard.
#[derive(Debug)]
pub(crate) struct Handed {
    response: Response,
    link: Arc<Link>,
}

/// Takes responses out of a socket until it closes.
pub(crate) async fn run(shard: Rc<Shard>, opened: Opened) {
    /// Messages dealt with before other work gets its turn.
    const AT_ONCE: usize = 256;
    let Opened { mut receiver, link } = opened;
    let mut batch = Vec::new();
    while receiver.receive(&mut batch).await {
        let ids_max = shard.gateway.settings().handlers.ids_max;
        for (number, message) in batch.drain(..).enumerate() {
            for frame in &message.frames {
                match Response::parse(frame, ids_max) {
                    Ok(response) => distribute(&shard, Handed { response, link: Arc::clone(&link) }),
                    Err(error) => refuse(&shard, &error),
                }
            }
            if number % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        if batch.capacity() > 4096 {
            batch.shrink_to(256);
        }
    }
}

fn refuse(shard: &Shard, error: &ResponseError) {
    shard.metrics.handler_responses_refused.add(1);
    warn!(%error, "Dropped a message of a handler.");
}

/// Gives a response to the shards that its connections are on.
fn distribute(shard: &Rc<Shard>, handed: Handed) {
    shard.metrics.handler_responses.add(1);
    if handed.response.ids.iter().all(|id| shard.book.owns(*id)) {
        return hand_over(shard, &handed);
    }
    let handed = Arc::new(handed);
    let shards = shard.gateway.shards().max(1) as u64;
    let mut told = Vec::new();
    for id in &handed.response.ids {
        let Some(number) = id.checked_sub(1).map(|number| (number % shards) as u16) else {
            // No connection ever has this id.
            if handed.response.command.is_none() {
                handed.link.tell_gone(*id);
            }
            continue;
        };
        if !told.contains(&number) {
            told.push(number);
            if number == shard.number {
                hand_over(shard, &handed);
            } else {
                shard.gateway.send(number, Message::Handed(Arc::clone(&handed)));
            }
        }
    }
}

/// Puts a response into the inboxes of this shard's connections. Of those that are not there, the handler is told.
pub(crate) fn hand_over(shard: &Rc<Shard>, handed: &Handed) {
    let Handed { response, link } = handed;
    for id in response.ids.iter().filter(|id| shard.book.owns(**id)) {
        let order = match &response.command {
            Some(command) => Order::Command(command.clone()),
            None if response.body.is_empty() => Order::Close,
            None => Order::Write(response.body.clone()),
        };
        if !shard.book.put(*id, order) && response.command.is_none() {
            link.tell_gone(*id);
        }
    }
}
