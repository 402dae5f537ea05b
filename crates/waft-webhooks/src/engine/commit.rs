//! Taking messages in: judged, stored, and answered when they are on the disk.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use waft_gateway::Answer;
use waft_grip::item::{Item, ResponseBody};
use waft_outbound::zurl::{NotKept, Receipt};
use waft_store::{Failure, Place, Room};

use super::{Caller, Engine, WRITE_QUEUE_MAX, now_ms};
use crate::answers::refuse;
use crate::core::record::{Record, StoredMessage, StoredRequest};
use crate::core::{Delivery, Endpoint, Prepared, Refused, StoredApp, id};
use crate::metrics::add;
use crate::submit::{NewMessage, NewRequest};

/// What follows when a record is on the disk.
pub(crate) enum Then {
    /// A caller gets this answer.
    Answer(oneshot::Sender<Answer>, Answer),
    /// An application is there.
    App(StoredApp, oneshot::Sender<Answer>, Answer),
    /// An application lies elsewhere; whether cleaning moved it.
    AppMoved(u32, bool),
    /// An application goes.
    AppGone(u32, oneshot::Sender<Answer>),
    /// A try lies there.
    Attempt(u64),
    /// Cleaning moved a try.
    AttemptMoved(u64, Place),
    /// An endpoint is there.
    Endpoint(Box<Endpoint>, oneshot::Sender<Answer>, Answer),
    /// An endpoint lies elsewhere; whether cleaning moved it.
    EndpointMoved(u32, bool),
    /// An endpoint goes.
    EndpointGone(u32, oneshot::Sender<Answer>),
    /// A message that was here before; its first coming is done when this is.
    Known(u64, usize, Rc<RefCell<Batch>>),
    /// The mark lies there.
    Mark,
    /// Cleaning moved the mark.
    MarkMoved,
    /// A message is there.
    Message(Taken, usize, Rc<RefCell<Batch>>),
    /// Cleaning moved a message.
    Moved(u64),
    /// Nothing.
    Nothing,
}

/// A message on its way to the disk.
pub(crate) struct Taken {
    seq: u64,
    app: u32,
    order: u64,
    key: u64,
    deliveries: Vec<Delivery>,
}

/// The messages of one call.
pub(crate) struct Batch {
    left: usize,
    results: Vec<Option<Stored>>,
    failed: Option<Failure>,
    list: bool,
    reply: Reply,
}

/// A message that is on the disk.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    seq: u64,
    /// How many endpoints it goes to; none if it was here before.
    deliveries: Option<usize>,
}

/// Who waits for it.
pub(crate) enum Reply {
    /// A call of the API.
    Answer(oneshot::Sender<Answer>),
    /// Nobody: it is of waft's own, or was answered.
    Nobody,
    /// A program that speaks ZHTTP.
    Receipt(oneshot::Sender<Result<Receipt, NotKept>>),
}

impl Batch {
    fn new(count: usize, list: bool, reply: Reply) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { left: count, results: vec![None; count], failed: None, list, reply }))
    }
}

impl Engine {
    pub(super) fn submit(
        &mut self,
        caller: Caller,
        messages: Vec<NewMessage>,
        list: bool,
        reply: oneshot::Sender<Answer>,
    ) {
        let mut judged = Vec::with_capacity(messages.len());
        for message in messages {
            match self.judge(caller, &message) {
                Ok((app, only)) => judged.push((app, only, message)),
                Err(answer) => return answer_with(reply, answer),
            }
        }
        if self.is_behind() {
            add(&self.shared.metrics.refused, judged.len() as u64);
            return answer_with(reply, refuse(503, "the disk does not keep up; send again later"));
        }
        let count = judged.len();
        let batch = Batch::new(count, list, Reply::Answer(reply));
        for (place, (app, only, message)) in judged.into_iter().enumerate() {
            self.take_message(app, &message, only.as_deref(), place, &batch);
        }
    }

    /// Whether so much waits for the disk that nothing more is taken.
    pub(crate) fn is_behind(&self) -> bool {
        self.writer.queued_bytes() > WRITE_QUEUE_MAX
    }

    /// Takes one message that was judged.
    pub(crate) fn submit_one(&mut self, app: u32, message: &NewMessage, only: Option<&[u32]>, reply: Reply) {
        self.take_message(app, message, only, 0, &Batch::new(1, false, reply));
    }

