//! The sections of the configuration, each with its keys, their defaults and their reasons.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::egress::EgressException;
use crate::section::section;
use crate::value::{
    ByteSize, Duration, ForwardedFor, ForwardedProto, Level, Listen, LogFormat, OctalMode, OrOff, OutboundRules,
    PingMode, Resolver, StatsFormat, WorkerRole,
};

section! {
    /// Where clients connect.
    Server {
        /// Addresses for clients: `port`, `addr:port`, `[v6]:port`, or `unix:/path` with `?mode=660&user=u&group=g`.
        /// `?tls` behind an address asks for TLS; `&client_ca=/path.pem` behind that lets only clients in that show a
        /// certificate of these authorities, and `&client_optional` others too, for routes with `client_cert` to tell
        /// them apart. A change needs a restart.
        listen: Vec<Listen> = Listen::plain("7999").into_iter().collect();
        /// Directory with the certificates of TLS addresses and their keys, PEM files with any names, also in directories
        /// of their own below it. Each is shown for the names in it, and for the one its file is called by, as in
        /// `www.example.com.crt` or, for all names one level below, `_.example.com.crt`. `default_443.crt` or
        /// `default.crt` is for the rest of a port. Changed files are taken at once. `www.example.com.ocsp` is sent along.
        tls_certs: Option<PathBuf> = None, as "\"/etc/waft/certs\"";
        /// Threads that serve clients; 0 is one for each processor. A change needs a restart.
        shards: usize = 0;
        /// Serve clients that speak HTTP/2: those that say so with their first bytes, and those that TLS agrees it with.
        http2: bool = true;
        /// Client connections at once, each stream of an HTTP/2 connection counted too. Further ones wait unaccepted.
        client_max: NonZeroUsize = at_least_one(50_000);
        /// How long running requests may take after the order to stop.
        drain_timeout: Duration = Duration::from_secs(10);
    }
}

section! {
    /// Where publishers and operators connect.
    Control {
        /// Addresses of the control API. Empty: none. A change needs a restart.
        listen: Vec<Listen> = Listen::plain("127.0.0.1:5561").into_iter().collect();
        /// Bearer token that every call must carry. Absent: none is asked for, so keep the port private.
        token: Option<String> = None, as "\"a long random text\"";
        /// Key of the JSON web tokens that are let in as bearer tokens: a secret, `base64:` and bytes, or a public key in PEM.
        jwt_key: Option<String> = None, as "\"base64:c2VjcmV0\"";
        /// PEM file with the certificate chain of the control API. Needs `key`.
        cert: Option<PathBuf> = None, as "\"/etc/waft/control.crt\"";
        /// PEM file with the key of that certificate.
        key: Option<PathBuf> = None, as "\"/etc/waft/control.key\"";
        /// Bytes of one call's body. More is answered with 400. A change needs a restart.
        body_max: ByteSize = ByteSize(1_000_000);
        /// Bytes of one call's head. More is answered with 400. A change needs a restart.
        header_max: ByteSize = ByteSize(10_000);
    }
}

section! {
    /// The GRIP protocol between waft and its targets.
    Grip {
        /// Issuer in the signature of requests to targets.
        sig_iss: String = "pushpin".to_owned();
        /// Key of that signature: a text, or `base64:` and bytes. Empty: requests are not signed. The default is what
        /// Pushpin ships, and known to everyone: change it.
        sig_key: String = DEFAULT_SIG_KEY.to_owned();
        /// Key of GRIP proxies in front of waft. Their signed requests are trusted.
        upstream_key: Option<String> = None, as "\"base64:c2VjcmV0\"";
        /// Bytes of a response that holds its request. More is an error of the target.
        hold_body_max: ByteSize = ByteSize(100_000);
        /// Bytes of the body of a request that may be held, kept so that it can be sent again.
        request_body_max: ByteSize = ByteSize(100_000);
        /// Requests to a next link that may fail in a row before its stream is ended.
        next_link_retries_max: u32 = 5;
        /// Requests to next links at once, over all clients. Further ones wait.
        next_link_concurrent_max: NonZeroUsize = at_least_one(100);
        /// Ask the target again when a channel gets its first listener (Pushpin's way of closing the gap between
        /// response and subscription, which waft has closed otherwise).
        update_on_first_subscription: bool = false;
    }
}

