use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use waft_testkit::{
    Authority, Connection, Gate, Opcode, Reply, Server, Setup, Target, TlsRelay, WebSocket, chromium, free_port,
    program, python, waft_only,
};

/// A server whose port for clients speaks TLS, in front of the test handler, with more of its configuration in `more`.
fn config(listen: &str, more: &str) -> String {
    format!(
        "[server]\nlisten = [\"{listen}\"]\ntls_certs = \"DIRECTORY/certs\"\n\n[control]\nlisten = [\"CONTROL\"]\n\n\
         [forward]\nset_x_forwarded_proto = \"proto-only\"\n\n{more}"
    )
}

const TEST_ROUTE: &str = "[[route]]\ntargets = [\"test\"]\n";

/// A server with one certificate, for `app.example`.
fn serve(authority: &Authority, more: &str) -> Server {
    let setup = Setup::native(config("FRONT?tls", more));
    Server::start(setup.certificate(&authority.issue(&["app.example"]), "certs/any"))
}

fn relay(server: &Server, authority: &Authority) -> TlsRelay {
    TlsRelay::to(server.address(), "app.example", authority)
}

/// The name in the certificate that who asks for `name` is shown, as OpenSSL says it; none if there is none.
fn shown(server: SocketAddr, name: Option<&str>) -> Option<String> {
    let client = program("openssl").args(["s_client", "-connect", &server.to_string()]);
    let client = match name {
        Some(name) => client.args(["-servername", name]),
        None => client.arg("-noservername"),
    };
    let output = client.run().output;
    let subject = output.lines().find_map(|line| line.trim().strip_prefix("subject=CN = "));
    subject.map(str::to_owned)
}

#[test]
fn the_certificate_is_chosen_by_the_name_a_client_asks_for() {
    waft_only!("Pushpin goes by the names of files alone");
    let authority = Authority::new();
    let setup = Setup::native(config("FRONT?tls", TEST_ROUTE))
        .certificate(&authority.issue(&["one.example", "two.example"]), "certs/first")
        .certificate(&authority.issue(&["*.wild.example"]), "certs/second")
        .certificate(&authority.issue(&["exact.wild.example"]), "certs/third")
        .certificate(&authority.issue(&["inside"]), "certs/by.its.file")
        .certificate(&authority.issue(&["below"]), "certs/_.by-file.example")
        .certificate(&authority.issue(&["rest"]), "certs/default")
        .copy(&authority.issue(&["other.example"]).cert, "certs/other.example/fullchain.pem")
        .copy(&authority.directory().join("other.example.key"), "certs/other.example/privkey.pem");
    let server = Server::start(setup);
    let cases = [
        (Some("one.example"), "one.example"),
        (Some("two.example"), "one.example"),
        (Some("TWO.example"), "one.example"),
        (Some("a.wild.example"), "*.wild.example"),
        (Some("exact.wild.example"), "exact.wild.example"),
        (Some("b.a.wild.example"), "rest"),
        (Some("wild.example"), "rest"),
        (Some("by.its.file"), "inside"),
        (Some("a.by-file.example"), "below"),
        (Some("other.example"), "other.example"),
        (Some("unknown.example"), "rest"),
        (None, "rest"),
    ];
    for (name, expected) in cases {
        assert_eq!(shown(server.address(), name).as_deref(), Some(expected), "{name:?}");
    }
}

