use waft_testkit::{Connection, Reply, Server, Setup, Target, eventually, waft_only};

fn named(name: &'static str) -> Target {
    Target::start(move |request| match request.path() {
        "/stream" => Reply::hold("stream", "c"),
        _ => Reply::text(name),
    })
}

fn wait_for_answer(server: &Server, expected: &str) {
    eventually(expected, || (server.get("/who").response().body_text() == expected).then_some(()));
}

#[test]
fn changed_routes_are_served_without_a_restart_and_holds_stay() {
    let (old, new) = (named("old"), named("new"));
    let server = Server::start(Setup::to(&old));
    let mut client = server.get("/stream");
    client.expect_head(200);
    wait_for_answer(&server, "old");
    server.write_routes(&[format!("* {}", new.address())]);
    wait_for_answer(&server, "new");
    server.publish_text("c", "still here");
    client.expect_stream("still here");
}

#[test]
fn a_hangup_signal_reloads_the_routes() {
    let (old, new) = (named("old"), named("new"));
    let server = Server::start(Setup::to(&old));
    let mut client = server.get("/stream");
    client.expect_head(200);
    server.write_routes(&[format!("* {}", new.address())]);
    server.reload();
    wait_for_answer(&server, "new");
    server.publish_text("c", "still here");
    client.expect_stream("still here");
}

#[test]
fn a_mistake_in_changed_routes_keeps_the_good_ones() {
    let (old, new) = (named("old"), named("new"));
    let server = Server::start(Setup::to(&old));
    server.write_routes(&["nonsense".to_owned(), format!("* {}", new.address())]);
    server.reload();
    wait_for_answer(&server, "new");
}

#[test]
fn a_terminated_server_stops_in_time_with_success() {
    let target = named("x");
    let mut server = Server::start(Setup::to(&target));
    server.get("/").response();
    server.terminate();
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_terminated_server_lets_a_running_request_end() {
    waft_only!("Pushpin cuts running requests");
    let gate = waft_testkit::Gate::new();
    let target = Target::start({
        let gate = gate.clone();
        move |_| {
            gate.wait();
            Reply::text("finished")
        }
    });
    let mut server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    target.next_request();
    server.terminate();
    eventually("no more listener", || std::net::TcpStream::connect(server.address()).is_err().then_some(()));
    gate.open();
    assert_eq!(client.response().body_text(), "finished");
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_terminated_server_does_not_wait_for_holds() {
    let target = named("x");
    let mut server = Server::start(Setup::to(&target));
    let mut client = server.get("/stream");
    client.expect_head(200);
    server.terminate();
    assert!(server.wait_for_exit().success());
    client.rest();
}

#[test]
fn a_second_signal_stops_at_once() {
    waft_only!("Pushpin's processes each count signals for themselves");
    let target = Target::raw(|mut backend, arrivals| {
        if let Some(head) = backend.head_or_end() {
            arrivals.record(&head, b"");
            backend.head_or_end();
        }
    });
    let mut server = Server::start(Setup::to(&target));
    let _client = server.get("/");
    target.next_request();
    server.terminate();
    eventually("no more listener", || std::net::TcpStream::connect(server.address()).is_err().then_some(()));
    server.terminate();
    server.wait_for_exit();
}

#[test]
fn metrics_tell_of_connections_holds_and_items() {
    waft_only!("Pushpin's metrics are on a port of their own");
    let target = named("x");
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/stream");
    client.expect_head(200);
    server.wait_for_holds(1);
    server.publish_text("c", "one");
    client.expect_stream("one");
    let mut control = Connection::tcp(server.control_address());
    let page = control.fetch("GET /metrics HTTP/1.1\r\nHost: c\r\n\r\n");
    assert_eq!(page.status(), 200);
    let text = page.body_text();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!((name.starts_with("waft_") || name.starts_with("process_")) && value.parse::<f64>().is_ok(), "{line}");
    }
    drop(client);
    eventually("no hold is left", || (server.metric("waft_holds") == Some(0.0)).then_some(()));
}

#[test]
fn another_token_counts_from_the_reload_on() {
    waft_only!("Pushpin asks for no token");
    let config = |token: &str| {
        format!("[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\ntoken = \"{token}\"\n")
    };
    let server = Server::start(Setup::native(config("old")));
    let asked = |token: &str| {
        let request = format!("GET /stats HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer {token}\r\n\r\n");
        server.control(request).status()
    };
    assert_eq!((asked("old"), asked("new")), (200, 401));
    let path = server.directory().join("waft.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"old\"", "\"new\"");
    std::fs::write(&path, text).unwrap();
    server.reload();
    eventually("the new token counts", || (asked("new") == 200).then_some(()));
    assert_eq!(asked("old"), 401);
}