section! {
    /// What one client may take.
    Limits {
        /// Bytes of a request head. More is answered with 431.
        header_bytes: ByteSize = ByteSize(65_536);
        /// Fields of a request head. More is answered with 431.
        header_fields: NonZeroUsize = at_least_one(100);
        /// Time from the first byte of a request head to its last.
        header_timeout: Duration = Duration::from_secs(30);
        /// Time for the handshake of a TLS connection.
        handshake_timeout: Duration = Duration::from_secs(10);
        /// Items that may wait for a client that reads slowly; then the route's `slow_client` decides.
        queue_items: NonZeroUsize = at_least_one(1000);
        /// Bytes that may wait for a client that reads slowly; then the route's `slow_client` decides.
        queue_bytes: ByteSize = ByteSize(1 << 20);
        /// Bytes that may wait for all slow clients together. A write beyond them finds the queue of its client full.
        queue_total_bytes: ByteSize = ByteSize(256 << 20);
        /// Bytes of items that may wait for their delivery. While there are more, calls to publish are answered with 503,
        /// and ZeroMQ publishers wait.
        undelivered_bytes: ByteSize = ByteSize(256 << 20);
        /// Deliveries in a second, one for each client that gets an item. 0: as many as there are.
        delivery_rate: u64 = 0;
        /// Deliveries that may wait where there is a rate, for each route with an id and for all others together. More are
        /// dropped and counted.
        delivery_queue: NonZeroUsize = at_least_one(25_000);
        /// How long a connection may rest between two requests before it is closed.
        idle_timeout: OrOff<Duration> = OrOff::On(Duration::from_secs(1800));
        /// Time in which a client that has bytes waiting must take some of them.
        write_stall_timeout: OrOff<Duration> = OrOff::On(Duration::from_secs(60));
        /// Streams that one HTTP/2 connection may have open at once.
        http2_streams_max: NonZeroU32 = HUNDRED;
        /// Channels that one connection may be subscribed to.
        subscriptions_max: NonZeroUsize = at_least_one(20);
    }
}

section! {
    /// What channels remember, for listeners that return, and how items are put in order.
    Log {
        /// Items kept for each channel. 0: none.
        items: usize = 100;
        /// Bytes kept for each channel.
        bytes: ByteSize = ByteSize(256 << 10);
        /// How long an item is kept.
        age: Duration = Duration::from_secs(120);
        /// Bytes kept for all channels together.
        total_bytes: ByteSize = ByteSize(64 << 20);
        /// How long the id of an item is remembered, so that a repeated one is recognised.
        id_cache_ttl: OrOff<Duration> = OrOff::On(Duration::from_secs(60));
        /// How long an item waits for the one before it.
        message_wait: Duration = Duration::from_secs(5);
    }
}

section! {
    /// Calls to other places than the targets: links to other hosts, and the filters http-check and http-modify.
    Outbound {
        /// `hardened`: public addresses, names and ports alone, with `exceptions`. `open`: whatever a target names. Routes
        /// with a target marked `untrusted` are always held to the first. A denial is logged with its rule.
        rules: OutboundRules = OutboundRules::Hardened;
        /// What may be called although it is not public: `host`, `address` or `network/length`, each with `:port` or for
        /// all ports.
        exceptions: Vec<EgressException> = Vec::new();
        /// What may not be called although it is public: names with one `*`, addresses, networks. Goes before exceptions.
        deny: Vec<String> = Vec::new();
        /// Log what the rules refuse, and call it all the same.
        report_only: bool = false;
        /// Addresses under which waft itself is reached from outside, which are never called.
        self_addresses: Vec<SocketAddr> = Vec::new();
        /// Who looks names up: `system`, or `dns` for waft itself, without search domains.
        resolver: Resolver = Resolver::System;
        /// Name servers for `dns`. Empty: those of /etc/resolv.conf.
        name_servers: Vec<SocketAddr> = Vec::new();
        /// Time for one connection, TLS included.
        connect_timeout: Duration = Duration::from_secs(10);
        /// Time for one request of a filter, its answer included.
        filter_timeout: Duration = Duration::from_secs(10);
        /// Requests of filters at once, over all clients. Further ones wait.
        filter_concurrent_max: NonZeroUsize = at_least_one(100);
        /// Requests of filters that are started each second for one address. Further ones wait.
        filter_rate_max: NonZeroU32 = HUNDRED;
        /// Bytes of a filter's answer. More is a failure of the filter.
        filter_body_max: ByteSize = ByteSize(100_000);
        /// Items that wait for a listener while a filter is asked about an earlier one. Further ones are dropped.
        filter_waiting_max: NonZeroUsize = at_least_one(100);
    }
}