#[test]
fn without_a_default_only_known_names_are_served() {
    waft_only!("the layout is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    assert_eq!(shown(server.address(), Some("app.example")).as_deref(), Some("app.example"));
    assert_eq!(shown(server.address(), Some("unknown.example")), None);
    assert_eq!(shown(server.address(), None).as_deref(), Some("app.example"), "who asks for no name gets the only one");
}

#[test]
fn pushpins_directory_of_certificates_serves_as_it_is() {
    let authority = Authority::new();
    let port = free_port();
    let target = Target::start(|request| Reply::text(request.header("X-Forwarded-Proto").unwrap_or("none")));
    let server = Server::start(
        Setup::new()
            .route(format!("*,ssl=yes {}", target.address()))
            .route("*,ssl=no test")
            .runner(format!("https_ports={port}"))
            .certificate(&authority.issue(&["www.app.example"]), "runner/certs/www.app.example")
            .certificate(&authority.issue(&["*.below.example"]), "runner/certs/_.below.example")
            .certificate(&authority.issue(&["rest.example"]), &format!("runner/certs/default_{port}")),
    );
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for (name, expected) in [
        ("www.app.example", "www.app.example"),
        ("a.below.example", "*.below.example"),
        ("other.example", "rest.example"),
    ] {
        assert_eq!(shown(address, Some(name)).as_deref(), Some(expected), "{name}");
    }
    let relay = TlsRelay::to(address, "www.app.example", &authority);
    let answer = relay.connect().fetch("GET / HTTP/1.1\r\nHost: www.app.example\r\n\r\n");
    assert_eq!(answer.body_text(), "https");
    assert_eq!(server.get("/").response().body_text(), "Hello from the Pushpin test handler!\n");
}

#[test]
fn old_versions_are_refused_and_the_protocol_is_agreed_on() {
    waft_only!("its own choice");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let address = server.address().to_string();
    let ask = |version: &str, offered: &str| {
        let client = program("openssl").args(["s_client", "-connect", &address, "-servername", "app.example", version]);
        client.args(["-alpn", offered, "-cipher", "DEFAULT@SECLEVEL=0"]).run().output
    };
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(ask(version, "http/1.1,h2").contains("ALPN protocol: h2"), "{version}");
        assert!(ask(version, "http/1.1").contains("ALPN protocol: http/1.1"), "{version}");
    }
    assert!(!ask("-tls1_1", "h2,http/1.1").contains("ALPN protocol"));
}

#[test]
fn sessions_are_resumed() {
    waft_only!("Pushpin gives no tickets that this client understands");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let resume = || {
        let arguments =
            [server.address().to_string(), "app.example".to_owned(), authority.file().display().to_string()];
        python("tests/tls/resume.py").args(arguments).succeed()
    };
    assert_eq!(resume(), "TLSv1_2 False True\nTLSv1_3 False True\n");
    assert_eq!(server.metric("waft_tls_handshakes_resumed_total"), Some(2.0));
}

#[test]
fn holds_of_all_kinds_are_served_over_tls() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let target = Target::start(|request| match request.path() {
        "/poll" => Reply::hold("response", "c"),
        "/stream" => Reply::hold("stream", "c").body("open\n"),
        path => Reply::text(path),
    });
    let server = serve(&authority, &format!("[[route]]\ntargets = [\"{}\"]\n", target.address()));
    let relay = relay(&server, &authority);
    let mut poll = relay.connect();
    poll.send("GET /poll HTTP/1.1\r\nHost: app.example\r\n\r\n");
    let mut stream = relay.connect();
    stream.send("GET /stream HTTP/1.1\r\nHost: app.example\r\n\r\n");
    stream.expect_head(200);
    stream.expect_stream("open\n");
    server.wait_for_holds(2);
    server.publish(json!([{ "channel": "c", "formats": {
        "http-response": { "body": "answer" }, "http-stream": { "content": "item\n" } } }]));
    assert_eq!(poll.response().body_text(), "answer");
    stream.expect_stream("item\n");
    // The connection of a long-poll goes on.
    assert_eq!(poll.fetch("GET /next HTTP/1.1\r\nHost: app.example\r\n\r\n").body_text(), "/next");
    poll.send("GET /poll HTTP/1.1\r\nHost: app.example\r\n\r\nGET /behind HTTP/1.1\r\nHost: app.example\r\n\r\n");
    server.wait_for_holds(2);
    server.publish(json!([{ "channel": "c", "formats": { "http-response": { "body": "again" } } }]));
    assert_eq!(poll.response().body_text(), "again");
    assert_eq!(poll.response().body_text(), "/behind");
}

