use proptest::prelude::*;

use super::*;
use crate::keepalive::Mode;

/// Reads `Name: value` lines as the head of a `200 OK`.
fn read(head: &str) -> Result<Instruct, InstructError> {
    read_status(200, head)
}

fn read_status(status: u16, head: &str) -> Result<Instruct, InstructError> {
    Instruct::from_head(status, "Fine", fields(head))
}

fn fields(head: &str) -> impl Iterator<Item = (&str, &[u8])> + Clone {
    head.lines().filter_map(|line| line.trim_start().split_once(':')).map(|(n, v)| (n, v.trim().as_bytes()))
}

fn read_json(head: &str, body: &str) -> Result<Instruct, InstructError> {
    let mut instruct = read(&format!("Content-Type: application/grip-instruct\n{head}"))?;
    assert!(instruct.needs_json_body());
    instruct.apply_json(body.as_bytes())?;
    assert!(!instruct.needs_json_body());
    Ok(instruct)
}

fn channel_ref(name: &str, prev_id: Option<&str>, filters: &[&str]) -> ChannelRef {
    let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
    ChannelRef { name: name.to_owned(), prev_id: prev_id.map(str::to_owned), filters }
}

fn pairs(meta: &[(&str, &str)]) -> Vec<(String, String)> {
    meta.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn grip_headers_and_the_content_type_make_an_instruct() {
    for (head, expected) in [
        ("Content-Type: text/plain", false),
        ("gRIP-x: 1", true),
        ("Grip: 1", false),
        ("content-type: Application/Grip-Instruct ; charset=utf-8", true),
        ("Content-Type: application/grip-instruct2", false),
        ("X: application/grip-instruct", false),
    ] {
        assert_eq!(is_instruct(fields(head)), expected, "{head}");
    }
}

#[test]
fn a_long_poll_is_read() {
    let instruct = read(
        "Content-Type: application/json
         Grip-Hold: response
         Grip-Channel: room-1; prev-id=41; filter=skip-self
         Grip-Set-Meta: user=alice
         Grip-Timeout: 25
         Content-Length: 3",
    )
    .unwrap();
    let expected = Instruct {
        hold: Some(HoldMode::Response),
        channels: vec![channel_ref("room-1", Some("41"), &["skip-self"])],
        timeout: Some(Duration::from_secs(25)),
        meta: pairs(&[("user", "alice")]),
        response: ResponseParts {
            code: 200,
            reason: "Fine".to_owned(),
            headers: [("Content-Type", "application/json")].into_iter().collect(),
            body: None,
        },
        ..Instruct::default()
    };
    assert_eq!(instruct, expected);
}

#[test]
fn a_stream_is_read() {
    let instruct = read(
        r"Content-Type: text/event-stream
          Grip-Hold: stream
          Grip-Channel: room-1
          Grip-Keep-Alive: event: keep-alive\ndata:\n\n; format=cstring; timeout=20",
    )
    .unwrap();
    assert_eq!(instruct.hold, Some(HoldMode::Stream));
    let keep_alive = instruct.keep_alive.unwrap();
    assert_eq!(&keep_alive.data[..], b"event: keep-alive\ndata:\n\n");
    assert_eq!((keep_alive.timeout, keep_alive.mode), (Duration::from_secs(20), Mode::Idle));
}

#[test]
fn channels_are_repeated_joined_and_kept_in_order() {
    let instruct = read(
        r#"Grip-Channel: a; prev-id=3; filter=skip-self, "b,c"; filter=build-id; filter=new
           grip-channel: d; Prev-Id="x,y"; FILTER=skip-self,"#,
    );
    let expected = [
        channel_ref("a", Some("3"), &["skip-self"]),
        channel_ref("\"b,c\"", None, &["build-id", "new"]),
        channel_ref("d", Some("x,y"), &[]),
    ];
    assert_eq!(instruct.unwrap().channels, expected);
}

#[test]
fn response_hold_timeouts_have_a_floor_and_a_default() {
    for (head, seconds) in [("X: y", 55), ("Grip-Timeout: 0", 5), ("Grip-Timeout: 4", 5), ("Grip-Timeout: 6", 6)] {
        assert_eq!(read(head).unwrap().hold_timeout(), Duration::from_secs(seconds), "{head}");
    }
}

#[test]
fn statuses_replace_code_and_reason() {
    for (value, code, reason) in [
        ("404", 404, "Not Found"),
        ("404 Gone Fishing, sorry", 404, "Gone Fishing, sorry"),
        ("799", 799, ""),
        ("0", 0, ""),
    ] {
        let response = read(&format!("Grip-Status: {value}")).unwrap().response;
        assert_eq!((response.code, response.reason.as_str()), (code, reason), "{value}");
    }
    assert_eq!(read_status(404, "Grip-Hold: response").unwrap().response.code, 404);
}

#[test]
fn metadata_is_the_first_pair_of_each_piece() {
    let head = r#"Grip-Set-Meta: a=1; b=2, c="x;\"y, z", d
                  Grip-Set-Meta: a=3
                  Grip-Set-Meta: "#;
    assert_eq!(read(head).unwrap().meta, pairs(&[("a", "3"), ("c", "x;\"y, z"), ("d", "")]));
}

#[test]
fn links_are_read() {
    let instruct = read(
        r"Grip-Link: </a?x=1,2;3>; rel=next, </b>; rel=gone; timeout=0, </c>; rel=recover, </ignored>
          Grip-Link: <https://é.example/>; timeout=30; rel=next",
    )
    .unwrap();
    let link = |uri: &str, seconds| Link { uri: uri.to_owned(), timeout: Duration::from_secs(seconds) };
    assert_eq!(instruct.next, Some(link("https://%C3%A9.example/", 30)));
    assert_eq!(instruct.gone, Some(link("/b", 0)));
    assert_eq!(read("Grip-Link: </a?x=1,2;3>; rel=next").unwrap().next, Some(link("/a?x=1,2;3", 120)));
}

#[test]
fn exposed_headers_are_a_whitelist() {
    let names = |head: &str| -> Vec<String> {
        read(head).unwrap().response.headers.iter().map(|(name, _)| name.to_owned()).collect()
    };
    let own = "A: 1\nB: 2\nGrip-X: 3\nConnection: x\nKeep-Alive: 1\nTransfer-Encoding: chunked\n\
               Content-Encoding: gzip\nContent-Length: 5\nC: 4";
    assert_eq!(names(own), ["A", "B", "C"]);
    assert_eq!(names(&format!("{own}\nGrip-Expose-Headers: c\ngrip-expose-headers: x, a")), ["A", "C"]);
    assert_eq!(names(&format!("{own}\nGrip-Expose-Headers:")), [""; 0]);
}

#[test]
fn headers_are_refused_with_the_known_texts() {
    let cases = [
        ("Grip-Hold: Response", "Grip-Hold must be set to either 'response' or 'stream'"),
        ("Grip-Hold:", "Grip-Hold must be set to either 'response' or 'stream'"),
        ("Grip-Channel:", "failed to parse Grip-Channel"),
        ("Grip-Channel: ; prev-id=1", "failed to parse Grip-Channel"),
        (
            "Grip-Channel: X; filter=1; filter=2; filter=3; filter=4; filter=5; filter=6",
            "too many filters for channel 'X'",
        ),
        ("Grip-Timeout: soon", "failed to parse Grip-Timeout"),
        ("Grip-Timeout:", "failed to parse Grip-Timeout"),
        ("Grip-Timeout: 99999999999", "failed to parse Grip-Timeout"),
        ("Grip-Timeout: -1", "Grip-Timeout has invalid value"),
        ("Grip-Keep-Alive:", "Grip-Keep-Alive cannot be empty"),
        ("Grip-Set-Meta: =x", "Grip-Set-Meta cannot be empty"),
        ("Grip-Set-Meta: a=1, ; b=2", "Grip-Set-Meta cannot be empty"),
        ("Grip-Status: 1000", "Grip-Status contains invalid status code"),
        ("Grip-Status: -1", "Grip-Status contains invalid status code"),
        ("Grip-Status: OK", "Grip-Status contains invalid status code"),
        ("Grip-Link: /a; rel=next", "failed to parse Grip-Link value"),
        ("Grip-Link: <>; rel=next", "failed to parse Grip-Link value"),
        ("Grip-Link: <a b>; rel=next", "Grip-Link contains invalid link"),
        ("Grip-Link: <a>; rel=next; timeout=x", "failed to parse Grip-Link timeout value"),
        ("Grip-Link: <a>; rel=next; timeout=-1", "Grip-Link timeout has invalid value"),
    ];
    for (head, expected) in cases {
        assert_eq!(read(head).unwrap_err().to_string(), expected, "{head}");
    }
    let error = read_status(201, "Content-Type: application/grip-instruct").unwrap_err();
    assert_eq!(error.to_string(), "response code for application/grip-instruct content must be 200");
}

#[test]
fn a_json_instruct_is_read_on_top_of_the_headers() {
    let instruct = read_json(
        "Grip-Hold: response\nGrip-Channel: h\nGrip-Timeout: 30\nGrip-Set-Meta: a=1, b=2\nGrip-Link: </n>; rel=next\n\
         Grip-Expose-Headers: x-a\nX-Lost: 1",
        r#"{"hold":{"mode":"stream","timeout":"60",
             "channels":[{"name":"j","prev-id":"4","filters":["skip-self","x"]},{"name":"k","prev-id":null}],
             "keep-alive":{"content":"lost","content-bin":"aGk=","timeout":0},"meta":{"b":"3","c":"4"}},
            "response":{"code":201.5,"headers":{"X-A":"1","X-B":"2","Grip-X":"3"},"body-bin":"AP8=","body":"lost"}}"#,
    )
    .unwrap();
    assert_eq!(instruct.hold, Some(HoldMode::Stream));
    let expected =
        [channel_ref("h", None, &[]), channel_ref("j", Some("4"), &["skip-self", "x"]), channel_ref("k", None, &[])];
    assert_eq!(instruct.channels, expected);
    assert_eq!(instruct.timeout, Some(Duration::from_secs(60)));
    assert_eq!(instruct.meta, pairs(&[("a", "1"), ("b", "3"), ("c", "4")]));
    assert_eq!(instruct.next.unwrap().uri, "/n");
    let keep_alive =
        KeepAlive { data: Bytes::from_static(b"hi"), timeout: Duration::from_secs(1), mode: Mode::Interval };
    assert_eq!(instruct.keep_alive, Some(keep_alive));
    let response = ResponseParts {
        code: 201,
        reason: "Created".to_owned(),
        headers: [("X-A", "1")].into_iter().collect(),
        body: Some(Bytes::from_static(b"\0\xff")),
    };
    assert_eq!(instruct.response, response);
}

