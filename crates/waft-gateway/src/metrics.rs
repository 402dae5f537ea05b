//! What a shard counts. Only the shard's own thread writes, so counting costs a plain addition;
//! whoever reports adds the shards up.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use waft_hub::Outcome;

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. For the owning shard alone: two writers would lose additions.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Sets the number to one that is counted elsewhere. For the owning shard alone.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that only goes up, counted by several threads.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What came of the items that were published, whichever way they came in.
#[derive(Debug, Default)]
pub struct PublishMetrics {
    /// Items published.
    pub items: SharedCounter,
    /// Bytes of their payloads.
    pub bytes: SharedCounter,
    /// Items discarded because their id had been seen a short while before.
    pub duplicates: SharedCounter,
    /// Messages to a publish socket that were no items.
    pub malformed: SharedCounter,
    /// Items that had to wait for their predecessor.
    pub parked: SharedCounter,
    /// Calls and messages of publishers that were refused or made to wait because too much waited for its delivery.
    pub overloads: SharedCounter,
    /// Items dropped because too many waited already, or another waited for the same predecessor.
    pub dropped: SharedCounter,
}

impl PublishMetrics {
    /// Counts one item of `size` bytes that came to `outcome`.
    pub(crate) fn count(&self, size: usize, outcome: Outcome) {
        self.items.add(1);
        self.bytes.add(size as u64);
        match outcome {
            Outcome::Delivered => {}
            Outcome::Duplicate => self.duplicates.add(1),
            Outcome::Parked => self.parked.add(1),
            Outcome::ParkedFull | Outcome::RivalParked => self.dropped.add(1),
        }
    }
}

/// What happened to the members of channels, and what was told of the life of realms.
#[derive(Debug, Default)]
pub struct RealmMetrics {
    /// Members that entered a channel.
    pub members_joined: SharedCounter,
    /// Members that left, or were lost and did not come back in time.
    pub members_left: SharedCounter,
    /// Events published to the channels of realms for their lives.
    pub lifecycle_told: SharedCounter,
    /// Events that had no room.
    pub lifecycle_dropped: SharedCounter,
}

/// What came by the sockets of ZHTTP workers, counted by the thread that reads them.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Packets that came.
    pub packets_received: SharedCounter,
    /// Packets that could not be read.
    pub packets_malformed: SharedCounter,
    /// Packets that are for no shard.
    pub packets_unknown: SharedCounter,
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `count`, which may be negative. For the owning shard alone.
    pub fn add(&self, count: i64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Sets the number. For the owning shard alone.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the latency buckets, in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 12] =
    [50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 100_000, 500_000, 2_500_000];

/// How long things took, counted in buckets.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Counter; LATENCY_BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Latency {
    /// Counts one observation. For the owning shard alone.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }

    /// Observations in each bucket: one a bound, and a last one for what took longer.
    pub fn counts(&self) -> [u64; LATENCY_BOUNDS_US.len() + 1] {
        std::array::from_fn(|bucket| self.buckets.get(bucket).map_or(0, Counter::value))
    }

    /// The sum of all observations in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.value()
    }
}

macro_rules! shard_metrics {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
        /// Everything one shard counts.
        #[derive(Debug, Default)]
        pub struct ShardMetrics {
            $($(#[$doc])* pub $name: $kind,)*
        }
    };
}

shard_metrics! {
    /// Client connections open now.
    connections: Gauge,
    /// Time that client connections have been open, all added up, in milliseconds.
    connection_ms: Counter,
    /// Client connections accepted.
    connections_accepted: Counter,
    /// Client connections refused because the limit was reached or the system had no descriptor left.
    connections_refused: Counter,
    /// TLS handshakes of clients.
    handshakes: Counter,
    /// Those of clients that were known from an earlier connection.
    handshakes_resumed: Counter,
    /// TLS handshakes that failed or took too long.
    handshakes_failed: Counter,
    /// Connections at rest between two requests.
    connections_idle: Gauge,
    /// Requests read from clients.
    requests: Counter,
    /// Requests that broke a rule of HTTP and were refused.
    requests_malformed: Counter,
    /// Requests answered with an error of waft's own.
    requests_failed: Counter,
    /// Requests to targets.
    target_requests: Counter,
    /// Requests sent again because a kept connection turned out to be closed.
    target_retries: Counter,
    /// Connections made to targets.
    target_connections: Counter,
    /// Targets that could not be reached.
    target_failures: Counter,
    /// Exchanges begun with ZHTTP workers.
    worker_exchanges: Counter,
    /// Packets of ZHTTP workers that belong to no exchange, or to one of another worker.
    worker_packets_unknown: Counter,
    /// Exchanges that ended because nothing was heard of their ZHTTP worker.
    workers_lost: Counter,
    /// Long-polls held now.
    holds_response: Gauge,
    /// HTTP streams held now.
    holds_stream: Gauge,
    /// WebSockets open now.
    holds_ws: Gauge,
    /// Holds begun.
    holds_begun: Counter,
    /// Held requests sent to their target again.
    hold_retries: Counter,
    /// Next links fetched.
    link_fetches: Counter,
    /// Deliveries that wait for a filter which asks a web service.
    filters_under_way: Gauge,
    /// Requests of filters.
    filter_requests: Counter,
    /// Filters that got no usable answer.
    filter_failures: Counter,
    /// Items delivered to long-polls.
    delivered_response: Counter,
    /// Items delivered to streams.
    delivered_stream: Counter,
    /// Items delivered to WebSockets.
    delivered_ws: Counter,
    /// Items not delivered because the client reads too slowly.
    dropped_slow: Counter,
    /// Items not delivered because a filter said so.
    dropped_filter: Counter,
    /// Items not delivered because a filter failed.
    dropped_filter_error: Counter,
    /// Items not delivered because their content filters are not those of the subscription.
    dropped_mismatch: Counter,
    /// Items not delivered because too many waited while a filter was asked about an earlier one.
    dropped_filtering: Counter,
    /// Items not delivered because the listener was being updated and its queue was full.
    dropped_updating: Counter,
    /// Deliveries dropped because the queue of their route was full, where deliveries have a rate.
    dropped_rate: Counter,
    /// Writes that a slow client's queue did not take because all queues together were full.
    queue_total_full: Counter,
    /// Listeners cut off because they read too slowly.
    slow_disconnects: Counter,
    /// Gaps that listeners were told of.
    gaps_told: Counter,
    /// Items replayed from the log.
    replayed: Counter,
    /// Bytes read from clients.
    bytes_received: Counter,
    /// Bytes written to clients.
    bytes_sent: Counter,
    /// Bytes that wait for slow clients.
    queued_bytes: Gauge,
    /// Messages to Mongrel2's handlers, but for notices.
    handler_requests: Counter,
    /// Messages of Mongrel2's handlers.
    handler_responses: Counter,
    /// Messages of Mongrel2's handlers that could not be understood.
    handler_responses_refused: Counter,
    /// From the arrival of an item to the end of writing it to this shard's listeners.
    delivery_latency: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_bucket_that_bounds_it() {
        let latency = Latency::default();
        for us in [50, 51, 3_000_000] {
            latency.observe(Duration::from_micros(us));
        }
        let counts = latency.counts();
        assert_eq!((counts[0], counts[1], counts[12]), (1, 1, 1));
        assert_eq!(latency.sum_us(), 3_000_101);
    }
}
