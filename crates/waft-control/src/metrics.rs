//! The metrics, as Prometheus scrapes them. They are added up when a scrape comes; nothing is registered before.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use waft_gateway::metrics::LATENCY_BOUNDS_US;
use waft_gateway::{Answer, Extension, Gateway, Request, Service};

use crate::api::ControlConfig;
use crate::exposition::{CONTENT_TYPE, Exposition};
use crate::process::Process;
use crate::totals::Totals;

/// Which names the metrics have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MetricsNames {
    /// Whether the metrics of Pushpin are there too, under its names.
    pushpin: bool,
    /// What stands before Pushpin's names.
    pushpin_prefix: String,
}

impl MetricsNames {
    pub(crate) fn new(config: &ControlConfig) -> Self {
        Self { pushpin: config.pushpin_metrics, pushpin_prefix: name_part(&config.metrics_prefix) }
    }
}

/// Serves the metrics alone, to everyone, on a listener of their own.
#[derive(Debug)]
pub struct MetricsService {
    names: MetricsNames,
    extensions: Vec<Arc<dyn Extension>>,
}

impl MetricsService {
    /// A service for the metrics that are configured. Whoever reaches its listener may read them, whatever the control
    /// API asks of its callers.
    #[must_use]
    pub fn new(config: ControlConfig) -> Self {
        Self { names: MetricsNames::new(&config), extensions: Vec::new() }
    }

    /// Serves the metrics of an extension too.
    #[must_use]
    pub fn extended_by(mut self, extension: Arc<dyn Extension>) -> Self {
        self.extensions.push(extension);
        self
    }
}

impl Service for MetricsService {
    fn answer(&self, gateway: &Gateway, request: &Request<'_>) -> Answer {
        match (request.head.path(), request.head.method()) {
            ("/metrics" | "/metrics/" | "/", "GET" | "HEAD") => answer(gateway, &self.names, &self.extensions),
            ("/metrics" | "/metrics/" | "/", _) => {
                let mut answer = Answer::text(405, &b"Method not allowed: metrics are only read.\n"[..]);
                answer.fields.push("Allow", "GET, HEAD");
                answer
            }
            _ => Answer::text(404, &b"Not Found: the metrics are at /metrics.\n"[..]),
        }
    }

    /// Nobody has anything to send.
    fn body_max(&self) -> usize {
        0
    }
}

/// The answer to a scrape.
pub(crate) fn answer(gateway: &Gateway, names: &MetricsNames, extensions: &[Arc<dyn Extension>]) -> Answer {
    let mut page = render(gateway, names, Process::read());
    extensions.iter().for_each(|extension| extension.metrics(&mut page));
    Answer::new(200, CONTENT_TYPE, page)
}

fn render(gateway: &Gateway, names: &MetricsNames, process: Process) -> String {
    let totals = Totals::of(gateway);
    let mut out = Exposition::default();
    of_build(&mut out, gateway);
    of_connections(&mut out, &totals);
    of_targets(&mut out, &totals);
    of_workers(&mut out, gateway, &totals);
    of_outside(&mut out, gateway);
    of_holds(&mut out, &totals);
    of_filters(&mut out, &totals);
    of_publishing(&mut out, gateway);
    of_deliveries(&mut out, &totals);
    of_channels(&mut out, gateway);
    of_realms(&mut out, gateway);
    of_process(&mut out, process);
    if names.pushpin {
        of_pushpin(&mut out, gateway, &totals, &names.pushpin_prefix);
    }
    out.finish()
}

fn of_build(out: &mut Exposition, gateway: &Gateway) {
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    out.gauges("waft_build_info", "The version that runs; the value is always 1.", "version", &version);
    out.gauge("waft_shards", "Threads that serve clients.", gateway.shards());
    out.gauge("waft_draining", "Whether this process is on its way out.", u8::from(gateway.is_draining()));
}