#[test]
fn both_forms_of_an_instruct_mean_the_same() {
    let json = read_json(
        "",
        r#"{"hold":{"mode":"response","channels":[{"name":"a","prev-id":"1","filters":["skip-self"]}],"timeout":20},
            "response":{"reason":"Fine","headers":[["X","y"]]}}"#,
    )
    .unwrap();
    let mut head =
        read("Grip-Hold: response\nGrip-Channel: a; prev-id=1; filter=skip-self\nGrip-Timeout: 20\nX: y").unwrap();
    head.response.body = Some(Bytes::new());
    assert_eq!(json, head);
}

#[test]
fn json_defaults_are_filled_in() {
    let instruct = read_json("Grip-Status: 404", r#"{"hold":{"channels":[],"keep-alive":{}}}"#).unwrap();
    assert_eq!(instruct.hold, Some(HoldMode::Response));
    assert_eq!((instruct.response.code, instruct.response.reason.as_str()), (404, "Not Found"));
    assert_eq!(instruct.response.body, Some(Bytes::new()));
    assert_eq!(instruct.keep_alive.unwrap().timeout, Duration::from_secs(55));
    assert_eq!(read_json("", "{}").unwrap().hold, None);
    let body = r#"{"hold":null,"response":{"code":null,"body":"x"}}"#;
    assert_eq!(read_json("Grip-Hold: stream", body).unwrap().hold, Some(HoldMode::Stream));
}

#[test]
fn json_is_refused_with_the_known_texts() {
    let cases = [
        ("", "failed to parse application/grip-instruct content as JSON"),
        ("{", "failed to parse application/grip-instruct content as JSON"),
        ("[]", "instruct must be an object"),
        (r#"{"hold":1}"#, "instruct contains 'hold' with wrong type"),
        (r#"{"response":1}"#, ""),
    ];
    for (body, expected) in cases {
        assert_eq!(read_json("", body).unwrap_err().to_string(), expected, "{body}");
    }
    let holds = [
        (r#"{}"#, "hold does not contain 'channels'"),
        (r#"{"mode":"x","channels":[]}"#, "hold 'mode' must be set to either 'response' or 'stream'"),
        (r#"{"mode":1,"channels":[]}"#, "hold contains 'mode' with wrong type"),
        (r#"{"channels":{}}"#, "hold contains 'channels' with wrong type"),
        (r#"{"channels":["a"]}"#, "channel is not an object"),
        (r#"{"channels":[{}]}"#, "channel does not contain 'name'"),
        (r#"{"channels":[{"name":1}]}"#, "channel contains 'name' with wrong type"),
        (r#"{"channels":[{"name":"a","filters":1}]}"#, "channel contains 'filters' with wrong type"),
        (r#"{"channels":[{"name":"a","filters":[1]}]}"#, "filters contains value with wrong type"),
        (r#"{"channels":[{"name":"a","filters":["","","","","",""]}]}"#, "too many filters for channel 'a'"),
        (r#"{"channels":[],"timeout":[]}"#, "hold contains 'timeout' with wrong type"),
        (r#"{"channels":[],"timeout":-1}"#, "hold contains 'timeout' with invalid value"),
        (r#"{"channels":[],"keep-alive":1}"#, "hold contains 'keep-alive' with wrong type"),
        (r#"{"channels":[],"keep-alive":{"content":1}}"#, "keep-alive contains 'content' with wrong type"),
        (r#"{"channels":[],"keep-alive":{"timeout":-1}}"#, "keep-alive contains 'timeout' with invalid value"),
        (
            r#"{"channels":[],"keep-alive":{"mode":"x"}}"#,
            "keep-alive 'mode' must be set to either 'idle' or 'interval'",
        ),
        (r#"{"channels":[],"meta":{"K":1}}"#, "'meta' contains 'K' with wrong type"),
    ];
    for (hold, expected) in holds {
        let body = format!(r#"{{"hold":{hold}}}"#);
        assert_eq!(read_json("", &body).unwrap_err().to_string(), expected, "{hold}");
    }
    let responses = [
        (r#"{"code":1000}"#, "response contains 'code' with invalid value"),
        (r#"{"code":{}}"#, "response contains 'code' with wrong type"),
        (r#"{"reason":1}"#, "response contains 'reason' with wrong type"),
        (r#"{"headers":1}"#, "response contains 'headers' with wrong type"),
        (r#"{"headers":[1]}"#, "headers contains element with wrong type"),
        (r#"{"headers":[["a","b","c"]]}"#, "headers contains list with wrong number of elements"),
        (r#"{"headers":[[1,"b"]]}"#, "header contains name element with wrong type"),
        (r#"{"body":1}"#, "response contains 'body' with wrong type"),
        (r#"{"body-bin":1}"#, "response contains 'body-bin' with wrong type"),
    ];
    for (response, expected) in responses {
        let body = format!(r#"{{"response":{response}}}"#);
        assert_eq!(read_json("", &body).unwrap_err().to_string(), expected, "{response}");
    }
}

#[test]
fn a_reason_cannot_begin_a_new_line() {
    let instruct = read_json("", r#"{"response":{"code":404,"reason":"x\r\nSet-Cookie: a=b"}}"#).unwrap();
    assert_eq!(instruct.response.reason, "Not Found");
}

proptest! {
    #[test]
    fn any_head_is_read_without_panic(
        head in proptest::collection::vec(
            (
                prop::sample::select(vec![
                    "Grip-Hold", "Grip-Channel", "Grip-Timeout", "Grip-Keep-Alive", "Grip-Set-Meta", "Grip-Status",
                    "Grip-Link", "Grip-Expose-Headers", "Grip-é", "X",
                ]),
                any::<Vec<u8>>(),
            ),
            0..6,
        )
    ) {
        let fields = head.iter().map(|(name, value)| (*name, value.as_slice()));
        if let Ok(instruct) = Instruct::from_head(200, "OK", fields) {
            prop_assert!(instruct.hold_timeout() >= MIN_TIMEOUT);
            prop_assert!(instruct.channels.iter().all(|c| c.filters.len() <= MAX_FILTERS));
        }
    }

    #[test]
    fn any_json_is_read_without_panic(body in r#"[\[\]{}:,"a-z0-9\\ -]{0,40}"#, bytes: Vec<u8>) {
        for body in [body.as_bytes(), &bytes] {
            let mut instruct = read("Content-Type: application/grip-instruct").unwrap();
            instruct.apply_json(body).ok();
        }
    }

    #[test]
    fn channels_written_as_headers_are_read_back(
        names in proptest::collection::vec("[a-z][a-z0-9:./-]{0,8}", 1..5), id in "[ -~]{0,8}",
    ) {
        let quoted = id.replace('\\', "\\\\").replace('"', "\\\"");
        let value: Vec<String> = names.iter().map(|name| format!("{name}; prev-id=\"{quoted}\"")).collect();
        let value = value.join(", ");
        let instruct = Instruct::from_head(200, "OK", [("Grip-Channel", value.as_bytes())].into_iter()).unwrap();
        let expected: Vec<ChannelRef> = names.iter().map(|name| channel_ref(name, Some(&id), &[])).collect();
        prop_assert_eq!(instruct.channels, expected);
    }
}