section! {
    /// What is told to targets about the client, and believed of it.
    Forward {
        /// What is done with X-Forwarded-For: `truncate:N` keeps the last N values, `append` adds the client. Empty: it is passed on.
        x_forwarded_for: ForwardedFor = ForwardedFor::default();
        /// The same for requests that are signed with `grip.upstream_key`.
        x_forwarded_for_trusted: ForwardedFor = ForwardedFor::default();
        /// Tell targets of TLS: `off`, `proto-only` (X-Forwarded-Proto) or `on` (X-Forwarded-Protocol too).
        set_x_forwarded_proto: ForwardedProto = ForwardedProto::ProtoOnly;
        /// Believe a client's X-Forwarded-Proto. Only behind a proxy that sets it.
        accept_x_forwarded_proto: bool = false;
        /// Token to append to CDN-Loop.
        cdn_loop: Option<String> = None, as "\"waft\"";
        /// Headers that count as original only if they are marked.
        orig_headers_need_mark: Vec<String> = Vec::new();
        /// Let clients choose a route by its id with the header Pushpin-Route.
        accept_route_header: bool = false;
    }
}

section! {
    /// What is written about the work.
    Logging {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: Level = Level::Info;
        /// `text` or `json`.
        format: LogFormat = LogFormat::Text;
        /// A line for each request.
        access: bool = false;
        /// The client's address in those lines.
        client: bool = false;
        /// The client's User-Agent in those lines.
        user_agent: bool = false;
        /// File to write to. Absent: standard error.
        file: Option<PathBuf> = None, as "\"/var/log/waft.log\"";
    }
}

section! {
    /// Counters for Prometheus.
    Metrics {
        /// An address of their own. They are always served by the control API too. A change needs a restart.
        listen: Option<Listen> = None, as "\"127.0.0.1:9100\"";
        /// Serve Pushpin's names beside our own.
        pushpin_names: bool = false;
        /// Put before Pushpin's names.
        prefix: String = String::new();
    }
}

section! {
    /// WebSockets of all routes.
    WebSocket {
        /// Bytes of one message. More closes the connection with code 1009.
        message_max: ByteSize = ByteSize(1_000_000);
        /// Pause after which an idle client is sent a ping.
        ping_interval: OrOff<Duration> = OrOff::On(Duration::from_secs(30));
        /// Who answers a client's pings: `answer` (waft) or `forward` (the target).
        ping_mode: PingMode = PingMode::Answer;
        /// Offer permessage-deflate.
        compression: bool = false;
    }
}

section! {
    /// Statistics, as Pushpin's users know them.
    Stats {
        /// How long a connection counts as there without being told of again.
        connection_ttl: Duration = Duration::from_secs(120);
        /// Tell of each connection.
        connection_send: bool = true;
        /// How long a subscription counts as there without being told of again.
        subscription_ttl: Duration = Duration::from_secs(60);
        /// How long a channel counts as subscribed after its last long-poll was answered.
        subscription_linger: Duration = Duration::from_secs(60);
        /// Pause between reports.
        report_interval: OrOff<Duration> = OrOff::On(Duration::from_secs(10));
        /// Bytes of a block: statistics count items in blocks, too, and `limits.delivery_rate` is one of blocks. 0: they do
        /// not. A change needs a restart.
        block_size: ByteSize = ByteSize(0);
        /// `tnetstring` or `json`.
        format: StatsFormat = StatsFormat::TNetString;
    }
}

