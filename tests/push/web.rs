//! Clients with nothing but the platform: event streams, lines, polls.

use serde_json::{Value, json};

use crate::publish::signed;
use crate::{event, events, get, publish, serve, serve_with};

#[test]
fn an_event_stream_gets_what_is_published_and_what_it_missed() {
    let server = serve();
    let mut client = events(&server, "/open/a", "");
    publish(&server, "open/a", &json!({ "n": 1 }));
    let (first, data) = event(&mut client);
    assert_eq!(data, json!({ "n": 1 }));
    drop(client);
    publish(&server, "open/a", &json!(2));
    publish(&server, "open/a", &json!("three\n"));
    let mut client = events(&server, "/open/a", &format!("Last-Event-ID: {first}\r\n"));
    assert_eq!(event(&mut client).1, json!(2));
    let (third, data) = event(&mut client);
    assert_eq!(data, json!("three\n"));
    publish(&server, "open/a", &Value::Null);
    assert_ne!(event(&mut client).0, third);
    // Wrappers of EventSource cannot set a header.
    let mut client = events(&server, &format!("/open/a?lastEventId={third}"), "");
    assert_eq!(event(&mut client).1, Value::Null);
}

#[test]
fn a_reader_that_fell_behind_is_told_of_the_gap() {
    let server = serve();
    for number in 0..120 {
        publish(&server, "open/a", &json!(number));
    }
    let mut client = events(&server, "/open/a?last=1", "");
    let (id, data) = event(&mut client);
    assert_eq!(data, json!(119));
    let epoch = id.split('-').next().unwrap();
    let mut client = events(&server, "/open/a", &format!("Last-Event-ID: {epoch}-3\r\n"));
    assert!(client.stream_until("\n\n").starts_with("event: gap\n"));
    assert_eq!(event(&mut client).1, json!(20), "and then gets what there is");
    let mut client = events(&server, "/open/a", "Last-Event-ID: nonsense\r\n");
    assert!(client.stream_until("\n\n").starts_with("event: gap\n"));
}

#[test]
fn lines_carry_positions_that_hold_in_other_transports() {
    let server = serve();
    let mut lines = get(&server, "/open/a", "Accept: application/x-ndjson\r\n");
    assert_eq!(lines.expect_head(200).header("Content-Type"), Some("application/x-ndjson"));
    server.wait_for_holds(1);
    publish(&server, "open/a", &json!([1]));
    publish(&server, "open/a", &json!([2]));
    let line: Value = serde_json::from_str(&lines.stream_until("\n")).unwrap();
    assert_eq!(line["data"], json!([1]));
    let id = line["id"].as_str().unwrap();
    let (_, data) = event(&mut events(&server, &format!("/open/a?since={id}"), ""));
    assert_eq!(data, json!([2]));
    let changes = get(&server, &format!("/open/a?since={id}"), "").response();
    let body: Value = serde_json::from_slice(&changes.body).unwrap();
    assert_eq!((changes.status(), &body["items"][0]["data"]), (200, &json!([2])));
    let cursor = body["last_cursor"].as_str().unwrap().to_owned();
    let mut wait = get(&server, &format!("/open/a?since=cursor:{cursor}"), "Wait: 30\r\n");
    server.wait_for_holds(2);
    publish(&server, "open/a", &json!([3]));
    let body: Value = serde_json::from_slice(&wait.response().body).unwrap();
    assert_eq!(body["items"].as_array().unwrap().len(), 1);
    assert_eq!(body["items"][0]["data"], json!([3]));
}

#[test]
fn a_value_is_read_with_its_tag_and_waited_for() {
    let server = serve();
    let missing = get(&server, "/open/v", "").response();
    assert_eq!((missing.status(), missing.body_text().as_str()), (404, "The channel has no value.\n"));
    let mut first = get(&server, "/open/v", "Prefer: wait=30\r\n");
    server.wait_for_holds(1);
    publish(&server, "open/v", &json!({ "title": "A" }));
    let answer = first.response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "{\"title\":\"A\"}"));
    let tag = answer.head.header("ETag").unwrap().to_owned();
    let again = get(&server, "/open/v", "").response();
    assert_eq!((again.status(), again.head.header("ETag")), (200, Some(tag.as_str())));
    let known = format!("If-None-Match: {tag}\r\n");
    let unchanged = get(&server, "/open/v", &known).response();
    assert_eq!((unchanged.status(), unchanged.head.header("ETag")), (304, Some(tag.as_str())));
    let mut over = get(&server, "/open/v", &format!("{known}Wait: 1\r\n"));
    assert_eq!(over.response().status(), 304, "at the end of the wait");
    // The connection is as good as new.
    over.send(format!("GET /open/v HTTP/1.1\r\nHost: a\r\n{known}Wait: 30\r\n\r\n"));
    server.wait_for_holds(1);
    publish(&server, "open/v", &json!({ "title": "B" }));
    let answer = over.response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "{\"title\":\"B\"}"));
    let stale = get(&server, "/open/v", &format!("{known}Wait: 30\r\n")).response();
    assert_eq!(stale.body_text(), "{\"title\":\"B\"}", "a stale tag is answered at once");
}

#[test]
fn only_what_is_allowed_is_read_and_published() {
    let server = serve();
    let refused = get(&server, "/secret", "").response();
    assert_eq!((refused.status(), refused.body_text().as_str()), (401, "A token is needed for this.\n"));
    assert_eq!(get(&server, "/secret", "Authorization: Bearer x.y.z\r\n").response().status(), 401);
    // {"exp":4000000000,"channels":["secret"]}, signed with the older key.
    let token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQwMDAwMDAwMDAsImNoYW5uZWxzIjpbInNlY3JldCJdfQ.TOKEN";
    let token = signed(token);
    let mut client = events(&server, &format!("/secret?token={token}"), "");
    publish(&server, "secret", &json!(1));
    assert_eq!(event(&mut client).1, json!(1));
    let other = get(&server, "/other", &format!("Authorization: Bearer {token}\r\n")).response();
    assert_eq!((other.status(), other.body_text().as_str()), (403, "The token does not allow this.\n"));
    let post = |path: &str, body: &str| {
        server.fetch(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    };
    let done = post("/open/p", "{ \"a\" : 1 }");
    assert_eq!(done.status(), 202);
    assert_eq!(get(&server, "/open/p", "").response().body_text(), "{\"a\":1}");
    assert_eq!(post("/secret", "1").status(), 401);
    assert_eq!(post("/open/p", "{").status(), 400);
    assert_eq!(post("/open/p", &"1".repeat(70_000)).status(), 413);
}

#[test]
fn limits_of_a_realm_are_told_in_http() {
    let server = serve_with("connections_max = 1\npublish_rate = 2\norigins = [\"https://app.example\"]");
    let _first = events(&server, "/open/a", "");
    let full = get(&server, "/open/a", "Accept: text/event-stream\r\n").response();
    assert_eq!((full.status(), full.head.header("Retry-After")), (503, Some("5")));
    let post = || server.fetch("POST /open/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1").status();
    let answers: Vec<u16> = (0..4).map(|_| post()).collect();
    assert!(answers.contains(&202) && answers.contains(&429), "{answers:?}");
    let other = get(&server, "/open/a", "Origin: https://evil.example\r\n").response();
    assert_eq!((other.status(), other.head.header("Access-Control-Allow-Origin")), (403, None));
    let own = get(&server, "/open/a", "Origin: https://app.example\r\n").response();
    assert_eq!(own.head.header("Access-Control-Allow-Origin"), Some("https://app.example"));
}
