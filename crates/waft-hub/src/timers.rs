//! Deadlines of channels, with exact removal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Names a deadline: its time, and a serial number that tells equal times apart.
pub(crate) type TimerKey = (Instant, u64);

/// Deadlines by time. A tree, because most are taken back before they pass: a client polls again, a gap is filled.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeMap<TimerKey, Arc<str>>,
    serial: u64,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: Instant, channel: &Arc<str>) -> TimerKey {
        let key = (at, self.serial);
        self.serial = self.serial.wrapping_add(1);
        self.queue.insert(key, Arc::clone(channel));
        key
    }

    pub(crate) fn disarm(&mut self, key: TimerKey) {
        self.queue.remove(&key);
    }

    /// Takes the first deadline that has passed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Arc<str>> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// The channel with the first deadline, passed or not.
    pub(crate) fn first(&self) -> Option<&Arc<str>> {
        self.queue.first_key_value().map(|(_, channel)| channel)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }
}
