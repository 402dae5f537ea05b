//! What is forgotten, and what is moved so that the oldest segment of the store can go.

use waft_store::Place;

use super::record::{Attempt, Record, StoredMessage};
use super::{Core, State, id};

/// Messages that are forgotten in one go, so that other work gets its turn.
const FORGET_MAX: usize = 4_096;

/// Something of the oldest segment that is still wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Survivor {
    /// An application.
    App(u32),
    /// An endpoint.
    Endpoint(u32),
    /// The mark of the store.
    Mark,
    /// A message with its tries.
    Message(u64),
}

impl Core {
    /// Forgets what is too old or too much. `pressed` says that the disk is nearly full: then what is finished goes
    /// before its time. Returns how many messages went, and how many of them were never delivered.
    pub fn forget(&mut self, now: u64, pressed: bool) -> (usize, usize) {
        self.forget_keys(now);
        let (mut gone, mut lost) = (0, 0);
        let kept_since = id::first_seq(now.saturating_sub(self.limits.keep_ms));
        for _ in 0..FORGET_MAX {
            let Some(seq) = self.finished.front().copied() else { break };
            let crowd = self.finished.len() > self.limits.keep_max;
            let may_go = match self.messages.get(seq) {
                None => true,
                Some(message) if !message.is_finished() => true,
                // Dead letters are kept as long as what waits, unless there are too many of everything.
                Some(message) if message.deliveries.iter().any(|delivery| delivery.state == State::Dead) => {
                    crowd || self.is_too_old(seq, now)
                }
                Some(_) => crowd || pressed || seq < kept_since,
            };
            if !may_go {
                if !self.rotate_dead_letter(seq, kept_since) {
                    break;
                }
                continue;
            }
            self.finished.pop_front();
            if self.messages.get(seq).is_some_and(super::Message::is_finished) {
                gone += usize::from(self.drop_message(seq));
            }
        }
        while let Some(seq) = self.messages.first() {
            if !self.is_too_old(seq, now) || gone >= FORGET_MAX {
                break;
            }
            lost += usize::from(self.messages.get(seq).is_some_and(|message| !message.is_finished()));
            gone += usize::from(self.drop_message(seq));
        }
        (gone, lost)
    }

    /// A dead letter that is kept must not keep what is behind it. Says whether it was put at the end.
    fn rotate_dead_letter(&mut self, seq: u64, kept_since: u64) -> bool {
        let is_dead = self
            .messages
            .get(seq)
            .is_some_and(|message| message.deliveries.iter().any(|delivery| delivery.state == State::Dead));
        let newest = self.finished.back().copied().unwrap_or(0);
        if is_dead && seq < kept_since && newest != seq {
            self.finished.pop_front();
            self.finished.push_back(seq);
            return true;
        }
        false
    }

    fn is_too_old(&self, seq: u64, now: u64) -> bool {
        seq < id::first_seq(now.saturating_sub(self.limits.queue_age_ms))
    }

    fn drop_message(&mut self, seq: u64) -> bool {
        let Some(message) = self.messages.remove(seq) else { return false };
        self.totals.live_bytes = self.totals.live_bytes.saturating_sub(message.disk_bytes());
        for delivery in message.deliveries.iter() {
            match delivery.state {
                State::Pending | State::Sending => self.totals.open = self.totals.open.saturating_sub(1),
                State::Dead => self.totals.dead = self.totals.dead.saturating_sub(1),
                State::Delivered => {}
            }
        }
        true
    }

    pub(super) fn forget_keys(&mut self, now: u64) {
        let known_since = id::first_seq(now.saturating_sub(self.limits.idempotency_ms));
        while let Some((seq, key)) = self.key_order.front().copied() {
            if seq >= known_since && self.key_order.len() <= self.limits.idempotency_max {
                break;
            }
            self.key_order.pop_front();
            if self.keys.get(&key) == Some(&seq) {
                self.keys.remove(&key);
            }
        }
    }

    /// What of a segment and all older ones is still wanted.
    pub fn survivors(&self, segment: u32) -> Vec<Survivor> {
        let lies_there = |place: Option<Place>| place.is_some_and(|place| place.segment <= segment);
        let mut found = Vec::new();
        if lies_there(self.mark_place) {
            found.push(Survivor::Mark);
        }
        found.extend(
            self.apps.iter().filter(|(_, app)| lies_there(app.place)).map(|(number, _)| Survivor::App(*number)),
        );
        let endpoints = self.endpoints.iter().filter(|(_, endpoint)| lies_there(endpoint.place));
        found.extend(endpoints.map(|(number, _)| Survivor::Endpoint(*number)));
        let messages = self.messages.iter().filter(|(_, message)| lies_there(Some(message.place)));
        found.extend(messages.map(|(seq, _)| Survivor::Message(seq)));
        found
    }

    /// A stored message with the states it has now.
    pub fn renew(&self, stored: &StoredMessage<'_>) -> Option<Vec<u8>> {
        let deliveries = self.messages.get(stored.seq)?.deliveries.to_vec();
        Some(Record::Message(StoredMessage { deliveries, ..stored.clone() }).encode())
    }

    /// A try as it is stored when it is moved.
    pub fn renew_attempt(&self, stored: &Attempt<'_>) -> Vec<u8> {
        Record::Attempt(Attempt { moved: true, ..stored.clone() }).encode()
    }

    /// A message lies elsewhere now.
    pub fn moved(&mut self, seq: u64, to: Place) {
        if let Some(message) = self.messages.get_mut(seq) {
            self.totals.live_bytes =
                (self.totals.live_bytes + to.disk_bytes()).saturating_sub(message.place.disk_bytes());
            message.place = to;
        }
    }

    /// A try lies elsewhere now.
    pub fn attempt_moved(&mut self, seq: u64, from: Place, to: Place) {
        if let Some(message) = self.messages.get_mut(seq)
            && let Some(place) = message.attempts.iter_mut().find(|place| **place == from)
        {
            *place = to;
        }
    }
}
