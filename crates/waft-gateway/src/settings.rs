//! What the gateway is told to do. A reload swaps the whole of it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use waft_grip::sig::{SigningKey, VerifyingKey};
use waft_http1::HeadLimits;
use waft_net::QueueLimits;
use waft_outbound::Lookup;
use waft_outbound::policy::Policy;
use waft_realm::Realm;
use waft_route::Table;
use waft_zhttp::Pace as WorkerPace;

use crate::access::AccessLog;

/// Everything that requests are handled by. Shared by all shards, never changed: a reload puts
/// another in its place, and what began under the old one ends under it.
#[derive(Debug)]
pub struct Settings {
    /// The routes.
    pub table: Table,
    /// The realms of the push service.
    pub realms: Vec<Realm>,
    /// Keys for `Grip-Sig`, by route id. A route without entry is not signed.
    pub signing_keys: HashMap<Arc<str>, SigningKey>,
    /// Key that proves a client to be a GRIP proxy in front of this one.
    pub upstream_key: Option<VerifyingKey>,
    /// How client addresses and schemes are told to targets.
    pub forward: Forward,
    /// Limits on clients, targets and holds.
    pub limits: Limits,
    /// How many deliveries are let through in a second; none for as many as there are.
    pub pace: Option<Pace>,
    /// WebSockets of all routes.
    pub websocket: WebSocketSettings,
    /// Calls to other places than the targets.
    pub outside: Arc<Outside>,
    /// Mongrel2's handlers.
    pub handlers: HandlerSettings,
    /// ZHTTP workers of all routes.
    pub workers: WorkerSettings,
    /// Send a held request to its target again a second after the first subscription to its
    /// channel, as Pushpin does.
    pub update_on_first_subscription: bool,
    /// Let clients choose a route by id with the header `Pushpin-Route`.
    pub accept_route_header: bool,
    /// Send cross-origin headers with the answer to requests that no route is for.
    pub cross_origin: bool,
    /// The client library that the SockJS page for frames loads.
    pub sockjs_url: String,
    /// Log a line for each request.
    pub access_log: bool,
    /// Mongrel2's access log.
    pub access_file: Option<Arc<AccessLog>>,
    /// Put the user agent into that line.
    pub log_user_agent: bool,
    /// How long requests under way may take after the order to stop.
    pub drain_timeout: Duration,
}

/// What holds for the WebSockets of all routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebSocketSettings {
    /// Bytes of one message that is held whole: 1,000,000. More closes the connection with 1009.
    pub message_max: u64,
}

impl Default for WebSocketSettings {
    fn default() -> Self {
        Self { message_max: 1_000_000 }
    }
}

/// Calls to other places than the targets: links to foreign hosts, and filters that ask web services.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Which places may be called.
    pub policy: Arc<Policy>,
    /// Which places may be called for routes with a target that is marked `untrusted`.
    pub untrusted_policy: Arc<Policy>,
    /// Limits of the client.
    pub limits: waft_outbound::Limits,
    /// How names are looked up.
    pub lookup: Lookup,
    /// The filters `http-check` and `http-modify`.
    pub filters: NetworkFilters,
}

/// Limits on the filters that ask web services, whose requests to the client's own origin go to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkFilters {
    /// Time for one request: 10 s.
    pub timeout: Duration,
    /// Requests at once, over all clients: 100. Further ones wait.
    pub concurrent_max: usize,
    /// Requests started each second to one address: 100. Further ones wait.
    pub rate_max: u32,
    /// Bytes of an answer: 100,000.
    pub body_max: usize,
    /// Items that wait for a listener while a filter is asked about an earlier one: 100. Further ones are dropped.
    pub waiting_max: usize,
}

impl Default for NetworkFilters {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            concurrent_max: 100,
            rate_max: 100,
            body_max: 100_000,
            waiting_max: 100,
        }
    }
}

impl Default for Outside {
    /// Public places alone.
    fn default() -> Self {
        let policy = Arc::new(Policy::hardened());
        Self {
            untrusted_policy: Arc::clone(&policy),
            policy,
            limits: waft_outbound::Limits::default(),
            lookup: Lookup::default(),
            filters: NetworkFilters::default(),
        }
    }
}

/// What holds for all of Mongrel2's handlers.
#[derive(Clone, Debug)]
pub struct HandlerSettings {
    /// Bytes of a request body that goes to a handler in one message: 20,480. A longer one is sent in pieces, stored, or
    /// refused with 413.
    pub body_max: usize,
    /// Where longer bodies are stored.
    pub store: Option<UploadStore>,
    /// Longer bodies are sent in pieces, whatever `store` says.
    pub stream: bool,
    /// Handlers are told how many bytes their clients have taken.
    pub download_credits: bool,
    /// The client's address stands in the place of the X-Forwarded-For that it sent.
    pub replace_forwarded_for: bool,
    /// Connections that one response may be for: 128.
    pub ids_max: usize,
    /// Messages that wait for a handler to take them: 10,000. More requests are answered with 503.
    pub queue_max: usize,
    /// Directories whose files handlers may name.
    pub send_file: Vec<PathBuf>,
}

/// Where bodies are stored that are too long for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadStore {
    /// The name of each file, whose last six X are replaced.
    pub pattern: PathBuf,
    /// Permissions of each file.
    pub mode: u32,
    /// Bytes of a body. More is refused with 413.
    pub max: u64,
}

impl Default for HandlerSettings {
    fn default() -> Self {
        Self {
            body_max: 20_480,
            store: None,
            stream: false,
            download_credits: false,
            replace_forwarded_for: true,
            ids_max: waft_mongrel2::TARGETS_MAX,
            queue_max: 10_000,
            send_file: Vec::new(),
        }
    }
}