fn of_connections(out: &mut Exposition, totals: &Totals<'_>) {
    out.gauge("waft_connections", "Client connections open now.", totals.level(|shard| &shard.connections));
    out.gauge(
        "waft_connections_idle",
        "Client connections at rest between two requests.",
        totals.level(|shard| &shard.connections_idle),
    );
    out.counter(
        "waft_connections_accepted_total",
        "Client connections accepted.",
        totals.count(|shard| &shard.connections_accepted),
    );
    out.counter(
        "waft_connections_refused_total",
        "Client connections refused for want of room or descriptors.",
        totals.count(|shard| &shard.connections_refused),
    );
    out.counter("waft_tls_handshakes_total", "TLS handshakes of clients.", totals.count(|shard| &shard.handshakes));
    out.counter(
        "waft_tls_handshakes_resumed_total",
        "TLS handshakes of clients that were known from an earlier connection.",
        totals.count(|shard| &shard.handshakes_resumed),
    );
    out.counter(
        "waft_tls_handshakes_failed_total",
        "TLS handshakes that failed or took too long.",
        totals.count(|shard| &shard.handshakes_failed),
    );
    out.counter(
        "waft_connection_seconds_total",
        "Time that client connections were open, all added up.",
        milliseconds(totals.count(|shard| &shard.connection_ms)),
    );
    out.counter("waft_requests_total", "Requests read from clients.", totals.count(|shard| &shard.requests));
    out.counter(
        "waft_requests_malformed_total",
        "Requests refused because they broke a rule of HTTP.",
        totals.count(|shard| &shard.requests_malformed),
    );
    out.counter(
        "waft_requests_failed_total",
        "Requests answered with an error of waft's own.",
        totals.count(|shard| &shard.requests_failed),
    );
    out.counter("waft_received_bytes_total", "Bytes read from clients.", totals.count(|shard| &shard.bytes_received));
    out.counter("waft_sent_bytes_total", "Bytes written to clients.", totals.count(|shard| &shard.bytes_sent));
    out.gauge("waft_queued_bytes", "Bytes that wait for slow clients.", totals.level(|shard| &shard.queued_bytes));
    out.counter(
        "waft_queue_total_full_total",
        "Writes to slow clients refused because all queues together were full.",
        totals.count(|shard| &shard.queue_total_full),
    );
}

fn of_targets(out: &mut Exposition, totals: &Totals<'_>) {
    out.counter("waft_target_requests_total", "Requests to targets.", totals.count(|shard| &shard.target_requests));
    out.counter(
        "waft_target_retries_total",
        "Requests sent again because a kept connection was closed.",
        totals.count(|shard| &shard.target_retries),
    );
    out.counter(
        "waft_target_connections_total",
        "Connections made to targets.",
        totals.count(|shard| &shard.target_connections),
    );
    out.counter(
        "waft_target_failures_total",
        "Targets that could not be reached.",
        totals.count(|shard| &shard.target_failures),
    );
}

fn of_workers(out: &mut Exposition, gateway: &Gateway, totals: &Totals<'_>) {
    let workers = gateway.worker_metrics();
    out.counter(
        "waft_worker_exchanges_total",
        "Exchanges begun with ZHTTP workers.",
        totals.count(|shard| &shard.worker_exchanges),
    );
    out.counter("waft_worker_packets_total", "Packets that came from ZHTTP workers.", workers.packets_received.value());
    out.counter(
        "waft_worker_packets_malformed_total",
        "Packets of ZHTTP workers that could not be read.",
        workers.packets_malformed.value(),
    );
    out.counter(
        "waft_worker_packets_unknown_total",
        "Packets of ZHTTP workers for an exchange that is not there, or not theirs.",
        workers.packets_unknown.value() + totals.count(|shard| &shard.worker_packets_unknown),
    );
    out.counter(
        "waft_workers_lost_total",
        "Exchanges ended because nothing was heard of their ZHTTP worker.",
        totals.count(|shard| &shard.workers_lost),
    );
}