#[test]
fn a_connection_that_rested_goes_on() {
    waft_only!("the metric is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let relay = relay(&server, &authority);
    let mut client = relay.connect();
    for _ in 0..2 {
        assert_eq!(client.fetch("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").status(), 200);
        waft_testkit::eventually("the connection to rest", || {
            (server.metric("waft_connections_idle") == Some(1.0)).then_some(())
        });
    }
    assert_eq!(relay.handshake_count(), 1);
}

#[test]
fn large_bodies_pass_both_ways_over_tls() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let target = Target::start(|request| Reply::text(&request.body));
    let server = serve(&authority, &format!("[[route]]\ntargets = [\"{}\"]\n", target.address()));
    for relay in [relay(&server, &authority), TlsRelay::to_by_tls12(server.address(), "app.example", &authority)] {
        let body: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = relay.connect().fetch([head.as_bytes(), &body].concat());
        assert!(answer.body == body, "the body came back otherwise");
    }
}

#[test]
fn a_crowd_gets_every_item_in_order() {
    const CROWD: usize = 150;
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let relay = relay(&server, &authority);
    let mut crowd: Vec<Connection> = (0..CROWD)
        .map(|_| {
            let mut client = relay.connect();
            client.send("GET /stream?channel=c HTTP/1.1\r\nHost: app.example\r\n\r\n");
            client
        })
        .collect();
    for client in &mut crowd {
        client.expect_head(200);
        client.expect_stream("[stream opened]\n");
    }
    server.wait_for_holds(CROWD);
    for batch in 0..20 {
        let item = |number| json!({ "channel": "c", "http-stream": { "content": format!("{batch}-{number}\n") } });
        server.publish((0..5).map(item).collect());
    }
    let expected: String = (0..20).flat_map(|batch| (0..5).map(move |number| format!("{batch}-{number}\n"))).collect();
    for client in &mut crowd {
        client.expect_stream(&expected);
    }
}

#[test]
fn what_waits_for_a_slow_reader_is_bounded_and_nothing_is_missing_before_the_end() {
    waft_only!("the limits are waft's");
    let authority = Authority::new();
    let server = serve(&authority, &format!("[limits]\nqueue_bytes = \"256 KiB\"\n\n{TEST_ROUTE}"));
    let relay = relay(&server, &authority);
    let mut slow = relay.connect();
    slow.set_receive_buffer(65_536);
    slow.send("GET /stream?channel=c HTTP/1.1\r\nHost: app.example\r\n\r\n");
    slow.expect_head(200);
    server.wait_for_holds(1);
    let mut published = 0;
    while server.metric("waft_slow_disconnects_total") != Some(1.0) {
        let content = format!("{published:0>30000}\n");
        server.publish(json!([{ "channel": "c", "http-stream": { "content": content } }]));
        published += 1;
        assert!(published < 5000, "everything was taken although nobody reads");
    }
    assert!(server.metric("waft_queued_bytes").unwrap() < 600_000.0);
    let rest = slow.rest();
    let text = String::from_utf8_lossy(&rest);
    let numbers: Vec<usize> =
        text.lines().filter(|line| line.len() == 30_000).map(|line| line.parse().unwrap()).collect();
    assert!(!numbers.is_empty() && numbers.iter().copied().eq(0..numbers.len()), "there is a gap: {numbers:?}");
}