/// What holds for the ZHTTP workers of all routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    /// What the addresses begin with that workers answer to: `waft`.
    pub name: String,
    /// What this gateway is to its workers.
    pub role: WorkerRole,
    /// Bytes of a body that are on their way from a worker before the client has taken them: 200,000.
    pub window: u64,
    /// Bytes of a request's body that go to a worker before it has granted any: 200,000.
    pub first_body_max: usize,
    /// After how much silence signs of life are sent (30 s), and a worker counts as dead (60 s).
    pub pace: WorkerPace,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            name: "waft".to_owned(),
            role: WorkerRole::Gateway,
            window: 200_000,
            first_body_max: 200_000,
            pace: WorkerPace::default(),
        }
    }
}

/// What a gateway is to its ZHTTP workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerRole {
    /// The connection manager of a server: requests are passed on as they came, with the client's address.
    Front,
    /// A proxy: requests are made anew, as for targets of HTTP.
    Gateway,
}

/// How client addresses and schemes are told to targets.
#[derive(Clone, Debug, Default)]
pub struct Forward {
    /// `X-Forwarded-For` for ordinary clients.
    pub x_forwarded_for: ForwardedFor,
    /// `X-Forwarded-For` for clients that are GRIP proxies.
    pub x_forwarded_for_trusted: ForwardedFor,
    /// Which scheme headers are set for encrypted requests.
    pub set_scheme: SchemeHeaders,
    /// Believe incoming `X-Forwarded-Proto`.
    pub accept_scheme: bool,
    /// Token appended to `CDN-Loop`; empty for none.
    pub cdn_loop: String,
    /// Headers that count as original only when they are marked so (lower case).
    pub orig_headers_need_mark: Vec<String>,
}

impl Forward {
    /// What is done to `X-Forwarded-For` of a client, which may be a GRIP proxy.
    pub(crate) fn rule(&self, trusted: bool) -> ForwardedFor {
        if trusted { self.x_forwarded_for_trusted } else { self.x_forwarded_for }
    }
}

/// What is done to `X-Forwarded-For`. The default leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedFor {
    /// Keep only that many values, the last ones.
    pub truncate: Option<usize>,
    /// Append the address of the peer.
    pub append: bool,
}

/// Which headers tell the target the scheme of an encrypted request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemeHeaders {
    /// `X-Forwarded-Proto` and `X-Forwarded-Protocol`.
    Both,
    /// None; incoming ones pass.
    #[default]
    None,
    /// `X-Forwarded-Proto`.
    Proto,
}

/// A rate of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Deliveries in a second, or units of their size.
    pub per_second: u64,
    /// Deliveries of one route that may wait. More are dropped and counted.
    pub queue_max: usize,
    /// A delivery counts once for each started unit of so many bytes; without it, each counts once.
    pub unit: Option<u64>,
}

/// Limits on clients, targets and holds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Request heads. Longer ones are refused with 431 or 414.
    pub head: HeadLimits,
    /// How long a client may take to send a request head: 30 s.
    pub head_timeout: Duration,
    /// Streams that an HTTP/2 connection may have open at once: 100. None: HTTP/2 is not served.
    pub http2: Option<u32>,
    /// How long a TLS handshake may take: 10 s.
    pub handshake_timeout: Duration,
    /// How long a connection may rest between two requests: 5 min.
    pub idle_timeout: Duration,
    /// Client connections: as many as descriptors allow.
    pub connections_max: usize,
    /// What may wait for a client that reads slowly.
    pub queue: QueueLimits,
    /// How long a client may take nothing of what waits for it before it is cut off: 60 s.
    pub write_stall_timeout: Duration,
    /// Body of a response that is held or answered from later: 100,000 bytes.
    pub hold_body_max: usize,
    /// Body of a request that may be held, and so may have to be sent again: 100,000 bytes.
    pub request_body_max: usize,
    /// Channels of one hold: 20.
    pub subscriptions_max: usize,
    /// Connections to one target, on each shard: 500. More requests wait.
    pub target_connections_max: usize,
    /// How long an unused connection to a target is kept: 55 s.
    pub target_idle_timeout: Duration,
    /// Requests to a next link that may fail in a row before its stream is ended: 5.
    pub link_retries_max: u32,
    /// Requests to links that wait for their answer at once, over all clients: 100. Further ones wait.
    pub link_fetches_max: usize,
    /// Bytes of items that may wait for their delivery: 256 MiB. Publishers are told to wait when there are more.
    pub undelivered_bytes_max: usize,
    /// Items that wait for a stream while its next link is fetched: 100.
    pub updating_items_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            head_timeout: Duration::from_secs(30),
            http2: Some(100),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            connections_max: 1 << 20,
            queue: QueueLimits::default(),
            write_stall_timeout: Duration::from_secs(60),
            hold_body_max: 100_000,
            request_body_max: 100_000,
            subscriptions_max: 20,
            target_connections_max: 500,
            target_idle_timeout: Duration::from_secs(55),
            link_retries_max: 5,
            link_fetches_max: 100,
            undelivered_bytes_max: 256 << 20,
            updating_items_max: 100,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table: Table::new(Vec::new()).0,
            realms: Vec::new(),
            signing_keys: HashMap::new(),
            upstream_key: None,
            forward: Forward::default(),
            limits: Limits::default(),
            pace: None,
            websocket: WebSocketSettings::default(),
            outside: Arc::default(),
            handlers: HandlerSettings::default(),
            workers: WorkerSettings::default(),
            update_on_first_subscription: false,
            accept_route_header: false,
            cross_origin: false,
            sockjs_url: String::new(),
            access_log: true,
            access_file: None,
            log_user_agent: false,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
