//! Requests that are to be delivered until they are taken: handed to a queue, and acknowledged when it has them on disk.

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::oneshot;
use waft_zhttp::{Condition, Durable, Packet};

use super::call::{call_of, condition};
use super::door::Door;
use super::exchange::Exchange;
use crate::Redirects;
use crate::target::Target;

/// Keeps requests on disk and makes them until they are taken.
pub trait Queue: fmt::Debug + Send + Sync {
    /// Takes a request. The answer comes when it is on the disk.
    fn keep(&self, request: Kept) -> oneshot::Receiver<Result<Receipt, NotKept>>;

    /// Appends its metrics in the text format of Prometheus.
    fn metrics(&self, out: &mut String);

    /// Ends it; what it has not delivered yet is delivered after the next start.
    fn stop(&self);
}

/// A request to be kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The call to be made; none for what goes to registered endpoints, with their URLs and headers.
    pub call: Option<KeptCall>,
    /// The media type of the body.
    pub content_type: Option<Bytes>,
    /// The body.
    pub body: Bytes,
    /// What its client says beside.
    pub wishes: Durable,
}

/// A call to a URL that is nobody's registered endpoint.
#[derive(Clone, Debug)]
pub struct KeptCall {
    /// The method, a token.
    pub method: String,
    /// Where to.
    pub target: Target,
    /// Header lines to send.
    pub headers: Vec<(Bytes, Bytes)>,
    /// Any certificate will do.
    pub ignore_tls_errors: bool,
}

/// That a request is on the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// The id by which it is found again, and which its receiver sees.
    pub id: String,
    /// It was there already.
    pub duplicate: bool,
}

/// Why a request is not kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotKept {
    /// No room, or a disk that cannot be written.
    Full,
    /// Its endpoint or application is not known, or it says something that cannot be.
    Wrong,
}

/// What is to be kept of a first packet. What the queue could not do at a later try is refused.
pub(crate) fn read(door: &Door, packet: &Packet, wishes: &Durable) -> Result<Box<Kept>, Condition> {
    if door.config.queue.is_none() {
        tracing::warn!("A durable request was refused; set webhooks_dir to keep such.");
        return Err(Condition::QueueUnavailable);
    }
    let call = match (&packet.uri, &wishes.endpoint) {
        (Some(_), Some(_)) => return Err(Condition::BadRequest),
        (None, _) => None,
        (Some(_), None) => Some(read_call(door, packet)?),
    };
    let content_type = packet.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-type"));
    Ok(Box::new(Kept {
        call,
        content_type: content_type.map(|(_, value)| value.clone()),
        body: packet.body.clone(),
        wishes: wishes.clone(),
    }))
}

fn read_call(door: &Door, packet: &Packet) -> Result<KeptCall, Condition> {
    let call = call_of(&door.rules, packet)?;
    let is_plain = !call.target.scheme.is_websocket()
        && call.connect.is_none()
        && call.identity.is_none()
        && call.redirects == Redirects::Show
        && !packet.ignore_policies;
    if !is_plain {
        return Err(Condition::BadRequest);
    }
    door.client.judge(&call).map_err(|error| condition(&error))?;
    Ok(KeptCall {
        method: call.method,
        target: call.target,
        headers: call.headers,
        ignore_tls_errors: call.ignore_tls_errors,
    })
}

/// Hands a request over, and tells its client when it is on the disk.
pub(crate) async fn run(door: Rc<Door>, exchange: Rc<Exchange>, kept: Box<Kept>) {
    let Some(queue) = &door.config.queue else { return door.fail(&exchange, Condition::QueueUnavailable) };
    match queue.keep(*kept).await {
        Ok(Ok(receipt)) => {
            door.emit(&exchange, accepted(&receipt));
            door.remove(&exchange);
        }
        Ok(Err(NotKept::Full)) => door.fail(&exchange, Condition::QueueFull),
        Ok(Err(NotKept::Wrong)) => door.fail(&exchange, Condition::BadRequest),
        Err(_gone) => door.fail(&exchange, Condition::QueueUnavailable),
    }
}

/// The answer, in the form of the HTTP answer that others get.
fn accepted(receipt: &Receipt) -> Packet {
    let duplicate = if receipt.duplicate { ",\"duplicate\":true" } else { "" };
    Packet {
        code: Some(202),
        reason: Some(Bytes::from_static(b"Accepted")),
        headers: vec![(Bytes::from_static(b"Content-Type"), Bytes::from_static(b"application/json"))],
        // Ids are made of letters, digits and underscores.
        body: format!("{{\"id\":\"{}\"{duplicate}}}", receipt.id).into(),
        ..Packet::default()
    }
}
