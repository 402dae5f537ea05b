use std::time::Instant;

use proptest::prelude::*;
use waft_grip::instruct::{HoldMode, Instruct};
use waft_hub::Mode;

use super::*;
use crate::harness::{ask, field, gateway, text};

const WS_EVENTS: &str = "Content-Type: application/websocket-events";

/// The hold that an answer asks the gateway for, read as the gateway reads it.
fn instructed(answer: &Answer) -> Instruct {
    let mut instruct = Instruct::from_head(answer.status, "OK", answer.fields.iter()).unwrap();
    instruct.apply_json(&answer.body).unwrap();
    instruct
}

#[track_caller]
fn check(start: &str, fields: &[&str], body: &str, status: u16, expected: &str) {
    let answer = ask(&Demo::new(0xab), &gateway(), start, fields, body.as_bytes());
    assert_eq!((answer.status, text(&answer)), (status, expected), "{start} {body}");
}

#[test]
fn the_page_stands_alone() {
    for start in ["GET /", "HEAD /", "GET /some/where/", "GET /demo/"] {
        let answer = ask(&Demo::new(1), &gateway(), start, &[], b"");
        assert_eq!((answer.status, field(&answer, "Content-Type")), (200, "text/html; charset=utf-8"), "{start}");
        assert!(field(&answer, "Content-Security-Policy").starts_with("default-src 'none';"));
        let page = text(&answer);
        for outside in ["src=\"", "@import", "url(", "//cdn"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for used in ["demo/", "\"events\"", "\"poll\"", "\"publish\"", "\"stats\"", "\"ws\""] {
            assert!(page.contains(used), "{used}");
        }
    }
}

#[test]
fn a_stream_is_held_on_the_channel_that_was_named() {
    let instruct = instructed(&ask(&Demo::new(1), &gateway(), "GET /a/demo/events?channel=demo-1", &[], b""));
    assert_eq!(instruct.hold, Some(HoldMode::Stream));
    assert_eq!(instruct.channels[0].name, "demo-1");
    assert_eq!(instruct.keep_alive.unwrap().data, ": still here\n\n");
    assert_eq!(instruct.response.body.unwrap(), ": open\nretry: 1000\n\n");
    let fields: Vec<_> = instruct.response.headers.iter().map(|(name, value)| (name, value.to_vec())).collect();
    assert!(fields.contains(&("Content-Type", b"text/event-stream".to_vec())), "{fields:?}");
    assert!(fields.contains(&("Cache-Control", b"no-cache".to_vec())), "{fields:?}");
}

#[test]
fn a_poll_is_held_until_something_comes() {
    let instruct = instructed(&ask(&Demo::new(1), &gateway(), "GET /demo/poll", &[], b""));
    assert_eq!((instruct.hold, &*instruct.channels[0].name), (Some(HoldMode::Response), "demo"));
    assert_eq!(instruct.channels[0].prev_id, None);
    assert_eq!(instruct.response.body.unwrap(), "{\"items\":[]}\n");
}

#[test]
fn a_poll_that_comes_back_gets_what_it_missed() {
    let (demo, gateway) = (Demo::new(0xab), gateway());
    for message in ["one", "two \"2\"", "three"] {
        ask(&demo, &gateway, "POST /demo/publish", &[], message.as_bytes());
    }
    let poll = |last: &str| ask(&demo, &gateway, &format!("GET /demo/poll?last={last}"), &[], b"");
    let missed = poll("ab-0");
    assert_eq!(
        text(&missed),
        "{\"gap\":false,\"items\":[{\"id\":\"ab-1\",\"text\":\"two \\\"2\\\"\"},{\"id\":\"ab-2\",\"text\":\"three\"}],\"position\":\"7-3\"}\n"
    );
    assert_eq!(instructed(&poll("ab-2")).channels[0].prev_id.as_deref(), Some("ab-2"));
    let lost: serde_json::Value = serde_json::from_slice(&poll("nobody-knows").body).unwrap();
    assert_eq!((&lost["gap"], lost["items"].as_array().unwrap().len()), (&true.into(), 3));
}

/// Else a page that polls at once after each answer would never come to rest.
#[test]
fn a_poll_goes_on_after_items_that_are_not_of_the_demonstration() {
    let (demo, gateway) = (Demo::new(0xab), gateway());
    ask(&demo, &gateway, "POST /demo/publish", &[], b"one");
    let other = r#"{"items":[{"channel":"demo","http-stream":{"content":"x"}},{"channel":"demo","http-response":{"body":"hi\n"}}]}"#;
    for item in waft_grip::item::parse_publish_body(other.as_bytes()).unwrap() {
        gateway.publish(Instant::now(), item);
    }
    let poll = |query: &str| ask(&demo, &gateway, &format!("GET /demo/poll?{query}"), &[], b"");
    assert_eq!(text(&poll("last=ab-0")), "{\"gap\":false,\"items\":[{\"text\":\"hi\"}],\"position\":\"7-3\"}\n");
    assert_eq!(instructed(&poll("after=7-3")).hold, Some(HoldMode::Response));
    assert_eq!(instructed(&poll("after=nonsense")).hold, Some(HoldMode::Response));
}

#[test]
fn a_message_is_published_for_every_kind_of_client() {
    let (demo, gateway) = (Demo::new(0xab), gateway());
    gateway.hub().subscribe(Instant::now(), 0, "demo", Mode::Stream);
    let answer = ask(&demo, &gateway, "POST /demo/publish", &[], "a\r\nb\rc\nd: é".as_bytes());
    assert_eq!(text(&answer), "{\"id\":\"ab-0\",\"channel\":\"demo\",\"listeners\":1}\n");
    let item = gateway.hub().find("demo", "ab-0").unwrap();
    let formats = &item.payload.formats;
    let stream = &formats.http_stream.as_ref().unwrap().content;
    assert_eq!(&stream[..], "id: ab-0\nevent: message\ndata: a\ndata: b\ndata: c\ndata: d: é\n\n".as_bytes());
    assert_eq!(&formats.ws_message.as_ref().unwrap().content[..], "a\r\nb\rc\nd: é".as_bytes());
    let answer = publish::poll_answer(&[item], false);
    assert_eq!(
        text(&answer),
        "{\"gap\":false,\"items\":[{\"id\":\"ab-0\",\"text\":\"a\\r\\nb\\rc\\nd: é\"}],\"position\":\"7-1\"}\n"
    );
}

#[test]
fn a_message_comes_as_text_or_in_a_form() {
    let form = "Content-Type: application/x-www-form-urlencoded; charset=utf-8";
    for (fields, body, expected) in [
        (&[][..], "a=b&message=c", "a=b&message=c"),
        (&["Content-Type: text/plain"], "x", "x"),
        (&[form], "a=b&message=c+%C3%A9", "c é"),
        (&[form], "Hello", "Hello"),
    ] {
        let (demo, gateway) = (Demo::new(0xab), gateway());
        assert_eq!(ask(&demo, &gateway, "POST /demo/publish", fields, body.as_bytes()).status, 200, "{body}");
        let item = gateway.hub().find("demo", "ab-0").unwrap();
        assert_eq!(item.payload.formats.ws_message.as_ref().unwrap().content, expected);
    }
}

#[test]
fn what_is_wrong_with_a_request_is_told() {
    let channel = "the channel must begin with `demo` and have up to 64 letters, digits, `_`, `.` or `-`\n";
    for start in ["GET /demo/events", "GET /demo/poll", "POST /demo/publish", "POST /demo/ws"] {
        for named in ["secret", "dem", "demo%20", "demo%0a", "demo%C3%A9", "demo/x", &"demo".repeat(17)] {
            check(&format!("{start}?channel={named}"), &[WS_EVENTS], "OPEN\r\n", 400, channel);
        }
    }
    let long = "x".repeat(MESSAGE_MAX + 1);
    check("POST /demo/publish", &[], "", 400, "send some text as body, or a form with the field `message`\n");
    check("POST /demo/publish", &[], &long, 413, "the message has 4097 bytes, more than 4096\n");
    check("POST /demo/ws", &[WS_EVENTS], "OPEN", 400, "the body is no list of WebSocket events\n");
    let no_socket = "this address takes WebSockets alone, and they are not available here\n";
    check("GET /demo/ws", &["Upgrade: websocket", "Connection: Upgrade"], "", 400, no_socket);
    check("POST /demo/ws", &[], "OPEN\r\n", 400, no_socket);
    for start in ["GET /demo/nothing", "GET /favicon.ico", "GET /demo"] {
        check(start, &[], "", 404, "no such page\n");
    }
    for (start, allowed) in [
        ("POST /", "GET, HEAD"),
        ("HEAD /demo/events", "GET"),
        ("POST /demo/poll", "GET"),
        ("GET /demo/publish", "POST"),
    ] {
        check(start, &[], "", 405, &format!("method not allowed, use {allowed}\n"));
    }
    let not_text = ask(&Demo::new(1), &gateway(), "POST /demo/publish", &[], b"\xff");
    assert_eq!(text(&not_text), "the body is not text in UTF-8\n");
}

#[test]
fn a_socket_listens_and_speaks() {
    let (demo, gateway) = (Demo::new(0xab), gateway());
    let ask = |body: &str| ask(&demo, &gateway, "POST /demo/ws?channel=demo.x", &[WS_EVENTS], body.as_bytes());
    let opened = ask("OPEN\r\n");
    assert_eq!(field(&opened, "Content-Type"), "application/websocket-events");
    assert_eq!(field(&opened, "Sec-WebSocket-Extensions"), "grip; message-prefix=\"\"");
    let subscribe = r#"c:{"channel":"demo.x","type":"subscribe"}"#;
    assert_eq!(text(&opened), format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len()));
    let said = ask("TEXT 2\r\nhi\r\nPING 1\r\np\r\nPONG\r\nBINARY 1\r\nb\r\n");
    assert_eq!((text(&said), field(&said, "Sec-WebSocket-Extensions")), ("PONG 1\r\np\r\n", ""));
    let item = gateway.hub().find("demo.x", "ab-0").unwrap();
    assert_eq!(item.payload.formats.ws_message.as_ref().unwrap().content, "hi");
    let error = "not published: send some text as body, or a form with the field `message`";
    assert_eq!(text(&ask("TEXT 0\r\n\r\n")), format!("TEXT {:x}\r\n{error}\r\n", error.len()));
    assert_eq!(text(&ask("CLOSE 2\r\n..\r\n")), "CLOSE 2\r\n..\r\n");
    assert_eq!(text(&ask("DISCONNECT\r\n")), "");
    assert_eq!(gateway.publish_metrics().items.value(), 1);
}

