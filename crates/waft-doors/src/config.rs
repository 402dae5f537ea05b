//! What the doors are told to do.

use std::time::Duration;

use crate::mongrel2::ControlPort;

/// Addresses of the doors, such as `tcp://127.0.0.1:5560` or `ipc:///run/waft/stats`, and what goes through them.
#[derive(Clone, Debug, Default)]
pub struct DoorsConfig {
    /// Where a PULL socket for items is bound.
    pub pull: Option<String>,
    /// Where a SUB socket for items is bound, of which the first address counts, or what it connects to.
    pub sub: Vec<String>,
    /// Connect the SUB socket rather than bind it.
    pub sub_connect: bool,
    /// Where the socket for commands is bound.
    pub command: Option<String>,
    /// Where the PUB socket for statistics is bound.
    pub stats: Option<String>,
    /// Mongrel2's control port.
    pub mongrel2: Option<ControlPort>,
    /// Permissions of bound ipc sockets; the umask decides if there are none.
    pub ipc_file_mode: Option<u32>,
    /// What the statistics say.
    pub stats_config: StatsConfig,
}

impl DoorsConfig {
    /// Whether no door has an address.
    pub fn is_empty(&self) -> bool {
        self.pull.is_none()
            && self.sub.is_empty()
            && self.command.is_none()
            && self.stats.is_none()
            && self.mongrel2.is_none()
    }
}

/// What the statistics say, and how often.
#[derive(Clone, Debug)]
pub struct StatsConfig {
    /// How messages are written.
    pub format: StatsFormat,
    /// Tell of each connection. Default true.
    pub connection_send: bool,
    /// How long a connection counts as there without being told of again. Default 120 s.
    pub connection_ttl: Duration,
    /// How long a subscription counts as there without being told of again. Default 60 s.
    pub subscription_ttl: Duration,
    /// Between two reports; without it there are none, nor are requests counted. Default 10 s.
    pub report_interval: Option<Duration>,
    /// Bytes of a block, if items are counted in blocks. Default none.
    pub block_size: Option<u64>,
}

impl Default for StatsConfig {
    fn default() -> Self {
        Self {
            format: StatsFormat::TNetString,
            connection_send: true,
            connection_ttl: Duration::from_secs(120),
            subscription_ttl: Duration::from_secs(60),
            report_interval: Some(Duration::from_secs(10)),
            block_size: None,
        }
    }
}

/// How statistics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsFormat {
    /// JSON objects, their keys sorted.
    Json,
    /// TNetString maps.
    TNetString,
}

/// Why the doors cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory of an ipc socket is not there and cannot be made.
    #[error("cannot make the directory {} for a zeromq door; make it, or choose another address", directory.display())]
    Directory {
        /// The directory.
        directory: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A socket cannot be had.
    #[error("a zeromq door cannot be opened")]
    Socket(#[from] waft_zmq::Error),
    /// The thread cannot be started.
    #[error("cannot start the thread of the zeromq doors")]
    Thread(#[source] std::io::Error),
}
