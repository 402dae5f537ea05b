use waft_testkit::{Reply, Request, Server, Setup, Target};

/// A target that answers with its name, and the route line for it; `{}` in the line is its address.
fn named(name: &'static str, line: &str) -> (Target, String) {
    let target = Target::start(move |_| Reply::text(name));
    let line = line.replace("{}", &target.address().to_string());
    (target, line)
}

fn ask(server: &Server, host: &str, path: &str) -> String {
    server.fetch(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).body_text()
}

/// What the target of a route sees of a request.
fn seen(line: &str, request: &str) -> Request {
    let target = Target::start(|_| Reply::text(""));
    let server = Server::start(Setup::new().route(line.replace("{}", &target.address().to_string())));
    server.fetch(request);
    target.next_request()
}

#[test]
fn the_longest_path_of_the_host_wins() {
    let routes = [
        named("any", "* {}"),
        named("any-a", "*,path_beg=/a {}"),
        named("any-ab", "*,path_beg=/ab {}"),
        named("host", "host.example {}"),
        named("host-a", "host.example,path_beg=/a {}"),
        named("other-a", "other.example,path_beg=/a {}"),
    ];
    let setup = routes.iter().fold(Setup::new(), |setup, (_, line)| setup.route(line));
    let server = Server::start(setup);
    let cases = [
        ("x.example", "/", "any"),
        ("x.example", "/a", "any-a"),
        ("x.example", "/abc", "any-ab"),
        ("host.example", "/", "host"),
        ("HOST.example", "/a", "host-a"),
        ("host.example:8080", "/ab", "host-a"),
        ("other.example", "/abc", "other-a"),
    ];
    for (host, path, name) in cases {
        assert_eq!(ask(&server, host, path), name, "{host} {path}");
    }
    // A host with routes of its own never falls back to those of any host.
    let answer = server.fetch("GET /z HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert_eq!(answer.status(), 502);
}

#[test]
fn the_kind_of_request_may_choose_the_route() {
    let routes = [named("http", "*,proto=http {}"), named("ws", "*,proto=ws {}")];
    let setup = routes.iter().fold(Setup::new(), |setup, (_, line)| setup.route(line));
    let server = Server::start(setup);
    assert_eq!(ask(&server, "a", "/"), "http");
    let answer = server.fetch(waft_testkit::WebSocket::request("/", ""));
    assert_eq!(answer.body_text(), "ws");
}

#[test]
fn a_route_may_cut_the_path_or_replace_its_start() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(seen("*,path_beg=/api,path_rem=4 {}", &get("/api/x?y=/api")).path(), "/x?y=/api");
    assert_eq!(seen("*,path_beg=/api,replace_beg=/v2 {}", &get("/api/x")).path(), "/v2/x");
}

#[test]
fn a_route_may_set_the_host_and_other_headers() {
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Old: 1\r\nX-Gone: 1\r\n\r\n";
    assert_eq!(seen("*,as_host=b.example {}", request).header("Host"), Some("b.example"));
    assert_eq!(seen("* {},host=c.example:81", request).header("Host"), Some("c.example:81"));
    let changed = seen("*,header=X-Old:new,header=X-Add:\"a b\",header=X-Gone: {}", request);
    let old: Vec<_> = changed.head.headers("X-Old").collect();
    assert_eq!((old, changed.header("X-Add")), (vec!["new"], Some("a b")));
    assert_eq!(changed.header("X-Gone"), None);
}

#[test]
fn addresses_of_clients_are_passed_on_as_configured() {
    let cases = [
        ("", Some("1.1.1.1, 2.2.2.2")),
        ("append", Some("1.1.1.1, 2.2.2.2, 127.0.0.1")),
        ("truncate:0,append", Some("127.0.0.1")),
        ("truncate:1,append", Some("2.2.2.2, 127.0.0.1")),
    ];
    for (rule, expected) in cases {
        let target = Target::start(|_| Reply::text(""));
        let server = Server::start(Setup::to(&target).proxy(format!("x_forwarded_for={rule}")));
        server.fetch("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n\r\n");
        assert_eq!(target.next_request().header("X-Forwarded-For"), expected, "{rule}");
    }
}

#[test]
fn bad_lines_of_the_routes_file_do_not_spoil_the_good_ones() {
    let target = Target::start(|_| Reply::text("good"));
    let server = Server::start(
        Setup::new()
            .route("# a comment")
            .route("lonely")
            .route("*,proto=gopher 127.0.0.1:1")
            .route("\"unterminated")
            .route("* 127.0.0.1:notaport")
            .route(format!("* {}  # and a comment", target.address())),
    );
    assert_eq!(ask(&server, "a", "/"), "good");
}

#[test]
fn the_test_route_answers_by_itself() {
    let server = Server::start(Setup::new().route("* test"));
    assert_eq!(ask(&server, "a", "/"), "Hello from the Pushpin test handler!\n");
    assert_eq!(ask(&server, "a", "/nothing"), "no such test resource\n");
    let large =
        server.fetch(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n{}", "x".repeat(100_001)));
    assert_eq!((large.status(), large.body_text().as_str()), (400, "request too large\n"));
    let mut client = server.get("/stream?channel=a&channel=b");
    client.expect_head(200);
    client.expect_stream("[stream opened]\n");
    server.publish_text("a", "1\n");
    server.publish_text("b", "2\n");
    client.expect_stream("1\n2\n");
}

#[test]
fn a_route_may_allow_scripts_of_every_origin() {
    let target = Target::start(|_| Reply::text("ok").header("X-Mine", "1"));
    let server = Server::start(Setup::new().route(format!("*,aco {}", target.address())));
    let answer = server
        .fetch("GET / HTTP/1.1\r\nHost: a\r\nOrigin: http://o.example\r\nAccess-Control-Request-Headers: X-Q\r\n\r\n");
    let expected = [
        ("Access-Control-Allow-Origin", "http://o.example"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Allow-Methods", "OPTIONS, HEAD, GET, POST, PUT, DELETE"),
        ("Access-Control-Allow-Headers", "X-Q"),
        ("Access-Control-Expose-Headers", "X-Mine"),
        ("Access-Control-Max-Age", "3600"),
    ];
    for (name, value) in expected {
        assert_eq!(answer.head.header(name), Some(value), "{name}");
    }
}

#[test]
fn a_client_may_choose_a_route_by_its_id_where_that_is_accepted() {
    let routes = [named("any", "* {}"), named("chosen", ",id=mine {}")];
    let setup = routes.iter().fold(Setup::new(), |setup, (_, line)| setup.route(line));
    let server = Server::start(setup.proxy("accept_pushpin_route=true"));
    assert_eq!(ask(&server, "a", "/"), "any");
    let answer = server.fetch("GET / HTTP/1.1\r\nHost: a\r\nPushpin-Route: mine\r\n\r\n");
    assert_eq!(answer.body_text(), "chosen");
}