#[test]
fn a_slow_reader_that_goes_on_gets_all_that_waited() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let server =
        serve(&authority, &format!("[limits]\nqueue_bytes = \"64 MiB\"\nqueue_items = 100000\n\n{TEST_ROUTE}"));
    let relay = relay(&server, &authority);
    let mut slow = relay.connect();
    slow.set_receive_buffer(65_536);
    slow.send("GET /stream?channel=c HTTP/1.1\r\nHost: app.example\r\n\r\n");
    slow.expect_head(200);
    slow.expect_stream("[stream opened]\n");
    server.wait_for_holds(1);
    let line = |number: usize| format!("{number:0>30000}\n");
    for number in 0..400 {
        server.publish(json!([{ "channel": "c", "http-stream": { "content": line(number) } }]));
    }
    for number in 0..400 {
        slow.expect_stream(line(number));
    }
}

#[test]
fn websockets_are_served_over_tls() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let relay = relay(&server, &authority);
    let mut socket = WebSocket::open(relay.connect(), "/ws?channel=c", "");
    for length in [3, 300, 100_000] {
        let text = "x".repeat(length);
        socket.send_text(&text);
        socket.expect_text(&text);
    }
    server.publish(json!([{ "channel": "c", "ws-message": { "content": "published" } }]));
    socket.expect_text("published");
    socket.send(Opcode::Close, &1000_u16.to_be_bytes());
    assert_eq!(socket.expect_close().0, Some(1000));
}

#[test]
fn targets_are_told_that_the_client_speaks_tls() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let target = Target::start(|request| Reply::text(request.header("X-Forwarded-Proto").unwrap_or("none")));
    let routes = format!(
        "[[route]]\nssl = true\ntargets = [\"{}\"]\n\n[[route]]\nssl = false\ntargets = [\"test\"]\n",
        target.address()
    );
    let server = serve(&authority, &routes);
    let answer = relay(&server, &authority).connect().fetch("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n");
    assert_eq!(answer.body_text(), "https");
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    waft_only!("the text is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let answer = server.get("/").response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (400, "This port speaks TLS: use https.\n"));
    server.wait_for_log("A client speaks plain HTTP to a TLS port");
    let mut noise = server.connect();
    noise.send([0; 50]);
    noise.rest();
}

#[test]
fn a_handshake_that_does_not_come_is_given_up() {
    waft_only!("the limit is waft's");
    let authority = Authority::new();
    let server = serve(&authority, &format!("[limits]\nhandshake_timeout = \"200ms\"\n\n{TEST_ROUTE}"));
    server.connect().expect_close();
    let failed = || (server.metric("waft_tls_handshakes_failed_total") >= Some(1.0)).then_some(());
    waft_testkit::eventually("the failure to be counted", failed);
}

/// Puts another certificate in the place of one of the server's.
fn replace(server: &Server, authority: &Authority, names: &[&str]) {
    let next = authority.issue(names);
    for (from, to) in [(&next.key, "any.key"), (&next.cert, "any.crt")] {
        // As tools do it: the file is whole when it gets its name.
        let place = server.directory().join("certs");
        fs::copy(from, place.join("next")).unwrap();
        fs::rename(place.join("next"), place.join(to)).unwrap();
    }
}

#[test]
fn renewed_certificates_are_shown_and_connections_stay() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let relay = relay(&server, &authority);
    let mut stream = relay.connect();
    stream.send("GET /stream?channel=c HTTP/1.1\r\nHost: app.example\r\n\r\n");
    stream.expect_head(200);
    stream.expect_stream("[stream opened]\n");
    server.wait_for_holds(1);
    replace(&server, &authority, &["renewed.example"]);
    waft_testkit::eventually("the changed file to be noticed", || shown(server.address(), Some("renewed.example")));
    fs::remove_file(server.directory().join("certs/any.crt")).unwrap();
    server.reload();
    server.wait_for_log("those that were read before stay in force");
    assert!(shown(server.address(), Some("renewed.example")).is_some(), "what cannot be read changes nothing");
    server.publish_text("c", "still here");
    stream.expect_stream("still here");
}

