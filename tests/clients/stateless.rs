//! WebSockets of the world outside over backends that keep no connection: a restart of the backend goes unnoticed.

use serde_json::json;
use waft_testkit::{Process, Reply, Script, Server, Setup, Target, chromium, eventually, free_port, node, python};

use crate::post;

/// Does what `ws_client.mjs` does, and reports what it hears, in order.
const PAGE: &str = r#"<!doctype html><title>test</title><script>
let said = Promise.resolve();
const report = (text) => said = said.then(() => fetch('/report', { method: 'POST', body: text }));
const socket = new WebSocket(`ws://${location.host}/ws`);
let sent = 0;
socket.onopen = () => report('open');
socket.onmessage = ({ data }) => {
  report('heard ' + data);
  if (data === 'go') socket.send(`number ${(sent += 1)}`);
  if (data === 'stop') socket.close(1000);
};
socket.onclose = (event) => report('closed ' + event.code);
</script>"#;

/// The clients of one backend, of three kinds.
struct Clients {
    node: Process,
    python: Process,
    _browser: Process,
    page: Target,
}

impl Clients {
    fn open(server: &Server, page: Target) -> Self {
        let url = format!("ws://{}/ws", server.address());
        let profile = server.directory().join("profile");
        let node = node("tests/clients/ws_client.mjs").arg(&url).start();
        let python = python("tests/clients/ws_client.py").arg(&url).start();
        let browser = chromium(&format!("http://{}/page", server.address()), &profile).start();
        let clients = Self { node, python, _browser: browser, page };
        clients.all_say("open");
        clients
    }

    /// Waits until all have said this; the browser says nothing else before it but that it was told to go.
    fn all_say(&self, text: &str) {
        self.node.wait_for_output(&format!("{text}\n"), 1);
        self.python.wait_for_output(&format!("{text}\n"), 1);
        loop {
            let request = self.page.next_request();
            if request.path() == "/report" && request.body_text() != "heard go" {
                assert_eq!(request.body_text(), text);
                return;
            }
        }
    }
}

/// Runs the clients over a backend that `start` starts on a port, and restarts it in the middle.
fn survive_a_restart(start: impl Fn(&Server, u16) -> Script) {
    let page = Target::start(|request| match request.path() {
        "/page" => Reply::status("200 OK").header("Content-Type", "text/html").body(PAGE),
        _ => Reply::text(""),
    });
    let port = free_port();
    let server = Server::start(
        Setup::new()
            .route(format!("*,path_beg=/page {}", page.address()))
            .route(format!("*,path_beg=/report {}", page.address()))
            .route(format!("* 127.0.0.1:{port},over_http")),
    );
    let go = || server.publish(json!([{ "channel": "room", "ws-message": { "content": "go" } }]));
    let mut backend = start(&server, port).start();
    backend.wait_for_port(port);
    let mut clients = Clients::open(&server, page);
    for number in 1..=2 {
        go();
        clients.all_say(&format!("heard number {number}"));
    }
    drop(backend);
    // What is said in the outage waits for the backend; waft asks in vain, once for each client at least.
    go();
    go();
    eventually("requests that failed", || (server.metric("waft_target_failures_total")? >= 3.0).then_some(()));
    let mut backend = start(&server, port).start();
    backend.wait_for_port(port);
    for number in 3..=4 {
        clients.all_say(&format!("heard number {number}"));
    }
    assert_eq!(server.fetch(post("/say", "stop")).body_text(), "said\n");
    clients.all_say("heard stop");
    clients.all_say("closed 1000");
    assert!(clients.node.wait_for_exit().success() && clients.python.wait_for_exit().success());
}

#[test]
fn express_with_serve_grip() {
    survive_a_restart(|server, port| {
        let control = server.control_address();
        node("examples/express/server.mjs")
            .env("PORT", port.to_string())
            .env("GRIP_URL", format!("http://{control}/?verify-iss=pushpin&verify-key=changeme"))
    });
}

#[test]
fn django_with_django_grip() {
    survive_a_restart(|server, port| {
        python("examples/django/manage.py")
            .args(["runserver", "--noreload", &format!("127.0.0.1:{port}")])
            .directory("examples/django")
            .env("CONTROL", format!("http://{}", server.control_address()))
            .env("DATABASE", server.directory().join("events.sqlite3"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
    });
}

#[test]
fn fastapi_with_events() {
    survive_a_restart(|server, port| {
        python("target/test-tools/python/bin/uvicorn")
            .args(["app:app", "--host", "127.0.0.1", "--port", &port.to_string(), "--log-level", "warning"])
            .directory("examples/fastapi")
            .env("CONTROL", format!("http://{}", server.control_address()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
    });
}