fn of_holds(out: &mut Exposition, totals: &Totals<'_>) {
    let holds = [
        ("response", totals.level(|shard| &shard.holds_response)),
        ("stream", totals.level(|shard| &shard.holds_stream)),
        ("ws", totals.level(|shard| &shard.holds_ws)),
    ];
    out.gauges("waft_holds", "Clients held now: long-polls, streams and WebSockets.", "mode", &holds);
    out.counter("waft_holds_begun_total", "Holds begun.", totals.count(|shard| &shard.holds_begun));
    out.counter(
        "waft_hold_retries_total",
        "Held requests sent to their target again.",
        totals.count(|shard| &shard.hold_retries),
    );
    out.counter("waft_link_fetches_total", "Next links fetched.", totals.count(|shard| &shard.link_fetches));
}

fn of_outside(out: &mut Exposition, gateway: &Gateway) {
    for sample in gateway.outbound_metrics().samples() {
        out.sample_of(&sample);
    }
}

fn of_filters(out: &mut Exposition, totals: &Totals<'_>) {
    out.gauge(
        "waft_filters_under_way",
        "Deliveries that wait for the answer of a filter's web service.",
        totals.level(|shard| &shard.filters_under_way),
    );
    out.counter(
        "waft_filter_requests_total",
        "Requests of filters to web services.",
        totals.count(|shard| &shard.filter_requests),
    );
    out.counter(
        "waft_filter_failures_total",
        "Filters that got no usable answer.",
        totals.count(|shard| &shard.filter_failures),
    );
}

fn of_publishing(out: &mut Exposition, gateway: &Gateway) {
    let publish = gateway.publish_metrics();
    out.counter("waft_published_total", "Items published, by any way.", publish.items.value());
    out.counter("waft_published_bytes_total", "Bytes of the items published.", publish.bytes.value());
    out.counter(
        "waft_publish_duplicates_total",
        "Items discarded because their id was here before.",
        publish.duplicates.value(),
    );
    out.counter(
        "waft_publish_malformed_total",
        "Messages to a publish socket that were no items.",
        publish.malformed.value(),
    );
    out.counter(
        "waft_publish_overloads_total",
        "Times that a publisher was refused or made to wait because too much waited for its delivery.",
        publish.overloads.value(),
    );
    out.counter("waft_publish_parked_total", "Items that had to wait for the one before them.", publish.parked.value());
    out.counter(
        "waft_publish_dropped_total",
        "Items dropped because too many waited for the one before them.",
        publish.dropped.value(),
    );
}

fn of_deliveries(out: &mut Exposition, totals: &Totals<'_>) {
    let delivered = [
        ("response", totals.count(|shard| &shard.delivered_response)),
        ("stream", totals.count(|shard| &shard.delivered_stream)),
        ("ws", totals.count(|shard| &shard.delivered_ws)),
    ];
    out.counters("waft_deliveries_total", "Items delivered to clients.", "mode", &delivered);
    let dropped = [
        ("slow", totals.count(|shard| &shard.dropped_slow)),
        ("filter", totals.count(|shard| &shard.dropped_filter)),
        ("filter_error", totals.count(|shard| &shard.dropped_filter_error)),
        ("mismatch", totals.count(|shard| &shard.dropped_mismatch)),
        ("updating", totals.count(|shard| &shard.dropped_updating)),
        ("filtering", totals.count(|shard| &shard.dropped_filtering)),
        ("rate", totals.count(|shard| &shard.dropped_rate)),
    ];
    out.counters("waft_drops_total", "Items not delivered to a client that listened.", "reason", &dropped);
    out.counter(
        "waft_slow_disconnects_total",
        "Clients cut off because they read too slowly.",
        totals.count(|shard| &shard.slow_disconnects),
    );
    out.counter(
        "waft_handler_requests_total",
        "Messages to Mongrel2's handlers, but for notices.",
        totals.count(|shard| &shard.handler_requests),
    );
    let answered = [
        ("taken", totals.count(|shard| &shard.handler_responses)),
        ("refused", totals.count(|shard| &shard.handler_responses_refused)),
    ];
    out.counters("waft_handler_responses_total", "Messages of Mongrel2's handlers.", "result", &answered);
    out.counter("waft_gaps_told_total", "Gaps that clients were told of.", totals.count(|shard| &shard.gaps_told));
    out.counter("waft_replayed_total", "Items replayed from a log.", totals.count(|shard| &shard.replayed));
    let (buckets, sum_us) = totals.delivery_latency();
    out.histogram(
        "waft_delivery_latency_seconds",
        "From the arrival of an item to the end of writing it to a shard's clients.",
        &LATENCY_BOUNDS_US.map(|bound_us| bound_us as f64 / 1e6),
        &buckets,
        sum_us as f64 / 1e6,
    );
}