#[test]
fn certificates_that_cannot_be_used_are_told() {
    waft_only!("the log is waft's");
    let authority = Authority::new();
    let other = Authority::new();
    let setup = Setup::native(config("FRONT?tls", TEST_ROUTE))
        .certificate(&authority.issue(&["app.example"]), "certs/good")
        .certificate(&authority.issue_expired(&["old.example"]), "certs/old")
        .copy(&authority.issue(&["alone.example"]).cert, "certs/alone.crt")
        .copy(&other.issue(&["alone.example"]).key, "certs/alone.key")
        .copy(&authority.file(), "certs/authority.pem");
    let server = Server::start(setup);
    server.wait_for_log("old.crt: the certificate has expired; renew it");
    server.wait_for_log("alone.crt: no key in its directory fits it");
    assert!(!server.log().contains("authority.pem"), "an authority needs no key");
    assert_eq!(shown(server.address(), Some("app.example")).as_deref(), Some("app.example"));
}

#[test]
fn clients_may_have_to_show_a_certificate() {
    waft_only!("Pushpin has no client certificates");
    let (authority, clients) = (Authority::new(), Authority::new());
    let listen = "FRONT?tls&client_ca=DIRECTORY/clients.pem";
    let setup = Setup::native(config(listen, TEST_ROUTE))
        .certificate(&authority.issue(&["app.example"]), "certs/any")
        .copy(&clients.file(), "clients.pem");
    let server = Server::start(setup);
    let ask = |relay: &TlsRelay| {
        let mut client = relay.connect();
        client.send("GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n");
        String::from_utf8(client.rest()).unwrap()
    };
    let shown = clients.issue_for_client("someone");
    assert!(ask(&TlsRelay::to_with(server.address(), "app.example", &authority, &shown)).starts_with("HTTP/1.1 200"));
    assert_eq!(ask(&relay(&server, &authority)), "");
    let strangers = Authority::new();
    let stranger = strangers.issue_for_client("stranger");
    assert_eq!(ask(&TlsRelay::to_with(server.address(), "app.example", &authority, &stranger)), "");
}

#[test]
fn routes_tell_clients_with_certificates_from_those_without() {
    waft_only!("Pushpin has no client certificates");
    let (authority, clients) = (Authority::new(), Authority::new());
    let inner = Target::start(|_| Reply::text("inner"));
    let routes = format!("[[route]]\nclient_cert = true\ntargets = [\"{}\"]\n\n{TEST_ROUTE}", inner.address());
    let setup = Setup::native(config("FRONT?tls&client_ca=DIRECTORY/clients.pem&client_optional", &routes))
        .certificate(&authority.issue(&["app.example"]), "certs/any")
        .copy(&clients.file(), "clients.pem");
    let server = Server::start(setup);
    let ask = |relay: &TlsRelay| relay.connect().fetch("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").body_text();
    let shown = clients.issue_for_client("someone");
    assert_eq!(ask(&TlsRelay::to_with(server.address(), "app.example", &authority, &shown)), "inner");
    assert_eq!(ask(&relay(&server, &authority)), "Hello from the Pushpin test handler!\n");
}

#[test]
fn curl_reads_a_stream_over_tls() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let port = server.address().port();
    let curl = program("curl")
        .args(["-sSN", "--resolve", &format!("app.example:{port}:127.0.0.1"), "--cacert"])
        .arg(authority.file())
        .arg(format!("https://app.example:{port}/stream?channel=c"))
        .start();
    server.wait_for_holds(1);
    server.publish_text("c", "hello\n");
    curl.wait_for_output("[stream opened]\nhello", 1);
}