#[test]
fn the_counters_are_those_of_the_gateway() {
    let gateway = gateway();
    gateway.metrics()[0].holds_stream.add(2);
    gateway.metrics()[1].delivered_response.add(3);
    let answer = ask(&Demo::new(1), &gateway, "GET /demo/stats?channel=demo", &[], b"");
    assert_eq!(
        text(&answer),
        "{\"connections\":0,\"response\":0,\"stream\":2,\"ws\":0,\"published\":0,\"delivered\":3}\n"
    );
}

proptest! {
    #[test]
    fn any_message_is_one_event_with_all_its_lines(message in "[a-z\r\n:]{1,40}") {
        let (demo, gateway) = (Demo::new(0xab), gateway());
        ask(&demo, &gateway, "POST /demo/publish", &[], message.as_bytes());
        let item = gateway.hub().find("demo", "ab-0").unwrap();
        let stream = item.payload.formats.http_stream.as_ref().unwrap();
        let event = str::from_utf8(&stream.content).unwrap();
        let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        prop_assert_eq!(data.join("\n"), message.replace("\r\n", "\n").replace('\r', "\n"));
        prop_assert_eq!(event.matches("\n\n").count(), 1);
        prop_assert!(!event.contains('\r'));
    }

    #[test]
    fn any_body_is_answered(body: Vec<u8>, form: bool) {
        let kind = if form { "Content-Type: application/x-www-form-urlencoded" } else { WS_EVENTS };
        for path in ["publish", "ws"] {
            let answer = ask(&Demo::new(1), &gateway(), &format!("POST /demo/{path}"), &[kind], &body);
            prop_assert!(matches!(answer.status, 200 | 400 | 413));
        }
    }
}
