use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use waft_gateway::Payload;
use waft_grip::sig::SigningKey;
use waft_http1::{HeadLimits, Parsed, parse_request};
use waft_hub::{Mode, Position, Replay};

use super::*;
use crate::harness::{ask, field, gateway, text};

const JSON: &str = "Accept: application/json";

fn open_api() -> ControlApi {
    ControlApi::new(ControlConfig::default())
}

#[track_caller]
fn check(start: &str, fields: &[&str], body: &str, status: u16, content_type: &str, expected: &str) {
    let answer = ask(&open_api(), &gateway(), start, fields, body.as_bytes());
    assert_eq!(
        (answer.status, field(&answer, "Content-Type"), text(&answer)),
        (status, content_type, expected),
        "{start} {fields:?} {body}"
    );
}

fn item(channel: &str, content: &str) -> String {
    format!(r#"{{"channel":"{channel}","formats":{{"http-stream":{{"content":"{content}"}}}}}}"#)
}

fn body(items: &[String]) -> String {
    format!("{{\"items\":[{}]}}", items.join(","))
}

#[test]
fn success_is_told_in_the_form_that_was_asked_for() {
    let one = body(&[item("c", "hi")]);
    let published = "{\"message\":\"Published\"}\n";
    for start in ["POST /publish", "POST /publish/", "POST /publish?x=1", "POST /publish/?details=true"] {
        check(start, &[], &one, 200, "text/plain", "Published\n");
        check(start, &["Accept: text/html, */*"], &one, 200, "text/plain", "Published\n");
    }
    check("POST /publish", &[JSON], &one, 200, "application/json", published);
    check("POST /publish", &["Content-Type: nonsense"], "{\"items\":[]}", 200, "text/plain", "Published\n");
    check("POST /publish?details=false", &[JSON], &one, 200, "application/json", published);
    check("POST /recover", &[], "", 200, "text/plain", "Updated\n");
    check("POST /recover/", &[JSON], "any", 200, "application/json", "{\"message\":\"Updated\"}\n");
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        check(&format!("{method} /"), &[], "", 200, "text/plain", "Pushpin API\n");
    }
    check("GET /", &[JSON], "", 200, "text/plain", "Pushpin API\n");
}

#[test]
fn errors_are_text_whatever_was_asked_for() {
    let refused = |body: &str, expected: &str| {
        check("POST /publish", &[], body, 400, "text/plain", expected);
        check("POST /publish", &[JSON], body, 400, "text/plain", expected);
    };
    for no_json in ["", "{", "nonsense", "{\"items\":[]}x", "\u{fffd}"] {
        refused(no_json, "Body is not valid JSON.\n");
    }
    for no_object in ["[]", "null", "\"items\"", "1"] {
        refused(no_object, "Invalid format.\n");
    }
    refused("{}", "Invalid format: object does not contain 'items'\n");
    for wrong in ["{}", "1", "\"x\"", "true"] {
        refused(&format!("{{\"items\":{wrong}}}"), "Invalid format: object contains 'items' with wrong type\n");
    }
    refused("{\"items\":[{}]}", "Invalid format: publish item object does not contain 'channel'\n");
    check("GET /nothing", &[JSON], "", 404, "text/plain", "Not Found\n");
    check("POST /publish/x", &[], "", 404, "text/plain", "Not Found\n");
    check("POST /publish//", &[], "", 404, "text/plain", "Not Found\n");
}

#[test]
fn other_methods_are_refused_with_those_that_work() {
    let refused = |start: &str, allowed: &str| {
        let method = start.split(' ').next().unwrap();
        let answer = ask(&open_api(), &gateway(), start, &[JSON], b"");
        assert_eq!((answer.status, field(&answer, "Allow")), (405, allowed), "{start}");
        assert_eq!(text(&answer), format!("Method not allowed: {method}.\n"));
    };
    for start in ["GET /publish", "PUT /publish/", "GET /recover", "HEAD /recover"] {
        refused(start, "POST");
    }
    for path in ["stats", "channels", "metrics", "healthz", "readyz"] {
        refused(&format!("POST /{path}"), "GET, HEAD");
    }
}

#[test]
fn a_form_that_does_not_exist_is_not_acceptable() {
    let expected = "Not Acceptable. Supported formats are text/plain and application/json.\n";
    for start in ["GET /", "POST /publish", "GET /publish", "POST /recover", "GET /nothing"] {
        check(start, &["Accept: text/html"], "{}", 406, "text/plain", expected);
    }
    // Scrapers and probes name forms of their own.
    for path in ["/healthz", "/metrics", "/stats"] {
        assert_eq!(ask(&open_api(), &gateway(), &format!("GET {path}"), &["Accept: image/png"], b"").status, 200);
    }
}

