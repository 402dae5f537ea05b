use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use waft_testkit::{
    Authority, Connection, Process, Reply, Request, Response, Server, Setup, Target, TlsRelay, WebSocket, free_port,
    waft_only,
};

/// A target behind TLS, with a certificate of an authority that the server knows.
struct Site {
    authority: Authority,
    target: Target,
    relay: TlsRelay,
}

impl Site {
    fn start(names: &[&str], answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let authority = Authority::new();
        let target = Target::start(answer);
        let relay = TlsRelay::before(&target, &authority.issue(names));
        Self { authority, target, relay }
    }

    /// A server with one route to the target, which has these options beside `ssl`.
    fn serve(&self, options: &str) -> Server {
        let route = format!("*,debug 127.0.0.1:{},ssl{options}", self.relay.port());
        Server::start(Setup::new().route(route).trusting(&self.authority))
    }
}

fn ask(server: &Server, host: &str, path: &str) -> Response {
    server.fetch(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

/// Expects an answer that says that there is no target, and a line of the log that tells why.
fn expect_refusal(server: &Server, answer: &Response, why: &str) {
    assert_eq!(answer.status(), 502);
    server.wait_for_log(why);
}

#[test]
fn requests_to_a_target_with_ssl_are_encrypted() {
    let site = Site::start(&["app.example"], |request| Reply::text(request.body_text() + request.path()));
    let server = site.serve("");
    assert_eq!(ask(&server, "app.example", "/a?b").body_text(), "/a?b");
    let handshake = site.relay.handshake(1);
    assert_eq!(handshake["name"], "app.example");
    assert_eq!(handshake["alpn"], "http/1.1");
    let seen = site.target.next_request();
    assert_eq!(seen.header("Host"), Some("app.example"));
}

#[test]
fn large_bodies_pass_both_ways_and_the_connection_is_kept() {
    let site = Site::start(&["app.example"], |request| Reply::text(&request.body));
    let server = site.serve("");
    let body: Vec<u8> = (0..900_000_u32).map(|number| (number % 251) as u8).collect();
    let mut client = server.connect();
    for _ in 0..3 {
        let head = format!("POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = client.fetch([head.as_bytes(), &body].concat());
        assert!(answer.body == body, "the body came back otherwise");
    }
    assert_eq!(site.relay.handshake_count(), 1);
}

#[test]
fn a_response_that_ends_with_its_connection_is_whole() {
    waft_only!("Pushpin is not asked about every way to end");
    let authority = Authority::new();
    let target = Target::raw(|mut connection: Connection, _| {
        connection.head();
        connection.send("HTTP/1.0 200 OK\r\n\r\nall of it");
    });
    let relay = TlsRelay::before(&target, &authority.issue(&["app.example"]));
    let route = format!("* 127.0.0.1:{},ssl", relay.port());
    let server = Server::start(Setup::new().route(route).trusting(&authority));
    assert_eq!(ask(&server, "app.example", "/").body_text(), "all of it");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let site = Site::start(&["other.example"], |_| Reply::text("secret"));
    let server = site.serve("");
    let answer = ask(&server, "app.example", "/");
    assert_eq!(answer.status(), 502);
    assert_eq!(site.target.request_count(), 0);
}

#[test]
fn the_log_says_which_name_was_wrong_and_what_to_do() {
    waft_only!("the log is waft's");
    let site = Site::start(&["other.example"], |_| Reply::text("secret"));
    let server = site.serve("");
    let why = "its certificate is not for `app.example`; set the target's `host`, or `trust_connect_host`";
    expect_refusal(&server, &ask(&server, "app.example", "/"), why);
}

#[test]
fn the_host_that_a_target_is_given_is_the_one_it_has_to_prove() {
    let site = Site::start(&["inner.example"], |request| Reply::text(request.header("Host").unwrap()));
    let server = site.serve(",host=inner.example");
    assert_eq!(ask(&server, "app.example", "/").body_text(), "inner.example");
    assert_eq!(site.relay.handshake(1)["name"], "inner.example");
}

#[test]
fn the_name_a_target_is_reached_by_may_be_trusted_instead() {
    let site = Site::start(&["localhost"], |request| Reply::text(request.header("Host").unwrap()));
    let route = format!("* localhost:{},ssl,trust_connect_host", site.relay.port());
    let server = Server::start(Setup::new().route(route).trusting(&site.authority));
    assert_eq!(ask(&server, "app.example", "/").body_text(), "app.example");
}

#[test]
fn an_address_may_be_what_a_target_proves() {
    waft_only!("zurl looks for names alone");
    let site = Site::start(&["127.0.0.1"], |request| Reply::text(request.header("Host").unwrap()));
    let server = site.serve(",trust_connect_host");
    assert_eq!(ask(&server, "app.example", "/").body_text(), "app.example");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    waft_only!("Pushpin looks at the name alone");
    let site = Site::start(&["app.example"], |_| Reply::text("secret"));
    let route = format!("* 127.0.0.1:{},ssl", site.relay.port());
    let server = Server::start(Setup::new().route(route).trusting(&Authority::new()));
    expect_refusal(&server, &ask(&server, "app.example", "/"), "from an authority that this system does not know");
    assert_eq!(site.target.request_count(), 0);
}

#[test]
fn an_expired_certificate_is_refused() {
    waft_only!("Pushpin looks at the name alone");
    let authority = Authority::new();
    let target = Target::start(|_| Reply::text("secret"));
    let relay = TlsRelay::before(&target, &authority.issue_expired(&["app.example"]));
    let route = format!("* 127.0.0.1:{},ssl", relay.port());
    let server = Server::start(Setup::new().route(route).trusting(&authority));
    expect_refusal(
        &server,
        &ask(&server, "app.example", "/"),
        "its certificate for `app.example` has expired; renew it",
    );
    assert_eq!(target.request_count(), 0);
}

#[test]
fn an_insecure_target_may_show_any_certificate() {
    let site = Site::start(&["other.example"], |_| Reply::text("fine"));
    let route = format!("* 127.0.0.1:{},ssl,insecure", site.relay.port());
    let server = Server::start(Setup::new().route(route));
    assert_eq!(ask(&server, "app.example", "/").body_text(), "fine");
}

#[test]
fn the_next_target_is_tried_where_a_certificate_is_refused() {
    let site = Site::start(&["other.example"], |_| Reply::text("wrong one"));
    let second = Target::start(|_| Reply::text("second"));
    let route = format!("* 127.0.0.1:{},ssl {}", site.relay.port(), second.address());
    let server = Server::start(Setup::new().route(route).trusting(&site.authority));
    assert_eq!(ask(&server, "app.example", "/").body_text(), "second");
}

#[test]
fn a_target_that_demands_a_client_certificate_gets_it() {
    waft_only!("Debian's Pushpin has no client certificates");
    let (authority, clients) = (Authority::new(), Authority::new());
    let target = Target::start(|_| Reply::text("welcome"));
    let relay = TlsRelay::demanding(&target, &authority.issue(&["app.example"]), &clients);
    let shown = clients.issue_for_client("gateway");
    let with = format!(
        "*,path_beg=/with 127.0.0.1:{},ssl,client_cert={},client_key={}",
        relay.port(),
        shown.cert.display(),
        shown.key.display()
    );
    let missing = format!("*,path_beg=/missing 127.0.0.1:{},ssl,client_cert=/no.crt,client_key=/no.key", relay.port());
    let server = Server::start(Setup::new().route(with).route(missing).trusting(&authority));
    server.wait_for_log("A target cannot be called until its client certificate can be used.");
    assert_eq!(ask(&server, "app.example", "/with").body_text(), "welcome");
    assert_eq!(relay.handshake(1)["peer"], json!(["gateway"]));
    assert_eq!(ask(&server, "app.example", "/missing").status(), 502);
    server.wait_for_log("A target could not be reached. route=*,*,*,/missing");
}

#[test]
fn the_log_says_that_a_client_certificate_is_missing() {
    waft_only!("Debian's Pushpin has no client certificates");
    let (authority, clients) = (Authority::new(), Authority::new());
    let shown = authority.issue(&["app.example"]);
    let port = free_port();
    let mut demanding = Command::new("openssl");
    demanding.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-www"]);
    demanding.args(["-Verify", "1", "-verify_return_error", "-CAfile"]).arg(clients.file());
    demanding.arg("-cert").arg(&shown.cert).arg("-key").arg(&shown.key);
    let demanding = Process::start("openssl", &mut demanding);
    demanding.wait_for_output("ACCEPT", 1);
    let server = Server::start(Setup::new().route(format!("* 127.0.0.1:{port},ssl")).trusting(&authority));
    let why = "it demands a client certificate; set `client_cert` and `client_key`";
    expect_refusal(&server, &ask(&server, "app.example", "/"), why);
}

#[test]
fn a_renewed_client_certificate_is_taken_with_a_reload() {
    waft_only!("Debian's Pushpin has no client certificates");
    let (authority, clients) = (Authority::new(), Authority::new());
    let target = Target::start(|_| Reply::text("welcome"));
    let relay = TlsRelay::demanding(&target, &authority.issue(&["app.example"]), &clients);
    let (old, new) = (clients.issue_for_client("old"), clients.issue_for_client("new"));
    let route =
        format!("* 127.0.0.1:{},ssl,client_cert={},client_key={}", relay.port(), old.cert.display(), old.key.display());
    let server = Server::start(Setup::new().route(route).trusting(&authority));
    assert_eq!(ask(&server, "app.example", "/").body_text(), "welcome");
    fs::copy(new.cert, old.cert).unwrap();
    fs::copy(new.key, old.key).unwrap();
    server.reload();
    server.wait_for_log("The configuration was read again");
    assert_eq!(ask(&server, "app.example", "/").body_text(), "welcome");
    assert_eq!(relay.handshake(2)["peer"], json!(["new"]));
}

#[test]
fn a_session_is_resumed_on_the_next_connection() {
    waft_only!("Pushpin asks with each of its workers in turn");
    let site = Site::start(&["app.example"], |_| Reply::text("fine").header("Connection", "close"));
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\nshards = 1\n\n[control]\nlisten = [\"CONTROL\"]\n\n\
         [[route]]\ntargets = [\"127.0.0.1:{},ssl\"]\n",
        site.relay.port()
    );
    let server = Server::start(Setup::native(config).trusting(&site.authority));
    for _ in 0..2 {
        assert_eq!(ask(&server, "app.example", "/").body_text(), "fine");
    }
    assert_eq!((&site.relay.handshake(1)["reused"], &site.relay.handshake(2)["reused"]), (&json!(false), &json!(true)));
}

#[test]
fn connections_are_kept_for_the_name_that_was_proved() {
    let site = Site::start(&["a.example", "b.example"], |request| Reply::text(request.header("Host").unwrap()));
    let server = site.serve("");
    let mut client = server.connect();
    for host in ["a.example", "b.example", "a.example", "b.example"] {
        let answer = client.fetch(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.body_text(), host);
    }
    assert_eq!(site.relay.handshake_count(), 2);
    assert_eq!(
        (&site.relay.handshake(1)["name"], &site.relay.handshake(2)["name"]),
        (&json!("a.example"), &json!("b.example"))
    );
}

#[test]
fn what_does_not_speak_tls_gets_nothing_to_read() {
    waft_only!("Pushpin waits for the answer of this target");
    let target = Target::raw(|mut connection, _| {
        connection.read_more();
        let heard = String::from_utf8_lossy(connection.peek()).into_owned();
        assert!(!heard.contains("HTTP/1.1"), "heard a request in the clear: {heard}");
        connection.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let server = Server::start(Setup::new().route(format!("* {},ssl", target.address())));
    expect_refusal(&server, &ask(&server, "app.example", "/"), "it does not speak TLS on this port");
}

#[test]
fn a_handshake_that_does_not_end_is_given_up() {
    waft_only!("the limit is waft's");
    let target = Target::raw(|mut connection, _| while connection.read_more() > 0 {});
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\n\n\
         [[route]]\nconnect_timeout = \"300ms\"\ntargets = [\"{},ssl\"]\n",
        target.address()
    );
    let server = Server::start(Setup::native(config));
    expect_refusal(&server, &ask(&server, "app.example", "/"), "no connection within 300ms");
}

#[test]
fn holds_links_and_updates_use_the_encrypted_target() {
    let site = Site::start(&["app.example"], |request| match request.path() {
        "/stream" => Reply::hold("stream", "c; prev-id=1").header("Grip-Link", "</next>; rel=next").body("open\n"),
        "/next" => Reply::hold("stream", "c; prev-id=2").header("Grip-Link", "</then>; rel=next").body("missed\n"),
        _ => Reply::text("other"),
    });
    let server = site.serve("");
    let mut client = server.connect();
    client.send("GET /stream HTTP/1.1\r\nHost: app.example\r\n\r\n");
    client.expect_head(200);
    client.expect_stream("open\n");
    site.target.next_request();
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "hint" } }]));
    client.expect_stream("missed\n");
    assert_eq!(site.target.next_request().path(), "/next");
}