#[test]
fn a_browser_listens_over_tls() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let gate = Gate::new();
    let heard = gate.clone();
    let target = Target::start(move |request| match request.path() {
        "/page" => Reply::status("200 OK")
            .header("Content-Type", "text/html")
            .body("<script>new EventSource('/events').onmessage = event => fetch('/heard?' + event.data)</script>"),
        "/events" => Reply::status("200 OK")
            .header("Content-Type", "text/event-stream")
            .header("Grip-Hold", "stream")
            .header("Grip-Channel", "c"),
        "/heard?hello" => {
            heard.open();
            Reply::text("")
        }
        _ => Reply::status("404 Not Found"),
    });
    let server = serve(&authority, &format!("[[route]]\ntargets = [\"{}\"]\n", target.address()));
    let profile = server.directory().join("profile");
    let port = server.address().port();
    let _browser = chromium(&format!("https://app.example:{port}/page"), &profile)
        .args(["--ignore-certificate-errors", "--host-resolver-rules=MAP app.example 127.0.0.1"])
        .start();
    server.wait_for_holds(1);
    server.publish(json!([{ "channel": "c", "http-stream": { "content": "data: hello\n\n" } }]));
    gate.wait();
}

#[test]
fn an_ocsp_response_beside_a_certificate_is_sent_along() {
    waft_only!("Pushpin sends none");
    let authority = Authority::new();
    let response = authority.directory().join("response");
    fs::write(&response, b"\x30\x03\x0a\x01\x06").unwrap();
    let setup = Setup::native(config("FRONT?tls", TEST_ROUTE))
        .certificate(&authority.issue(&["app.example"]), "certs/any")
        .copy(&response, "certs/any.ocsp");
    let server = Server::start(setup);
    let address = server.address().to_string();
    let client = program("openssl").args(["s_client", "-connect", &address, "-servername", "app.example", "-status"]);
    let output = client.run().output;
    // What was put there is a response that says "unauthorized", in DER.
    assert!(output.contains("OCSP Response Status: unauthorized (0x6)"), "{output}");
}

#[test]
fn the_control_port_takes_a_renewed_certificate() {
    waft_only!("Pushpin's control port has no TLS");
    let authority = Authority::new();
    let listen = "cert = \"DIRECTORY/control.crt\"\nkey = \"DIRECTORY/control.key\"\n";
    let text = format!("[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\n{listen}\n{TEST_ROUTE}");
    let server = Server::start(Setup::native(text).certificate(&authority.issue(&["old.example"]), "control"));
    assert_eq!(shown(server.control_address(), None).as_deref(), Some("old.example"));
    let next = authority.issue(&["new.example"]);
    let place = |name: &str| Path::new(server.directory()).join(name);
    fs::copy(next.cert, place("control.crt")).unwrap();
    fs::copy(next.key, place("control.key")).unwrap();
    server.reload();
    server.wait_for_log("The configuration was read again");
    assert_eq!(shown(server.control_address(), None).as_deref(), Some("new.example"));
}

#[test]
fn python_websockets_speaks_wss() {
    waft_only!("the setup is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let arguments = [server.address().port().to_string(), authority.file().display().to_string()];
    let client = python("tests/tls/wss.py").args(arguments).start();
    client.wait_for_output("echoed", 1);
    let item: Value = json!([{ "channel": "c", "ws-message": { "content": "published" } }]);
    server.publish(item);
    client.wait_for_output("got published", 1);
    client.wait_for_output("closed", 1);
}

#[test]
fn a_client_that_leaves_in_the_handshake_leaves_nothing_behind() {
    waft_only!("the metric is waft's");
    let authority = Authority::new();
    let server = serve(&authority, TEST_ROUTE);
    let mut clients: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // The beginning of a ClientHello.
        client.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc][..number % 10]);
    }
    drop(clients);
    waft_testkit::eventually("all to be gone", || (server.metric("waft_connections") == Some(1.0)).then_some(()));
    let relay = relay(&server, &authority);
    assert_eq!(relay.connect().fetch("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").status(), 200);
    let mut stream = relay.connect();
    stream.set_deadline(Duration::from_secs(10));
    stream.send("GET /stream?channel=c HTTP/1.1\r\nHost: app.example\r\n\r\n");
    stream.expect_head(200);
}
