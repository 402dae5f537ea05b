//! What a session holds only while something is under way: queue, request, and answer on its way to the client.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf as _, Bytes};

use super::codec::{Decoder, Event};
use super::exchange::{DropReason, Kind, Options, RequestKind, RequestPlan, ToClient};
use crate::close::Close;

/// What a queued message costs besides its content, so that empty messages fill the queue too.
pub(super) const MESSAGE_COST: u64 = 16;

/// What exists only while something is under way.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) queue: VecDeque<(Kind, Bytes)>,
    pub(super) queue_cost: u64,
    /// Leading messages of the queue that the target has seen and left.
    pub(super) offered: usize,
    pub(super) close: Option<Close>,
    pub(super) batch: Option<Batch>,
    pub(super) retry_at: Option<Instant>,
    pub(super) retries: u8,
    /// For the client, before what the inbox holds.
    pub(super) out: VecDeque<ToClient>,
    pub(super) inbox: Option<Decoder>,
    /// For the client, after what the inbox holds.
    pub(super) last: Option<ToClient>,
}

/// The request under way, or waiting to be repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) kind: RequestKind,
    /// Leading messages of the queue in it.
    pub(super) messages: usize,
    /// Their content bytes.
    pub(super) content: u64,
    /// Bytes of the close event's content, if it is in.
    pub(super) close: Option<u64>,
    pub(super) replayed: u64,
    /// More data could be offered, now or later.
    pub(super) may_grow: bool,
    pub(super) active: bool,
}

impl Work {
    pub(super) fn gather(&self, kind: RequestKind, closing: bool, options: &Options) -> Batch {
        let (mut messages, mut content) = (0, 0_u64);
        let last = kind == RequestKind::Disconnect;
        for (_, message) in &self.queue {
            let full = if last {
                options.one_event
            } else {
                messages > 0 && (options.one_event || content >= options.batch_content_max)
            };
            if full {
                break;
            }
            messages += 1;
            content = content.saturating_add(message.len() as u64);
        }
        let complete = messages == self.queue.len();
        let close_fits = closing && complete && !(options.one_event && messages > 0);
        let close_len = self.close.as_ref().map_or(0, |close| 2 + close.reason.len() as u64);
        Batch {
            kind,
            messages,
            content,
            close: close_fits.then_some(close_len),
            replayed: self.queue.iter().take(self.offered.min(messages)).map(|(_, seen)| seen.len() as u64).sum(),
            may_grow: complete && !closing,
            active: true,
        }
    }

    pub(super) fn encode(&self, batch: &Batch) -> RequestPlan {
        let mut body = Vec::with_capacity(usize::try_from(batch.content).unwrap_or(0) + 32 * (batch.messages + 1));
        for (kind, content) in self.queue.iter().take(batch.messages) {
            let content = content.clone();
            let event = match kind {
                Kind::Binary => Event::Binary(content),
                Kind::Ping => Event::Ping(content),
                Kind::Pong => Event::Pong(content),
                Kind::Text => Event::Text(content),
            };
            event.encode(&mut body);
        }
        match batch.kind {
            RequestKind::Disconnect => Event::Disconnect.encode(&mut body),
            RequestKind::Open => Event::Open.encode(&mut body),
            RequestKind::Update if batch.close.is_some() => Event::Close(self.close.clone()).encode(&mut body),
            RequestKind::Update => {}
        }
        RequestPlan {
            kind: batch.kind,
            body: body.into(),
            replayed: Some(batch.replayed).filter(|replayed| *replayed > 0),
            attempt: self.retries,
        }
    }

    /// Removes `accepted` content bytes from the first `messages` messages, and empty ones at the border.
    pub(super) fn consume(&mut self, messages: usize, mut accepted: u64) {
        let mut left = messages;
        while left > 0 {
            let Some((_, content)) = self.queue.front_mut() else { break };
            let len = content.len() as u64;
            if len > accepted {
                // Smaller than the message's own length, so the conversion holds.
                content.advance(usize::try_from(accepted).unwrap_or(0));
                self.queue_cost = self.queue_cost.saturating_sub(accepted);
                break;
            }
            accepted -= len;
            left -= 1;
            self.queue_cost = self.queue_cost.saturating_sub(len + MESSAGE_COST);
            self.queue.pop_front();
        }
        self.offered = left;
    }

    pub(super) fn forget_queue(&mut self) {
        self.queue = VecDeque::new();
        self.queue_cost = 0;
        self.offered = 0;
    }

    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.inbox.is_some() || self.last.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.close.is_none() && self.batch.is_none() && !self.has_output()
    }
}

impl Batch {
    pub(super) const fn empty(kind: RequestKind) -> Self {
        Self { kind, messages: 0, content: 0, close: None, replayed: 0, may_grow: true, active: true }
    }
}

/// How the events of a body end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Summary {
    Close,
    Disconnect,
    Open,
}

impl Summary {
    pub(super) fn of(inbox: &Decoder) -> Result<Self, DropReason> {
        let mut reader = inbox.clone();
        loop {
            match reader.next_event() {
                Err(_) | Ok(Some(Event::Open)) => return Err(DropReason::BadEvents),
                Ok(None) => return Ok(Self::Open),
                Ok(Some(Event::Close(_))) => return Ok(Self::Close),
                Ok(Some(Event::Disconnect)) => return Ok(Self::Disconnect),
                Ok(Some(_)) => {}
            }
        }
    }
}