#[test]
fn websocket_events_go_to_an_encrypted_target() {
    let site = Site::start(&["app.example"], |request| {
        let body = if request.body == b"OPEN\r\n" { "OPEN\r\nTEXT 2\r\nhi\r\n" } else { "TEXT 4\r\nback\r\n" };
        Reply::status("200 OK").header("Content-Type", "application/websocket-events").body(body)
    });
    let server = site.serve(",over_http,host=app.example");
    let mut socket = WebSocket::open(server.connect(), "/ws", "");
    socket.expect_text("hi");
    socket.send_text("there");
    socket.expect_text("back");
}

#[test]
fn sockjs_sessions_go_to_an_encrypted_target() {
    let site = Site::start(&["app.example"], |request| {
        let body = if request.body == b"OPEN\r\n" { "OPEN\r\nTEXT 2\r\nhi\r\n" } else { "" };
        Reply::status("200 OK").header("Content-Type", "application/websocket-events").body(body)
    });
    let route = format!("*,sockjs=/s 127.0.0.1:{},ssl,over_http", site.relay.port());
    let server = Server::start(Setup::new().route(route).trusting(&site.authority));
    let poll = || server.fetch("POST /s/0/one/xhr HTTP/1.1\r\nHost: app.example\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(poll().body_text(), "o\n");
    assert_eq!(poll().body_text(), "a[\"hi\"]\n");
}

#[test]
fn an_encrypted_target_that_is_slow_holds_nobody_else_up() {
    let authority = Authority::new();
    let silent = Target::raw(|mut connection, _| while connection.read_more() > 0 {});
    let quick = Target::start(|_| Reply::text("quick"));
    let relay = TlsRelay::before(&quick, &authority.issue(&["app.example"]));
    let server = Server::start(
        Setup::new()
            .route(format!("*,path_beg=/silent {},ssl", silent.address()))
            .route(format!("* 127.0.0.1:{},ssl", relay.port()))
            .trusting(&authority),
    );
    let mut waiting = server.connect();
    waiting.send("GET /silent HTTP/1.1\r\nHost: app.example\r\n\r\n");
    assert_eq!(ask(&server, "app.example", "/").body_text(), "quick");
    assert!(!waiting.is_readable_within(Duration::from_millis(1)), "the handshake cannot have ended");
}
