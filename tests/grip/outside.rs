//! Links that lead to other hosts than that of the client's request.

use serde_json::json;
use waft_testkit::{Reply, Server, Setup, Target, waft_only};

/// A stream whose next link leads to `elsewhere`.
fn stream_to(elsewhere: String) -> Target {
    Target::start(move |request| match request.path() {
        "/stream" => Reply::hold("stream", "c; prev-id=1").header("Grip-Link", &elsewhere).body("open\n"),
        path => Reply::status("404 Not Found").body(path),
    })
}

fn hint(server: &Server) {
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "hint" } }]));
}

#[test]
fn a_next_link_may_lead_to_another_host() {
    let other = Target::start(|_| {
        Reply::hold("stream", "c; prev-id=2").header("Grip-Link", "</then>; rel=next").body("missed\n")
    });
    let target = stream_to(format!("<http://{}/next?a=b>; rel=next", other.address()));
    let server = Server::start(Setup::to(&target));
    let mut client = server.connect();
    client.send("GET /stream HTTP/1.1\r\nHost: example.com\r\nCookie: secret\r\nAuthorization: Basic x\r\n\r\n");
    client.expect_head(200);
    client.expect_stream("open\n");
    hint(&server);
    client.expect_stream("missed\n");
    let fetched = other.next_request();
    assert_eq!((fetched.head.method(), fetched.path()), ("GET", "/next?a=b"));
    assert_eq!(fetched.header("Host"), Some(other.address().to_string().as_str()));
    assert_eq!(fetched.header("Grip-Last"), Some("c; last-id=1"));
    assert_eq!((fetched.header("Cookie"), fetched.header("Authorization")), (None, None));
    assert!(fetched.header("Grip-Sig").is_some() && fetched.header("Grip-Feature").is_some());
}

#[test]
fn a_relative_link_of_another_host_stays_there() {
    waft_only!("Pushpin asks its own target for what is relative to another host");
    let other = Target::start(|request| match request.path() {
        "/next" => Reply::hold("stream", "c; prev-id=2").header("Grip-Link", "<then>; rel=next").body("missed\n"),
        _ => Reply::hold("stream", "c; prev-id=3").header("Grip-Link", "</end>; rel=next").body("more\n"),
    });
    let target = stream_to(format!("<http://{}/next>; rel=next", other.address()));
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    server.wait_for_holds(1);
    hint(&server);
    client.expect_stream("missed\n");
    hint(&server);
    client.expect_stream("more\n");
    assert_eq!([other.next_request(), other.next_request()].map(|page| page.path().to_owned()), ["/next", "/then"]);
    assert_eq!(target.request_count(), 1);
}

#[test]
fn pages_of_another_host_join_the_response() {
    waft_only!("Pushpin 1.36 does not come to the end of such a response");
    let other = Target::start(|request| match request.path() {
        "/2" => {
            let link = format!("<http://{}/3>; rel=next", request.header("Host").unwrap());
            Reply::text("two,").header("Grip-Link", &link)
        }
        _ => Reply::text("three").header("Grip-Foo", ""),
    });
    let address = other.address();
    let target =
        Target::start(move |_| Reply::text("one,").header("Grip-Link", &format!("<http://{address}/2>; rel=next")));
    let server = Server::start(Setup::to(&target));
    let answer = server.get("/1").response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "one,two,three"));
}

#[test]
fn a_page_of_another_host_may_open_the_stream() {
    waft_only!("Pushpin asks its own target for what is relative to another host");
    let other = Target::start(|request| match request.path() {
        "/2" => Reply::hold("stream", "c; prev-id=1").header("Grip-Link", "<3>; rel=next").body("two,"),
        _ => Reply::hold("stream", "c; prev-id=2").header("Grip-Link", "<4>; rel=next").body("three,"),
    });
    let address = other.address();
    let target =
        Target::start(move |_| Reply::text("one,").header("Grip-Link", &format!("<http://{address}/2>; rel=next")));
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/1");
    client.expect_head(200);
    client.expect_stream("one,two,");
    server.wait_for_listener("c", 1);
    hint(&server);
    client.expect_stream("three,");
    let paths = [other.next_request(), other.next_request()].map(|request| request.path().to_owned());
    assert_eq!(paths, ["/2", "/3"]);
}

