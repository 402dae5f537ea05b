//! Headers on their way to a backend, and proxies behind proxies.

use waft_testkit::{Reply, Request, Server, Setup, Target, WebSocket, differs, subject, waft_only};

/// What a backend sees of a request, with a server set up so; `{}` in the route is the backend.
fn seen(setup: Setup, route: &str, fields: &str) -> Request {
    let target = Target::start(|_| Reply::text(""));
    let server = Server::start(setup.route(route.replace("{}", &target.address().to_string())));
    server.fetch(format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    target.next_request()
}

fn values<'a>(request: &'a Request, name: &'a str) -> Vec<&'a str> {
    request.head.headers(name).collect()
}

#[test]
fn the_scheme_that_a_client_claims_counts_only_where_it_is_believed() {
    let claim = "X-Forwarded-Proto: https\r\nX-Forwarded-Protocol: https\r\n";
    let plain = seen(Setup::new(), "* {}", claim);
    assert_eq!((plain.header("X-Forwarded-Proto"), plain.header("X-Forwarded-Protocol")), (None, None));
    let believed = seen(Setup::new().proxy("accept_x_forwarded_protocol=true"), "*,ssl=yes {}", claim);
    assert_eq!(values(&believed, "X-Forwarded-Proto"), ["https"]);
    assert_eq!(believed.header("X-Forwarded-Protocol"), None);
    let setup = Setup::new().proxy("accept_x_forwarded_protocol=true").proxy("set_x_forwarded_protocol=true");
    let both = seen(setup, "* {}", "X-Forwarded-Protocol: https\r\n");
    assert_eq!((both.header("X-Forwarded-Proto"), both.header("X-Forwarded-Protocol")), (Some("https"), Some("https")));
    let untouched = seen(Setup::new().proxy("set_x_forwarded_protocol=false"), "* {}", claim);
    assert_eq!(values(&untouched, "X-Forwarded-Proto"), ["https"]);
}

#[test]
fn several_lines_of_addresses_become_one() {
    let setup = Setup::new().proxy("x_forwarded_for=truncate:2,append");
    let request = seen(setup, "* {}", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\r\n");
    assert_eq!(values(&request, "X-Forwarded-For"), ["2.2.2.2, 3.3.3.3, 127.0.0.1"]);
}

#[test]
fn a_token_is_added_to_the_loop_header() {
    waft_only!("Pushpin 1.36 has no cdn_loop");
    let setup = Setup::new().proxy("cdn_loop=mine");
    let request = seen(setup, "* {}", "CDN-Loop: a; v=1, b\r\nCDN-Loop: c\r\n");
    assert_eq!(values(&request, "CDN-Loop"), ["a; v=1, b, c, mine"]);
}

#[test]
fn original_headers_are_told_as_they_are_once_the_route_has_set_its_own() {
    let setup = || Setup::new().proxy("orig_headers_need_mark=X-Need");
    let sent = "X-One: 1\r\nX-Need: 2\r\neb9bf0f5-X-Two: 3\r\n";
    let marked = seen(setup(), "*,orig_headers,header=X-One:changed {}", sent);
    assert_eq!(values(&marked, "X-One"), ["changed"]);
    assert_eq!(values(&marked, "eb9bf0f5-X-One"), ["changed"]);
    assert_eq!(values(&marked, "eb9bf0f5-X-Two"), ["3"]);
    assert_eq!((marked.header("X-Need"), marked.header("eb9bf0f5-X-Need")), (Some("2"), None));
    let bare = seen(setup(), "* {}", sent);
    assert_eq!((bare.header("X-One"), bare.header("eb9bf0f5-X-Two")), (Some("1"), None));
}

#[test]
fn names_that_backends_read_like_grip_headers_do_not_pass_either() {
    waft_only!("Pushpin lets them through");
    let request = seen(Setup::new(), "* {}", "Grip_Sig: forged\r\nGRIP_Last: c; last-id=1\r\neb9bf0f5_X: 1\r\n");
    let names: Vec<String> = request.head.fields().iter().map(|(name, _)| name.to_lowercase()).collect();
    assert!(!names.iter().any(|name| name.contains('_')), "{names:?}");
}

#[test]
fn the_header_that_chooses_a_route_goes_no_further() {
    let target = Target::start(|_| Reply::text("ok"));
    let setup = Setup::new().route(format!("*,id=one {}", target.address())).proxy("accept_pushpin_route=true");
    let server = Server::start(setup);
    let ask = |id: &str| server.fetch(format!("GET /x HTTP/1.1\r\nHost: a\r\nPushpin-Route: {id}\r\n\r\n"));
    assert_eq!(ask("one").body_text(), "ok");
    assert_eq!(target.next_request().header("Pushpin-Route"), None);
    // An id that no route has leads nowhere, although the host has a route.
    assert_eq!(ask("two").status(), 502);
}

#[test]
fn a_path_that_loses_its_beginning_still_begins_with_a_slash() {
    waft_only!("Pushpin asks the backend for a path without a slash");
    assert_eq!(seen(Setup::new(), "*,path_rem=2 {}", "").path(), "/");
    let target = Target::start(|_| Reply::text(""));
    let server = Server::start(Setup::new().route(format!("*,path_rem=4 {}", target.address())));
    server.fetch("GET /apix/y?z HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(target.next_request().path(), "/x/y?z");
}

/// An outer server in front of an inner one that trusts it, in front of a backend.
struct Nested {
    target: Target,
    inner: Server,
    outer: Server,
}

fn nested(outer_route: &str, inner_route: &str, inner: Setup, answer: fn(&Request) -> Reply) -> Nested {
    let target = Target::start(answer);
    let inner = inner.proxy("upstream_key=shared").proxy("sig_key=inner");
    let inner = Server::start(inner.route(inner_route.replace("{}", &target.address().to_string())));
    let outer = Setup::new().proxy("sig_key=shared").proxy("x_forwarded_for=append");
    let outer = Server::start(outer.route(outer_route.replace("{}", &inner.address().to_string())));
    Nested { target, inner, outer }
}

#[test]
fn a_trusted_proxy_has_a_rule_of_its_own_for_addresses() {
    let rules = Setup::new().proxy("x_forwarded_for=truncate:0,append").proxy("x_forwarded_for_trusted=");
    let chain = nested("* {}", "* {}", rules, |_| Reply::text(""));
    chain.outer.fetch("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n");
    assert_eq!(values(&chain.target.next_request(), "X-Forwarded-For"), ["9.9.9.9, 127.0.0.1"]);
    chain.inner.fetch("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n");
    assert_eq!(values(&chain.target.next_request(), "X-Forwarded-For"), ["127.0.0.1"]);
}

#[test]
fn original_headers_pass_a_second_proxy_unchanged() {
    let chain = nested("*,orig_headers {}", "*,orig_headers,header=X-One:inner {}", Setup::new(), |_| Reply::text(""));
    chain.outer.fetch("GET / HTTP/1.1\r\nHost: a\r\nX-One: 1\r\n\r\n");
    let request = chain.target.next_request();
    assert_eq!((values(&request, "X-One"), values(&request, "eb9bf0f5-X-One")), (vec!["inner"], vec!["1"]));
}

#[test]
fn events_of_a_trusted_proxy_reach_a_backend_and_those_of_others_do_not() {
    let chain = nested("* {}", "* {},over_http", Setup::new(), |_| Reply::text("taken"));
    let events =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/websocket-events\r\nContent-Length: 6\r\n\r\nOPEN\r\n";
    assert_eq!(chain.outer.fetch(events).body_text(), "taken");
    assert_eq!(chain.target.next_request().body_text(), "OPEN\r\n");
    let refused = chain.inner.fetch(events);
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.body_text(), "Client not allowed to send WebSocket events directly.\n");
}

#[test]
fn a_websocket_through_two_proxies_is_held_by_the_outer_one() {
    let answer = |request: &Request| {
        let body = match request.body_text().starts_with("OPEN") {
            true => "OPEN\r\nTEXT 2F\r\nc:{\"type\":\"subscribe\",\"channel\":\"room\"}     \r\n".to_owned(),
            false => String::new(),
        };
        let events = Reply::status("200 OK").header("Content-Type", "application/websocket-events");
        events.header("Sec-WebSocket-Extensions", "grip; message-prefix=\"\"").body(body)
    };
    let chain = nested("* {},over_http", "* {},over_http", Setup::new(), answer);
    let mut client = WebSocket::open(chain.outer.connect(), "/ws", "");
    chain.outer.wait_for_holds(1);
    chain.outer.publish_text("room", "from outside");
    client.expect_text("from outside");
}

/// The two programs one behind the other, where both are there.
fn mixed(outer: waft_testkit::Subject, inner: waft_testkit::Subject) {
    if subject() != waft_testkit::Subject::Pushpin {
        // Only with the judge is Pushpin sure to be installed.
        return;
    }
    let target = Target::start(|request| match request.path() {
        "/poll" => Reply::hold("response", "c").header("Grip-Timeout", "20").body("nothing\n"),
        _ => Reply::hold("stream", "c").body("open\n"),
    });
    let behind = Setup::to(&target).proxy("upstream_key=shared").proxy("sig_key=inner");
    let behind = Server::start_as(inner, behind);
    let front = Setup::new().route(format!("* {}", behind.address())).proxy("sig_key=shared");
    let front = Server::start_as(outer, front);
    let mut stream = front.get("/stream");
    stream.expect_head(200);
    stream.expect_stream("open\n");
    front.publish_text("c", "item");
    stream.expect_stream("item");
    let mut poll = front.get("/poll");
    front.wait_for_holds(2);
    front.publish_text("c", "answer");
    assert_eq!(poll.response().body_text(), "answer");
}

#[test]
fn pushpin_serves_behind_waft() {
    mixed(waft_testkit::Subject::Waft, waft_testkit::Subject::Pushpin);
}

#[test]
fn waft_serves_behind_pushpin() {
    mixed(waft_testkit::Subject::Pushpin, waft_testkit::Subject::Waft);
}

#[test]
fn requests_that_no_route_is_for_are_told_so() {
    let server = Server::start(Setup::new().route("known.example test"));
    let answer = server.fetch("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n");
    let text = differs("waft speaks as newer versions", "No route for host: other.example\n", "Route not found\n");
    assert_eq!((answer.status(), answer.body_text().as_str()), (502, text));
}
