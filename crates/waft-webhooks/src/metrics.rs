//! Counters, as Prometheus reads them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the sender. Its thread writes them, anyone reads them.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) messages: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) died: AtomicU64,
    pub(crate) tap_dropped: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) kept: AtomicU64,
    pub(crate) disk_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) breakers_open: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Sets a level.
pub(crate) fn set(level: &AtomicU64, value: usize) {
    level.store(value as u64, Ordering::Relaxed);
}

impl Metrics {
    /// Appends all of them.
    pub(crate) fn write(&self, out: &mut String) {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut one = |name: &str, kind: &str, help: &str, counter: &AtomicU64| {
            // Writing into a string cannot fail.
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}\n", value(counter));
        };
        one("waft_webhooks_messages_total", "counter", "Messages taken for delivery.", &self.messages);
        one("waft_webhooks_refused_total", "counter", "Messages refused for want of room.", &self.refused);
        one("waft_webhooks_dead_total", "counter", "Deliveries that failed for good.", &self.died);
        one("waft_webhooks_items_dropped_total", "counter", "Items of channels that found no room.", &self.tap_dropped);
        one("waft_webhooks_syncs_total", "counter", "Times the disk was asked to keep what was written.", &self.syncs);
        one("waft_webhooks_pending", "gauge", "Deliveries that wait or are under way.", &self.open);
        one("waft_webhooks_in_flight", "gauge", "Deliveries under way.", &self.in_flight);
        one("waft_webhooks_dead", "gauge", "Deliveries with the dead letters.", &self.dead);
        one("waft_webhooks_messages", "gauge", "Messages known, finished ones too.", &self.kept);
        one("waft_webhooks_disk_bytes", "gauge", "Bytes of the queue on disk.", &self.disk_bytes);
        one("waft_webhooks_hosts_down", "gauge", "Hosts that are asked rarely.", &self.breakers_open);
        let name = "waft_webhooks_attempts_total";
        let _ = write!(out, "# HELP {name} Tries of deliveries.\n# TYPE {name} counter\n");
        for (result, counter) in [("denied", &self.denied), ("failed", &self.failed), ("delivered", &self.delivered)] {
            let _ = writeln!(out, "{name}{{result=\"{result}\"}} {}", value(counter));
        }
    }
}