#[test]
fn a_publish_without_a_body_is_refused() {
    let head = b"POST /publish HTTP/1.1\r\nHost: c\r\n\r\n";
    let Ok(Parsed::Complete { head, .. }) = parse_request(head, &HeadLimits::default()) else { panic!("a request") };
    let request = Request { head: &head, body: b"", now: Instant::now(), secure: false };
    let answer = open_api().answer(&gateway(), &request);
    assert_eq!((answer.status, text(&answer)), (411, "Request requires Content-Length.\n"));
}

#[test]
fn a_body_that_is_too_long_is_refused_with_the_known_text() {
    let api = ControlApi::new(ControlConfig { body_max: 10, ..ControlConfig::default() });
    assert_eq!(api.body_max(), 10);
    assert_eq!(open_api().body_max(), 1_000_000);
    let answer = api.too_large();
    assert_eq!((answer.status, text(&answer)), (400, "Request body too large.\n"));
}

fn published(gateway: &Gateway, channel: &str) -> Vec<String> {
    let Replay::Items(items) = gateway.hub().since_position(channel, Position { epoch: 7, number: 0 }) else {
        panic!("everything is in the log");
    };
    let content = |payload: &Payload| {
        String::from_utf8_lossy(&payload.formats.http_stream.as_ref().unwrap().content).into_owned()
    };
    items.iter().map(|item| content(&item.payload)).collect()
}

#[test]
fn items_keep_their_order() {
    let gateway = gateway();
    let numbers: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let items: Vec<String> = numbers.iter().map(|number| item("c", number)).collect();
    assert_eq!(ask(&open_api(), &gateway, "POST /publish", &[], body(&items).as_bytes()).status, 200);
    assert_eq!(published(&gateway, "c"), numbers);
    assert_eq!(gateway.publish_metrics().items.value(), 40);
}

#[test]
fn one_bad_item_keeps_all_from_being_published() {
    let gateway = gateway();
    let items = body(&[item("c", "good"), "{\"channel\":1,\"formats\":{}}".into()]);
    let answer = ask(&open_api(), &gateway, "POST /publish", &[], items.as_bytes());
    assert_eq!(
        (answer.status, text(&answer)),
        (400, "Invalid format: publish item object contains 'channel' with wrong type\n")
    );
    assert_eq!(gateway.publish_metrics().items.value(), 0);
    assert_eq!(gateway.hub().position("c").number, 0);
}