    /// The application of a message, and the endpoints it is meant for.
    fn judge(&self, caller: Caller, message: &NewMessage) -> Result<(u32, Option<Vec<u32>>), Answer> {
        let app = self.acting_app(caller, message.app.as_deref())?;
        let Some(ids) = &message.endpoints else { return Ok((app, None)) };
        let mut only = Vec::with_capacity(ids.len());
        for id in ids {
            match self.core.endpoint(id).filter(|endpoint| endpoint.stored.app == app) {
                Some(endpoint) => only.push(endpoint.stored.number),
                None => return Err(refuse(404, &format!("there is no endpoint `{id}`"))),
            }
        }
        only.sort_unstable();
        only.dedup();
        Ok((app, Some(only)))
    }

    fn take_message(
        &mut self,
        app: u32,
        message: &NewMessage,
        only: Option<&[u32]>,
        place: usize,
        batch: &Rc<RefCell<Batch>>,
    ) {
        let now = now_ms();
        match self.core.prepare(now, app, &message.kind, message.idempotency, only) {
            Ok(Prepared::Known(seq)) => {
                self.store(Vec::new(), true, Room::Ordinary, Then::Known(seq, place, Rc::clone(batch)));
            }
            Ok(Prepared::New { seq, deliveries }) => {
                let record = Record::Message(StoredMessage {
                    seq,
                    app,
                    order: message.order,
                    idempotency: message.idempotency,
                    kind: &message.kind,
                    content_type: &message.content_type,
                    deliveries: deliveries.clone(),
                    request: message.request.as_ref().map(stored_request),
                    body: &message.body,
                });
                let taken = Taken { seq, app, order: message.order, key: message.idempotency, deliveries };
                self.store(record.encode(), true, Room::Ordinary, Then::Message(taken, place, Rc::clone(batch)));
            }
            Err(Refused::QueueFull) => {
                add(&self.shared.metrics.refused, 1);
                batch.borrow_mut().failed = Some(Failure::Full);
                self.one_done(batch, place, None);
            }
        }
    }

    /// A message of waft's own, about webhooks.
    pub(super) fn submit_own(&mut self, app: u32, kind: &str, data: &Value) {
        let body = json!({ "type": kind, "timestamp_ms": now_ms(), "data": data }).to_string();
        self.submit_internal(app, kind, body.into_bytes(), None);
    }

    fn submit_internal(&mut self, app: u32, kind: &str, body: Vec<u8>, only: Option<&[u32]>) {
        self.submit_one(app, &own_message(kind, body), only, Reply::Nobody);
    }

    /// Sends a message that tries an endpoint out.
    pub(crate) fn submit_test(&mut self, app: u32, endpoint: u32, reply: oneshot::Sender<Answer>) {
        let body = json!({ "type": "webhooks.test", "timestamp_ms": now_ms(), "data": {} }).to_string().into_bytes();
        self.submit_one(app, &own_message("webhooks.test", body), Some(&[endpoint]), Reply::Answer(reply));
    }

    /// An item of a channel becomes a message for those who are subscribed to it.
    pub(super) fn take_item(&mut self, item: &Item) {
        let Some(content) = content(item) else { return };
        let mut receivers: Vec<(u32, u32)> = Vec::new();
        for endpoint in self.core.endpoints.values().filter(|endpoint| endpoint.takes()) {
            if endpoint.stored.settings.channels.contains(&item.channel) {
                receivers.push((endpoint.stored.app, endpoint.stored.number));
            }
        }
        receivers.sort_unstable();
        let mut data = json!({ "channel": item.channel, "id": item.id });
        if let (Some(data), Some(content)) = (data.as_object_mut(), content.as_object()) {
            data.extend(content.clone());
        }
        let body = json!({ "type": "item.published", "timestamp_ms": now_ms(), "data": data }).to_string().into_bytes();
        for of_app in receivers.chunk_by(|(one, _), (other, _)| one == other) {
            let only: Vec<u32> = of_app.iter().map(|(_, endpoint)| *endpoint).collect();
            if let Some((app, _)) = of_app.first() {
                self.submit_internal(*app, "item.published", body.clone(), Some(&only));
            }
        }
    }

