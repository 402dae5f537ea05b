//! Every limit of outbound calls, with its default and the reason.

use std::time::Duration;

/// Limits of a [`crate::Client`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time for one connection attempt, TLS included. Default 30 s: a SYN that is lost twice still succeeds.
    pub connect_timeout: Duration,
    /// Idle connections kept for one place. Default 256: as many calls as are under way to one receiver at
    /// busy times.
    pub idle_per_place_max: usize,
    /// Idle connections kept in all. Default 8,192.
    pub idle_max: usize,
    /// How long an idle connection is kept. Default 55 s, below the 60 s after which many servers close.
    pub idle_timeout: Duration,
    /// Age at which a connection is not used again, so that a change of addresses is noticed. Default 2 h,
    /// as in Zurl.
    pub connection_age_max: Duration,
    /// Bytes of a response head. Default 64 KiB.
    pub head_size_max: usize,
    /// Header lines of a response. Default 256.
    pub header_count_max: usize,
    /// Interim (1xx) responses before the final one. Default 16.
    pub interim_max: usize,
    /// Bytes of a streamed request body that are kept for a redirect. Default 1,000,000, as in Zurl.
    pub replay_size_max: usize,
    /// Bytes of one WebSocket frame from the outside. Default 200,000, as in Zurl.
    pub frame_size_max: u64,
    /// Names whose addresses are remembered. Default 10,000.
    pub names_max: usize,
    /// Decoded bytes for each encoded byte, counted once 1 MiB has been decoded. Default 100.
    pub inflate_ratio_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            idle_per_place_max: 256,
            idle_max: 8_192,
            idle_timeout: Duration::from_secs(55),
            connection_age_max: Duration::from_secs(7_200),
            head_size_max: 65_536,
            header_count_max: 256,
            interim_max: 16,
            replay_size_max: 1_000_000,
            frame_size_max: 200_000,
            names_max: 10_000,
            inflate_ratio_max: 100,
        }
    }
}