#[test]
fn another_host_is_told_when_a_client_has_left() {
    waft_only!("Pushpin knows gone links since 1.41 only");
    let other = Target::start(|_| Reply::text("noted"));
    let address = other.address();
    let target = Target::start(move |_| {
        Reply::hold("stream", "c").header("Grip-Link", &format!("<http://{address}/gone?user=1>; rel=gone"))
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/stream");
    client.expect_head(200);
    drop(client);
    let told = other.next_request();
    assert_eq!((told.head.method(), told.path(), told.body.len()), ("POST", "/gone?user=1", 0));
    assert!(told.header("Grip-Sig").is_some());
}

#[test]
fn a_target_that_is_not_trusted_leads_to_no_inner_address() {
    waft_only!("Pushpin holds the target itself to the rule, on loopback too");
    let other = Target::start(|_| Reply::text("inner secret").header("Grip-Foo", ""));
    let target = stream_to(format!("<http://{}/next>; rel=next", other.address()));
    // An untrusted target cannot be on loopback; one beside a trusted one makes the route untrusted.
    let server = Server::start(Setup::new().route(format!("* {} 192.0.2.1:80,untrusted", target.address())));
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    server.wait_for_holds(1);
    hint(&server);
    client.expect_stream_end();
    assert_eq!(other.request_count(), 0);
    server.wait_for_log("egress-address-refused");
}

/// A native configuration with one route to `target` and these lines of `[outbound]`.
fn native(target: &Target, outbound: &str) -> Setup {
    Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[outbound]\n{outbound}\n\
         [[route]]\ntargets = [\"{}\"]\n",
        target.address()
    ))
}

#[test]
fn inner_addresses_are_not_called_unless_the_operator_says_so() {
    waft_only!("Pushpin trusts the links of its targets");
    let other = Target::start(|_| Reply::text("inner").header("Grip-Foo", ""));
    let target = stream_to(format!("<http://{}/next>; rel=next", other.address()));
    let outcome = |outbound: &str| {
        let server = Server::start(native(&target, outbound));
        let mut client = server.get("/stream");
        client.expect_head(200);
        client.expect_stream("open\n");
        server.wait_for_holds(1);
        hint(&server);
        (client, server)
    };
    let (mut client, server) = outcome("");
    client.expect_stream_end();
    assert_eq!(other.request_count(), 0);
    // The denial says who, which URL, which address and which rule.
    server.wait_for_log("egress-address-refused");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("egress-address-refused")).unwrap();
    for part in ["who=", &format!("http://{}/next", other.address()), "127.0.0.1: loopback", "enforced=true"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(server.metric("waft_outbound_denials_total{rule=\"egress-address-refused\"}"), Some(1.0));
    drop(server);
    for allowed in ["exceptions = [\"127.0.0.1\"]", "rules = \"open\""] {
        let (mut client, server) = outcome(allowed);
        client.expect_stream("inner");
        client.expect_stream_end();
        assert_eq!(server.metric("waft_outbound_calls_total"), Some(1.0));
    }
    let (mut client, server) = outcome("report_only = true");
    client.expect_stream("inner");
    server.wait_for_log("enforced=false");
    assert_eq!(server.metric("waft_outbound_reports_total"), Some(1.0));
}

#[test]
fn redirects_of_a_link_are_not_followed() {
    waft_only!("Pushpin tries for half a minute before it gives up");
    let inner = Target::start(|_| Reply::text("inner"));
    let address = inner.address();
    let other =
        Target::start(move |_| Reply::status("302 Found").header("Location", &format!("http://{address}/secret")));
    let target = stream_to(format!("<http://{}/next>; rel=next", other.address()));
    let setup = native(&target, "exceptions = [\"127.0.0.1\"]\n[grip]\nnext_link_retries_max = 0");
    let server = Server::start(setup);
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    server.wait_for_holds(1);
    hint(&server);
    client.expect_stream_end();
    assert_eq!((other.request_count(), inner.request_count()), (1, 0));
}
