//! One client's WebSocket towards a target that speaks HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::codec::{Decoder, Event};
use super::exchange::{Client, DropReason, Failure, Kind, Options, RETRIES_MAX, RequestKind, RequestPlan, ToClient};
use super::fields::{Meta, Steering};
use super::work::{Batch, MESSAGE_COST, Summary, Work};
use crate::close::{self, Close};
use crate::control::parse_grip_extension;

/// The engine of one connection. After every call that takes something in, call [`Self::poll_client`] until it gives
/// `None`, then [`Self::poll_request`]; when [`Self::poll_timeout`] has passed, [`Self::poll_request`] again.
///
/// At most one request is under way; it ends with [`Self::handle_response`] or [`Self::handle_failure`].
#[derive(Debug)]
pub struct Session {
    options: Arc<Options>,
    work: Option<Box<Work>>,
    meta: Option<Box<Meta>>,
    /// When the next empty request, or OPEN again, is due.
    keep_alive_at: Option<Instant>,
    keep_alive_s: u32,
    phase: Phase,
    close: CloseToTarget,
    client_full: bool,
    close_emitted: bool,
    detached: bool,
    gone: bool,
    refresh: bool,
    target_closed: bool,
}

const _: () = assert!(size_of::<Session>() <= 64, "an idle session is kept as a small record");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// OPEN is not yet decided.
    Opening,
    Open,
    /// Nothing more is sent to the target.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseToTarget {
    No,
    Wanted,
    Delivered,
}

impl Session {
    /// A session whose client waits for the answer to its handshake.
    #[must_use]
    pub const fn new(options: Arc<Options>) -> Self {
        Self {
            options,
            work: None,
            meta: None,
            keep_alive_at: None,
            keep_alive_s: 0,
            phase: Phase::Opening,
            close: CloseToTarget::No,
            client_full: false,
            close_emitted: false,
            detached: false,
            gone: false,
            refresh: false,
            target_closed: false,
        }
    }

    /// Takes in what the client did. Data after its close, after a detach or after the end is discarded.
    pub fn handle_client(&mut self, event: Client) {
        if self.phase == Phase::Ended || self.gone {
            return;
        }
        match event {
            Client::Gone => self.client_gone(),
            _ if self.detached || self.close != CloseToTarget::No => {}
            Client::Closed(close) => {
                self.close = CloseToTarget::Wanted;
                self.work().close = close;
            }
            Client::Sent(kind, content) => {
                let work = self.work();
                work.queue_cost = work.queue_cost.saturating_add(content.len() as u64 + MESSAGE_COST);
                work.queue.push_back((kind, content));
            }
        }
    }

    /// Bytes the client may still be read, by the queue's limit; at 0 stop reading.
    #[must_use]
    pub fn client_room(&self) -> u64 {
        self.options.queue_max.saturating_sub(self.work.as_ref().map_or(0, |work| work.queue_cost))
    }

    /// Says how many bytes wait for a client that reads slowly; above the limit no request is made.
    pub fn handle_client_backlog(&mut self, bytes: u64) {
        self.client_full = bytes > self.options.client_backlog_max;
    }

    /// Asks for a request right away, empty if need be. Ignored while the connection is not open.
    pub fn refresh(&mut self) {
        self.refresh |= self.phase == Phase::Open && !self.detached && !self.gone;
    }

    /// Closes from our side: the client gets the close frame, the target a CLOSE without content.
    pub fn close(&mut self, close: Close) {
        if self.phase != Phase::Open || self.detached || self.gone || self.close_emitted || self.target_closed {
            return;
        }
        self.close_emitted = true;
        self.work().out.push_back(ToClient::Close(close));
        match self.close {
            CloseToTarget::No => self.close = CloseToTarget::Wanted,
            CloseToTarget::Wanted => {}
            CloseToTarget::Delivered => self.fail(ToClient::Finish),
        }
    }