    /// What follows from everything that the writer has done.
    pub(super) fn settle(&mut self) {
        let mut done = Vec::new();
        self.writer.take_done(&mut done);
        for done in done {
            let Some(then) = self.then.pop_front() else { continue };
            self.follow(then, done.result);
        }
    }

    fn follow(&mut self, then: Then, result: Result<Option<Place>, Failure>) {
        match then {
            Then::Nothing => {}
            Then::Message(taken, place, batch) => self.message_stored(taken, place, &batch, result),
            Then::Known(seq, place, batch) => {
                // The first coming may have failed meanwhile.
                if self.core.message(seq).is_none() {
                    batch.borrow_mut().failed = Some(Failure::Io);
                }
                self.one_done(&batch, place, Some(Stored { seq, deliveries: None }));
            }
            Then::Attempt(seq) => {
                if let Ok(Some(place)) = result {
                    self.core.attempt_stored(seq, place);
                }
            }
            Then::Answer(reply, answer) => answer_with(reply, result.map_or_else(failure_answer, |_| answer)),
            Then::App(stored, reply, answer) => {
                if let Ok(place) = result {
                    self.core.put_app(stored, place);
                }
                answer_with(reply, result.map_or_else(failure_answer, |_| answer));
            }
            Then::AppGone(number, reply) => {
                if result.is_ok() {
                    let endpoints = self.core.apps.get(&number).map(|app| app.endpoints.clone()).unwrap_or_default();
                    endpoints.into_iter().for_each(|endpoint| self.core.remove_endpoint(endpoint, now_ms()));
                    self.core.remove_app(number);
                    self.publish_channels();
                }
                answer_with(reply, result.map_or_else(failure_answer, |_| Answer::text(204, "")));
            }
            Then::Endpoint(mut endpoint, reply, answer) => {
                if let Ok(place) = result {
                    endpoint.place = place;
                    // What happened to it meanwhile counts.
                    if let Some(known) = self.core.endpoints.get(&endpoint.stored.number)
                        && endpoint.stored.stopped.is_some()
                    {
                        endpoint.stored.failing_since = known.stored.failing_since;
                    }
                    self.core.put_endpoint(*endpoint);
                    self.publish_channels();
                }
                answer_with(reply, result.map_or_else(failure_answer, |_| answer));
            }
            Then::EndpointGone(number, reply) => {
                if result.is_ok() {
                    self.core.remove_endpoint(number, now_ms());
                    self.publish_channels();
                }
                answer_with(reply, result.map_or_else(failure_answer, |_| Answer::text(204, "")));
            }
            Then::AppMoved(number, cleaned) => {
                if let (Ok(Some(place)), Some(app)) = (result, self.core.apps.get_mut(&number)) {
                    app.place = Some(place);
                }
                self.one_cleaned(cleaned, result);
            }
            Then::EndpointMoved(number, cleaned) => {
                if let (Ok(Some(place)), Some(endpoint)) = (result, self.core.endpoints.get_mut(&number)) {
                    endpoint.place = Some(place);
                }
                self.one_cleaned(cleaned, result);
            }
            Then::Mark => self.core.mark_place = result.ok().flatten(),
            Then::MarkMoved => {
                if let Ok(Some(place)) = result {
                    self.core.mark_place = Some(place);
                }
                self.one_cleaned(true, result);
            }
            Then::Moved(seq) => {
                if let Ok(Some(place)) = result {
                    self.core.moved(seq, place);
                }
                self.one_cleaned(true, result);
            }
            Then::AttemptMoved(seq, from) => {
                if let Ok(Some(place)) = result {
                    self.core.attempt_moved(seq, from, place);
                }
                self.one_cleaned(true, result);
            }
        }
    }

    fn message_stored(
        &mut self,
        taken: Taken,
        place: usize,
        batch: &Rc<RefCell<Batch>>,
        result: Result<Option<Place>, Failure>,
    ) {
        let Taken { seq, app, order, key, deliveries } = taken;
        match result {
            Ok(Some(stored_at)) => {
                let count = deliveries.len();
                self.core.accept(seq, stored_at, app, order, deliveries, now_ms());
                self.shared.metrics.messages.fetch_add(1, Ordering::Relaxed);
                self.one_done(batch, place, Some(Stored { seq, deliveries: Some(count) }));
            }
            failed => {
                self.core.give_up(seq, app, key, deliveries.len());
                add(&self.shared.metrics.refused, 1);
                batch.borrow_mut().failed = Some(failed.err().unwrap_or(Failure::Io));
                self.one_done(batch, place, None);
            }
        }
    }

