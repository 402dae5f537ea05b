//! Bayeux over HTTP (section 8 of the protocol): long-polling, and polling by scripts.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use waft_bayeux::{Message, parse_batch, script};
use waft_http1::Fields;

use super::carry::{self, Socket};
use super::meta::{Done, process};
use super::stream;
use crate::client::Client as Connection;
use crate::exchange::{self, Exchange, is_websocket};
use crate::realm::door::{self, full};
use crate::realm::socket::{RealmSocket, Speaks};
use crate::realm::tenant::Tenant;
use crate::service::Answer;
use crate::shard::Shard;
use crate::ws;

/// The form of an answer to a batch.
#[derive(Clone, Debug)]
pub(super) struct Form {
    fields: Fields,
    /// The function that the answer calls, for clients that load it as a script.
    callback: Option<String>,
}

impl Form {
    fn new(exchange: &Exchange, callback: Option<String>) -> Self {
        let mut fields = Fields::new();
        if callback.is_some() {
            fields.push("Content-Type", "text/javascript; charset=utf-8");
            fields.push("Content-Disposition", "attachment; filename=f.txt");
        } else {
            fields.push("Content-Type", "application/json; charset=utf-8");
        }
        fields.push("Cache-Control", "no-cache, no-store");
        fields.push("X-Content-Type-Options", "nosniff");
        door::cross_origin(&exchange.head, &mut fields);
        Self { fields, callback }
    }

    /// The answer with a batch.
    pub(super) fn answer(&self, batch: Vec<u8>) -> Answer {
        let body = match &self.callback {
            Some(callback) => script(callback, &batch).unwrap_or_default(),
            None => batch,
        };
        Answer { status: 200, fields: self.fields.clone(), body: Bytes::from(body) }
    }
}

fn bad_request() -> Answer {
    Answer::new(400, "text/plain; charset=utf-8", "Bad request")
}

/// Serves a request to the Bayeux endpoint of a realm. Its body has been read.
pub(in crate::realm) async fn serve(
    shard: &Rc<Shard>,
    client: Connection,
    exchange: Exchange,
    tenant: Arc<Tenant>,
) -> Option<Connection> {
    if is_websocket(&exchange.head) {
        let Some(guest) = tenant.admit() else { return door::answer(shard, client, &exchange, full()).await };
        let socket = RealmSocket::new(tenant, None, Speaks::Bayeux(Socket::default()), guest);
        ws::accept_in_realm(shard, client, exchange, socket);
        return None;
    }
    if exchange.head.method() == "GET" && door::accepts(&exchange.head, door::EVENTS) {
        return stream::serve(shard, client, exchange, &tenant).await;
    }
    let Some((text, callback)) = batch_of(&exchange) else {
        return door::answer(shard, client, &exchange, bad_request()).await;
    };
    if callback.as_deref().is_some_and(|callback| script(callback, b"").is_none()) {
        return door::answer(shard, client, &exchange, bad_request()).await;
    }
    let Ok(batch) = parse_batch(&text) else {
        return door::answer(shard, client, &exchange, bad_request()).await;
    };
    let form = Form::new(&exchange, callback);
    let done = process(shard, &tenant, &batch);
    answer(shard, client, exchange, &batch, done, form).await
}

/// The batch of a request, and the function to call with the answer.
fn batch_of(exchange: &Exchange) -> Option<(Vec<u8>, Option<String>)> {
    let form = |text: &[u8]| -> HashMap<String, String> { url::form_urlencoded::parse(text).into_owned().collect() };
    let head = &exchange.head;
    match head.method() {
        "POST" => {
            let kind = head.field("content-type").unwrap_or_default();
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let body = exchange.body.saved();
            if kind.eq_ignore_ascii_case(b"application/json") || kind.eq_ignore_ascii_case(b"text/json") {
                return Some((body.to_vec(), None));
            }
            Some((form(body).remove("message")?.into_bytes(), None))
        }
        "GET" => {
            let mut query = form(head.query()?.as_bytes());
            let callback = query.remove("jsonp").unwrap_or_else(|| "jsonpcallback".to_owned());
            Some((query.remove("message")?.into_bytes(), Some(callback)))
        }
        _ => None,
    }
}

async fn answer(
    shard: &Rc<Shard>,
    client: Connection,
    mut exchange: Exchange,
    batch: &[Message<'_>],
    done: Done,
    form: Form,
) -> Option<Connection> {
    let Done { mut replies, mut wish, .. } = done;
    if let Some(sign) = wish.take_if(|wish| wish.by_events) {
        carry::answer_sign_of_life(&sign, &mut replies);
    }
    let Some(wish) = wish else {
        replies.push(b']');
        let done = exchange.body.is_done();
        return exchange::answer(shard, client, &exchange, form.answer(replies), done).await;
    };
    // A connect that is held is alone in its batch, or the replies to the others would wait with it.
    let may_wait = batch.len() == 1 && !wish.wait.is_zero() && !shard.is_draining();
    let guest = if may_wait { wish.client.tenant.admit() } else { None };
    let may_wait = may_wait && guest.is_some();
    exchange.guest = guest;
    match carry::take_connect(shard, wish, &mut replies, may_wait) {
        None => {
            exchange.guest = None;
            replies.push(b']');
            let done = exchange.body.is_done();
            exchange::answer(shard, client, &exchange, form.answer(replies), done).await
        }
        Some(wish) => {
            carry::hold(shard, client, exchange, wish, form);
            None
        }
    }
}