    /// Parts the client from its target: the target gets CLOSE and is forgotten, the client stays.
    pub fn detach(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        self.detached = true;
        self.refresh = false;
        self.keep_alive_s = 0;
        self.keep_alive_at = None;
        match self.close {
            CloseToTarget::No => self.close = CloseToTarget::Wanted,
            CloseToTarget::Wanted => {}
            CloseToTarget::Delivered => self.end(),
        }
    }

    /// Names and values to send as `Meta-NAME: value` with each request.
    pub fn meta(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.meta.iter().flat_map(|meta| meta.iter())
    }

    /// Whether the target's side is over and nothing is left to do or to deliver.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Ended && self.work.is_none()
    }

    /// Whether the target's side was parted from the client by [`Self::detach`].
    #[must_use]
    pub const fn is_detached(&self) -> bool {
        self.detached
    }

    /// When [`Self::poll_request`] may have something that it does not have now.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Ended {
            return None;
        }
        match self.work.as_ref().and_then(|work| work.batch.as_ref().map(|batch| (work, batch))) {
            Some((work, batch)) => work.retry_at.filter(|_| !batch.active),
            None => self.keep_alive_at,
        }
    }

    /// The request to make now, if any. None while one is under way or the client has something to be given first.
    pub fn poll_request(&mut self, now: Instant) -> Option<RequestPlan> {
        if self.phase == Phase::Ended {
            return None;
        }
        if let Some(work) = self.work.as_deref_mut() {
            if let Some(batch) = &mut work.batch {
                if batch.active || work.retry_at.is_some_and(|at| at > now) {
                    return None;
                }
                batch.active = true;
                work.retry_at = None;
                let batch = *batch;
                return Some(work.encode(&batch));
            }
            if work.has_output() {
                return None;
            }
        }
        let kind = self.due(now)?;
        self.keep_alive_at = None;
        self.refresh = false;
        let closing = self.close == CloseToTarget::Wanted;
        let options = Arc::clone(&self.options);
        let work = self.work();
        let batch = match kind {
            RequestKind::Open => Batch::empty(kind),
            RequestKind::Update | RequestKind::Disconnect => work.gather(kind, closing, &options),
        };
        work.batch = Some(batch);
        Some(work.encode(&batch))
    }

    /// The next thing for the client, oldest first.
    pub fn poll_client(&mut self) -> Option<ToClient> {
        let work = self.work.as_deref_mut()?;
        if let Some(first) = work.out.pop_front() {
            self.tidy();
            return Some(first);
        }
        while let Some(inbox) = &mut work.inbox {
            // The whole body was read once before, so an error cannot come up; it would end the inbox.
            let Ok(Some(event)) = inbox.next_event() else {
                work.inbox = None;
                break;
            };
            let message = match event {
                Event::Binary(content) => ToClient::Message(Kind::Binary, content),
                Event::Ping(content) => ToClient::Message(Kind::Ping, content),
                Event::Pong(content) => ToClient::Message(Kind::Pong, content),
                Event::Text(content) => ToClient::Message(Kind::Text, content),
                Event::Close(close) if !self.detached => {
                    ToClient::Close(close.unwrap_or_else(|| Close::new(close::NORMAL, "")))
                }
                Event::Close(_) | Event::Disconnect | Event::Open => continue,
            };
            // Nothing may follow a close frame.
            if self.close_emitted {
                continue;
            }
            self.close_emitted = matches!(message, ToClient::Close(_));
            return Some(message);
        }
        let last = work.last.take();
        self.tidy();
        last.filter(|_| !self.detached)
    }

    /// The request under way was answered. A body larger than the limit need not be read to its end.
    pub fn handle_response<'a, F>(&mut self, now: Instant, status: u16, fields: F, body: Bytes)
    where
        F: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let Some(batch) = self.take_active() else { return };
        let steering = Steering::read(fields.clone(), self.options.keep_alive_min);
        match batch.kind {
            RequestKind::Disconnect => self.end(),
            RequestKind::Open => self.opened(now, status, fields, &steering, body),
            RequestKind::Update => {
                if let Err(reason) = self.updated(now, status, fields, &steering, body, &batch) {
                    self.fail(ToClient::Drop(reason));
                }
            }
        }
        self.tidy();
    }

    /// The request under way failed. `jitter_ms` is a random number of milliseconds, 0 to 999, added to the delay
    /// before a repetition.
    pub fn handle_failure(&mut self, now: Instant, failure: Failure, jitter_ms: u16) {
        let Some(batch) = self.take_active() else { return };
        let may_repeat = match failure {
            Failure::Broken { body_sent } => !body_sent,
            Failure::NotReached => true,
            Failure::Refused => false,
        };
        if batch.kind == RequestKind::Open {
            self.fail(ToClient::BadGateway(DropReason::RequestFailed));
        } else if may_repeat && self.work().retries < RETRIES_MAX {
            let work = self.work();
            let delay = Duration::from_secs(1 << work.retries) + Duration::from_millis(u64::from(jitter_ms.min(999)));
            work.retries += 1;
            work.retry_at = now.checked_add(delay);
            work.batch = Some(Batch { active: false, ..batch });
        } else {
            self.fail(ToClient::Drop(DropReason::RequestFailed));
        }
        self.tidy();
    }

    /// Which kind of request is due, if any.
    fn due(&self, now: Instant) -> Option<RequestKind> {
        let timed = self.keep_alive_at.is_some_and(|at| at <= now);
        let closing = self.close == CloseToTarget::Wanted;
        match self.phase {
            Phase::Opening => (timed || self.keep_alive_at.is_none()).then_some(RequestKind::Open),
            Phase::Ended => None,
            // A client that closed before it vanished is told as closed.
            Phase::Open if self.gone && !closing => {
                // What the client still sent goes along with the news, or before it where each event goes alone.
                let alone = self.options.one_event && self.has_fresh();
                Some(if alone { RequestKind::Update } else { RequestKind::Disconnect })
            }
            Phase::Open if self.client_full && !self.gone => None,
            Phase::Open => {
                let wanted = closing || self.refresh || timed || (self.has_fresh() && !self.target_closed);
                wanted.then_some(RequestKind::Update)
            }
        }
    }

    fn opened<'a, F>(&mut self, now: Instant, status: u16, fields: F, steering: &Steering, body: Bytes)
    where
        F: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        if status != 200 || !steering.is_events {
            let body = body.slice(..body.len().min(self.options.reject_body_max));
            return self.fail(ToClient::Reject { body });
        }
        if let Err(reason) = self.steer(fields.clone(), steering, &body) {
            return self.fail(ToClient::BadGateway(reason));
        }
        if body.is_empty() && self.keep_alive_s > 0 && steering.keep_alive_s.is_some() {
            // Undecided: the same question again, later.
            if self.gone {
                self.end();
            }
            self.restart_keep_alive(now);
            return;
        }
        let mut inbox = Decoder::new(body);
        if inbox.next_event() != Ok(Some(Event::Open)) {
            return self.fail(ToClient::BadGateway(DropReason::BadEvents));
        }
        let Ok(summary) = Summary::of(&inbox) else {
            return self.fail(ToClient::BadGateway(DropReason::BadEvents));
        };
        self.phase = Phase::Open;
        if !self.gone {
            self.work().out.push_back(ToClient::Accept { grip: parse_grip_extension(fields) });
        }
        self.deliver(now, inbox, summary);
    }

    fn updated<'a, F>(
        &mut self,
        now: Instant,
        status: u16,
        fields: F,
        steering: &Steering,
        body: Bytes,
        batch: &Batch,
    ) -> Result<(), DropReason>
    where
        F: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        if status != 200 || !steering.is_events {
            return Err(DropReason::BadResponse);
        }
        self.steer(fields, steering, &body)?;
        let inbox = Decoder::new(body);
        let summary = Summary::of(&inbox)?;
        self.work().retries = 0;
        self.consume(steering.accepted, batch)?;
        self.deliver(now, inbox, summary);
        Ok(())
    }

    /// Takes in what the fields of an events response set.
    fn steer<'a>(
        &mut self,
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
        steering: &Steering,
        body: &Bytes,
    ) -> Result<(), DropReason> {
        if body.len() > self.options.body_max {
            return Err(DropReason::BodyTooLarge);
        }
        if let Some(seconds) = steering.keep_alive_s.filter(|_| !self.detached) {
            self.keep_alive_s = seconds;
        }
        let mut meta = self.meta.take().unwrap_or_default();
        let fits = meta.update(fields, self.options.meta_size_max);
        self.meta = (!meta.is_empty()).then_some(meta);
        if fits { Ok(()) } else { Err(DropReason::MetaTooLarge) }
    }

    /// Takes the accepted bytes out of the queue.
    fn consume(&mut self, accepted: Option<u64>, batch: &Batch) -> Result<(), DropReason> {
        let offered = batch.content + batch.close.unwrap_or(0);
        let accepted = accepted.unwrap_or(offered);
        if accepted > offered {
            return Err(DropReason::AcceptedTooMuch);
        }
        if accepted < batch.content {
            if accepted == 0 && self.gone {
                // There is no one left to wait for; what the target does not want now is dropped.
                self.work().forget_queue();
                return Ok(());
            }
            if accepted == 0 && !batch.may_grow {
                return Err(DropReason::NoProgress);
            }
        } else if batch.close.is_some() {
            if accepted < offered {
                return Err(DropReason::CloseNotAccepted);
            }
            self.close = CloseToTarget::Delivered;
            self.work().close = None;
        }
        self.work().consume(batch.messages, accepted.min(batch.content));
        Ok(())
    }

    /// Puts a response's events up for the client and decides what follows from them.
    fn deliver(&mut self, now: Instant, inbox: Decoder, summary: Summary) {
        self.target_closed |= summary == Summary::Close;
        if !self.gone {
            self.work().inbox = Some(inbox);
        }
        if summary == Summary::Disconnect {
            self.end();
            self.set_last(ToClient::Drop(DropReason::Disconnected));
        } else if self.close == CloseToTarget::Delivered {
            if self.detached {
                self.end();
            } else if self.target_closed || self.close_emitted {
                self.end();
                self.set_last(ToClient::Finish);
            } else if self.keep_alive_s == 0 && !self.gone {
                self.end();
                self.set_last(ToClient::Drop(DropReason::CloseUnanswered));
            }
        }
        self.restart_keep_alive(now);
    }

    fn restart_keep_alive(&mut self, now: Instant) {
        let wanted = self.keep_alive_s > 0 && !self.gone && !self.target_closed && self.phase != Phase::Ended;
        self.keep_alive_at = now.checked_add(Duration::from_secs(u64::from(self.keep_alive_s))).filter(|_| wanted);
    }

    fn client_gone(&mut self) {
        self.gone = true;
        self.refresh = false;
        self.keep_alive_at = None;
        let waiting = self.work.as_deref_mut().is_some_and(|work| {
            work.out.clear();
            work.inbox = None;
            work.last = None;
            work.batch.is_some()
        });
        if self.phase == Phase::Opening && !waiting {
            self.end();
        }
        self.tidy();
    }

    fn fail(&mut self, last: ToClient) {
        self.end();
        self.set_last(last);
    }

    fn set_last(&mut self, last: ToClient) {
        if !self.gone && !self.detached {
            self.work().last = Some(last);
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.keep_alive_at = None;
        if let Some(work) = self.work.as_deref_mut() {
            work.forget_queue();
            work.close = None;
            work.batch = None;
            work.retry_at = None;
        }
        self.tidy();
    }

    fn take_active(&mut self) -> Option<Batch> {
        self.work.as_deref_mut()?.batch.take_if(|batch| batch.active)
    }

    /// Whether a message waits that the target has not seen.
    fn has_fresh(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.queue.len() > work.offered)
    }

    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    fn tidy(&mut self) {
        if self.work.as_ref().is_some_and(|work| work.is_idle()) {
            self.work = None;
        }
    }
}

#[cfg(test)]
mod tests;