#[test]
fn details_tell_what_became_of_each_item() {
    let gateway = gateway();
    let now = Instant::now();
    gateway.hub().subscribe(now, 0, "a", Mode::Stream);
    gateway.hub().subscribe(now, 1, "a", Mode::Response);
    let with_ids = |id: &str, prev: &str| {
        format!(r#"{{"channel":"a","id":"{id}","prev-id":"{prev}","formats":{{"http-stream":{{"content":"x"}}}}}}"#)
    };
    let items = [with_ids("1", "0"), with_ids("1", "0"), with_ids("3", "2"), with_ids("4", "2"), item("\\\"b", "x")];
    let expected = concat!(
        r#"{"message":"Published","items":["#,
        r#"{"channel":"a","outcome":"delivered","position":"7-1","listeners":2},"#,
        r#"{"channel":"a","outcome":"duplicate","position":null,"listeners":0},"#,
        r#"{"channel":"a","outcome":"parked","position":null,"listeners":0},"#,
        r#"{"channel":"a","outcome":"rival-parked","position":null,"listeners":0},"#,
        r#"{"channel":"\"b","outcome":"delivered","position":"7-1","listeners":0}]}"#,
        "\n"
    );
    let answer = ask(&open_api(), &gateway, "POST /publish?details=true", &[JSON], body(&items).as_bytes());
    assert_eq!((answer.status, field(&answer, "Content-Type"), text(&answer)), (200, "application/json", expected));
    let metrics = gateway.publish_metrics();
    let counts = [&metrics.items, &metrics.duplicates, &metrics.parked, &metrics.dropped].map(|count| count.value());
    assert_eq!(counts, [5, 1, 1, 1]);
    let answer = ask(&open_api(), &gateway, "POST /publish", &[JSON, "Waft-Details: true"], b"{\"items\":[]}");
    assert_eq!(text(&answer), "{\"message\":\"Published\",\"items\":[]}\n");
}

#[test]
fn statistics_and_channels_are_told_as_json() {
    let gateway = gateway();
    let now = Instant::now();
    for (shard, channel, mode) in [(0, "b", Mode::Stream), (1, "b", Mode::Ws), (0, "a\"", Mode::Response)] {
        gateway.hub().subscribe(now, shard, channel, mode);
    }
    gateway.metrics()[0].delivered_stream.add(3);
    gateway.metrics()[1].delivered_stream.add(4);
    ask(&open_api(), &gateway, "POST /publish", &[], body(&[item("b", "x")]).as_bytes());
    let of = |start: &str| {
        let answer = ask(&open_api(), &gateway, start, &[], b"");
        assert_eq!((answer.status, field(&answer, "Content-Type")), (200, "application/json"), "{start}");
        text(&answer).to_owned()
    };
    let b = r#"{"name":"b","listeners":2,"response":0,"stream":1,"ws":1,"lingering":false}"#;
    let a = r#"{"name":"a\"","listeners":1,"response":1,"stream":0,"ws":0,"lingering":false}"#;
    assert_eq!(of("GET /channels"), format!("{{\"total\":2,\"channels\":[{a},{b}]}}\n"));
    assert_eq!(of("GET /channels/?prefix=b"), format!("{{\"total\":1,\"channels\":[{b}]}}\n"));
    assert_eq!(of("GET /channels?limit=0"), "{\"total\":2,\"channels\":[]}\n");
    assert_eq!(ask(&open_api(), &gateway, "GET /channels?limit=x", &[], b"").status, 400);
    let stats: serde_json::Value = serde_json::from_str(&of("GET /stats")).unwrap();
    assert_eq!((&stats["published"]["items"], &stats["delivered"]["stream"]), (&1.into(), &7.into()));
    assert_eq!((&stats["channels"], &stats["shards"], &stats["draining"]), (&2.into(), &2.into(), &false.into()));
}

#[test]
fn a_gateway_that_drains_is_healthy_and_not_ready() {
    let gateway = gateway();
    let of = |path: &str| {
        let answer = ask(&open_api(), &gateway, path, &[], b"");
        (answer.status, text(&answer).to_owned())
    };
    assert_eq!(of("GET /healthz"), (200, "ok\n".into()));
    assert_eq!(of("GET /readyz"), (200, "ready\n".into()));
    gateway.drain();
    assert_eq!(of("GET /healthz"), (200, "ok\n".into()));
    assert_eq!(of("GET /readyz"), (503, "draining\n".into()));
}

#[test]
fn only_probes_are_answered_to_those_who_show_nothing() {
    let gateway = gateway();
    let config = ControlConfig { token: Some("s3cret".into()), ..ControlConfig::default() };
    let api = ControlApi::new(config);
    let status = |start: &str, fields: &[&str]| ask(&api, &gateway, start, fields, b"{\"items\":[]}").status;
    let guarded = ["POST /publish", "POST /recover", "GET /", "GET /stats", "GET /channels", "GET /metrics", "GET /x"];
    for start in guarded {
        assert_eq!(status(start, &[]), 401, "{start}");
        assert_eq!(status(start, &["Authorization: Bearer wrong"]), 401, "{start}");
        assert_ne!(status(start, &["Authorization: Bearer s3cret"]), 401, "{start}");
    }
    for start in ["GET /healthz", "GET /healthz/", "GET /readyz"] {
        assert_eq!(status(start, &[]), 200, "{start}");
    }
    let answer = ask(&api, &gateway, "POST /publish", &[], body(&[item("c", "x")]).as_bytes());
    assert_eq!(field(&answer, "WWW-Authenticate"), "Bearer realm=\"waft\"");
    assert_eq!(gateway.publish_metrics().items.value(), 0);
}

#[test]
fn a_signed_token_is_judged_by_the_time_it_is_shown() {
    let api = ControlApi::new(ControlConfig {
        jwt_key: VerifyingKey::parse("key", Path::new("/")).unwrap(),
        ..ControlConfig::default()
    });
    let key = SigningKey::parse("key", Path::new("/")).unwrap().unwrap();
    let status = |at: u64| {
        let field = format!("Authorization: Bearer {}", key.sign("me", at).unwrap());
        ask(&api, &gateway(), "POST /publish", &[&field], b"{\"items\":[]}").status
    };
    assert_eq!(status(now_unix_s()), 200);
    assert_eq!(status(now_unix_s() - 7200), 401);
}

#[test]
fn a_reload_changes_who_is_let_in() {
    let api = open_api();
    let status = |fields: &[&str]| ask(&api, &gateway(), "GET /stats", fields, b"").status;
    assert_eq!(status(&[]), 200);
    api.reload(ControlConfig { token: Some("new".into()), ..ControlConfig::default() });
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&["Authorization: Bearer new"]), 200);
}

proptest! {
    #[test]
    fn any_body_is_answered(body: Vec<u8>) {
        let answer = ask(&open_api(), &gateway(), "POST /publish", &[], &body);
        prop_assert!(matches!(answer.status, 200 | 400));
    }

    #[test]
    fn anything_like_items_is_answered(
        items in prop::collection::vec("\\{\"(channel|formats|id)\":(\"[a-z]?\"|1|null|\\{\"(ws-message|http-response)\":[{}1\\[\\]]{1,2}\\})\\}", 0..3),
    ) {
        let body = format!("{{\"items\":[{}]}}", items.join(","));
        let answer = ask(&open_api(), &gateway(), "POST /publish", &[], body.as_bytes());
        prop_assert!(matches!(answer.status, 200 | 400));
        prop_assert!(text(&answer).ends_with('\n'));
    }
}
