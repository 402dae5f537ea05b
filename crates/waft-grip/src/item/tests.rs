use proptest::prelude::*;

use super::*;
use crate::tnetstring::tests::any_value;

fn json_item(text: &str) -> Item {
    parse_item_json(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match parse_item_json(text.as_bytes()) {
        Err(PacketError::Item(error)) => error.to_string(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn publish_bodies_are_refused_with_the_known_texts() {
    let cases: &[(&str, &str)] = &[
        ("", "Body is not valid JSON."),
        ("{", "Body is not valid JSON."),
        ("[]", "Invalid format."),
        ("1", "Invalid format."),
        ("{}", "Invalid format: object does not contain 'items'"),
        (r#"{"items":null}"#, "Invalid format: object does not contain 'items'"),
        (r#"{"items":{}}"#, "Invalid format: object contains 'items' with wrong type"),
        (r#"{"items":[1]}"#, "Invalid format: publish item object is not an object"),
        (r#"{"items":[{}]}"#, "Invalid format: publish item object does not contain 'channel'"),
        (r#"{"items":[{"channel":"c","http-stream":{"action":"x"}}]}"#, "Invalid format: "),
    ];
    for (body, expected) in cases {
        assert_eq!(parse_publish_body(body.as_bytes()).unwrap_err().to_string(), *expected, "{body}");
    }
}

#[test]
fn one_bad_item_refuses_the_whole_body() {
    let good = r#"{"channel":"c","http-stream":{"content":"x"}}"#;
    let body = format!(r#"{{"items":[{good},{{"channel":"c"}}]}}"#);
    let error = parse_publish_body(body.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "Invalid format: no formats specified");
    assert_eq!(parse_publish_body(format!(r#"{{"items":[{good},{good}]}}"#).as_bytes()).unwrap().len(), 2);
    assert_eq!(parse_publish_body(br#"{"items":[]}"#).unwrap(), []);
}

#[test]
fn item_fields_are_refused_with_the_known_texts() {
    let cases: &[(&str, &str)] = &[
        (r#""id":1"#, "publish item object contains 'id' with wrong type"),
        (r#""prev-id":[]"#, "publish item object contains 'prev-id' with wrong type"),
        (r#""meta":[]"#, "publish item object contains 'meta' with wrong type"),
        (r#""meta":{"x":1}"#, "'meta' contains 'x' with wrong type"),
        (r#""size":-1"#, "publish item object contains 'size' with invalid value"),
        (r#""size":{}"#, "publish item object contains 'size' with wrong type"),
        (r#""no-seq":1"#, "publish item object contains 'no-seq' with wrong type"),
        (r#""formats":[]"#, "publish item object contains 'formats' with wrong type"),
    ];
    for (field, expected) in cases {
        let text = format!(r#"{{"channel":"c","http-stream":{{"content":"x"}},{field}}}"#);
        assert_eq!(refused(&text), *expected, "{field}");
    }
    assert_eq!(refused(r#"{"channel":1}"#), "publish item object contains 'channel' with wrong type");
    assert_eq!(refused(r#"{"channel":"c"}"#), "no formats specified");
    assert_eq!(refused(r#"{"channel":"c","formats":{}}"#), "no formats specified");
    assert_eq!(refused(r#"{"channel":"c","formats":{"http-stream":1}}"#), "'http-stream' is not an object");
}

#[test]
fn payloads_are_refused_with_the_known_texts() {
    let cases: &[(&str, &str)] = &[
        (r#""http-response":{}"#, "'http-response' does not contain 'body', 'body-bin', or 'body-patch'"),
        (r#""http-response":{"action":"jump","body":""}"#, ""),
        (r#""http-response":{"action":1,"body":""}"#, "'http-response' contains 'action' with wrong type"),
        (r#""http-response":{"code":1000,"body":""}"#, "'http-response' contains 'code' with invalid value"),
        (r#""http-response":{"code":-1,"body":""}"#, "'http-response' contains 'code' with invalid value"),
        (r#""http-response":{"code":[],"body":""}"#, "'http-response' contains 'code' with wrong type"),
        (r#""http-response":{"reason":1,"body":""}"#, "'http-response' contains 'reason' with wrong type"),
        (r#""http-response":{"body":1}"#, "'http-response' contains 'body' with wrong type"),
        (r#""http-response":{"body-bin":1}"#, "'http-response' contains 'body-bin' with wrong type"),
        (r#""http-response":{"body-patch":{}}"#, "'http-response' contains 'body-patch' with wrong type"),
        (r#""http-response":{"headers":1,"body":""}"#, "'http-response' contains 'headers' with wrong type"),
        (r#""http-response":{"headers":[1],"body":""}"#, "headers contains element with wrong type"),
        (r#""http-response":{"headers":[["a"]],"body":""}"#, "headers contains list with wrong number of elements"),
        (r#""http-response":{"headers":[[1,"a"]],"body":""}"#, "header contains name element with wrong type"),
        (r#""http-response":{"headers":[["a",1]],"body":""}"#, "header contains value element with wrong type"),
        (r#""http-response":{"headers":{"a":1},"body":""}"#, "headers contains 'a' with wrong type"),
        (r#""http-response":{"headers":{"a b":"1"},"body":""}"#, "header contains name element with invalid value"),
        (
            r#""http-response":{"headers":{"a":"1\r\nb: 2"},"body":""}"#,
            "header contains value element with invalid value",
        ),
        (
            r#""http-response":{"body":"","content-filters":1}"#,
            "'http-response' contains 'content-filters' with wrong type",
        ),
        (r#""http-response":{"body":"","content-filters":[1]}"#, "'content-filters' contains value with wrong type"),
        (r#""http-stream":{}"#, "'http-stream' does not contain 'content' or 'content-bin'"),
        (r#""http-stream":{"content":1}"#, "'http-stream' contains 'content' with wrong type"),
        (r#""ws-message":{}"#, "'ws-message' does not contain 'content' or 'content-bin'"),
        (r#""ws-message":{"type":"text"}"#, "'ws-message' does not contain 'content' or 'content-bin'"),
        (r#""ws-message":{"type":"x","content":""}"#, "'ws-message' contains 'type' with unknown value"),
        (r#""ws-message":{"action":"close","code":-1}"#, "'ws-message' contains 'code' with invalid value"),
        (r#""ws-message":{"action":"close","reason":1}"#, "'ws-message' contains 'reason' with wrong type"),
    ];
    for (format, expected) in cases {
        assert_eq!(refused(&format!(r#"{{"channel":"c",{format}}}"#)), *expected, "{format}");
        assert_eq!(refused(&format!(r#"{{"channel":"c","formats":{{{format}}}}}"#)), *expected, "{format}");
    }
}

#[test]
fn a_complete_item_is_read() {
    let item = json_item(
        r#"{"channel":"room","id":"2","prev-id":"1","size":"7","no-seq":true,"meta":{"sender":"alice","sender":"bob"},
            "unknown":1,"formats":{
              "http-response":{"code":201.9,"headers":{"X-A":"b"},"body":"r","content-filters":["build-id"]},
              "http-stream":{"content":"text","content-bin":"/w=="},
              "ws-message":{"type":"text","content-bin":"aGk"},
              "json-object":{"b":[1, 2.5],"a":null},
              "other":1}}"#,
    );
    let expected = Item {
        channel: "room".to_owned(),
        id: Some("2".to_owned()),
        prev_id: Some("1".to_owned()),
        formats: Formats {
            http_response: Some(HttpResponse {
                action: Action::Send,
                code: 201,
                reason: "Created".to_owned(),
                headers: [("X-A", "b")].into_iter().collect(),
                body: ResponseBody::Bytes(Bytes::from_static(b"r")),
                content_filters: Some(vec!["build-id".to_owned()]),
            }),
            http_stream: Some(HttpStream { content: Bytes::from_static(b"\xff"), ..HttpStream::default() }),
            ws_message: Some(WsMessage { content: Bytes::from_static(b"hi"), ..WsMessage::default() }),
            json_object: Some(Bytes::from_static(br#"{"b":[1,2.5],"a":null}"#)),
        },
        meta: vec![("sender".to_owned(), "bob".to_owned())],
        size: Some(7),
        no_seq: true,
    };
    assert_eq!(item, expected);
}

#[test]
fn formats_may_stand_in_the_item_and_null_is_absent() {
    let item = json_item(
        r#"{"channel":"","id":null,"meta":null,"size":null,"no-seq":null,
            "http-stream":{"content":"a"},"ws-message":{"content":"a"},"formats":{"ws-message":{"content":"b"}}}"#,
    );
    assert_eq!(item.formats.http_stream.unwrap().content, "a");
    assert_eq!(item.formats.ws_message.unwrap().content, "b");
    assert_eq!((item.id, item.size, item.no_seq), (None, None, false));
}

#[test]
fn json_payloads_may_be_any_value_under_either_name() {
    for (field, expected) in
        [(r#""json-object":null"#, "null"), (r#""fpp":[1, true]"#, "[1,true]"), (r#""json-object":"é\n""#, "\"é\\n\"")]
    {
        let item = json_item(&format!(r#"{{"channel":"c",{field}}}"#));
        assert_eq!(item.formats.json_object.as_deref(), Some(expected.as_bytes()), "{field}");
    }
}

#[test]
fn an_item_of_unknown_formats_alone_is_accepted() {
    assert_eq!(json_item(r#"{"channel":"c","formats":{"other":{}}}"#).formats, Formats::default());
}

#[test]
fn actions_need_no_content() {
    for (name, action) in [("hint", Action::Hint), ("close", Action::Close), ("refresh", Action::Refresh)] {
        let payload = format!(r#"{{"action":"{name}"}}"#);
        let formats = json_item(&format!(
            r#"{{"channel":"c","http-response":{payload},"http-stream":{payload},"ws-message":{payload}}}"#
        ))
        .formats;
        assert_eq!(formats.http_response.unwrap().action, action);
        assert_eq!(formats.http_stream.unwrap().action, action);
        assert_eq!(formats.ws_message.unwrap().action, action);
    }
}

#[test]
fn websocket_messages_have_the_type_their_content_suggests() {
    let cases: &[(&str, WsKind, &str)] = &[
        (r#"{"content":"x"}"#, WsKind::Text, "x"),
        (r#"{"content-bin":"eA=="}"#, WsKind::Binary, "x"),
        (r#"{"type":"binary","content":"x"}"#, WsKind::Binary, "x"),
        (r#"{"type":"ping"}"#, WsKind::Ping, ""),
        (r#"{"type":"pong","content":""}"#, WsKind::Pong, ""),
    ];
    for (payload, kind, content) in cases {
        let message = json_item(&format!(r#"{{"channel":"c","ws-message":{payload}}}"#)).formats.ws_message.unwrap();
        assert_eq!((message.kind, &message.content[..]), (*kind, content.as_bytes()), "{payload}");
    }
    let close = json_item(r#"{"channel":"c","ws-message":{"action":"close","code":4000,"reason":"bye"}}"#);
    let close = close.formats.ws_message.unwrap();
    assert_eq!((close.code, close.reason.as_str()), (Some(4000), "bye"));
}

#[test]
fn packets_of_the_three_forms_are_equal() {
    let bare = b"49:7:channel,2:s1,11:http-stream,15:7:content,2:x\n,}}";
    let json = br#"J{"channel":"s1","http-stream":{"content":"x\n"}}"#;
    let tagged = [b"T", &bare[..]].concat();
    let formats = Formats {
        http_stream: Some(HttpStream { content: Bytes::from_static(b"x\n"), ..HttpStream::default() }),
        ..Formats::default()
    };
    let expected = Item::new("s1", formats);
    for frame in [&bare[..], &json[..], &tagged] {
        assert_eq!(parse_packet(frame).as_ref(), Ok(&expected));
    }
    assert_eq!(parse_item_tnetstring(bare), Ok(expected));
}

#[test]
fn packets_that_cannot_be_read_are_errors() {
    let cases: &[(&str, &str)] = &[
        ("", "publish packet cannot be read: tnetstring does not begin with a length of 1 to 9 digits and a colon"),
        ("5:abc", "publish packet cannot be read: tnetstring is cut short"),
        ("J{", "publish packet is not valid JSON"),
        ("T0:}", "publish packet is not an item: publish item object does not contain 'channel'"),
        ("0:}x", "publish packet cannot be read: tnetstring is followed by other bytes"),
        (
            "32:7:channel,1:c,11:http-stream,0:}}",
            "publish packet is not an item: 'http-stream' does not contain 'content'",
        ),
        (
            "34:7:channel,1:c,13:http-response,0:}}",
            "publish packet is not an item: 'http-response' does not contain 'body' or 'body-patch'",
        ),
    ];
    for (frame, expected) in cases {
        assert_eq!(parse_packet(frame.as_bytes()).unwrap_err().to_string(), *expected, "{frame}");
    }
}

#[test]
fn the_channel_of_a_subscription_message_is_its_first_frame() {
    let text = br#"J{"channel":1,"http-stream":{"content":"x"}}"#;
    assert_eq!(parse_channel_packet(b"room", text).unwrap().channel, "room");
}

#[test]
fn binary_members_of_tnetstrings_are_bytes() {
    let frame = b"51:7:channel,1:c,10:ws-message,19:11:content-bin,1:\xff,}}";
    let message = parse_packet(frame).unwrap().formats.ws_message.unwrap();
    assert_eq!((message.kind, &message.content[..]), (WsKind::Binary, &b"\xff"[..]));
}

#[test]
fn an_item_for_publishing_has_the_known_form() {
    let text = r#"{"channel":"c","formats":{"http-stream":{"content":"x\n"},"ws-message":{"type":"binary","content-bin":"/w=="}}}"#;
    assert_eq!(String::from_utf8(json_item(text).to_json()).unwrap(), text);
}

/// Objects with the names the reader knows, and anything under them.
fn item_like() -> impl Strategy<Value = TValue<'static>> {
    let names = prop::sample::select(vec![
        "channel",
        "id",
        "prev-id",
        "formats",
        "meta",
        "size",
        "no-seq",
        "http-response",
        "http-stream",
        "ws-message",
        "json-object",
        "action",
        "code",
        "reason",
        "headers",
        "body",
        "body-bin",
        "body-patch",
        "content",
        "type",
        "content-bin",
        "content-filters",
    ]);
    let key = names.prop_map(|name| std::borrow::Cow::Borrowed(name.as_bytes()));
    let map = |value: BoxedStrategy<TValue<'static>>| {
        proptest::collection::vec((key.clone(), value), 0..8).prop_map(TValue::Map).boxed()
    };
    let word = prop::sample::select(vec!["send", "hint", "close", "text", "ping", "aGk="]).prop_map(TValue::str);
    let leaf = prop_oneof![any_value(), word].boxed();
    let payload = prop_oneof![leaf, map(any_value().boxed())].boxed();
    let formats = prop_oneof![payload.clone(), map(payload)].boxed();
    map(formats)
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(input: Vec<u8>) {
        parse_publish_body(&input).ok();
        parse_packet(&input).ok();
    }

    #[test]
    fn what_is_read_survives_being_written(value in item_like()) {
        for encoding in [Encoding::Json, Encoding::TNetString] {
            if let Ok(item) = Item::from_value(&value, encoding, Some("c")) {
                let again = parse_item_json(&item.to_json());
                if item.formats == Formats::default() {
                    prop_assert!(again.is_err());
                } else {
                    prop_assert_eq!(again, Ok(item));
                }
            }
        }
    }
}
