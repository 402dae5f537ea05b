use serde_json::json;
use waft_testkit::{Reply, Server, Setup, Target};

fn server() -> Server {
    Server::start(Setup::new().route("* test"))
}

#[test]
fn an_item_that_is_wrong_is_refused_with_its_reason() {
    let cases = [
        ("", "Body is not valid JSON."),
        ("{\"items\":[}", "Body is not valid JSON."),
        ("[]", "Invalid format."),
        ("{}", "Invalid format: object does not contain 'items'"),
        (r#"{"items":1}"#, "Invalid format: object contains 'items' with wrong type"),
        (r#"{"items":[1]}"#, "Invalid format: publish item object is not an object"),
        (
            r#"{"items":[{"http-stream":{"content":"x"}}]}"#,
            "Invalid format: publish item object does not contain 'channel'",
        ),
        (
            r#"{"items":[{"channel":1,"http-stream":{"content":"x"}}]}"#,
            "Invalid format: publish item object contains 'channel' with wrong type",
        ),
        (r#"{"items":[{"channel":"c"}]}"#, "Invalid format: no formats specified"),
        (r#"{"items":[{"channel":"c","formats":{}}]}"#, "Invalid format: no formats specified"),
        (
            r#"{"items":[{"channel":"c","formats":1}]}"#,
            "Invalid format: publish item object contains 'formats' with wrong type",
        ),
        (
            r#"{"items":[{"channel":"c","id":1,"http-stream":{"content":"x"}}]}"#,
            "Invalid format: publish item object contains 'id' with wrong type",
        ),
        (
            r#"{"items":[{"channel":"c","prev-id":1,"http-stream":{"content":"x"}}]}"#,
            "Invalid format: publish item object contains 'prev-id' with wrong type",
        ),
        (
            r#"{"items":[{"channel":"c","http-stream":{}}]}"#,
            "Invalid format: 'http-stream' does not contain 'content' or 'content-bin'",
        ),
        (
            r#"{"items":[{"channel":"c","http-stream":{"content":1}}]}"#,
            "Invalid format: 'http-stream' contains 'content' with wrong type",
        ),
        (
            r#"{"items":[{"channel":"c","http-response":{}}]}"#,
            "Invalid format: 'http-response' does not contain 'body', 'body-bin', or 'body-patch'",
        ),
        (
            r#"{"items":[{"channel":"c","http-response":{"body":1}}]}"#,
            "Invalid format: 'http-response' contains 'body' with wrong type",
        ),
        (
            r#"{"items":[{"channel":"c","http-response":{"code":1000,"body":""}}]}"#,
            "Invalid format: 'http-response' contains 'code' with invalid value",
        ),
        (
            r#"{"items":[{"channel":"c","ws-message":{"type":"x","content":""}}]}"#,
            "Invalid format: 'ws-message' contains 'type' with unknown value",
        ),
        (
            r#"{"items":[{"channel":"c","ws-message":{}}]}"#,
            "Invalid format: 'ws-message' does not contain 'content' or 'content-bin'",
        ),
        (
            r#"{"items":[{"channel":"c","meta":{"k":1},"http-stream":{"content":"x"}}]}"#,
            "Invalid format: 'meta' contains 'k' with wrong type",
        ),
        (
            r#"{"items":[{"channel":"c","size":-1,"http-stream":{"content":"x"}}]}"#,
            "Invalid format: publish item object contains 'size' with invalid value",
        ),
    ];
    let server = server();
    let mut wrong = Vec::new();
    for (body, error) in cases {
        let answer = server.post_control("/publish/", body);
        assert_eq!(answer.head.header("Content-Type"), Some("text/plain"), "{body}");
        if (answer.status(), answer.body_text()) != (400, format!("{error}\n")) {
            wrong.push((body, answer.status(), answer.body_text(), error));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_item_that_is_odd_but_right_is_taken() {
    let cases = [
        r#"{"items":[]}"#,
        r#"{"items":[{"channel":"","http-stream":{"content":""}}]}"#,
        r#"{"items":[{"channel":"c","formats":{"unknown":{}}}]}"#,
        r#"{"items":[{"channel":"c","unknown":1,"http-stream":{"content":"x","unknown":2}}]}"#,
        r#"{"items":[{"channel":"c","http-stream":{"action":"hint"}}]}"#,
        r#"{"items":[{"channel":"c","http-stream":{"action":"close"}}]}"#,
        r#"{"items":[{"channel":"c","http-response":{"action":"hint"}}]}"#,
        r#"{"items":[{"channel":"c","ws-message":{"action":"close","code":1001}}]}"#,
        r#"{"items":[{"channel":"c","ws-message":{"type":"ping","content":""}}]}"#,
        r#"{"items":[],"unknown":1}"#,
        "  {\"items\" : [ ] }\n",
    ];
    let server = server();
    for body in cases {
        let answer = server.post_control("/publish", body);
        assert_eq!((answer.status(), answer.body_text().as_str()), (200, "Published\n"), "{body}");
    }
}

#[test]
fn one_bad_item_keeps_all_others_from_being_published() {
    let target = Target::start(|_| Reply::hold("stream", "c"));
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    client.expect_head(200);
    let items = json!({ "items": [{ "channel": "c", "http-stream": { "content": "no" } }, { "channel": "c" }] });
    assert_eq!(server.post_control("/publish/", &items.to_string()).status(), 400);
    server.publish_text("c", "yes");
    client.expect_stream("yes");
}

#[test]
fn formats_may_stand_at_the_top_of_an_item_or_below_formats() {
    let target = Target::start(|_| Reply::hold("stream", "c"));
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    client.expect_head(200);
    server.publish(json!([
        { "channel": "c", "http-stream": { "content": "top;" } },
        { "channel": "c", "formats": { "http-stream": { "content": "below;" } }, "http-stream": { "content": "no" } },
    ]));
    client.expect_stream("top;below;");
}

#[test]
fn text_of_every_kind_survives() {
    let target = Target::start(|_| Reply::hold("stream", "c"));
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    client.expect_head(200);
    let text = "\u{1f980} \u{e4}\u{f6} \" \\ \r\n\t \u{0} end";
    server.publish_text("c", text);
    client.expect_stream(text);
}
