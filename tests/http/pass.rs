use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use waft_testkit::{
    Connection, Gate, Reply, Server, Setup, Target, WebSocket, differs, eventually, free_port, waft_only,
};

use crate::serve;

#[test]
fn a_request_reaches_the_backend_as_it_was_and_the_response_comes_back() {
    let (target, server) = serve(|_| {
        Reply::status("418 Short And Stout")
            .header("X-One", "1")
            .header("Set-Cookie", "a")
            .header("Set-Cookie", "b")
            .body("tea")
    });
    let answer = server.fetch(
        "PUT /a%20b/c?d=e&f=%2F HTTP/1.1\r\nHost: example.com\r\nX-Mine: m\r\nX-Mine: n\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert_eq!((answer.status(), answer.head.reason(), answer.body_text().as_str()), (418, "Short And Stout", "tea"));
    assert_eq!(answer.head.headers("Set-Cookie").collect::<Vec<_>>(), ["a", "b"]);
    let request = target.next_request();
    assert_eq!((request.head.method(), request.path()), ("PUT", "/a%20b/c?d=e&f=%2F"));
    assert_eq!((request.header("Host"), request.body_text().as_str()), (Some("example.com"), "body"));
    assert_eq!(request.head.headers("X-Mine").collect::<Vec<_>>(), ["m", "n"]);
}

#[test]
fn methods_of_any_name_pass() {
    let (target, server) = serve(|_| Reply::text("ok"));
    for method in ["GET", "POST", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "X-MINE"] {
        let answer =
            server.fetch(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        assert_eq!(answer.status(), 200, "{method}");
        assert_eq!(target.next_request().head.method(), method);
    }
}

#[test]
fn a_connection_serves_many_requests() {
    let (_target, server) = serve(|request| Reply::text(request.path()));
    let mut client = server.connect();
    for number in 0..20 {
        let answer = client.fetch(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.body_text(), format!("/{number}"));
        assert_ne!(answer.head.header("Connection"), Some("close"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_target, server) = serve(|request| Reply::text([request.path().as_bytes(), &request.body].concat()));
    let mut client = server.connect();
    let mut all = String::new();
    for number in 0..10 {
        all += &format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n:{number}");
    }
    client.send(all);
    for number in 0..10 {
        assert_eq!(client.response().body_text(), format!("/{number}:{number}"));
    }
}

#[test]
fn a_client_may_ask_to_close() {
    let (_target, server) = serve(|_| Reply::text("bye"));
    let mut client = server.connect();
    let answer = client.fetch("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.head.header("Connection"), answer.body_text().as_str()), (Some("close"), "bye"));
    client.expect_close();
}

#[test]
fn an_http_1_0_client_is_closed_unless_it_asks_to_stay() {
    let (_target, server) = serve(|_| Reply::text("old"));
    let mut client = server.connect();
    assert_eq!(client.fetch("GET / HTTP/1.0\r\n\r\n").body_text(), "old");
    client.expect_close();
    let mut client = server.connect();
    for _ in 0..2 {
        let answer = client.fetch("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(answer.head.header("Connection"), Some("keep-alive"));
    }
}

#[test]
fn a_head_response_has_the_length_and_no_body() {
    let (target, server) = serve(|_| Reply::text("seven!!"));
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.expect_head(200);
        assert_eq!(head.content_length(), Some(7));
    }
    assert_eq!(target.next_request().head.method(), "HEAD");
    // Had a body come, it would stand before this response.
    assert_eq!(client.fetch("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body_text(), "seven!!");
}

#[test]
fn responses_without_a_body_keep_the_connection_in_step() {
    let (_target, server) = serve(|request| match request.path() {
        "/204" => Reply::status("204 No Content"),
        "/304" => Reply::status("304 Not Modified").header("ETag", "x"),
        _ => Reply::text("body"),
    });
    let mut client = server.connect();
    for (path, status, body) in [("/204", 204, ""), ("/", 200, "body"), ("/304", 304, ""), ("/", 200, "body")] {
        let answer = client.fetch(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((answer.status(), answer.body_text().as_str()), (status, body), "{path}");
    }
}

#[test]
fn a_chunked_upload_reaches_the_backend_whole() {
    let (target, server) = serve(|_| Reply::text("ok"));
    let answer = server.fetch(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\none\r\n4;ext=1\r\n two\r\nA\r\n 012345678\r\n0\r\nX-Trailer: t\r\n\r\n",
    );
    assert_eq!(answer.status(), 200);
    assert_eq!(target.next_request().body_text(), "one two 012345678");
}

#[test]
fn a_chunked_response_reaches_the_client_as_it_comes() {
    let gate = Gate::new();
    let target = Target::raw({
        let gate = gate.clone();
        move |mut backend, _| {
            if backend.head_or_end().is_none() {
                return;
            }
            backend.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            gate.wait();
            backend.send("6\r\nsecond\r\n0\r\n\r\n");
        }
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    client.expect_head(200);
    client.expect_stream("first");
    gate.open();
    client.expect_stream("second");
    client.expect_stream_end();
}

#[test]
fn a_response_that_ends_with_its_connection_is_complete() {
    let target = Target::raw(|mut backend, _| {
        if backend.head_or_end().is_some() {
            backend.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
        }
    });
    let server = Server::start(Setup::to(&target));
    assert_eq!(server.get("/").response().body_text(), "until the end");
}

#[test]
fn an_upload_streams_to_the_backend_before_it_is_complete() {
    waft_only!("Pushpin waits for 10,000 bytes or the end of the upload first");
    let target = Target::raw(|mut backend, arrivals| {
        let Some(head) = backend.head_or_end() else { return };
        let first = backend.chunk();
        arrivals.record(&head, &first);
        while !backend.chunk().is_empty() {}
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    assert_eq!(target.next_request().body_text(), "first");
    client.send("0\r\n\r\n");
    assert_eq!(client.response().body_text(), "ok");
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let (target, server) = serve(|request| Reply::text(&request.body));
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut client = server.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    let answer = client.response();
    assert!(answer.body == body, "the body came back changed");
    assert!(target.next_request().body == body);
}

#[test]
fn a_backend_is_not_read_faster_than_its_client_reads() {
    let target = Target::raw(|mut backend, arrivals| {
        let Some(head) = backend.head_or_end() else { return };
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n");
        let sent = backend.send_until_full(&vec![b'x'; 200_000_000], Duration::from_millis(700));
        arrivals.record(&head, sent.to_string().as_bytes());
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    client.expect_head(200);
    let taken: usize = target.next_request().body_text().parse().unwrap();
    assert!(taken < 50_000_000, "{taken} bytes were taken from the backend for a client that reads nothing");
}

#[test]
fn a_client_is_not_read_faster_than_its_backend_reads() {
    let gate = Gate::new();
    let target = Target::raw({
        let gate = gate.clone();
        move |mut backend, _| {
            if backend.head_or_end().is_some() {
                gate.wait();
            }
        }
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n");
    let sent = client.send_until_full(&vec![b'x'; 200_000_000], Duration::from_millis(700));
    gate.open();
    assert!(sent < 50_000_000, "{sent} bytes were taken from the client for a backend that reads nothing");
}

#[test]
fn a_backend_may_answer_before_it_has_read_the_upload() {
    waft_only!("Pushpin sends no byte of a response before the request is complete");
    let target = Target::raw(|mut backend, _| {
        if backend.head_or_end().is_some() {
            backend.send("HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
        }
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nstart");
    assert_eq!(client.response().status(), 413);
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    let (target, server) = serve(|request| Reply::text(&request.body));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    client.send("body");
    assert_eq!(client.response().body_text(), "body");
    assert_eq!(target.next_request().header("Expect"), None);
}

#[test]
fn interim_responses_of_a_backend_do_not_confuse_the_final_one() {
    waft_only!("Pushpin sometimes loses the final response after a 103");
    let target = Target::raw(|mut backend, _| {
        while backend.head_or_end().is_some() {
            backend.send(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
            );
        }
    });
    let server = Server::start(Setup::to(&target));
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.fetch("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body_text(), "final");
    }
}

#[test]
fn headers_between_neighbours_do_not_pass() {
    let (target, server) = serve(|_| Reply::text("ok").header("Keep-Alive", "timeout=5").header("X-Kept", "1"));
    let answer = server.fetch(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nKeep-Alive: 9\r\nAccept-Encoding: br\r\nX-Mine: 1\r\n\r\n",
    );
    assert_eq!((answer.head.header("Keep-Alive"), answer.head.header("X-Kept")), (None, Some("1")));
    let request = target.next_request();
    assert_eq!((request.header("Keep-Alive"), request.header("X-Mine")), (None, Some("1")));
    let asks_for_compression = differs("zurl asks for compression itself and undoes it", true, false);
    assert_eq!(request.header("Accept-Encoding").is_some(), asks_for_compression);
}

#[test]
fn connections_to_a_backend_are_used_again() {
    let (target, server) = serve(|_| Reply::text("ok"));
    for _ in 0..20 {
        assert_eq!(server.fetch("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status(), 200);
    }
    assert!(target.connection_count() < 10, "{} connections for 20 requests", target.connection_count());
}

#[test]
fn a_backend_connection_that_went_stale_costs_no_request() {
    // Each connection takes one request and is closed right after, while the proxy may think it is still good.
    let target = Target::raw(|mut backend, _| {
        if backend.head_or_end().is_some() {
            backend.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let server = Server::start(Setup::to(&target));
    for number in 0..30 {
        let answer = server.fetch("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(answer.status(), 200, "request {number}");
    }
}

#[test]
fn a_request_whose_header_comes_byte_by_byte_is_served() {
    let (_target, server) = serve(|request| Reply::text(request.path()));
    let mut client = server.connect();
    for byte in b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.response().body_text(), "/slow");
}

#[test]
fn bare_line_feeds_and_leading_blank_lines_are_judged_alike_everywhere() {
    let (_target, server) = serve(|_| Reply::text("ok"));
    let mut client = server.connect();
    client.send("\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().status(), 200);
}

#[test]
fn an_upgrade_is_not_taken_for_a_plain_request() {
    let target = Target::start(|_| Reply::status("403 Forbidden").body("no sockets"));
    let server = Server::start(Setup::to(&target));
    let answer = server.fetch(WebSocket::request("/ws", ""));
    assert_eq!((answer.status(), answer.body_text().as_str()), (403, "no sockets"));
}

#[test]
fn the_server_listens_on_ipv6_too() {
    let target = Target::start(|_| Reply::text("six"));
    let port = free_port();
    let server = Server::start(Setup::to(&target).listen(format!("[::1]:{port}")));
    let address: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    let answer = Connection::tcp(address).fetch("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n");
    assert_eq!(answer.body_text(), "six");
    assert_eq!(server.get("/").response().body_text(), "six");
}

#[test]
fn a_backend_may_be_on_ipv6() {
    waft_only!("Pushpin 1.36 cannot read such an address in a route");
    let target = Target::start_on("[::1]:0".parse().unwrap(), |_| Reply::text("six"));
    let server = Server::start(Setup::new().route(format!("* [::1]:{}", target.address().port())));
    assert_eq!(server.get("/").response().body_text(), "six");
}

#[test]
fn the_server_listens_on_a_unix_socket_too() {
    waft_only!("the front server of Pushpin 1.36 as packaged opens no Unix socket");
    let target = Target::start(|_| Reply::text("local"));
    let directory = std::env::temp_dir().join(format!("waft-unix-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("front.sock");
    let server = Server::start(Setup::to(&target).runner(format!("local_ports={}", path.display())));
    eventually("the Unix socket", || path.exists().then_some(()));
    let answer = Connection::unix(&path).fetch("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.body_text(), "local");
    drop(server);
    fs::remove_dir_all(directory).unwrap();
}
