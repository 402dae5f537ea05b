use serde_json::{Value, json};
use waft_testkit::{Reply, waft_only};

use crate::{serve, serve_debug};

#[test]
fn a_json_instruction_holds_like_headers_do() {
    let hold = json!({ "hold": { "channels": [{ "name": "c" }] }, "response": { "headers": { "X-A": "1" } } });
    let (_target, server) = serve(move |_| Reply::instruct(&hold));
    let mut client = server.get("/poll");
    server.publish_until_answered(&mut client, &json!([{ "channel": "c", "http-response": { "body": "hi" } }]));
    let answer = client.response();
    assert_eq!((answer.status(), answer.body_text().as_str(), answer.head.header("X-A")), (200, "hi", Some("1")));
}

#[test]
fn the_response_of_a_json_instruction_is_sent_first_on_a_stream() {
    let (_target, server) = serve(move |_| {
        Reply::instruct(&json!({
            "hold": { "mode": "stream", "channels": [{ "name": "c" }] },
            "response": { "code": 203, "reason": "Mine", "headers": [["X-A", "1"], ["X-A", "2"]], "body": "open\n" },
        }))
        .header("X-Dropped", "1")
    });
    let mut client = server.get("/stream");
    let head = client.expect_head(203);
    assert_eq!(head.reason(), "Mine");
    assert_eq!(head.headers("X-A").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!((head.header("X-Dropped"), head.header("Content-Type")), (None, None));
    client.expect_stream("open\n");
    server.publish_text("c", "item");
    client.expect_stream("item");
}

#[test]
fn an_instruction_without_a_hold_is_just_a_response() {
    let cases = [
        (json!({ "response": { "body": "text" } }), 200, "text"),
        (json!({ "response": { "code": 404, "body-bin": "dGV4dA==" } }), 404, "text"),
        (json!({ "response": { "code": "201", "body": "" } }), 201, ""),
    ];
    for (body, code, text) in cases {
        let (_target, server) = serve({
            let body = body.clone();
            move |_| Reply::instruct(&body)
        });
        let answer = server.get("/").response();
        assert_eq!((answer.status(), answer.body_text().as_str()), (code, text), "{body}");
    }
}

#[test]
fn a_timeout_without_items_sends_the_response_of_the_instruction() {
    let hold = json!({ "mode": "response", "timeout": 5, "channels": [] });
    let body = json!({ "hold": hold, "response": { "code": 504, "body": "none" } });
    let (_target, server) = serve(move |_| Reply::instruct(&body));
    let answer = server.get("/poll").response();
    assert_eq!((answer.status(), answer.head.reason(), answer.body_text().as_str()), (504, "Gateway Timeout", "none"));
}

#[test]
fn channels_of_headers_and_of_the_body_add_up() {
    let (_target, server) = serve(|_| {
        Reply::instruct(&json!({ "hold": { "mode": "stream", "channels": [{ "name": "in-body" }] } }))
            .header("Grip-Channel", "in-header")
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    server.publish_text("in-header", "1");
    server.publish_text("in-body", "2");
    client.expect_stream("12");
}

#[test]
fn meta_and_filters_of_a_json_instruction_count() {
    let (_target, server) = serve(|_| {
        let channel = json!({ "name": "c", "filters": ["skip-self"] });
        Reply::instruct(&json!({ "hold": { "mode": "stream", "channels": [channel], "meta": { "user": "alice" } } }))
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    server.publish(json!([
        { "channel": "c", "meta": { "sender": "alice" }, "http-stream": { "content": "own" } },
        { "channel": "c", "meta": { "sender": "bob" }, "http-stream": { "content": "bob's" } },
    ]));
    client.expect_stream("bob's");
}

#[test]
fn the_content_type_may_have_parameters_and_any_case() {
    let (_target, server) = serve(|_| {
        Reply::status("200 OK")
            .header("Content-Type", "application/grip-instruct; charset=utf-8")
            .body("{\"response\":{\"body\":\"understood\"}}")
    });
    assert_eq!(server.get("/").response().body_text(), "understood");
}

#[test]
fn a_wrong_json_instruction_is_refused_and_told_in_debug_mode() {
    let cases = [
        ("[1", "failed to parse application/grip-instruct content as JSON"),
        ("[]", "instruct must be an object"),
        (r#"{"hold":1}"#, "instruct contains 'hold' with wrong type"),
        (r#"{"hold":{"mode":"x","channels":[]}}"#, "hold 'mode' must be set to either 'response' or 'stream'"),
        (r#"{"hold":{}}"#, "hold does not contain 'channels'"),
        (r#"{"hold":{"channels":[{}]}}"#, "channel does not contain 'name'"),
        (r#"{"hold":{"channels":[{"name":"c","filters":[1]}]}}"#, "filters contains value with wrong type"),
        (r#"{"hold":{"channels":[],"timeout":-1}}"#, "hold contains 'timeout' with invalid value"),
        (r#"{"hold":{"channels":[],"keep-alive":{"content":1}}}"#, "keep-alive contains 'content' with wrong type"),
        (r#"{"hold":{"channels":[],"meta":{"k":1}}}"#, "'meta' contains 'k' with wrong type"),
        (r#"{"response":{"code":1000}}"#, "response contains 'code' with invalid value"),
        (r#"{"response":{"headers":[1]}}"#, "headers contains element with wrong type"),
        (r#"{"response":{"headers":[["a"]]}}"#, "headers contains list with wrong number of elements"),
        (r#"{"response":{"headers":[[1,"a"]]}}"#, "header contains name element with wrong type"),
        (r#"{"response":{"body":1}}"#, "response contains 'body' with wrong type"),
    ];
    let (_target, server) = serve_debug(move |request| {
        let number: usize = request.path().trim_start_matches('/').parse().unwrap();
        Reply::status("200 OK").header("Content-Type", "application/grip-instruct").body(cases[number].0)
    });
    for (number, (body, error)) in cases.iter().enumerate() {
        let answer = server.get(&format!("/{number}")).response();
        assert_eq!(answer.status(), 502, "{body}");
        assert_eq!(answer.body_text(), format!("Failed to parse accept instructions: {error}\n"), "{body}");
    }
}

#[test]
fn a_json_instruction_must_come_with_200() {
    let (_target, server) =
        serve_debug(|_| Reply::status("201 Created").header("Content-Type", "application/grip-instruct").body("{}"));
    let answer = server.get("/").response();
    assert_eq!(answer.status(), 502);
    let error = "response code for application/grip-instruct content must be 200";
    assert_eq!(answer.body_text(), format!("Failed to parse accept instructions: {error}\n"));
}

#[test]
fn wrong_headers_are_refused_and_told_in_debug_mode() {
    let cases = [
        ("Grip-Hold", "sometimes", "Grip-Hold must be set to either 'response' or 'stream'"),
        ("Grip-Hold", "Stream", "Grip-Hold must be set to either 'response' or 'stream'"),
        ("Grip-Timeout", "soon", "failed to parse Grip-Timeout"),
        ("Grip-Timeout", "-1", "Grip-Timeout has invalid value"),
        ("Grip-Status", "1000", "Grip-Status contains invalid status code"),
        ("Grip-Status", "fine", "Grip-Status contains invalid status code"),
        ("Grip-Link", "/next; rel=next", "failed to parse Grip-Link value"),
        ("Grip-Link", "</n>; rel=next; timeout=x", "failed to parse Grip-Link timeout value"),
    ];
    let (_target, server) = serve_debug(move |request| {
        let number: usize = request.path().trim_start_matches('/').parse().unwrap();
        let (name, value, _) = cases[number];
        let reply = Reply::text("").header(name, value);
        if name == "Grip-Hold" { reply } else { reply.header("Grip-Hold", "response") }
    });
    for (number, (name, value, error)) in cases.iter().enumerate() {
        let answer = server.get(&format!("/{number}")).response();
        assert_eq!(answer.status(), 502, "{name}: {value}");
        assert_eq!(answer.body_text(), format!("Failed to parse accept instructions: {error}\n"), "{name}: {value}");
    }
}

#[test]
fn more_than_five_filters_on_a_channel_are_refused() {
    waft_only!("Pushpin counts them in newer releases only");
    let (_target, server) =
        serve_debug(|_| Reply::hold("stream", "c; filter=a; filter=b; filter=c; filter=d; filter=e; filter=f"));
    let answer = server.get("/").response();
    assert_eq!(answer.status(), 502);
    assert!(answer.body_text().contains("too many filters for channel 'c'"), "{}", answer.body_text());
}

#[test]
fn without_debug_mode_the_cause_of_a_bad_instruction_stays_inside() {
    let (_target, server) = serve(|_| Reply::hold("sometimes", "c"));
    let answer = server.get("/").response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (502, "Error while proxying to origin.\n"));
    assert_eq!(answer.head.header("Content-Type"), Some("text/plain"));
}

#[test]
fn grip_headers_without_a_hold_are_removed_from_a_plain_response() {
    let (_target, server) = serve(|_| Reply::text("plain").header("Grip-Status", "299 Odd").header("X-A", "1"));
    let answer = server.get("/").response();
    assert_eq!((answer.status(), answer.head.reason(), answer.body_text().as_str()), (299, "Odd", "plain"));
    assert_eq!((answer.head.header("Grip-Status"), answer.head.header("X-A")), (None, Some("1")));
}

#[test]
fn a_fractional_or_textual_timeout_is_taken() {
    for timeout in [json!(5.0), json!("5")] {
        let hold: Value = json!({ "hold": { "timeout": timeout, "channels": [{ "name": "c" }] } });
        let (_target, server) = serve(move |_| Reply::instruct(&hold));
        assert_eq!(server.get("/poll").response().status(), 200);
    }
}
