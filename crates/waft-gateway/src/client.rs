//! A client connection while something happens on it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::debug;
use waft_http1::{Framing, HeadError, HeadLimits, Parsed, RequestHead, parse_request};
use waft_http2::{PREFACE_START, ServerLimits};
use waft_net::{PeerAddr, Stream};

use crate::body::{BodyEnd, RequestBody, read_into};
use crate::buffer::{Buffers, ReadBuffer};
use crate::exchange;
use crate::handler::Contact;
use crate::hold::{self, Resting};
use crate::respond;
use crate::service::{Answer, Door, Request, Service};
use crate::settings::Limits;
use crate::shard::{Presence, Shard};

/// A client connection that is being worked on: by one task, which owns it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: Stream,
    /// What was read from the client and not yet used.
    pub(crate) buffer: ReadBuffer,
    pub(crate) peer: PeerAddr,
    pub(crate) door: Door,
    /// Whether the client's side is encrypted.
    pub(crate) secure: bool,
    pub(crate) presence: Presence,
    /// What handlers know the connection by, while a request for somebody else is served on it.
    pub(crate) contact: Option<Box<Contact>>,
}

/// How long the last bytes of a client are read away before its connection closes.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

impl Client {
    pub(crate) fn new(stream: Stream, peer: PeerAddr, door: Door, presence: Presence) -> Self {
        let secure = stream.is_tls();
        Self { stream, buffer: ReadBuffer::default(), peer, door, secure, presence, contact: None }
    }

    /// Reads more into the buffer. 0 is the end of the stream, or a full buffer.
    pub(crate) async fn read_more(&mut self, shard: &Shard, max: usize) -> std::io::Result<usize> {
        read_into(shard, &self.stream, &mut self.buffer, max).await
    }

    /// Writes an answer of waft's own; says whether the connection can be used again.
    pub(crate) async fn answer(&self, shard: &Shard, head: &RequestHead, answer: &Answer, reusable: bool) -> bool {
        self.answer_as(shard, head, head.is_head(), answer, reusable).await
    }

    /// [`Client::answer`], where the method of `head` does not tell whether a body is wanted.
    pub(crate) async fn answer_as(
        &self,
        shard: &Shard,
        head: &RequestHead,
        to_head: bool,
        answer: &Answer,
        reusable: bool,
    ) -> bool {
        let keep = reusable && head.keep_alive() && !shard.is_draining();
        let out = respond::own(to_head, head.version(), answer, keep);
        shard.metrics.bytes_sent.add(out.len() as u64);
        shard.write(&self.stream, &[&out]).await.is_ok() && keep
    }

    /// Closes the connection, so that the client gets everything that was written to it.
    pub(crate) async fn close(mut self, shard: &Shard) {
        // A client that has sent nothing more cannot cause a reset that overtakes the answer.
        let quiet = self.buffer.is_empty() && self.stream.is_idle();
        self.buffer.release(&shard.buffers);
        if !quiet {
            self.stream.close(LINGER).await;
        } else if self.stream.is_tls() {
            // The end is part of the protocol.
            self.stream.close(Duration::ZERO).await;
        }
    }
}

/// What waiting for a request came to.
enum Next {
    Request(RequestHead),
    /// Nothing has come for a while.
    Rest,
    Refused(HeadError),
    /// A request was begun and not finished in time.
    Late,
    /// The client speaks HTTP/2.
    Http2,
    /// The client has gone.
    Gone,
}

/// Serves the requests of a connection until it ends, is held, or rests.
pub(crate) async fn serve(shard: Rc<Shard>, mut client: Client) {
    loop {
        let head = match next_request(&shard, &mut client).await {
            Next::Request(head) => head,
            Next::Rest => return rest(&shard, client),
            Next::Refused(error) => {
                shard.metrics.requests_malformed.add(1);
                debug!(client = %client.peer, %error, "Refused a malformed request.");
                let answer = match &client.door {
                    Door::Front | Door::Route(_) => Answer::malformed(&error),
                    Door::Service(service) => service.malformed(&error),
                };
                return refuse(&shard, client, &answer).await;
            }
            Next::Late => {
                let answer = Answer::text(408, "The request was not complete in time.\n");
                return refuse(&shard, client, &answer).await;
            }
            Next::Http2 => return serve_http2(&shard, client).await,
            Next::Gone => return client.buffer.release(&shard.buffers),
        };
        shard.metrics.requests.add(1);
        let served = match &client.door {
            Door::Front | Door::Route(_) => exchange::run(&shard, client, head).await,
            Door::Service(service) => {
                let service = std::sync::Arc::clone(service);
                serve_own(&shard, client, &head, &*service).await
            }
        };
        match served {
            Some(next) if !shard.is_draining() => client = next,
            Some(last) => return last.close(&shard).await,
            None => return,
        }
    }
}

async fn refuse(shard: &Shard, client: Client, answer: &Answer) {
    let out = respond::own(false, waft_http1::Version::Http11, answer, false);
    shard.metrics.bytes_sent.add(out.len() as u64);
    if client.stream.write_all(&out).await.is_ok() {
        client.close(shard).await;
    }
}