section! {
    /// The ZeroMQ doors. Each is closed unless it has an address. A change needs a restart.
    Zmq {
        /// PULL socket for items, bound.
        pull: Option<String> = None, as "\"tcp://127.0.0.1:5560\"";
        /// SUB sockets for items. Bound (the first only), or connected.
        sub: Vec<String> = Vec::new();
        /// Connect the SUB sockets rather than bind them.
        sub_connect: bool = false;
        /// PUB socket for statistics, bound.
        stats: Option<String> = None, as "\"ipc:///run/waft/stats\"";
        /// REP socket for commands, bound.
        command: Option<String> = None, as "\"tcp://127.0.0.1:5563\"";
        /// Permissions of bound ipc sockets.
        ipc_file_mode: Option<OctalMode> = None, as "\"660\"";
    }
}

section! {
    /// Mongrel2 handlers as targets, and what else Mongrel2's users know.
    Mongrel2 {
        /// Bytes of a request body that goes to a handler in one message. A longer one is stored, streamed, or answered with 413.
        body_max: ByteSize = ByteSize(20_480);
        /// File that a longer body is stored in; its name ends in six X, which are replaced. Absent: none.
        upload_store: Option<PathBuf> = None, as "\"/tmp/upload.XXXXXX\"";
        /// Permissions of these files.
        upload_mode: OctalMode = OctalMode(0o600);
        /// Bytes of a body that is stored. More is answered with 413.
        upload_max: ByteSize = ByteSize(10 << 30);
        /// Send a longer body in pieces, as many bytes as the handler has given credits for. Goes before `upload_store`.
        upload_stream: bool = false;
        /// Tell handlers how many bytes their clients have taken, and cut off who takes less than it is sent.
        download_credits: bool = false;
        /// Put the address of the client in the place of the X-Forwarded-For that it sent, towards handlers.
        replace_forwarded_for: bool = true;
        /// Connections that one response of a handler may be for.
        ids_max: NonZeroUsize = at_least_one(128);
        /// Requests that wait for a handler to connect; further ones are answered with 503. A change needs a restart.
        queue_max: NonZeroUsize = at_least_one(10_000);
        /// Directories whose files handlers may name for `sendfile`.
        sendfile: Vec<PathBuf> = Vec::new();
        /// ZeroMQ address of the control port. Absent: none. A change needs a restart.
        control: Option<String> = None, as "\"ipc://run/control\"";
        /// What the control port tells of itself.
        uuid: String = String::new();
        /// What the access log and the control port call hosts that no route lists.
        default_host: String = String::new();
        /// File for a line of each request, in Mongrel2's form. Absent: none. Another file needs a restart.
        access_log: Option<PathBuf> = None, as "\"/var/log/waft/access.log\"";
        /// File that the number of the process is written to. Absent: none. A change needs a restart.
        pid_file: Option<PathBuf> = None, as "\"/run/waft.pid\"";
    }
}

section! {
    /// Webhooks: messages that waft stores and delivers to the endpoints of others. Off without `dir`. A change needs a
    /// restart.
    Webhooks {
        /// Directory of the queue. Absent: there are no webhooks, and no file is made.
        dir: Option<PathBuf> = None, as "\"/var/lib/waft/webhooks\"";
        /// Bytes that the queue may take on disk. When they are used up, messages are refused with 507.
        disk_max: ByteSize = ByteSize(10 << 30);
        /// Deliveries that may wait, each about 150 bytes of memory. More messages are refused with 507.
        queue_max: usize = 2_000_000;
        /// How long a delivery is tried, and a dead letter kept.
        queue_age: Duration = Duration::from_secs(30 * 86_400);
        /// How long delivered messages are kept, to be found and sent again.
        keep: Duration = Duration::from_secs(3 * 86_400);
        /// How many of them are kept at most, each about 150 bytes of memory.
        keep_max: usize = 500_000;
        /// Pauses before each try; the first is before the first try. The last failure makes a dead letter.
        retry: Vec<Duration> = [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400].map(Duration::from_secs).to_vec();
        /// How long a try may take.
        timeout: Duration = Duration::from_secs(20);
        /// How long every delivery to an endpoint must have failed before it is stopped.
        disable_after: Duration = Duration::from_secs(5 * 86_400);
        /// Tries under way at once, over all endpoints.
        in_flight_max: NonZeroUsize = at_least_one(1000);
        /// Tries under way at once to one host.
        host_concurrency_max: u32 = 100;
        /// Bytes of one message. `control.body_max` bounds the call.
        body_max: ByteSize = ByteSize(256 << 10);
        /// Endpoints must be reached by TLS.
        https_only: bool = false;
        /// Endpoints may say that any certificate will do (`tls.insecure`). For tests.
        allow_insecure: bool = false;
        /// What the address policy lets through beyond public addresses: `HOST`, `HOST:PORT`, `CIDR` or `CIDR:PORT`.
        allow: Vec<String> = Vec::new();
        /// Names and addresses that it refuses beyond: `10.1.*`, `*.example.com`.
        deny: Vec<String> = Vec::new();
        /// Applications, each with its own token: `[[webhooks.apps]]` with `id` and `token`. Calls can make more.
        apps: Vec<WebhookApp> = Vec::new();
        /// Endpoints: `[[webhooks.endpoints]]` with `id`, `app`, `url`, `secrets` and the settings of docs/webhooks.md.
        endpoints: Vec<WebhookEndpoint> = Vec::new();
    }
}

