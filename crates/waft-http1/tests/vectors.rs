//! Ordinary messages, as clients and servers send them.

#![expect(clippy::panic, reason = "a helper of tests fails the test")]

use waft_http1::{
    BodyDecoder, BodyError, Decoded, Framing, HeadLimits, Parsed, RequestHead, ResponseHead, Version, parse_request,
    parse_response,
};

fn request(input: &str) -> RequestHead {
    match parse_request(input.as_bytes(), &HeadLimits::default()) {
        Ok(Parsed::Complete { head, .. }) => head,
        other => panic!("{input:?} gave {other:?}"),
    }
}

fn response(input: &str) -> ResponseHead {
    match parse_response(input.as_bytes(), &HeadLimits::default()) {
        Ok(Parsed::Complete { head, .. }) => head,
        other => panic!("{input:?} gave {other:?}"),
    }
}

#[test]
fn a_browsers_request_is_read_whole() {
    let input = "GET /stream?channel=a&x=%20 HTTP/1.1\r\nHost: example.com:7999\r\nUser-Agent:  Firefox \r\n\
                 Accept: */*\r\nCookie: a=1\r\nCookie: b=2\r\nEmpty:\r\nConnection: keep-alive\r\n\r\nGET /next";
    let Ok(Parsed::Complete { head, consumed }) = parse_request(input.as_bytes(), &HeadLimits::default()) else {
        panic!("not complete");
    };
    assert_eq!(input.get(consumed..), Some("GET /next"));
    assert_eq!((head.method(), head.version()), ("GET", Version::Http11));
    assert_eq!(head.target(), "/stream?channel=a&x=%20");
    assert_eq!((head.path(), head.query()), ("/stream", Some("channel=a&x=%20")));
    assert_eq!((head.authority(), head.host()), (Some("example.com:7999"), Some("example.com")));
    assert_eq!(head.field("user-agent"), Some(b"Firefox".as_slice()));
    assert_eq!(head.field("empty"), Some(b"".as_slice()));
    assert_eq!(head.field("missing"), None);
    assert_eq!(head.fields_named("COOKIE").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
    let names: Vec<&str> = head.fields().map(|(name, _)| name).collect();
    assert_eq!(names, ["Host", "User-Agent", "Accept", "Cookie", "Cookie", "Empty", "Connection"]);
    assert_eq!(head.framing(), Framing::None);
    assert!(head.keep_alive() && !head.expects_continue() && !head.is_head());
    assert_eq!(head.upgrade(), None);
}

#[test]
fn every_form_of_target_has_a_path_and_an_authority() {
    type Expected = (&'static str, Option<&'static str>, &'static str, Option<&'static str>);
    let cases: [(&str, Expected); 14] = [
        ("GET /", ("/", None, "/", Some("field"))),
        ("GET /?", ("/", Some(""), "/?", Some("field"))),
        ("GET /a?b?c", ("/a", Some("b?c"), "/a?b?c", Some("field"))),
        ("GET //a/../b", ("//a/../b", None, "//a/../b", Some("field"))),
        ("GET /caf\u{e9}?\u{e9}", ("/caf\u{e9}", Some("\u{e9}"), "/caf\u{e9}?\u{e9}", Some("field"))),
        ("GET http://a/b?c", ("/b", Some("c"), "/b?c", Some("a"))),
        ("GET HTTP://a:80/b", ("/b", None, "/b", Some("a:80"))),
        ("GET https://[::1]:80", ("/", None, "/", Some("[::1]:80"))),
        ("GET http://a?b/c", ("/", Some("b/c"), "/?b/c", Some("a"))),
        ("GET http://a?", ("/", Some(""), "/?", Some("a"))),
        ("GET ws://a/b", ("/b", None, "/b", Some("a"))),
        ("OPTIONS *", ("*", None, "*", Some("field"))),
        ("OPTIONS http://a", ("/", None, "/", Some("a"))),
        ("CONNECT a:443", ("", None, "", Some("a:443"))),
    ];
    for (line, expected) in cases {
        let head = request(&format!("{line} HTTP/1.1\r\nHost: field\r\n\r\n"));
        assert_eq!((head.path(), head.query(), head.path_and_query(), head.authority()), expected, "{line}");
        assert_eq!(head.target(), line.split(' ').nth(1).unwrap());
    }
}

#[test]
fn hosts_are_read_with_and_without_port() {
    let cases = [
        ("Host: a.b-c_d.example", Some("a.b-c_d.example"), Some("a.b-c_d.example")),
        ("Host: 127.0.0.1:80", Some("127.0.0.1:80"), Some("127.0.0.1")),
        ("Host: [::1]:80", Some("[::1]:80"), Some("[::1]")),
        ("Host: [::ffff:1.2.3.4]", Some("[::ffff:1.2.3.4]"), Some("[::ffff:1.2.3.4]")),
        ("Host: a:", Some("a:"), Some("a")),
        ("Host:", None, None),
        ("X: y", None, None),
    ];
    for (field, authority, host) in cases {
        let head = request(&format!("GET / HTTP/1.1\r\n{field}\r\n\r\n"));
        assert_eq!((head.authority(), head.host()), (authority, host), "{field}");
    }
}

#[test]
fn one_or_two_blank_lines_before_a_request_are_skipped() {
    for blank in ["\r\n", "\r\n\r\n"] {
        let input = format!("{blank}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let Ok(Parsed::Complete { head, consumed }) = parse_request(input.as_bytes(), &HeadLimits::default()) else {
            panic!("not complete");
        };
        assert_eq!((consumed, head.method(), head.authority()), (input.len(), "GET", Some("a")));
        assert_eq!(head, request("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
}

#[test]
fn the_connection_persists_as_version_and_options_say() {
    let cases = [
        ("1.1", "X: y", true),
        ("1.1", "Connection: close", false),
        ("1.1", "Connection: CLOSE", false),
        ("1.1", "Connection: upgrade, Close", false),
        ("1.1", "Connection: closed", true),
        ("1.1", "Connection: keep-alive\r\nConnection: close", false),
        ("1.0", "X: y", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.0", "Connection: keep-alive, close", false),
    ];
    for (version, field, expected) in cases {
        assert_eq!(request(&format!("GET / HTTP/{version}\r\n{field}\r\n\r\n")).keep_alive(), expected, "{field}");
        assert_eq!(response(&format!("HTTP/{version} 200 OK\r\n{field}\r\n\r\n")).keep_alive(), expected, "{field}");
    }
}

#[test]
fn an_upgrade_needs_both_fields() {
    let cases = [
        ("1.1", "Upgrade: websocket\r\nConnection: Upgrade", Some("websocket")),
        ("1.1", "Upgrade: WebSocket\r\nConnection: keep-alive, UPGRADE", Some("WebSocket")),
        ("1.1", "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket", Some("h2c")),
        ("1.1", "Upgrade: websocket", None),
        ("1.1", "Connection: upgrade", None),
        ("1.1", "Upgrade:\r\nConnection: upgrade", None),
        ("1.1", "Upgrade: websocket\r\nConnection: upgraded", None),
        ("1.0", "Upgrade: websocket\r\nConnection: upgrade", None),
    ];
    for (version, fields, expected) in cases {
        let head = request(&format!("GET / HTTP/{version}\r\n{fields}\r\n\r\n"));
        assert_eq!(head.upgrade(), expected, "{fields}");
    }
    let switching = response("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(switching.upgrade(), Some("websocket"));
}

#[test]
fn a_client_waits_for_continue_only_with_a_body_to_send() {
    let cases = [
        ("1.1", "Expect: 100-continue\r\nContent-Length: 5", true),
        ("1.1", "Expect: 100-Continue\r\nTransfer-Encoding: chunked", true),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 0", false),
        ("1.1", "Expect: 100-continue", false),
        ("1.1", "Expect: something\r\nContent-Length: 5", false),
        ("1.0", "Expect: 100-continue\r\nContent-Length: 5", false),
    ];
    for (version, fields, expected) in cases {
        let head = request(&format!("POST / HTTP/{version}\r\n{fields}\r\n\r\n"));
        assert_eq!(head.expects_continue(), expected, "{fields}");
    }
}

#[test]
fn requests_declare_their_bodies() {
    let cases = [
        ("X: y", Framing::None),
        ("Content-Length: 0", Framing::Length(0)),
        ("Content-Length:  005 ", Framing::Length(5)),
        ("content-length: 18446744073709551615", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: chunked", Framing::Chunked),
        ("transfer-encoding:CHUNKED ", Framing::Chunked),
    ];
    for (field, expected) in cases {
        assert_eq!(request(&format!("GET / HTTP/1.1\r\n{field}\r\n\r\n")).framing(), expected, "{field}");
    }
}

#[test]
fn responses_have_bodies_as_status_and_method_say() {
    use Framing::{Chunked, Length, None, UntilClose};
    let cases = [
        ("GET", "200 OK", "Content-Length: 5", Length(5)),
        ("GET", "200 OK", "Transfer-Encoding: chunked", Chunked),
        ("GET", "200 OK", "X: y", UntilClose),
        ("HEAD", "200 OK", "Content-Length: 5", None),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked", None),
        ("head", "200 OK", "Content-Length: 5", Length(5)),
        ("GET", "100 Continue", "X: y", None),
        ("GET", "101 Switching Protocols", "Upgrade: websocket", None),
        ("GET", "103 Early Hints", "Link: </a>", None),
        ("GET", "204 No Content", "Content-Length: 0", None),
        ("GET", "304 Not Modified", "Content-Length: 5", None),
        ("GET", "205 Reset Content", "Content-Length: 0", Length(0)),
        ("CONNECT", "200 OK", "Content-Length: 5", None),
        ("CONNECT", "403 Forbidden", "Content-Length: 5", Length(5)),
    ];
    for (method, status, field, expected) in cases {
        let head = response(&format!("HTTP/1.1 {status}\r\n{field}\r\n\r\n"));
        assert_eq!(head.framing(method), Ok(expected), "{method} {status} {field}");
    }
}

#[test]
fn reason_phrases_may_be_anything_or_missing() {
    let cases = [
        ("HTTP/1.1 200 OK", 200, "OK"),
        ("HTTP/1.1 404 Not  Found ", 404, "Not  Found "),
        ("HTTP/1.1 200 ", 200, ""),
        ("HTTP/1.1 200", 200, ""),
        ("HTTP/1.0 999 \u{fc}ber", 999, "\u{fc}ber"),
    ];
    for (line, status, reason) in cases {
        let head = response(&format!("{line}\r\nA: b\r\n\r\n"));
        assert_eq!((head.status(), head.reason()), (status, reason));
        assert_eq!(head.fields().collect::<Vec<_>>(), [("A", b"b".as_slice())]);
    }
}

#[test]
fn values_beyond_utf8_are_kept_as_they_are() {
    let input = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-Latin: caf\xe9\tau lait\r\n\r\n";
    let Ok(Parsed::Complete { head, .. }) = parse_request(input, &HeadLimits::default()) else {
        panic!("not complete");
    };
    assert_eq!(head.field("x-latin"), Some(b"caf\xe9\tau lait".as_slice()));
    assert_eq!((head.method(), head.path(), head.query(), head.host()), ("GET", "/a", Some("b"), Some("h")));
    let names: Vec<&str> = head.fields().map(|(name, _)| name).collect();
    assert_eq!(names, ["Host", "X-Latin"]);
}

#[test]
fn only_end_to_end_fields_are_passed_on() {
    let head = request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
         Proxy-Connection: x\r\nUpgrade: y\r\nTrailer: z\r\nx-hop: 2\r\nX-End: 3\r\n\r\n",
    );
    assert_eq!(head.connection_options().collect::<Vec<_>>(), ["close", "X-Hop"]);
    let passed: Vec<&str> = head.end_to_end_fields().map(|(name, _)| name).collect();
    assert_eq!(passed, ["Host", "X-End"]);
    let head = response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nServer: s\r\nConnection: keep-alive\r\n\r\n");
    let passed: Vec<&str> = head.end_to_end_fields().map(|(name, _)| name).collect();
    assert_eq!(passed, ["Server"]);
}

#[test]
fn the_end_of_a_body_is_known_as_early_as_it_can_be() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(b"5\r\nhel"), Ok(Decoded { consumed: 6, data: b"hel" }));
    assert_eq!(decoder.decode(b"lo\r\n0\r\n\r\nnext"), Ok(Decoded { consumed: 9, data: b"lo" }));
    assert!(decoder.is_done());
    assert_eq!(decoder.remaining(), Some(0));
    assert_eq!(decoder.decode(b"next"), Ok(Decoded { consumed: 0, data: b"" }));
    assert_eq!(decoder.finish(), Ok(()));

    let mut decoder = BodyDecoder::new(Framing::Length(5));
    assert_eq!(decoder.decode(b"hel"), Ok(Decoded { consumed: 3, data: b"hel" }));
    assert_eq!((decoder.remaining(), decoder.is_done()), (Some(2), false));
    assert_eq!(decoder.decode(b"lonext"), Ok(Decoded { consumed: 2, data: b"lo" }));
    assert!(decoder.is_done());

    for framing in [Framing::None, Framing::Length(0)] {
        let mut decoder = BodyDecoder::new(framing);
        assert!(decoder.is_done());
        assert_eq!(decoder.decode(b"next"), Ok(Decoded { consumed: 0, data: b"" }));
        assert_eq!(decoder.finish(), Ok(()));
    }
}

#[test]
fn data_before_an_error_is_not_lost() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(b"5\r\nhello!"), Ok(Decoded { consumed: 8, data: b"hello" }));
    assert_eq!(decoder.decode(b"!"), Err(BodyError::ChunkNotEnded));
    assert_eq!(decoder.decode(b"\r\n"), Err(BodyError::ChunkNotEnded));
    assert_eq!(decoder.finish(), Err(BodyError::ChunkNotEnded));
}

#[test]
fn a_body_that_the_close_cuts_short_is_an_error() {
    let check = |framing: Framing, input: &[u8], expected: Result<(), BodyError>| {
        let mut decoder = BodyDecoder::new(framing);
        let mut rest = input;
        while !rest.is_empty() {
            let decoded = decoder.decode(rest).unwrap();
            rest = &rest[decoded.consumed..];
        }
        assert_eq!(decoder.finish(), expected, "{framing:?} {}", input.escape_ascii());
        assert_eq!(decoder.is_done(), expected.is_ok());
    };
    check(Framing::UntilClose, b"", Ok(()));
    check(Framing::UntilClose, b"hello", Ok(()));
    check(Framing::Length(5), b"hello", Ok(()));
    check(Framing::Length(5), b"hell", Err(BodyError::CutShort));
    check(Framing::Chunked, b"5;x=\"y\"\r\nhello\r\n0\r\nA: b\r\nC:\r\n\r\n", Ok(()));
    for cut in ["", "5", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0\r\nA: b\r\n", "0\r\n\r"]
    {
        check(Framing::Chunked, cut.as_bytes(), Err(BodyError::CutShort));
    }
}