async fn next_request(shard: &Shard, client: &mut Client) -> Next {
    let settings = shard.gateway.settings();
    let limits = &settings.limits;
    let own = match &client.door {
        Door::Front | Door::Route(_) => None,
        Door::Service(service) => service.head_max(),
    };
    let head_limits = HeadLimits { bytes_max: own.unwrap_or(limits.head.bytes_max), ..limits.head };
    let mut began = None;
    loop {
        if client.buffer.unread().starts_with(PREFACE_START)
            && limits.http2.is_some()
            && matches!(client.door, Door::Front | Door::Route(_))
        {
            return Next::Http2;
        }
        match parse_request(client.buffer.unread(), &head_limits) {
            Ok(Parsed::Complete { head, consumed }) => {
                client.buffer.consume(consumed);
                // Publishers reach no host but this one; their programs have always been let off.
                if matches!(client.door, Door::Front) && head.lacks_host() {
                    return Next::Refused(HeadError::MissingHost);
                }
                return Next::Request(head);
            }
            Ok(Parsed::Partial) => {}
            Err(error) => return Next::Refused(error),
        }
        let waiting = !client.buffer.is_empty();
        let read = {
            // Created before anything is read, so that no sweep is missed.
            let sweep = shard.sweep.notified();
            tokio::select! {
                biased;
                read = client.read_more(shard, head_limits.bytes_max) => Some(read),
                () = sweep => None,
            }
        };
        match read {
            Some(Ok(1..)) if !waiting => began = Some(Instant::now()),
            Some(Ok(1..)) => {}
            Some(Ok(0) | Err(_)) => return Next::Gone,
            None if !waiting => return Next::Rest,
            None => {
                let began = *began.get_or_insert_with(Instant::now);
                if began.elapsed() > limits.head_timeout {
                    return Next::Late;
                }
            }
        }
    }
}

/// Serves each stream of a connection that speaks HTTP/2 as a connection of its own.
async fn serve_http2(shard: &Rc<Shard>, mut client: Client) {
    let read = Bytes::copy_from_slice(client.buffer.unread());
    client.buffer.release(&shard.buffers);
    // The connection counts as one, and each of its streams too.
    let Client { stream, peer, door, presence, .. } = client;
    let settings = shard.gateway.settings();
    let limits = http2_limits(&settings.limits);
    drop(settings);
    let accept = |stream| {
        if !shard.may_accept() {
            return false;
        }
        shard.serve(Client::new(stream, peer.clone(), door.clone(), shard.presence()));
        true
    };
    if let Err(error) = waft_http2::serve(stream, read, &limits, accept, shard.told_to_drain()).await {
        debug!(client = %peer, %error, "An HTTP/2 connection ended with an error.");
    }
    drop(presence);
}

fn http2_limits(limits: &Limits) -> ServerLimits {
    let mut http2 = ServerLimits::default();
    http2.streams_max = limits.http2.unwrap_or(http2.streams_max);
    http2.head = limits.head;
    http2.patience = limits.head_timeout;
    http2.idle_timeout = limits.idle_timeout;
    http2
}

/// Takes a connection with nothing to do out of its task.
fn rest(shard: &Rc<Shard>, mut client: Client) {
    client.buffer.release(&shard.buffers);
    if shard.is_draining() {
        return;
    }
    let Client { stream, peer, door, presence, secure, .. } = client;
    // Of a connection that the system took away nothing is left to serve.
    if let Ok(socket) = stream.into_socket() {
        hold::rest(shard, socket, Resting { peer, door, presence, secure });
    }
}

/// Answers a request by a service of waft's own.
async fn serve_own(shard: &Rc<Shard>, mut client: Client, head: &RequestHead, service: &dyn Service) -> Option<Client> {
    // What is announced to be too long is refused before it is sent.
    if matches!(head.framing(), Framing::Length(length) if length > service.body_max() as u64) {
        client.answer(shard, head, &service.too_large(), false).await;
        client.close(shard).await;
        return None;
    }
    let mut body = RequestBody::new(head, service.body_max());
    if head.expects_continue() && !body.is_done() && client.stream.write_all(respond::CONTINUE).await.is_err() {
        return None;
    }
    let answer = match body.read_all(shard, &mut client).await {
        BodyEnd::Complete => {
            let request = Request { head, body: body.saved(), now: Instant::now(), secure: client.secure };
            service.reply(&shard.gateway, &request).wait().await
        }
        BodyEnd::TooLong => service.too_large(),
        BodyEnd::Malformed(text) => {
            shard.metrics.requests_malformed.add(1);
            Answer::text(400, format!("Failed to parse request: {text}\n"))
        }
        BodyEnd::Gone => {
            client.buffer.release(&shard.buffers);
            return None;
        }
    };
    if client.answer(shard, head, &answer, body.is_done()).await {
        return Some(client);
    }
    client.close(shard).await;
    None
}

/// The memory of all buffers goes back to the shard when a connection ends in the middle.
impl Client {
    pub(crate) fn abandon(mut self, buffers: &Buffers) {
        self.buffer.release(buffers);
    }
}
