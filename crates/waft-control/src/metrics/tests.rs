use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::harness::{ask, field, gateway, text};

fn pushpin(prefix: &str) -> MetricsNames {
    let config = ControlConfig { pushpin_metrics: true, metrics_prefix: prefix.into(), ..ControlConfig::default() };
    MetricsNames::new(&config)
}

fn rendered(names: &MetricsNames) -> String {
    let gateway = gateway();
    for shard in gateway.metrics() {
        shard.connections.add(2);
        shard.requests.add(5);
        shard.delivered_ws.add(3);
        shard.dropped_slow.add(1);
        shard.connection_ms.add(90_500);
        shard.delivery_latency.observe(Duration::from_micros(70));
        shard.delivery_latency.observe(Duration::from_secs(3));
    }
    render(&gateway, names, Process { resident_bytes: Some(1024), open_fds: Some(9), max_fds: None })
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[test]
fn the_shards_are_added_up() {
    let text = rendered(&MetricsNames::default());
    for (name, expected) in [
        ("waft_connections", "4"),
        ("waft_requests_total", "10"),
        ("waft_deliveries_total{mode=\"ws\"}", "6"),
        ("waft_deliveries_total{mode=\"stream\"}", "0"),
        ("waft_drops_total{reason=\"slow\"}", "2"),
        ("waft_connection_seconds_total", "181"),
        ("waft_delivery_latency_seconds_bucket{le=\"0.00005\"}", "0"),
        ("waft_delivery_latency_seconds_bucket{le=\"0.0001\"}", "2"),
        ("waft_delivery_latency_seconds_bucket{le=\"2.5\"}", "2"),
        ("waft_delivery_latency_seconds_bucket{le=\"+Inf\"}", "4"),
        ("waft_delivery_latency_seconds_count", "4"),
        ("waft_delivery_latency_seconds_sum", "6.00014"),
        ("waft_shards", "2"),
        ("process_resident_memory_bytes", "1024"),
        ("process_open_fds", "9"),
    ] {
        assert_eq!(value(&text, name), Some(expected), "{name}");
    }
    assert_eq!(value(&text, "process_max_fds"), None);
}

/// Dashboards and alarms are built on these names: one that changes is a change for users.
#[test]
fn the_names_and_kinds_stay() {
    let text = rendered(&pushpin("p_"));
    let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let expected = "waft_build_info gauge, waft_shards gauge, waft_draining gauge, waft_connections gauge, \
        waft_connections_idle gauge, waft_connections_accepted_total counter, waft_connections_refused_total counter, \
        waft_tls_handshakes_total counter, waft_tls_handshakes_resumed_total counter, \
        waft_tls_handshakes_failed_total counter, waft_connection_seconds_total counter, waft_requests_total counter, waft_requests_malformed_total counter, \
        waft_requests_failed_total counter, waft_received_bytes_total counter, waft_sent_bytes_total counter, \
        waft_queued_bytes gauge, waft_queue_total_full_total counter, waft_target_requests_total counter, waft_target_retries_total counter, \
        waft_target_connections_total counter, waft_target_failures_total counter, \
        waft_worker_exchanges_total counter, waft_worker_packets_total counter, \
        waft_worker_packets_malformed_total counter, waft_worker_packets_unknown_total counter, \
        waft_workers_lost_total counter, waft_outbound_under_way gauge, \
        waft_outbound_calls_total counter, waft_outbound_failures_total counter, \
        waft_outbound_connections_total counter, waft_outbound_reuses_total counter, \
        waft_outbound_redirects_total counter, waft_outbound_lookups_total counter, \
        waft_outbound_websockets_total counter, waft_outbound_denials_total counter, \
        waft_outbound_reports_total counter, waft_holds gauge, \
        waft_holds_begun_total counter, waft_hold_retries_total counter, waft_link_fetches_total counter, \
        waft_filters_under_way gauge, waft_filter_requests_total counter, waft_filter_failures_total counter, \
        waft_published_total counter, waft_published_bytes_total counter, waft_publish_duplicates_total counter, \
        waft_publish_malformed_total counter, waft_publish_overloads_total counter, waft_publish_parked_total counter, waft_publish_dropped_total counter, \
        waft_deliveries_total counter, \
        waft_drops_total counter, waft_slow_disconnects_total counter, waft_handler_requests_total counter, \
        waft_handler_responses_total counter, waft_gaps_told_total counter, \
        waft_replayed_total counter, waft_delivery_latency_seconds histogram, waft_channels gauge, \
        waft_channels_remembered gauge, waft_log_items gauge, waft_log_bytes gauge, waft_parked_items gauge, \
        waft_parked_bytes gauge, waft_seen_ids gauge, waft_realm_members gauge, waft_realm_members_joined_total counter, \
        waft_realm_members_left_total counter, waft_realm_lifecycle_total counter, \
        waft_realm_lifecycle_dropped_total counter, process_resident_memory_bytes gauge, process_open_fds gauge, \
        p_request_received counter, p_connection_connected gauge, p_connection_minute counter, \
        p_message_received counter, p_message_sent counter";
    assert_eq!(types.join(", "), expected);
}

#[test]
fn each_line_is_what_a_scraper_can_read() {
    let text = rendered(&pushpin(""));
    let mut described = HashSet::new();
    let mut samples = HashSet::new();
    let mut current = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(described.insert(name) && help.ends_with('.') && !help.contains(['\\', '"']), "{line}");
            current = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest.split_once(' ').unwrap().0, current);
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(samples.insert(name), "{line}");
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
            let base = name.split('{').next().unwrap();
            let suffix = base.strip_prefix(current).unwrap();
            assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
            assert!(base.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
        }
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn the_names_of_pushpin_come_with_their_prefix_when_they_are_wanted() {
    let check = |prefix: &str, expected: &str| {
        let text = rendered(&pushpin(prefix));
        for (name, count) in [
            ("request_received", "10"),
            ("connection_connected", "4"),
            ("connection_minute", "3"),
            ("message_received", "0"),
            ("message_sent", "6"),
        ] {
            assert_eq!(value(&text, &format!("{expected}{name}")), Some(count), "{prefix} {name}");
        }
    };
    check("", "");
    check("edge_", "edge_");
    check("1ed ge-\n_", "edge_");
    assert_eq!(value(&rendered(&MetricsNames::default()), "request_received"), None);
}

#[test]
fn a_listener_of_their_own_serves_the_metrics_alone() {
    let service = MetricsService::new(ControlConfig::default());
    let gateway = gateway();
    for start in ["GET /metrics", "GET /metrics/", "GET /?x", "HEAD /metrics"] {
        let answer = ask(&service, &gateway, start, &[], b"");
        assert_eq!((answer.status, field(&answer, "Content-Type")), (200, CONTENT_TYPE), "{start}");
        assert!(text(&answer).starts_with("# HELP waft_build_info "));
    }
    let answer = ask(&service, &gateway, "POST /metrics", &[], b"");
    assert_eq!((answer.status, field(&answer, "Allow")), (405, "GET, HEAD"));
    assert_eq!(ask(&service, &gateway, "POST /publish", &[], b"{\"items\":[]}").status, 404);
    assert_eq!(service.body_max(), 0);
}