/// An application of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookApp {
    /// Its name.
    pub id: String,
    /// Its token; absent if only operators may act for it.
    pub token: Option<String>,
}

/// An endpoint of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEndpoint {
    /// Its name.
    pub id: String,
    /// The name of its application. Default `default`.
    #[serde(default = "default_app")]
    pub app: String,
    /// Where it is.
    pub url: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Secrets, the newest first.
    pub secrets: Vec<String>,
    /// Event types it wants. Empty: all.
    #[serde(default)]
    pub types: Vec<String>,
    /// Channels whose items it gets.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Headers to send along.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// `standard`, `svix`, `github` or `stripe`. Default `standard`.
    pub style: Option<String>,
    /// Deliveries a second at most. Absent: no limit.
    pub rate_per_s: Option<f64>,
    /// Deliveries under way at once. Default 20.
    pub concurrency_max: Option<u32>,
    /// How long a try may take, in seconds.
    pub timeout_s: Option<u32>,
    /// Pauses before each try, in seconds.
    pub retry_s: Option<Vec<u64>>,
    /// Messages with the same order key are delivered one after the other.
    #[serde(default)]
    pub ordered: bool,
    /// Nothing is delivered; what waits, waits on.
    #[serde(default)]
    pub disabled: bool,
    /// TLS towards it.
    #[serde(default)]
    pub tls: WebhookTls,
}

/// TLS towards an endpoint of the configuration. All texts are PEM.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookTls {
    /// Any certificate will do, if `webhooks.allow_insecure` is set.
    pub insecure: bool,
    /// Authorities that have signed its certificate, instead of those of the system.
    pub ca: Option<String>,
    /// A certificate to present, with its chain.
    pub certificate: Option<String>,
    /// Its key.
    pub key: Option<String>,
}

impl std::fmt::Debug for WebhookTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookTls").field("insecure", &self.insecure).field("ca", &self.ca).finish_non_exhaustive()
    }
}

fn default_app() -> String {
    "default".to_owned()
}

section! {
    /// ZHTTP workers, which are reached by the targets `zhttp/SPEC` and `zhttpreq/SPEC`.
    Workers {
        /// What the addresses begin with that workers answer to. A change needs a restart.
        name: String = "waft".to_owned();
        /// `gateway`: requests are made anew, as for HTTP targets. `front`: they are passed on as they came, with the
        /// client's address, as Condure does.
        role: WorkerRole = WorkerRole::Gateway;
        /// Bytes of a response, or of WebSocket messages, that a worker may send before the client has taken them.
        window: ByteSize = ByteSize(200_000);
        /// Silence after which a sign of life is sent to a worker.
        keep_alive: Duration = Duration::from_secs(30);
        /// Silence after which a worker counts as dead, and its requests fail.
        timeout: Duration = Duration::from_secs(60);
    }
}

section! {
    /// SockJS endpoints.
    SockJs {
        /// The client script that the iframe page loads.
        client_url: String = "https://cdn.jsdelivr.net/npm/sockjs-client@1/dist/sockjs.min.js".to_owned();
    }
}

/// The key that Pushpin ships.
pub(crate) const DEFAULT_SIG_KEY: &str = "changeme";

const HUNDRED: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// `n`, or 1 if it is 0.
fn at_least_one(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}
