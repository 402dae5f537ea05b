//! The named limits of the hub and their defaults.

use std::time::Duration;

/// What the hub keeps at most, and for how long.
///
/// Every limit that says "over all channels" is exact: when it is crossed, the oldest entries kept near the newest one
/// (in the same part of the channel map) make room.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubLimits {
    /// Items in the log of one channel. Default 50, which bridges a reconnect of some seconds on a busy channel. Zero
    /// turns the logs off.
    pub log_items_max: usize,
    /// Bytes in the log of one channel, each item counted with [`ITEM_OVERHEAD`]. Default 64 KiB. A larger item empties
    /// the log, so that readers are told of a gap.
    pub log_bytes_max: usize,
    /// Age at which an item leaves the log. Default 60 s.
    pub log_age_max: Duration,
    /// Bytes in the logs over all channels, each item counted with [`ITEM_OVERHEAD`]. Default 64 MiB.
    pub log_total_bytes_max: usize,
    /// How long a second item with the same id on the same channel is discarded. Default 60 s; zero turns this off.
    pub id_cache_ttl: Duration,
    /// Ids remembered for [`id_cache_ttl`](Self::id_cache_ttl) over all channels, about 80 bytes each. Default 1,000,000;
    /// above it the oldest are forgotten early, and a late second copy passes.
    pub id_cache_max: usize,
    /// How long an item waits for the one it names as its predecessor. Default 5 s.
    pub message_wait: Duration,
    /// Items that wait for their predecessor on one channel. Default 100; further ones are dropped. The cost of a
    /// publish that waits grows with this number.
    pub parked_max: usize,
    /// Bytes of waiting items over all channels. Default 64 MiB; further ones are dropped.
    pub parked_total_bytes_max: usize,
    /// Channels whose last id is remembered. Default 1,000,000; above it the oldest are forgotten, and the next item of
    /// such a channel is delivered without regard to its predecessor.
    pub remembered_channels_max: usize,
    /// How long a channel counts as subscribed after its last response hold ended, so that a client which polls again
    /// is not a first subscription. Default 60 s; zero turns this off.
    pub linger: Duration,
}

/// Bytes that an item is counted with beside its payload: the record, its ids and its channel name.
pub const ITEM_OVERHEAD: usize = 128;

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            log_items_max: 50,
            log_bytes_max: 64 * 1024,
            log_age_max: Duration::from_secs(60),
            log_total_bytes_max: 64 * 1024 * 1024,
            id_cache_ttl: Duration::from_secs(60),
            id_cache_max: 1_000_000,
            message_wait: Duration::from_secs(5),
            parked_max: 100,
            parked_total_bytes_max: 64 * 1024 * 1024,
            remembered_channels_max: 1_000_000,
            linger: Duration::from_secs(60),
        }
    }
}
