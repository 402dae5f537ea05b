//! `auto_cross_origin` and `aco`: answers that scripts of other sites can read.

use serde_json::{Value, json};
use waft_testkit::{Reply, Request, Response, Server, Setup, Target, differs, free_port, waft_only};

/// What a backend that knows nothing of other sites answers; its path says how.
fn plain_target() -> Target {
    Target::start(|request: &Request| match request.path().split('?').next().unwrap_or_default() {
        "/hold" => Reply::hold("response", "one").header("X-One", "1").header("Grip-Timeout", "5").body("waiting\n"),
        "/stream" => Reply::hold("stream", "one").header("X-One", "1").body("open\n"),
        "/own" => Reply::text("own").header("Access-Control-Allow-Origin", "https://only.example"),
        "/gone" => Reply::status("404 Not Found").header("X-One", "1").body("no \"such\" thing\n\n"),
        "/bytes" => Reply::text([0x61, 0xff, 0x62]),
        "/large" => Reply::text("0123456789".repeat(30_000)),
        _ => Reply::status("201 Created")
            .header("X-One", "1")
            .header("Cache-Control", "max-age=3")
            .header("Content-Type", "text/plain")
            .body(request.body.clone()),
    })
}

fn cors(response: &Response) -> Vec<(String, String)> {
    let fields = response.head.fields().iter();
    fields.filter(|(name, _)| name.starts_with("Access-Control-")).cloned().collect()
}

fn expect_cors(response: &Response, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(name, value)| (format!("Access-Control-{name}"), (*value).to_owned())).collect();
    assert_eq!(cors(response), expected);
}

const ALLOW_ALL: [(&str, &str); 4] = [
    ("Allow-Methods", "OPTIONS, HEAD, GET, POST, PUT, DELETE"),
    ("Allow-Credentials", "true"),
    ("Allow-Origin", "*"),
    ("Max-Age", "3600"),
];

/// The same, with a header to expose.
const EXPOSE_ONE: [(&str, &str); 5] = [
    ("Allow-Methods", "OPTIONS, HEAD, GET, POST, PUT, DELETE"),
    ("Expose-Headers", "X-One"),
    ("Allow-Credentials", "true"),
    ("Allow-Origin", "*"),
    ("Max-Age", "3600"),
];

fn ask(server: &Server, request: &str, fields: &str) -> Response {
    server.fetch(format!("{request} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"))
}

#[test]
fn responses_of_a_route_with_aco_may_be_read_everywhere() {
    let target = plain_target();
    let server = Server::start(
        Setup::new()
            .route(format!("*,aco {}", target.address()))
            .route(format!("*,path_beg=/bare {}", target.address()))
            .route(format!("*,aco,path_beg=/down 127.0.0.1:{}", free_port())),
    );
    expect_cors(&ask(&server, "GET /x", ""), &EXPOSE_ONE);
    expect_cors(&ask(&server, "GET /bare", ""), &[]);
    let down = ask(&server, "GET /down", "");
    assert_eq!(down.body_text(), "Error while proxying to origin.\n");
    expect_cors(&down, &ALLOW_ALL);
    let own = ask(&server, "GET /own", "");
    let kept = [ALLOW_ALL[0], ALLOW_ALL[1], ALLOW_ALL[3]];
    assert_eq!(own.head.header("Access-Control-Allow-Origin"), Some("https://only.example"));
    let mut rest = cors(&own);
    rest.retain(|(name, _)| name != "Access-Control-Allow-Origin");
    assert_eq!(rest, kept.map(|(name, value)| (format!("Access-Control-{name}"), value.to_owned())));
}

#[test]
fn a_preflight_request_is_answered_by_the_backend_and_allowed_what_it_asks_for() {
    let target = plain_target();
    let server = Server::start(Setup::new().route(format!("*,aco {}", target.address())));
    let asked = "Origin: https://app.example\r\nAccess-Control-Request-Method: PATCH\r\n\
                 Access-Control-Request-Headers: X-A, X-B\r\n";
    let expected = [
        ("Allow-Methods", "PATCH"),
        ("Allow-Headers", "X-A, X-B"),
        ("Expose-Headers", "X-One"),
        ("Allow-Credentials", "true"),
        ("Allow-Origin", "https://app.example"),
        ("Max-Age", "3600"),
    ];
    expect_cors(&ask(&server, "OPTIONS /x", asked), &expected);
    assert_eq!(target.next_request().head.method(), "OPTIONS");
}