    /// One message of a call has come to its end; after the last the caller is answered.
    fn one_done(&self, batch: &Rc<RefCell<Batch>>, place: usize, result: Option<Stored>) {
        let mut batch = batch.borrow_mut();
        if let Some(slot) = batch.results.get_mut(place) {
            *slot = result;
        }
        batch.left = batch.left.saturating_sub(1);
        if batch.left > 0 {
            return;
        }
        let results = std::mem::take(&mut batch.results);
        match (std::mem::replace(&mut batch.reply, Reply::Nobody), batch.failed) {
            (Reply::Nobody, _) => {}
            (Reply::Answer(reply), Some(failure)) => answer_with(reply, failure_answer(failure)),
            (Reply::Answer(reply), None) => answer_with(reply, self.taken(&results, batch.list)),
            (Reply::Receipt(reply), failed) => {
                let receipt = |stored: &Stored| {
                    let id = id::message_id(stored.seq, self.core.mark);
                    Receipt { id, duplicate: stored.deliveries.is_none() }
                };
                let stored = results.first().copied().flatten().filter(|_| failed.is_none());
                // Whoever asked may have gone.
                let _gone = reply.send(stored.as_ref().map(receipt).ok_or(NotKept::Full));
            }
        }
    }

    /// The answer to a call whose messages are on the disk. Written by hand, as this is done for every message.
    fn taken(&self, results: &[Option<Stored>], list: bool) -> Answer {
        let mut text = String::with_capacity(64 * results.len() + 16);
        text.push_str(if list { "{\"messages\":[" } else { "" });
        for (place, stored) in results.iter().flatten().enumerate() {
            text.push_str(if place > 0 { "," } else { "" });
            let id = id::message_id(stored.seq, self.core.mark);
            // Writing into a string cannot fail.
            let _ = match stored.deliveries {
                Some(count) => write!(text, "{{\"id\":\"{id}\",\"deliveries\":{count}}}"),
                None => write!(text, "{{\"id\":\"{id}\",\"duplicate\":true}}"),
            };
        }
        text.push_str(if list { "]}\n" } else { "\n" });
        Answer::new(202, "application/json", text)
    }
}

/// A message about webhooks.
fn own_message(kind: &str, body: Vec<u8>) -> NewMessage {
    NewMessage {
        app: None,
        kind: kind.to_owned(),
        content_type: "application/json".to_owned(),
        order: 0,
        idempotency: 0,
        endpoints: None,
        body,
        request: None,
    }
}

fn stored_request(request: &NewRequest) -> StoredRequest<'_> {
    StoredRequest {
        method: &request.method,
        url: &request.url,
        ignore_tls_errors: request.ignore_tls_errors,
        headers: request.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect(),
    }
}

/// What the caller is told when something could not be stored.
pub(crate) fn failure_answer(failure: Failure) -> Answer {
    match failure {
        Failure::Full => refuse(507, "the queue or its disk is full; send again later, with the same idempotency key"),
        Failure::Io => refuse(500, "the disk cannot be written; send again later, with the same idempotency key"),
    }
}

/// Answers a caller who may have gone.
pub(crate) fn answer_with(reply: oneshot::Sender<Answer>, answer: Answer) {
    let _gone = reply.send(answer);
}

/// The content of an item, of the format that says most.
fn content(item: &Item) -> Option<Value> {
    let formats = &item.formats;
    if let Some(object) = &formats.json_object {
        return Some(json!({ "content": serde_json::from_slice::<Value>(object).ok()? }));
    }
    let stream = formats.http_stream.as_ref().map(|format| &format.content).filter(|content| !content.is_empty());
    let message = formats.ws_message.as_ref().map(|format| &format.content).filter(|content| !content.is_empty());
    let response = formats.http_response.as_ref().and_then(|format| match &format.body {
        ResponseBody::Bytes(body) if !body.is_empty() => Some(body),
        _ => None,
    });
    let bytes = message.or(stream).or(response)?;
    Some(match str::from_utf8(bytes) {
        Ok(text) => json!({ "content": text }),
        Err(_) => {
            use base64::Engine as _;
            json!({ "content-bin": base64::engine::general_purpose::STANDARD.encode(bytes) })
        }
    })
}
