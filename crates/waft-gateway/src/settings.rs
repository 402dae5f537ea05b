//! What the gateway is told to do. A reload swaps the whole of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use waft_grip::sig::{SigningKey, VerifyingKey};
use waft_http1::HeadLimits;
use waft_net::QueueLimits;
use waft_route::Table;

/// Everything that requests are handled by. Shared by all shards, never changed: a reload puts
/// another in its place, and what began under the old one ends under it.
#[derive(Debug)]
pub struct Settings {
    /// The routes.
    pub table: Table,
    /// Keys for `Grip-Sig`, by route id. A route without entry is not signed.
    pub signing_keys: HashMap<Arc<str>, SigningKey>,
    /// Key that proves a client to be a GRIP proxy in front of this one.
    pub upstream_key: Option<VerifyingKey>,
    /// How client addresses and schemes are told to targets.
    pub forward: Forward,
    /// Limits on clients, targets and holds.
    pub limits: Limits,
    /// WebSockets of all routes.
    pub websocket: WebSocketSettings,
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

/// Limits on clients, targets and holds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Request heads. Longer ones are refused with 431 or 414.
    pub head: HeadLimits,
    /// How long a client may take to send a request head: 30 s.
    pub head_timeout: Duration,
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
    /// Responses that a target may be late with before a client hears of it; none for no limit.
    pub link_retries_max: u32,
    /// Items that wait for a stream while its next link is fetched: 100.
    pub updating_items_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            head_timeout: Duration::from_secs(30),
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
            updating_items_max: 100,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table: Table::new(Vec::new()).0,
            signing_keys: HashMap::new(),
            upstream_key: None,
            forward: Forward::default(),
            limits: Limits::default(),
            websocket: WebSocketSettings::default(),
            update_on_first_subscription: false,
            accept_route_header: false,
            cross_origin: false,
            sockjs_url: String::new(),
            access_log: true,
            log_user_agent: false,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