#[test]
fn held_responses_and_streams_may_be_read_everywhere() {
    let target = plain_target();
    let server = Server::start(Setup::new().route(format!("*,aco {}", target.address())));
    let mut poll = server.get("/hold");
    server.wait_for_holds(1);
    let items = json!([{ "channel": "one", "formats": { "http-response": { "body": "news\n" } } }]);
    server.publish_until_answered(&mut poll, &items);
    let answer = poll.response();
    assert_eq!(answer.body_text(), "news\n");
    expect_cors(&answer, &EXPOSE_ONE);
    let mut stream = server.get("/stream");
    let head = stream.expect_head(200);
    assert_eq!(head.header("Access-Control-Expose-Headers"), Some("X-One"));
    assert_eq!(head.header("Access-Control-Allow-Origin"), Some("*"));
}

#[test]
fn auto_cross_origin_is_for_all_routes_and_for_requests_without_one() {
    let target = plain_target();
    let setup = Setup::new().route(format!("a.example {}", target.address())).proxy("auto_cross_origin=true");
    let server = Server::start(setup);
    expect_cors(&ask(&server, "GET /x", ""), &EXPOSE_ONE);
    let lost = server.fetch("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert_eq!(lost.status(), 502);
    expect_cors(&lost, &ALLOW_ALL);
}

/// The callback and the JSON of an extended answer.
fn called(response: &Response) -> (String, Value) {
    assert_eq!((response.status(), response.head.header("Content-Type")), (200, Some("application/javascript")));
    assert_eq!(cors(response), []);
    let text = response.body_text();
    let (callback, json) = text.strip_prefix("/**/").and_then(|text| text.split_once('(')).unwrap();
    (callback.to_owned(), serde_json::from_str(json.strip_suffix(");\n").unwrap()).unwrap())
}

#[test]
fn a_script_url_stands_for_any_request_and_gets_the_response_as_a_call() {
    let target = plain_target();
    let server = Server::start(Setup::new().route(format!("*,aco {}", target.address())));
    let query = "a=%20b&callback=app.done&_method=PUT&_body=%7B%22k%22%3A1%7D&c\
                 &_headers=%7B%22X-Mine%22%3A%22m%22%2C%22Host%22%3A%22evil%22%7D";
    let answer = ask(&server, &format!("GET /x?{query}"), "");
    let (callback, call) = called(&answer);
    assert_eq!(callback, "app.done");
    assert_eq!((&call["code"], &call["reason"], &call["body"]), (&json!(201), &json!("Created"), &json!("{\"k\":1}")));
    assert_eq!(call["headers"]["X-One"], "1");
    let request = target.next_request();
    assert_eq!((request.head.method(), request.path()), ("PUT", "/x?a=%20b&c"));
    assert_eq!((request.header("Host"), request.header("X-Mine")), (Some("a.example"), Some("m")));
    assert_eq!((request.header("Accept"), request.body_text().as_str()), (Some("*/*"), "{\"k\":1}"));
}

#[test]
fn a_call_tells_of_errors_too() {
    let target = plain_target();
    let server = Server::start(
        Setup::new()
            .route(format!("*,aco {}", target.address()))
            .route(format!("*,aco,path_beg=/down 127.0.0.1:{}", free_port())),
    );
    let (_, missing) = called(&ask(&server, "GET /gone?callback=f", ""));
    assert_eq!((&missing["code"], &missing["body"]), (&json!(404), &json!("no \"such\" thing\n\n")));
    let (_, down) = called(&ask(&server, "GET /down?callback=f", ""));
    assert_eq!((&down["code"], &down["body"]), (&json!(502), &json!("Error while proxying to origin.\n")));
    let (_, bytes) = called(&ask(&server, "GET /bytes?callback=f", ""));
    assert_eq!(bytes["body"], "a\u{fffd}b");
    let (_, large) = called(&ask(&server, "GET /large?callback=f", ""));
    assert_eq!(large["body"].as_str().map(str::len), Some(300_000));
}

#[test]
fn a_head_request_by_script_is_answered_with_a_script() {
    let target = plain_target();
    let server = Server::start(Setup::new().route(format!("*,aco {}", target.address())));
    let (_, call) = called(&ask(&server, "GET /x?callback=f&_method=HEAD", ""));
    assert_eq!((&call["code"], &call["body"]), (&json!(201), &json!("")));
    assert_eq!(target.next_request().head.method(), "HEAD");
}

#[test]
fn bad_script_urls_are_refused() {
    let target = plain_target();
    let server = Server::start(Setup::new().route(format!("*,aco {}", target.address())));
    let cases = [
        ("callback=", "Invalid callback parameter.\n"),
        ("callback=f&_method=", "Invalid _method parameter.\n"),
        ("callback=f&_headers=x", "Invalid _headers parameter.\n"),
        ("callback=f&_headers=%7B%22a%22%3A1%7D", "Invalid _headers parameter.\n"),
    ];
    for (query, text) in cases {
        let answer = ask(&server, &format!("GET /x?{query}"), "");
        assert_eq!((answer.status(), answer.body_text().as_str()), (400, text), "{query}");
        expect_cors(&answer, &ALLOW_ALL);
    }
    let code = ask(&server, "GET /x?callback=alert(1)%3Bf", "").status();
    assert_eq!(code, differs("Pushpin lets whoever makes the link put any script into the answer", 200, 400));
}

#[test]
fn a_basic_call_has_the_body_alone() {
    let target = plain_target();
    let server = Server::start(Setup::new().route(format!("*,aco,jsonp_mode=basic {}", target.address())));
    let answer = ask(&server, "GET /x?callback=f&_body=%7B%22k%22%3A1%7D%0A%0A", "");
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "/**/f({\"k\":1}\n);\n"));
    assert_eq!(target.next_request().head.method(), "POST");
}

