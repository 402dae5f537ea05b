//! What all shards counted, added up.

use waft_gateway::Gateway;
use waft_gateway::metrics::{Counter, Gauge, LATENCY_BOUNDS_US, ShardMetrics};

/// Observations in each latency bucket: one a bound, and a last one for what took longer.
pub(crate) type Buckets = [u64; LATENCY_BOUNDS_US.len() + 1];

/// The counters of all shards, read at one moment or nearly so.
#[derive(Debug)]
pub(crate) struct Totals<'a> {
    gateway: &'a Gateway,
}

impl<'a> Totals<'a> {
    pub(crate) fn of(gateway: &'a Gateway) -> Self {
        Self { gateway }
    }

    /// The sum of a counter.
    pub(crate) fn count(&self, counter: impl Fn(&ShardMetrics) -> &Counter) -> u64 {
        self.shards().map(|shard| counter(shard).value()).fold(0, u64::wrapping_add)
    }

    /// The sum of a gauge.
    pub(crate) fn level(&self, gauge: impl Fn(&ShardMetrics) -> &Gauge) -> i64 {
        self.shards().map(|shard| gauge(shard).value()).fold(0, i64::wrapping_add)
    }

    /// Items delivered to clients of all kinds.
    pub(crate) fn delivered(&self) -> u64 {
        self.count(|shard| &shard.delivered_response)
            .wrapping_add(self.count(|shard| &shard.delivered_stream))
            .wrapping_add(self.count(|shard| &shard.delivered_ws))
    }

    /// Delivery latencies by bucket, and their sum in microseconds.
    pub(crate) fn delivery_latency(&self) -> (Buckets, u64) {
        let mut buckets = Buckets::default();
        for shard in self.shards() {
            for (total, count) in buckets.iter_mut().zip(shard.delivery_latency.counts()) {
                *total = total.wrapping_add(count);
            }
        }
        let sum_us = self.shards().map(|shard| shard.delivery_latency.sum_us()).fold(0, u64::wrapping_add);
        (buckets, sum_us)
    }

    fn shards(&self) -> impl Iterator<Item = &ShardMetrics> {
        self.gateway.metrics().iter().map(|shard| &**shard)
    }
}
