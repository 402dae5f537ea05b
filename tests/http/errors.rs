use std::net::{Ipv4Addr, SocketAddr};

use waft_testkit::{Connection, Reply, Server, Setup, Target, differs, free_port, waft_only};

/// A target whose connections end so, after the head of the request was read and `answer` was sent.
fn failing(answer: &'static str, reset: bool) -> Target {
    Target::raw(move |mut backend, _| {
        if backend.head_or_end().is_none() {
            return;
        }
        backend.send(answer);
        if reset {
            backend.reset();
        }
    })
}

fn expect_502(mut client: Connection, body: &str) {
    let answer = client.response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (502, body));
    assert_eq!(answer.head.header("Content-Type"), Some("text/plain"));
}

#[test]
fn a_backend_that_is_down_gives_502() {
    let port = free_port();
    let server = Server::start(
        Setup::new().route(format!("* 127.0.0.1:{port}")).route(format!("*,debug,path_beg=/debug 127.0.0.1:{port}")),
    );
    expect_502(server.get("/"), "Error while proxying to origin.\n");
    expect_502(server.get("/debug"), &format!("Unable to connect to any targets. Tried: 127.0.0.1:{port}\n"));
}

#[test]
fn the_next_target_is_tried_when_the_first_is_down() {
    let target = Target::start(|_| Reply::text("second"));
    let server = Server::start(Setup::new().route(format!("* 127.0.0.1:{} {}", free_port(), target.address())));
    assert_eq!(server.get("/").response().body_text(), "second");
}

#[test]
fn a_backend_that_comes_back_is_used_again() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let server = Server::start(Setup::new().route(format!("* {address}")));
    assert_eq!(server.get("/").response().status(), 502);
    let _target = Target::start_on(address, |_| Reply::text("back"));
    assert_eq!(server.get("/").response().body_text(), "back");
}

#[test]
fn a_backend_that_closes_without_an_answer_gives_502() {
    let target = failing("", false);
    let server = Server::start(Setup::to(&target));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    expect_502(client, "Error while proxying to origin.\n");
}

#[test]
fn a_backend_that_speaks_another_language_gives_502() {
    let target = failing("SSH-2.0-OpenSSH\r\n\r\n", false);
    let server = Server::start(Setup::to(&target));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let answer = client.response();
    let status = differs("libcurl takes such bytes for a response of HTTP/0.9", answer.status(), 502);
    assert_eq!(answer.status(), status);
}

#[test]
fn a_chunked_response_that_breaks_off_does_not_look_complete() {
    waft_only!("Pushpin ends the body of the client properly");
    let target = failing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", true);
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    client.expect_head(200);
    client.expect_stream("part");
    client.expect_close();
}

#[test]
fn a_response_with_a_length_that_breaks_off_closes_the_client() {
    waft_only!("Pushpin lets the client wait for a minute");
    let target = failing("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", false);
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    client.expect_head(200);
    assert_eq!(client.rest(), b"part");
}

#[test]
fn an_untrusted_target_in_this_network_is_not_called() {
    let target = Target::start(|_| Reply::text("secret"));
    let address = target.address();
    let server = Server::start(
        Setup::new()
            .route(format!("* {address},untrusted"))
            .route(format!("*,debug,path_beg=/debug {address},untrusted"))
            .route(format!("*,path_beg=/trusted {address}")),
    );
    assert_eq!(server.get("/trusted").response().body_text(), "secret");
    expect_502(server.get("/"), "Error while proxying to origin.\n");
    expect_502(server.get("/debug"), "Error: Origin host/IP blocked.\n");
    assert_eq!(target.request_count(), 1);
}

#[test]
fn a_host_without_a_route_gives_502() {
    let server = Server::start(Setup::new().route("known.example 127.0.0.1:1"));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: unknown.example\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status(), 502);
    assert!(answer.body_text().starts_with("No route for host") || answer.body_text() == "Route not found\n");
}

#[test]
fn a_request_after_an_error_is_served_on_the_same_connection() {
    let target = Target::start(|_| Reply::text("fine"));
    let server = Server::start(
        Setup::new()
            .route(format!("* {}", target.address()))
            .route(format!("*,path_beg=/down 127.0.0.1:{}", free_port())),
    );
    let mut client = server.connect();
    assert_eq!(client.fetch("GET /down HTTP/1.1\r\nHost: a\r\n\r\n").status(), 502);
    assert_eq!(client.fetch("GET /up HTTP/1.1\r\nHost: a\r\n\r\n").body_text(), "fine");
}

#[test]
fn a_client_that_leaves_before_the_answer_takes_its_request_to_the_backend_along() {
    let target = Target::raw(|mut backend, arrivals| {
        let Some(head) = backend.head_or_end() else { return };
        arrivals.record(&head, b"start");
        // No answer: the end of the connection is what is waited for.
        if backend.head_or_end().is_none() {
            arrivals.record(&head, b"end");
        }
    });
    let server = Server::start(Setup::to(&target));
    let client = server.get("/");
    assert_eq!(target.next_request().body_text(), "start");
    client.reset();
    assert_eq!(target.next_request().body_text(), "end");
}