#[test]
fn a_route_names_the_parameters_of_script_urls() {
    let target = plain_target();
    let line = format!("*,aco,jsonp_cb=cb,jsonp_body=data,jsonp_defcb=def,jsonp_defmethod=PUT {}", target.address());
    let server = Server::start(Setup::new().route(line));
    let (callback, call) = called(&ask(&server, "GET /x?data=%7B%22a%22%3A1%7D&callback=x", ""));
    assert_eq!((callback.as_str(), &call["body"]), ("def", &json!("{\"a\":1}")));
    let request = target.next_request();
    assert_eq!((request.head.method(), request.path()), ("PUT", "/x?callback=x"));
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    let (callback, _) = called(&ask(&server, "GET /x?cb=mine", ""));
    assert_eq!(callback, "mine");
    assert_eq!(ask(&server, "GET /plain?callback=f", "").status(), 201);
}

#[test]
fn a_held_response_becomes_a_call_when_it_is_answered() {
    let target = plain_target();
    let server = Server::start(
        Setup::new()
            .route(format!("*,aco {}", target.address()))
            .route(format!("basic,aco,jsonp_mode=basic,jsonp_defmethod=GET {}", target.address())),
    );
    let items = json!([{ "channel": "one", "formats": { "http-response": { "body": "ne\"ws\n" } } }]);
    let mut poll = server.get("/hold?callback=f");
    server.wait_for_holds(1);
    server.publish_until_answered(&mut poll, &items);
    let (_, call) = called(&poll.response());
    assert_eq!(
        (&call["code"], &call["body"], &call["headers"]["X-One"]),
        (&json!(200), &json!("ne\"ws\n"), &json!("1"))
    );
    let mut poll = server.connect();
    poll.send("GET /hold?callback=f HTTP/1.1\r\nHost: basic\r\n\r\n");
    server.wait_for_holds(1);
    server.publish_until_answered(&mut poll, &items);
    assert_eq!(poll.response().body_text(), "/**/f(ne\"ws);\n");
}

#[test]
fn clients_that_hold_the_same_way_with_and_without_a_call_get_each_their_own_answer() {
    let target = plain_target();
    let server = Server::start(Setup::new().route(format!("*,aco {}", target.address())));
    let mut script = server.get("/hold?callback=f");
    let mut other = server.get("/hold?callback=g");
    let mut plain = server.get("/hold");
    server.wait_for_holds(differs("only the first subscription is told of", 1, 3));
    let items = json!([{ "channel": "one", "formats": { "http-response": { "body": "news\n" } } }]);
    for client in [&mut script, &mut other, &mut plain] {
        server.publish_until_answered(client, &items);
    }
    assert_eq!(called(&script.response()).0, "f");
    assert_eq!(called(&other.response()).0, "g");
    assert_eq!(plain.response().body_text(), "news\n");
}

#[test]
fn a_request_that_asks_what_answers_here_is_told() {
    let target = plain_target();
    let server = Server::start(Setup::to(&target));
    let answer = ask(&server, "GET /x", "Pushpin-Check: 1\r\n");
    assert_eq!((answer.status(), answer.head.header("Content-Type")), (200, Some("text/plain")));
    assert_eq!(target.request_count(), 0);
    waft_only!("each program tells its own name");
    assert!(answer.body_text().starts_with("waft "), "{}", answer.body_text());
}