fn of_channels(out: &mut Exposition, gateway: &Gateway) {
    let hub = gateway.hub().totals();
    out.gauge("waft_channels", "Channels with a listener, a log, or waiting items.", hub.channels);
    out.gauge("waft_channels_remembered", "Channels whose last id is known.", hub.remembered_channels);
    out.gauge("waft_log_items", "Items in the logs of channels.", hub.log_items);
    out.gauge("waft_log_bytes", "Bytes in the logs of channels.", hub.log_bytes);
    out.gauge("waft_parked_items", "Items that wait for the one before them.", hub.parked);
    out.gauge("waft_parked_bytes", "Bytes of the items that wait.", hub.parked_bytes);
    out.gauge("waft_seen_ids", "Ids remembered against duplicates.", hub.seen_ids);
}

fn of_realms(out: &mut Exposition, gateway: &Gateway) {
    let members: usize = gateway.realms().all().iter().map(|tenant| tenant.members_total()).sum();
    let metrics = gateway.realm_metrics();
    out.gauge("waft_realm_members", "Members of channels of realms.", members);
    out.counter("waft_realm_members_joined_total", "Members that entered a channel.", metrics.members_joined.value());
    out.counter("waft_realm_members_left_total", "Members that left or were lost.", metrics.members_left.value());
    out.counter(
        "waft_realm_lifecycle_total",
        "Events published to the channels for the life of realms.",
        metrics.lifecycle_told.value(),
    );
    out.counter(
        "waft_realm_lifecycle_dropped_total",
        "Such events dropped because too many came at once.",
        metrics.lifecycle_dropped.value(),
    );
}

/// These names are what all programs give Prometheus.
fn of_process(out: &mut Exposition, process: Process) {
    let values = [
        ("process_resident_memory_bytes", "Memory that is really there.", process.resident_bytes),
        ("process_open_fds", "Open descriptors.", process.open_fds),
        ("process_max_fds", "Descriptors that may be open at once.", process.max_fds),
    ];
    for (name, help, value) in values {
        if let Some(value) = value {
            out.gauge(name, help, value);
        }
    }
}

/// What Pushpin reports, under its names, for dashboards that know them.
fn of_pushpin(out: &mut Exposition, gateway: &Gateway, totals: &Totals<'_>, prefix: &str) {
    let name = |name: &str| format!("{prefix}{name}");
    let minutes = totals.count(|shard| &shard.connection_ms) / 60_000;
    out.counter(&name("request_received"), "Requests read from clients.", totals.count(|shard| &shard.requests));
    out.gauge(&name("connection_connected"), "Client connections.", totals.level(|shard| &shard.connections));
    out.counter(&name("connection_minute"), "Minutes that clients were connected, all added up.", minutes);
    out.counter(&name("message_received"), "Items published.", gateway.publish_metrics().items.value());
    out.counter(&name("message_sent"), "Items delivered to clients.", totals.delivered());
}

/// `text` without what the name of a metric must not have.
fn name_part(text: &str) -> String {
    let kept = text.chars().filter(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | ':'));
    kept.skip_while(char::is_ascii_digit).collect()
}

/// Milliseconds as seconds.
fn milliseconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}
